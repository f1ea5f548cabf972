package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// TestLockForEver has a user hold the lock of a folder for ever while a hundred sessions
// wait for it, and holds that only those wait: the user's other sessions read, and other
// users do all they want.
func TestLockForEver(t *testing.T) {
	t.Parallel()
	const (
		sessions = 100
		// A wait for the lock is two minutes; the limit is for a machine that does
		// other things too.
		limit = 20 * time.Second
	)
	dir := basicMany(t, false)
	jane := strings.Replace(dir, "%u", "jane", 1)
	s := peer.Imapd(t, dir, peer.Options{Users: []string{"jane", "joe"}})
	waiting := make([]*peer.Client, sessions)
	for i := range waiting {
		waiting[i] = s.Login(t, "jane")
		waiting[i].Do("SELECT INBOX")
	}
	before := mailFiles(t, jane)
	lock := jane + "/dovecot-uidlist.lock"
	write(t, lock, "1:"+hostname()) // a process that lives as long as the machine
	began := time.Now()
	for i, c := range waiting {
		c.Send(fmt.Sprintf([]string{
			`x STORE 1 +FLAGS (\Answered)`, "x APPEND INBOX {12+}\r\nSubject: %d\r\n", "x COPY 1 INBOX", "x UID STORE 2 +FLAGS (keyword%d)",
		}[i%4], []any{i % 10}[:i%2]...))
	}
	within := func(what string, do func()) {
		t.Helper()
		begin := time.Now()
		do()
		d := time.Since(begin)
		t.Logf("%s: %v", what, d.Round(time.Millisecond))
		if d > limit {
			t.Errorf("%s took %v", what, d)
		}
	}
	for range 3 {
		within("another user", func() {
			c := s.Login(t, "joe")
			c.Do("SELECT INBOX")
			c.Do(`STORE 1 +FLAGS (\Flagged)`)
			c.Do("APPEND INBOX %s", peer.Literal("Subject: y\r\n\r\n"))
			c.Do(`STORE * +FLAGS (\Deleted)`)
			c.Do("EXPUNGE")
			c.Do("LOGOUT")
		})
		within("the user reads", func() {
			c := s.Login(t, "jane")
			c.Do("SELECT INBOX")
			c.Do("FETCH 1:* (FLAGS BODY.PEEK[])")
			c.Do(`SEARCH TEXT "a"`)
			c.Do("NOOP")
			c.Do("LOGOUT")
		})
	}
	if after := mailFiles(t, jane); !slices.Equal(before, after) {
		t.Errorf("nobody has waited: %q became %q", before, after)
	}
	if d := time.Since(began); d > 100*time.Second {
		t.Fatalf("after %v some may have stopped waiting", d)
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	within("those who waited", func() {
		for _, c := range waiting {
			if r := c.Wait("x "); !strings.HasPrefix(r.Text, "x OK") {
				t.Error(r.Text)
			}
		}
	})
	if n := len(mailFiles(t, jane)); n != len(before)+sessions/2 {
		t.Errorf("%d messages, there were %d", n, len(before))
	}
}

// mailFiles returns the files of the messages of INBOX in dir.
func mailFiles(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	for _, sub := range []string{"cur", "new"} {
		files, err := filepath.Glob(filepath.Join(dir, sub, "*"))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, files...)
	}
	return names
}

// TestLockTold has another program hold the lock of a folder: the log says which, once,
// when new mail is not shown for it.
func TestLockTold(t *testing.T) {
	t.Parallel()
	dir := basic(t)
	s := peer.Imapd(t, dir, peer.Options{})
	c := s.Login(t, s.User)
	c.Do("SELECT INBOX")
	c.Do("CLOSE")
	write(t, dir+"/dovecot-uidlist.lock", "4711:oldhost")
	write(t, dir+"/new/1700000000.x.y", "Subject: new\n\n")
	peer.Own(t, dir)
	for range 2 {
		c.Do("SELECT INBOX")
	}
	want := "a lock is not given back, what needed it is not done lock=" + dir + "/dovecot-uidlist.lock holder=4711:oldhost age="
	if got := s.Log(); strings.Count(got, want) != 1 {
		t.Errorf("logged:\n%s", got)
	}
}
