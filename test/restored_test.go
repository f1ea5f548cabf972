package test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imapd/test/peer"
)

var (
	uidNext     = regexp.MustCompile(`UIDNEXT (\d+)`)
	uidValidity = regexp.MustCompile(`UIDVALIDITY (\d+)`)
)

// TestRestoredFolder has a folder lost and brought back from a backup, with its UID list
// and both servers' indexes, while both run. What was added since is gone, the client
// that knows of it is told so, and its UIDs are given to no other message by either server.
func TestRestoredFolder(t *testing.T) {
	t.Parallel()
	peer.Need(t, "rsync")
	dir, away := basic(t), peer.TempDir(t)
	work := filepath.Join(dir, ".Work")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	ours, dovecot := peer.Imapd(t, dir, peer.Options{}), peer.Dovecot(t, dir, peer.Options{})
	c, d := ours.Login(t, ours.User), dovecot.Login(t, dovecot.User)
	c.Do("ENABLE QRESYNC")
	add := func(c *peer.Client) int {
		t.Helper()
		_, answer := c.Try("APPEND Work %s", peer.Literal("Subject: x\r\n\r\n"))
		m := uidCode.FindStringSubmatch(answer)
		if m == nil {
			t.Fatal(answer)
		}
		return number(m[1])
	}
	add(c)
	add(d)
	was := strings.Join(texts(c, "SELECT Work"), "\n")
	d.Do("SELECT Work")
	d.Do("UNSELECT")
	c.Do("UNSELECT")
	run("rsync", "-a", work, away)
	told := 0
	for range 3 {
		told = max(add(c), add(d))
	}
	run("mv", work, filepath.Join(away, "lost"))
	run("rsync", "-a", filepath.Join(away, ".Work"), dir)

	now := texts(c, fmt.Sprintf("SELECT Work (QRESYNC (%s %s 1:%d))", first(uidValidity, was), first(highestModSeq, was), told))
	if gone := fmt.Sprintf("* VANISHED (EARLIER) %d:%d", told-5, told); !strings.Contains(strings.Join(now, "\n"), gone) {
		t.Errorf("no %q in %q", gone, now)
	}
	// Dovecot's STATUS does not ask the list as long as the folder looks as before.
	next := number(first(uidNext, c.Do("STATUS Work (UIDNEXT)")[0].Text))
	if a, b := add(d), add(c); next < 10000 || a != next || b != next+1 {
		t.Errorf("UIDNEXT is %d, Dovecot gives UID %d, we %d; UID %d has been given", next, a, b, told)
	}
	if a, b := mess(t, c, "Work"), mess(t, d, "Work"); fmt.Sprint(a) != fmt.Sprint(b) || len(a.Messages) != 5 {
		t.Errorf("we have %v, Dovecot %v", a, b)
	}
}
