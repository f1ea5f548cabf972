package imap

import (
	"testing"
	"time"

	"imapd/maildir"
)

// However often a message is searched for that cannot be read, the log says so once.
func TestUnsearchedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, name := range []string{"1.a:2,", "2.b:2,"} {
		w.deliver("jane", "", "cur/"+name, "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03damaged")
	}
	for range 2 {
		c := w.login("jane")
		c.must(" OK", "SELECT INBOX")
		for range 4 {
			c.must(" OK", "SEARCH TEXT x")
		}
		c.must(" OK", "LOGOUT")
	}
	if lines := w.logLines("message cannot be searched"); len(lines) != 2 {
		t.Errorf("%d lines for 2 messages: %q", len(lines), lines)
	}
}

// What is remembered for that is bounded, and so is what is said.
func TestUnsearchedMany(t *testing.T) {
	t.Parallel()
	var u unsearched
	begin := time.Now()
	said, ends := 0, 0
	search := func(now time.Time) {
		for i := range 3 * mostUnsearched {
			due, last := u.first(message{"jane", "INBOX", 1, maildir.UID(i + 1)}, now)
			if due {
				said++
			}
			if last {
				ends++
			}
		}
	}
	search(begin)
	search(begin.Add(unsearchedFor - time.Second))
	if said != mostUnsearched || ends != 1 || len(u.told) != mostUnsearched {
		t.Errorf("%d lines, %d ends, %d remembered", said, ends, len(u.told))
	}
	search(begin.Add(unsearchedFor))
	if said != 2*mostUnsearched || ends != 2 {
		t.Errorf("an hour later %d lines, %d ends", said, ends)
	}
}
