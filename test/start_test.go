package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// TestStartCost holds what inetd's sites pay for every connection: from exec to
// the greeting no more than half as much again as a program costs that only links net
// and crypto/tls. A certificate, which that program has not, is read and checked
// besides. The programs take turns; the best of some tries counts, as the machine has
// other work too.
func TestStartCost(t *testing.T) {
	floor, ours := peer.Floor(t), peer.Binary(t)
	s := peer.Imapd(t, basic(t), peer.Options{})
	plain := must(s.PlainConf())(t)
	runs, tries := 25, 8
	if os.Getenv("IMAPD_SOAK") != "" {
		runs = 200
	}
	for _, start := range []struct {
		conf string
		most float64
	}{{plain, 1.5}, {s.ConfFile(), 1.65}} {
		least := 100.0
		for try := 0; try < tries && least > start.most; try++ {
			var a, b []time.Duration
			for range runs {
				a = append(a, must(peer.Greeted("* OK ready", floor))(t))
				b = append(b, must(peer.Greeted("* OK [CAPABILITY IMAP4rev1 ", ours, "-C", start.conf))(t))
			}
			slices.Sort(a)
			slices.Sort(b)
			ratio := b[runs/2].Seconds() / a[runs/2].Seconds()
			t.Logf("%s: %v, the floor is %v: %.2f", filepath.Base(start.conf), b[runs/2], a[runs/2], ratio)
			least = min(least, ratio)
		}
		if least > start.most {
			t.Errorf("%s: exec to greeting costs %.2f times what the floor does, more than %.2f", filepath.Base(start.conf), least, start.most)
		}
	}
}

// TestPackageInit holds what packages do before main. The aim is less than a
// millisecond for all of them together; the packages of the floor, all of the standard
// library, take longer here. What is held is what stands: how much more than they. A
// quarter of that is control/warm, which saves more later; another are tables of the
// decompressors, which their packages make before anybody asks.
func TestPackageInit(t *testing.T) {
	floor, ours := peer.Floor(t), peer.Binary(t)
	const runs = 30
	var a, b inits
	for range runs {
		a.add(t, floor)
		b.add(t, ours, "-V")
	}
	limit := max(1, 2.75*a.sum())
	t.Logf("%.2f ms of %d packages; the floor's %d take %.2f ms", b.sum(), len(b), len(a), a.sum())
	if len(a) < 20 || len(b) < len(a) {
		t.Fatalf("%d and %d packages seen", len(a), len(b))
	}
	if b.sum() > limit {
		t.Errorf("packages take %.2f ms to initialise, more than %.2f: %v", b.sum(), limit, b)
	}
}

// inits are the milliseconds that packages took at least, by path.
type inits map[string]float64

func (m inits) sum() float64 {
	all := 0.0
	for _, ms := range m {
		all += ms
	}
	return all
}

// add runs a program and notes what it says of its packages.
func (m *inits) add(t *testing.T, program string, args ...string) {
	t.Helper()
	if *m == nil {
		*m = inits{}
	}
	c := exec.Command(program, args...)
	c.Env = []string{"GODEBUG=inittrace=1"}
	var trace strings.Builder
	c.Stderr = &trace
	_ = c.Run() // without a client the floor has nobody to greet
	for line := range strings.Lines(trace.String()) {
		// init PATH @AT ms, N ms clock, ...
		f := strings.Fields(line)
		if len(f) < 7 || f[0] != "init" || f[6] != "clock," {
			continue
		}
		ms, err := strconv.ParseFloat(f[4], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if old, seen := (*m)[f[1]]; !seen || ms < old {
			(*m)[f[1]] = ms
		}
	}
}
