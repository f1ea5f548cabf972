package test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// TestSecondInodes holds that a client learns what another program does in the very
// second in which it has been told of something else, where a folder's time says no
// more than the second. Nothing happens afterwards that would make up for it.
func TestSecondInodes(t *testing.T) {
	t.Parallel()
	w := newWorldIn(t, volume(t, "ext4-128", 32<<20), 3)
	flagged, removed := w.dir+"/cur/1700000001.M1P1Q1.first:2,", w.dir+"/cur/1700000002.M1P1Q2.first:2,"
	s := peer.Imapd(t, w.dir, peer.Options{})
	c := s.Login(t, s.User)
	c.Do("SELECT INBOX")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	told := func(lines []peer.Response, text string) bool {
		return slices.ContainsFunc(lines, func(r peer.Response) bool { return strings.Contains(r.Text, text) })
	}

	<-time.After(time.Until(time.Now().Truncate(time.Second).Add(1100 * time.Millisecond)))
	must(os.Rename(flagged, flagged+"S"))
	<-time.After(50 * time.Millisecond) // a fine clock would have gone on
	if heard := c.Do("NOOP"); !told(heard, `\Seen`) {
		t.Errorf("%v", heard)
	}
	must(os.Rename(flagged+"S", flagged+"FS"))
	must(os.Remove(removed))
	var heard []peer.Response
	for begin := time.Now(); time.Since(begin) < 2*time.Second; {
		if heard = append(heard, c.Do("NOOP")...); told(heard, `\Flagged`) && told(heard, " EXPUNGE") {
			return
		}
	}
	t.Errorf("of a flag and an expunge it was told %v", heard)
}
