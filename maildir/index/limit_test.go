package index

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The limit is read by whoever locks the file or looks at it, is never lowered, and
// a write that was torn leaves the one before.
func TestLimit(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	if n := f.ReadLimit(); n != 0 {
		t.Errorf("%d without a lock file", n)
	}
	lock(t, f)
	raise := func(to, want uint64) {
		t.Helper()
		if err := f.RaiseLimit(to, true); err != nil {
			t.Fatal(err)
		}
		if n := f.Limit(); n != want {
			t.Errorf("%d, raised to %d", n, to)
		}
		if n := (&File{Dir: f.Dir}).ReadLimit(); n != want {
			t.Errorf("another process reads %d, raised to %d", n, to)
		}
	}
	raise(10, 10)
	raise(7, 10)
	raise(20, 20)
	f.Unlock()
	for _, to := range []uint64{5, 30} {
		if err := f.Exceed(to); err != nil {
			t.Fatal(err)
		}
		if n := f.Limit(); n != max(21, to) {
			t.Errorf("%d, where %d was to be exceeded", n, to)
		}
	}
	lock(t, f)
	if n := f.Limit(); n != 30 {
		t.Errorf("%d with the lock", n)
	}
	path := filepath.Join(f.Dir.Path(), LockName)
	whole, err := os.ReadFile(path)
	if err != nil || len(whole) != limitLines*limitLine {
		t.Fatalf("%q, %v", whole, err)
	}
	raise(40, 40)
	after, _ := os.ReadFile(path)
	for n := range limitLine {
		torn := bytes.Clone(whole)
		at := limitLine // 30 is in the first line
		if bytes.Equal(after[limitLine:], whole[limitLine:]) {
			at = 0
		}
		copy(torn[at:], after[at:at+n])
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if n := f.ReadLimit(); n != 30 && n != 40 {
			t.Fatalf("%d from %q", n, torn)
		}
	}
	for _, data := range []string{"", "\n", "hello", "00000000 L 00000000000000000050\n", string(sealLimit(1 << 60)), string(make([]byte, 100))} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if n := f.ReadLimit(); n != 0 {
			t.Errorf("%d from %q", n, data)
		}
		raise(60, 60)
		raise(70, 70)
	}
}

// A state of a version that knew of no limit is as good as ever.
func TestStateWithoutLimit(t *testing.T) {
	t.Parallel()
	old := state
	old.Limit = 0
	b := old.append(nil)
	if len(b) != 3*8+16+3*4+16*8 { // as version 2 has had it
		t.Errorf("%d octets", len(b))
	}
	var s State
	if s.read(b); s != old {
		t.Errorf("%+v", s)
	}
}
