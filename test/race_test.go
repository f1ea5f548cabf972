package test

import (
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

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"imapd/test/peer"
)

// raceLength is how long a race lasts, raceSizes how many messages it has.
func raceLength() time.Duration {
	if soaking() {
		return time.Minute
	}
	return 6 * time.Second
}

func raceSizes() []int {
	if soaking() {
		return []int{3000, 20000}
	}
	return []int{3000}
}

// fewer returns n of the file systems, or all where time does not matter.
func fewer(n int) []string {
	if soaking() {
		return volumes
	}
	return volumes[:n]
}

// raceRate is how many operations a second those who disturb a race try to make.
// Fewer than raceLeast by a program without a lock are no race.
const (
	raceRate  = 900
	raceLeast = 500
)

// races runs a test on each of the file systems, with each number of messages.
func races(t *testing.T, kinds []string, test func(t *testing.T, r *race, kind string)) {
	for _, kind := range kinds {
		for _, n := range raceSizes() {
			t.Run(fmt.Sprintf("%s-%d", kind, n), func(t *testing.T) {
				t.Parallel()
				test(t, &race{world: newWorldIn(t, volume(t, kind, 700<<20), n)}, kind)
			})
		}
	}
}

// TestRace holds that a program that renames messages all the time without any
// lock, and removes and delivers some, costs no message its UID: no client is
// told of a message that is gone which is not, and each learns in time of those
// that are, and of what is new. In time is a second, and what a busy disk takes, up
// to another second: a client is told only of what is durable, and looks wait for each
// other's.
func TestRace(t *testing.T) {
	t.Parallel()
	races(t, volumes, withRenamer(0))
}

// withRenamer returns the test of TestRace, for a server that cuts the times of files
// to granule.
func withRenamer(granule time.Duration) func(t *testing.T, r *race, kind string) {
	return func(t *testing.T, r *race, kind string) {
		s := peer.Imapd(t, r.dir, peer.Options{Granule: granule, Imapd: []string{"imapidlepoll: 1h"}})
		all := []*witness{r.witness(s, "watcher"), r.witness(s, "idler")}
		var disk time.Duration
		r.run(all, func() int {
			var probe sync.WaitGroup
			defer probe.Wait()
			probe.Go(func() { disk = r.slowestSync() })
			return r.renames()
		})
		t.Logf("the slowest fdatasync took %v", disk.Round(time.Millisecond))
		limit := time.Second
		if kind == "btrfs" {
			limit = 3 * time.Second // see maildir/doc.go: no scan is proof there
		}
		limit += min(syncsInTurn*disk, time.Second)
		for _, x := range all {
			for i, what := range []string{"an EXPUNGE", "an arrival"} {
				if x.latest[i] > limit {
					t.Errorf("%s was told %s after %v, more than %v", x.name, what, x.latest[i], limit)
				}
			}
		}
		r.truth(s, all)
		r.truth(peer.Dovecot(t, r.dir, peer.Options{}), all)
	}
}

// syncsInTurn is how many calls that make something durable may have to end before a
// client is told of a message: those of two or three looks, of both clients.
const syncsInTurn = 10

// slowestSync makes a file beside the folder durable from time to time, until the
// world stops, and returns how long that took at most.
func (r *race) slowestSync() (slowest time.Duration) {
	f, err := os.CreateTemp(filepath.Dir(r.dir), "sync")
	if err != nil {
		r.Error(err)
		return 0
	}
	defer os.Remove(f.Name())
	defer f.Close()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !r.stop.Load() {
		begin := time.Now()
		_, err := f.WriteString("x")
		if err = errors.Join(err, unix.Fdatasync(int(f.Fd()))); err != nil {
			r.Error(err)
			return slowest
		}
		slowest = max(slowest, time.Since(begin))
		<-tick.C
	}
	return slowest
}

// TestRaceDovecot is TestRace of a Dovecot, for the record: what it tells its
// clients that is not so is counted. It reads a folder in pieces, and so loses
// messages; that none is missed says that TestRace would notice nothing.
func TestRaceDovecot(t *testing.T) {
	t.Parallel()
	races(t, fewer(1), func(t *testing.T, r *race, kind string) {
		x := r.witness(peer.Dovecot(t, r.dir, peer.Options{}), "watcher")
		r.run([]*witness{x}, r.renames)
		t.Logf("%d lies, at first: %q", len(x.lies), x.lies[:min(3, len(x.lies))])
		if len(x.lies) == 0 && kind == "tmpfs" {
			t.Error("no race: not even Dovecot missed a message")
		}
	})
}

