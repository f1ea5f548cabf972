package maildir

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A rival is a program without any lock that changes the messages of a box, and
// knows what must have become of each. We change some as well, by a path of ours.
type rival struct {
	*box
	rand  *rand.Rand
	ours  []UID             // that only we change
	bases map[UID]string    // of ours
	names map[string]string // the name of each file, by base
	mine  []string          // bases that only the rival changes
	made  int

	mu      sync.Mutex
	removed map[string]bool // bases; noted before the file goes
}

// untold is how long a change may stay unseen at most, however coarse the clock
// is. That it is a second is for TestRace of package test, on the whole server:
// here the race detector slows us.
const untold = 2 * time.Second

// TestCoarseClocks holds that no change is missed where the times of files tick
// in 4 ms, as in kernels before 6.13, or in seconds, and another program changes
// a folder in the same ticks in which we look at it and change it.
func TestCoarseClocks(t *testing.T) {
	t.Parallel()
	for _, granule := range []time.Duration{4 * time.Millisecond, time.Second} {
		for _, watched := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v watched %v", granule, watched), func(t *testing.T) {
				t.Parallel()
				r := newRival(t, Options{granule: granule}, 2500)
				if watched {
					stop := r.Watch(Serve, nil)
					t.Cleanup(stop)
				}
				r.race()
			})
		}
	}
}

// TestSecondInodes holds that no change is missed where the inodes have room for
// whole seconds only, as an ext4 of 128 octets each does, or an ext3: the time of a
// folder may be that of a change still to come though the second began long ago.
func TestSecondInodes(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"cur", "new"} {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, Options{NoNotify: true})
			for _, base := range []string{"1.h", "2.h", "3.h"} {
				b.deliver(dir, base+":2,", "x\n")
			}
			b.sync(Look)
			second := midSecond()
			change := func(fn func(name, newname string) error, name, newname string) {
				t.Helper()
				path := filepath.Join(b.path, dir)
				err := fn(filepath.Join(path, name), filepath.Join(path, newname))
				for _, d := range []string{"cur", "new"} {
					err = errors.Join(err, os.Chtimes(filepath.Join(b.path, d), second, second))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			change(os.Rename, "1.h:2,", "1.h:2,S")
			b.sync(Look)
			change(os.Rename, "1.h:2,S", "1.h:2,FS")
			change(func(name, _ string) error { return os.Remove(name) }, "2.h:2,", "")
			if b.sync(Look); b.Snapshot().At(0).Flags != Seen|Flagged {
				t.Error("flags are not seen")
			}
			if d := b.doubt(); d < time.Second {
				t.Errorf("the next look in %v finds the folder in the same doubt", d)
			}
			for begin := time.Now(); b.Snapshot().Len() == 3 && time.Since(begin) < untold; b.sync(Look) {
				<-time.After(localSettle)
			}
			b.want(`1 1.h \Seen \Flagged`, "3 3.h ")
		})
	}
}

// TestTimesAhead holds that a change is seen though it has the time which the folder had
// already: one of whole seconds, from before the clock was set back. A time that is
// ahead for years does not have us look for as long.
func TestTimesAhead(t *testing.T) {
	t.Parallel()
	for ahead, seen := range map[time.Duration]int{2 * time.Second: 2, time.Hour: 2, 1000 * time.Hour: 1} {
		b := newBox(t, Options{NoNotify: true})
		then := time.Now().Truncate(time.Second).Add(ahead)
		for i := range 2 {
			b.deliver("cur", fmt.Sprintf("%d.h:2,", i+1), "x\n")
			for _, d := range []string{"cur", "new"} {
				if err := os.Chtimes(b.in(d), then, then); err != nil {
					t.Fatal(err)
				}
			}
			b.sync(Look)
		}
		if n := b.Snapshot().Len(); n != seen {
			t.Errorf("%v ahead: %d messages are seen", ahead, n)
		}
	}
}

// TestFileTime holds that no file that is made has a time from before.
func TestFileTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 200 {
		name := filepath.Join(dir, fmt.Sprint(i))
		begin := fileTime()
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(name); err != nil || st.ModTime().Before(begin) {
			t.Fatalf("made at %v: %v, %v", begin, st.ModTime(), err)
		}
	}
}

// midSecond returns the second that it is, once that has lasted for a while, and
// before it ends.
func midSecond() time.Time {
	now := time.Now()
	second := now.Truncate(time.Second)
	if now.Sub(second) > 800*time.Millisecond {
		second = second.Add(time.Second)
	}
	<-time.After(time.Until(second.Add(5 * localSettle)))
	return second
}

