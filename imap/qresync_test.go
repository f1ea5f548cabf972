package imap

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"imapd/imap/wire"
	"imapd/test/strict"
)

// TestResync has clients with QRESYNC come and go, their connections cut at any
// moment, while other sessions and another program change the mailbox. Whatever
// they missed: after they have come back their cache is what is there. Some claim
// to have been away for longer than anybody remembers.
func TestResync(t *testing.T) {
	t.Parallel()
	w := newFuzzWorld(t)
	for seed := range uint64(randomRuns()) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := &resyncRun{randomRun: randomRun{Rand: rand.New(rand.NewPCG(seed, 11)), t: t, dir: filepath.Join(w.mail, "u")}, w: w}
			for i := range 2 {
				r.caches = append(r.caches, &strict.Cache{})
				if i == 0 {
					r.sessions = append(r.sessions, w.session(t, fuzzUser))
				} else {
					r.sessions = append(r.sessions, w.join(t, fuzzUser))
				}
				r.open(i)
			}
			r.sessions = append(r.sessions, w.join(t, fuzzUser|fuzzSelected), w.join(t, fuzzUser|fuzzSelected))
			for range 60 {
				r.step()
			}
			r.check()
			for _, s := range r.sessions {
				s.end()
			}
			w.check(t)
		})
	}
}

// A resyncRun has the clients with a cache as its first sessions.
type resyncRun struct {
	randomRun
	w      *fuzzWorld
	caches []*strict.Cache
}

// step lets somebody do something.
func (r *resyncRun) step() {
	r.t.Helper()
	i := r.IntN(len(r.sessions) + 1)
	if r.IntN(12) == 0 {
		r.log = append(r.log, "another process")
		r.w.process(r.t)
	}
	switch {
	case i == len(r.sessions):
		r.outside()
	case i >= len(r.caches):
		r.command(r.sessions[i], r.draw())
	case r.IntN(6) == 0:
		if line := r.drawFor(i); !strings.HasPrefix(line, "APPEND") { // its literal is asked for
			r.cut(i, line)
		}
	default:
		r.command(r.sessions[i], r.drawFor(i))
		if r.IntN(3) > 0 {
			r.learn(i)
		}
	}
}

// drawFor draws a command for a client with a cache.
func (r *resyncRun) drawFor(i int) string {
	since := r.caches[i].ModSeq - uint64(r.IntN(3))
	switch r.IntN(8) {
	case 0:
		return fmt.Sprintf("UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)", since)
	case 1:
		return fmt.Sprintf("FETCH 1:* (UID FLAGS) (CHANGEDSINCE %d)", since)
	case 2:
		return fmt.Sprintf("STORE %s (UNCHANGEDSINCE %d) %sFLAGS (%s)", r.set(), since, r.sign(), r.flags())
	case 3:
		return "FETCH " + r.set() + " (MODSEQ)"
	case 4:
		return "UID SEARCH " + r.set()
	case 5:
		return "SEARCH MODSEQ " + fmt.Sprint(since)
	}
	return r.draw()
}

// learn fetches what is new to a client.
func (r *resyncRun) learn(i int) {
	r.t.Helper()
	s := r.sessions[i]
	if known, n := r.caches[i].Known(&s.mirror), len(s.mirror.Messages()); known < n {
		r.command(s, fmt.Sprintf("FETCH %d:%d (UID FLAGS)", known+1, n))
	}
}

// cut sends a command of which the client reads only some of the answer before
// its connection is gone, and has it come back.
func (r *resyncRun) cut(i int, line string) {
	r.t.Helper()
	s := r.sessions[i]
	n := r.IntN(5)
	r.log = append(r.log, fmt.Sprintf("%d %s (cut after %d)", i, line, n))
	line, _, _ = strings.Cut(line, "\n")
	if _, err := s.conn.Write([]byte("X " + line + "\r\n")); err != nil {
		r.t.Fatal(err)
	}
	for range n {
		resp, err := s.response()
		if err != nil {
			r.fail(i, err)
		}
		if resp.Tag == "X" || resp.Tag == "+" {
			break
		}
	}
	r.log = append(r.log, s.out.String())
	s.end()
	r.sessions[i] = r.w.join(r.t, fuzzUser)
	r.open(i)
}

// open selects the mailbox as a client that has been there before.
func (r *resyncRun) open(i int) {
	r.t.Helper()
	s, c := r.sessions[i], r.caches[i]
	s.cache = c
	c.Cut()
	r.command(s, "ENABLE QRESYNC")
	had := c.UIDs()
	line := "SELECT INBOX"
	if c.ModSeq > 0 {
		line += r.parameter(c, had)
	}
	r.command(s, line)
	if err := c.Resume(&s.mirror, had); err != nil {
		r.fail(i, err)
	}
	r.learn(i)
}

// parameter returns what a client says of its cache: the modseq, or one that
// nobody remembers, and perhaps its UIDs and the numbers of some of them.
func (r *resyncRun) parameter(c *strict.Cache, had []uint32) string {
	since, uids, match := c.ModSeq, "", ""
	if r.IntN(4) == 0 {
		since = 1
	}
	var all, numbers, sample wire.NumSet
	for i, uid := range had {
		all.Add(uid)
		if r.IntN(3) == 0 {
			numbers.Add(uint32(i) + 1)
			sample.Add(uid)
		}
	}
	if !all.Empty() && r.IntN(2) == 0 {
		uids = " " + all.String()
	}
	if !sample.Empty() && r.IntN(2) == 0 {
		match = fmt.Sprintf(" (%s %s)", numbers, sample)
	}
	return fmt.Sprintf(" (QRESYNC (%d %d%s%s))", c.Validity, since, uids, match)
}

// check has all clients come back once more and holds their caches against what a
// new session sees.
func (r *resyncRun) check() {
	r.t.Helper()
	for i := range r.caches {
		r.cut(i, "NOOP")
	}
	fresh := r.w.join(r.t, fuzzUser|fuzzSelected)
	r.sessions = append(r.sessions, fresh)
	r.command(fresh, "UID FETCH 1:* FLAGS")
	for i := range r.caches {
		r.command(r.sessions[i], "NOOP")
		r.learn(i)
	}
	want := map[uint32]string{}
	for _, m := range fresh.mirror.Messages() {
		want[m.UID] = m.Flags
	}
	for i, c := range r.caches {
		if !maps.Equal(c.Flags, want) {
			r.fail(i, fmt.Errorf("the cache has\n%v\nbut there is\n%v", c.Flags, want))
		}
	}
}

func (r *resyncRun) fail(i int, err error) {
	r.t.Helper()
	r.t.Fatalf("client %d: %v\n%s\n%s", i, err, strings.Join(r.log, "\n"), r.sessions[i].out.String())
}