// TestRaceReversed holds that a client of Dovecot is told of no message that is
// gone which is not while clients of ours change flags all the time: we rename
// under the lock that Dovecot takes.
func TestRaceReversed(t *testing.T) {
	t.Parallel()
	races(t, fewer(2), func(t *testing.T, r *race, _ string) {
		ours := peer.Imapd(t, r.dir, peer.Options{})
		dovecot := peer.Dovecot(t, r.dir, peer.Options{})
		all := []*witness{r.witness(dovecot, "watcher"), r.witness(ours, "watcher")}
		r.run(all, func() int { return r.stores(ours) })
		// Dovecot reads the whole folder all the time, and takes what processors there are.
		const least = raceLeast / 10
		r.busy(raceLength(), least, least/100.0, least/100.0)
		r.truth(ours, all)
		r.truth(dovecot, all[1:])
	})
}

// run has clients watch while another program disturbs, and looks at what they
// were told.
func (r *race) run(all []*witness, disturb func() int) {
	r.Helper()
	var clients, other sync.WaitGroup
	for _, x := range all {
		if strings.HasPrefix(x.name, "idler") {
			clients.Go(x.idle)
		} else {
			clients.Go(x.watch)
		}
	}
	done := 0
	begin := time.Now()
	other.Go(func() { done = disturb() })
	<-time.After(raceLength())
	r.stop.Store(true)
	other.Wait()
	took := time.Since(begin)
	r.deliver() // wakes those who idle
	clients.Wait()
	r.stop.Store(false)
	removed, dropped := count(&r.removed), count(&r.dropped)
	for _, x := range all {
		x.learn()
		caughtUp := false
		for limit := time.Now().Add(10 * time.Second); !caughtUp && time.Now().Before(limit); x.learn() {
			caughtUp = x.caughtUp(removed, dropped)
		}
		r.Logf("%s: %d operations in %.1f s, %d of %d EXPUNGE told, the last after %v; %d of %d arrivals, after %v", x.name, done, took.Seconds(),
			x.expunges, removed, x.latest[0].Round(time.Millisecond), x.arrivals, dropped, x.latest[1].Round(time.Millisecond))
		if !caughtUp && strings.HasSuffix(x.name, "imapd") {
			r.Errorf("%s has not been told of all that happened", x.name)
		}
	}
}

func count(m *sync.Map) (n int) {
	m.Range(func(any, any) bool { n++; return true })
	return n
}

// truth holds that the witnesses have been told the truth, and that s finds each
// message under the UID that they know it by.
func (r *race) truth(s *peer.Server, all []*witness) {
	r.Helper()
	now := map[uint32]string{}
	c := s.Login(r, s.User)
	c.Do("SELECT INBOX") // gives UIDs to the last deliveries
	messages := askMailbox(c, "INBOX").Messages
	for _, m := range messages {
		now[uint32(m.UID)] = m.BodyHash
	}
	for _, x := range all {
		for i, lie := range x.lies {
			if i == 10 {
				r.Errorf("%s: %d more", x.name, len(x.lies)-i)
				break
			}
			r.Error(lie)
		}
		known := maps.Clone(x.texts)
		maps.DeleteFunc(known, func(uid uint32, _ string) bool { _, gone := r.removed.Load(uid); return gone })
		if diff := cmp.Diff(known, now); diff != "" {
			r.Errorf("messages (-%s +%s):\n%.2000s", x.name, s.Kind, diff)
		}
		if stale := x.staleFlags(messages); stale != "" && strings.HasSuffix(x.name, "imapd") {
			r.Errorf("%s: %s", x.name, stale)
		}
	}
}

// added notes that a message is there from now on.
func (r *race) added(text string) { r.dropped.Store(first(subjectLine, text), time.Now()) }

// deliver delivers a message.
func (r *race) deliver() {
	text := r.text("lda")
	r.added(text)
	drop(r, r.dir, strings.ReplaceAll(text, "\r\n", "\n"))
	r.added(text)
}