// newRival makes a box of n messages: a scan of many takes longer than a tick.
func newRival(t *testing.T, o Options, n int) *rival {
	r := &rival{box: newBox(t, o), rand: rand.New(rand.NewPCG(9, uint64(o.granule))), bases: map[UID]string{}, names: map[string]string{}, removed: map[string]bool{}}
	for i := range n {
		base := fmt.Sprintf("%d.M1P1.rival", 1700000000+i)
		r.names[base] = base + ":2,"
		r.deliver("cur", base+":2,", "x\n")
	}
	r.sync(Serve)
	s := r.Snapshot()
	for _, m := range s.Range(0, s.Len()) {
		if m.UID%4 == 0 {
			r.ours = append(r.ours, m.UID)
			r.bases[m.UID] = string(m.base())
		} else {
			r.mine = append(r.mine, string(m.base()))
		}
	}
	return r
}

// race has the rival at work in short bursts. Each time that it pauses, what we
// know must soon be what there is: no later change says that one was missed.
func (r *rival) race() {
	length := 2 * time.Second
	if os.Getenv("IMAPD_SOAK") != "" {
		length = time.Minute
	}
	var slowest, worked time.Duration
	pauses, done := 0, 0
	for begin := time.Now(); time.Since(begin) < length && !r.t.Failed(); pauses++ {
		started := time.Now()
		n := 10 + r.rand.IntN(40)
		burst := make(chan struct{})
		go func() { defer close(burst); r.burst(n) }()
		for busy := true; busy; {
			select {
			case <-burst:
				busy = false
			default:
				r.step(true)
			}
		}
		paused := time.Now()
		done += n
		worked += paused.Sub(started)
		for r.step(false); !r.same(); r.step(false) {
			if time.Since(paused) > untold {
				r.differs()
				break
			}
		}
		slowest = max(slowest, time.Since(paused))
	}
	rate := float64(done) / worked.Seconds()
	r.t.Logf("%d pauses, %.0f operations a second between them, seen after %v at most; %d messages removed", pauses, rate, slowest, len(r.removed))
	if done < 50 {
		r.t.Errorf("%d operations are no race", done)
	}
}

// burst does n things, two in a millisecond.
func (r *rival) burst(n int) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	cur := filepath.Join(r.path, "cur")
	begin := time.Now()
	for done := range n {
		for time.Since(begin) < time.Duration(done)*time.Millisecond/2 {
			<-tick.C
		}
		i := r.rand.IntN(len(r.mine))
		base := r.mine[i]
		from := filepath.Join(cur, r.names[base])
		var err error
		switch r.rand.IntN(100) {
		case 0:
			r.mu.Lock()
			r.removed[base] = true
			r.mu.Unlock()
			err = os.Remove(from)
			delete(r.names, base)
			r.mine[i] = r.mine[len(r.mine)-1]
			r.mine = r.mine[:len(r.mine)-1]
		case 1:
			r.made++
			fresh := fmt.Sprintf("%d.M2P2.rival", 1800000000+r.made)
			r.names[fresh] = fresh + ":2,"
			r.deliver("new", fresh, "x\n")
		default:
			r.names[base] = base + ":2," + []string{"", "F", "FS", "R", "S"}[r.rand.IntN(5)]
			err = os.Rename(from, filepath.Join(cur, r.names[base]))
		}
		if err != nil {
			r.t.Error(err)
		}
	}
}

// known returns the names that we know, by base.
func (r *rival) known() map[string]string {
	s := r.Snapshot()
	known := make(map[string]string, s.Len())
	for _, m := range s.Range(0, s.Len()) {
		known[string(m.base())] = string(m.name())
	}
	return known
}

// step looks at the folder, perhaps after a change of our own. What was known
// before must still be there.
func (r *rival) step(changing bool) {
	before := r.Snapshot()
	if now := time.Now().UnixMicro(); changing && now%2 == 0 {
		uid := r.ours[int(now)/2%len(r.ours)]
		set := FlagSet{System: []Flags{0, Seen, Flagged}[now/2%3]}
		if _, err := r.SetFlags(context.Background(), []UID{uid}, ReplaceFlags, set); err != nil {
			r.t.Errorf("UID %d: %v", uid, err)
		}
	}
	r.sync(Serve)
	now := r.Snapshot()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range before.Range(0, before.Len()) {
		if _, there := now.Find(m.UID); !there && !r.removed[string(m.base())] {
			r.t.Errorf("UID %d, %s, is said to be gone", m.UID, m.base())
		}
	}
}

// same reports whether what we know is what there is: the rival rests.
func (r *rival) same() bool {
	known := r.known()
	return len(known) == len(r.names) && maps.Equal(r.foreign(known), r.foreign(r.names))
}

// foreign returns names without those of the messages that we change.
func (r *rival) foreign(names map[string]string) map[string]string {
	names = maps.Clone(names)
	for _, base := range r.bases {
		delete(names, base)
	}
	return names
}

// differs reports what is not known although nothing has happened for a while.
func (r *rival) differs() {
	known := r.known()
	for base, name := range r.names {
		if got, there := known[base]; !there {
			r.t.Errorf("%s has not been seen", name)
		} else if got != name && r.foreign(r.names)[base] != "" {
			r.t.Errorf("%s is known as %s", name, strings.TrimPrefix(got, base))
		}
	}
	for base := range known {
		if r.names[base] == "" {
			r.t.Errorf("%s is still known", base)
		}
	}
}
