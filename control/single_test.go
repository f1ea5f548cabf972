package control

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

// The first collection comes late, and the ones after it as usual.
func TestCollectLate(t *testing.T) {
	t.Setenv("GOGC", "")
	before := gogc()
	collectLate()
	if now := gogc(); now != lateCollection {
		t.Errorf("GOGC is %d, want %d", now, lateCollection)
	}
	for end := time.Now().Add(10 * time.Second); gogc() != before; runtime.GC() {
		if time.Now().After(end) {
			t.Fatalf("GOGC is %d after a collection, want %d", gogc(), before)
		}
	}
	t.Setenv("GOGC", "100")
	if collectLate(); gogc() != before {
		t.Error("what the administrator has set is changed")
	}
}

func gogc() uint64 {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