// A pace lets work be done at raceRate, in small bursts.
type pace struct {
	begin time.Time
	tick  *time.Ticker
	done  int
}

func newPace() *pace { return &pace{begin: time.Now(), tick: time.NewTicker(5 * time.Millisecond)} }

// wait waits until n more operations are due.
func (p *pace) wait(n int) {
	for p.done += n; time.Since(p.begin).Seconds()*raceRate < float64(p.done); {
		<-p.tick.C
	}
}

// renames gives messages other flags, without any lock, until the world stops.
// Of a hundred operations one removes a message and one delivers another.
func (r *race) renames() int {
	cur := filepath.Join(r.dir, "cur")
	uids := uidsByBase(r.T, r.dir)
	p := newPace()
	defer p.tick.Stop()
	for i := 0; !r.stop.Load(); i++ {
		entries, err := os.ReadDir(cur)
		if err != nil {
			r.Error(err)
			break
		}
		for _, e := range entries {
			if r.stop.Load() {
				break
			}
			p.wait(1)
			base, _, _ := strings.Cut(e.Name(), ":2,")
			uid := uids[base]
			switch {
			case p.done%100 == 50:
				r.deliver()
			case p.done%100 == 0 && uid > 0:
				r.removed.Store(uid, time.Now())
				err = os.Remove(filepath.Join(cur, e.Name()))
			default:
				err = os.Rename(filepath.Join(cur, e.Name()), filepath.Join(cur, base+":2,"+[]string{"F", "S", "FS", ""}[i%4]))
			}
			if err != nil {
				r.Error(err)
			}
		}
	}
	if rate := float64(p.done) / time.Since(p.begin).Seconds(); rate < raceLeast {
		r.Errorf("%.0f operations a second, less than %d", rate, raceLeast)
	}
	return p.done
}

// uidsByBase reads the list of a folder: the UIDs by the names of the files
// without flags.
func uidsByBase(t *testing.T, dir string) map[string]uint32 {
	t.Helper()
	uids := map[string]uint32{}
	for line := range strings.Lines(read(t, dir+"/dovecot-uidlist")) {
		head, base, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if uid, _, _ := strings.Cut(head, " "); ok {
			uids[base] = uint32(number(uid))
		}
	}
	return uids
}

// stores is renames by a client of s: it gives messages other flags, one or some
// at a time. Of a hundred operations one expunges a message and one saves another.
func (r *race) stores(s *peer.Server) int {
	c := s.Login(r, s.User)
	c.Do("SELECT INBOX")
	had := map[int]string{} // the flags by UID, as far as they are known
	var uids []int
	for _, u := range uidsByBase(r.T, r.dir) {
		uids = append(uids, int(u))
		had[int(u)] = "?"
	}
	random := rand.New(rand.NewPCG(7, 8))
	p := newPace()
	defer p.tick.Stop()
	for removed, saved := 0, 0; !r.stop.Load(); {
		k := random.IntN(len(uids))
		uid := uids[k]
		last := uid
		switch {
		case removed < p.done/100:
			removed++
			p.wait(1)
			c.Do(`UID STORE %d +FLAGS.SILENT (\Deleted)`, uid)
			r.removed.Store(uint32(uid), time.Now())
			c.Do("UID EXPUNGE %d", uid)
			delete(had, uid)
			uids[k] = uids[len(uids)-1]
			uids = uids[:len(uids)-1]
			continue
		case saved < p.done/100:
			saved++
			p.wait(1)
			text := r.text("client")
			r.added(text)
			c.Do("APPEND INBOX %s", peer.Literal(text))
			r.delivered.Add(1)
			continue
		case random.IntN(10) == 0:
			last += 19
		}
		flags := []string{`\Flagged`, `\Seen`, `\Seen \Answered`, "later"}[random.IntN(4)]
		p.wait(last - uid + 1)
		c.Do("UID STORE %d:%d FLAGS.SILENT (%s)", uid, last, flags)
		for ; uid <= last; uid++ {
			if was, there := had[uid]; there && was != flags {
				had[uid] = flags
				r.renamed.Add(1)
			}
		}
	}
	return p.done
}
