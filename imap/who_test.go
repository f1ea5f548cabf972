package imap

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"imapd/control/config"
)

// A roll is a list of who is on that remembers what it was told.
type roll struct {
	lines []string
	full  bool
}

func (r *roll) note(format string, args ...any) {
	r.lines = append(r.lines, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (r *roll) Admit(user string, maxUser, maxHost int) (perUser, perHost int, ok bool) {
	r.note("admit %s %d %d", user, maxUser, maxHost)
	return 2, 7, !r.full
}
func (r *roll) Set(user, mailbox, command string) { r.note("%s %s %s", user, mailbox, command) }
func (r *roll) Move(host string)                  { r.note("at %s", host) }
func (r *roll) End()                              { r.note("end") }

// What the list hears of a session.
func TestWhoIsOn(t *testing.T) {
	t.Parallel()
	r := &roll{}
	w := newWorld(t, func(_ *config.Config, o *Options) {
		o.Enter = func(host, session string) Entry {
			r.note("begin")
			return r
		}
	})
	w.deliver("jane", "", "new/1.x", "Subject: x\n\nx\n")
	c := w.dial()
	c.line()
	c.must(" OK", "LOGIN jane secret")
	c.must(" OK", "NOOP")
	c.must(" OK", "SELECT INBOX")
	c.must(" OK", "FETCH 1 FLAGS")
	c.send("i IDLE\r\nDONE\r\n")
	c.must(" OK", "UNSELECT")
	c.must(" OK", "EXAMINE INBOX")
	c.must(" OK", "CLOSE")
	c.must(" OK", "LOGOUT")
	<-c.done
	want := []string{"begin", "admit jane 0 0", "jane INBOX", "jane INBOX Idle", "jane INBOX", "jane", "jane INBOX", "jane", "end"}
	if !slices.Equal(r.lines, want) {
		t.Errorf("got\n%q, want\n%q", r.lines, want)
	}
}

// Who is one too many is told so, and may try as somebody else.
func TestTooManyLogins(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		perUser, perHost int
		want             string
	}{
		{2, 7, "(7 of 7 from [192.0.2.1], 2 of 2 for jane)"},
		{2, 0, "(2 of 2 for jane)"},
		{0, 7, "(7 of 7 from [192.0.2.1])"},
	} {
		r := &roll{full: true}
		w := newWorld(t, func(c *config.Config, o *Options) {
			c.MaxLoginsPerUser, c.MaxLoginsPerHost = tt.perUser, tt.perHost
			o.Enter = func(host, session string) Entry { return r }
		})
		c := w.dial()
		c.line()
		want := " NO [LIMIT] Too many open connections " + tt.want
		for _, command := range []string{"LOGIN jane secret", "AUTHENTICATE PLAIN AGphbmUAc2VjcmV0"} {
			if _, got := c.do(command); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if !strings.Contains(w.log.String(), "Too many open connections "+tt.want) {
			t.Errorf("logged:\n%s", w.log)
		}
		r.full = false
		c.must(" OK", "LOGIN jane secret")
	}
}
