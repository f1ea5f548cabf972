package test

import (
	"cmp"
	"fmt"
	"maps"
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
// the greeting, with a certificate and without, less than twice what a program costs that
// only links net and crypto/tls. The aim is half as much again. It is reached on
// machines where a page fault takes 10 us and more; where it takes one, as much as a
// fifth of the floor goes to what is linked besides, and a tenth to the table that a
// decompressor makes before main. The programs take turns; the best of some tries counts,
// as the machine has other work too.
//
// Both are copies, as a site's are: of a file that the linker wrote itself the kernel has
// single pages, and to map those costs ours a fifth of its start.
func TestStartCost(t *testing.T) {
	const most = 1.8
	dir := peer.TempDir(t)
	floor, ours := peer.Copy(t, peer.Floor(t), dir), peer.Copy(t, peer.Binary(t), dir)
	s := peer.Imapd(t, basic(t), peer.Options{})
	runs, tries := 25, 8
	if soaking() {
		runs = 200
	}
	for _, conf := range []string{must(s.PlainConf())(t), s.ConfFile()} {
		least := 100.0
		for try := 0; try < tries && least > most; try++ {
			var a, b []time.Duration
			for range runs {
				a = append(a, must(peer.Greeted("* OK ready", floor))(t))
				b = append(b, must(peer.Greeted("* OK [CAPABILITY IMAP4rev1 ", ours, "-C", conf))(t))
			}
			slices.Sort(a)
			slices.Sort(b)
			ratio := b[runs/2].Seconds() / a[runs/2].Seconds()
			t.Logf("%s: %v, the floor is %v: %.2f", filepath.Base(conf), b[runs/2], a[runs/2], ratio)
			least = min(least, ratio)
		}
		if least > most {
			t.Errorf("%s: exec to greeting costs %.2f times what the floor does, more than %.2f", filepath.Base(conf), least, most)
		}
	}
}

// TestPackageInit holds what packages do before main: less than a millisecond more than
// those of the floor, all of the standard library, do. Where these take long, as on some
// virtual machines, so do the others. Half of it is control/warm, which saves as much
// later or more, and a fifth the table of a decompressor.
func TestPackageInit(t *testing.T) {
	floor, ours := peer.Floor(t), peer.Binary(t)
	const least, most = 30, 300
	var a, b inits // the best of the runs, each package for itself
	more, limit := 0.0, 0.0
	for run := 0; run < least || more > limit && run < most; run++ {
		a.add(t, floor)
		b.add(t, ours, "-V")
		more, limit = b.sum()-a.sum(), max(1, 1.75*a.sum())
	}
	t.Logf("%.2f ms of %d packages; the floor's %d take %.2f ms; most have %s", b.sum(), len(b), len(a), a.sum(), b.top(6))
	if len(a) < 20 || len(b) < len(a) {
		t.Fatalf("%d and %d packages seen", len(a), len(b))
	}
	if more > limit {
		t.Errorf("packages take %.2f ms more to initialise, above %.2f: %s", more, limit, b.top(20))
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

// top returns the n that take longest.
func (m inits) top(n int) string {
	paths := slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Compare(m[b], m[a]) })
	var all []string
	for _, path := range paths[:min(n, len(paths))] {
		all = append(all, fmt.Sprintf("%s %.3f", path, m[path]))
	}
	return strings.Join(all, ", ")
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
