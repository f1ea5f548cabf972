package test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// TestRaceCoarse is TestRace where times tick in 4 ms, as those of files do before
// Linux 6.13, and in seconds.
func TestRaceCoarse(t *testing.T) {
	t.Parallel()
	for _, granule := range []time.Duration{4 * time.Millisecond, time.Second} {
		t.Run(granule.String(), func(t *testing.T) {
			t.Parallel()
			races(t, fewer(1), withRenamer(granule))
		})
	}
}

// TestSecondInodes holds that a client learns what another program does in the very
// second in which it has been told of something else, where a folder's time says no
// more than the second. Nothing happens afterwards that would make up for it.
func TestSecondInodes(t *testing.T) {
	t.Parallel()
	for kind, granule := range map[string]time.Duration{"ext4-128": 0, "tmpfs": time.Second} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			secondInodes(newWorldIn(t, volume(t, kind, 32<<20), 3), peer.Options{Granule: granule})
		})
	}
}

func secondInodes(w *world, o peer.Options) {
	flagged, removed := w.dir+"/cur/1700000001.M1P1Q1.first:2,", w.dir+"/cur/1700000002.M1P1Q2.first:2,"
	s := peer.Imapd(w, w.dir, o)
	c := s.Login(w, s.User)
	c.Do("SELECT INBOX")
	must := func(err error) {
		w.Helper()
		if err != nil {
			w.Fatal(err)
		}
	}
	told := func(lines []peer.Response, text string) bool {
		return slices.ContainsFunc(lines, func(r peer.Response) bool { return strings.Contains(r.Text, text) })
	}

	<-time.After(time.Until(time.Now().Truncate(time.Second).Add(1100 * time.Millisecond)))
	must(os.Rename(flagged, flagged+"S"))
	<-time.After(50 * time.Millisecond) // a fine clock would have gone on
	if heard := c.Do("NOOP"); !told(heard, `\Seen`) {
		w.Errorf("%v", heard)
	}
	must(os.Rename(flagged+"S", flagged+"FS"))
	must(os.Remove(removed))
	var heard []peer.Response
	for begin := time.Now(); time.Since(begin) < 2*time.Second; {
		if heard = append(heard, c.Do("NOOP")...); told(heard, `\Flagged`) && told(heard, " EXPUNGE") {
			return
		}
	}
	w.Errorf("of a flag and an expunge it was told %v", heard)
}
