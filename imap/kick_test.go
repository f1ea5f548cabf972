package imap

import (
	"context"
	"strings"
	"testing"
	"time"

	"imapd/control/config"
)

const kicked = "* BYE [UNAVAILABLE] Session ended by the administrator"

// pipeSession logs in and returns the session's id too.
func (w *world) pipeSession() (*client, string) {
	c := w.pipe(context.Background())
	c.line()
	_, done := c.do("LOGIN u secret")
	_, id, _ := strings.Cut(done, "SESSIONID=<")
	id, _, ok := strings.Cut(id, ">")
	if !ok {
		w.t.Fatalf("LOGIN: %s", done)
	}
	return c, id
}

// A session that is kicked in the middle of a command has shutdown_grace to get to
// the end of it, however often its client sends an octet.
func TestKick(t *testing.T) {
	var l Sessions
	bubble(t, func(c *config.Config, o *Options) { o.Sessions = &l }, func(w *world) {
		for _, begin := range []string{"a FETC", "a APPEND INBOX {1000}\r\n"} {
			c, id := w.pipeSession()
			c.send(begin)
			if strings.HasSuffix(begin, "\n") {
				c.want("+ ")
			}
			start := time.Now()
			if !l.End(id) {
				w.t.Error("there is no such session")
			}
			for time.Since(start) < 50*time.Second {
				time.Sleep(10 * time.Second)
				c.send("x")
			}
			if got := c.line(); got != kicked {
				w.t.Errorf("%q: got %q", begin, got)
			}
			if d := time.Since(start); d != 60*time.Second {
				w.t.Errorf("%q: ended after %v", begin, d)
			}
			c.ended()
			if l.End(id) {
				w.t.Error("a session that has ended is ended again")
			}
		}
		if log := w.log.String(); strings.Contains(log, "idle for too long") {
			w.t.Error("logged as idle")
		}
	})
}

// A session that is kicked again ends at once.
func TestKickTwice(t *testing.T) {
	var l Sessions
	bubble(t, func(c *config.Config, o *Options) { o.Sessions = &l }, func(w *world) {
		c, id := w.pipeSession()
		c.send("a FETC")
		start := time.Now()
		for range 2 {
			if !l.End(id) {
				w.t.Error("there is no such session")
			}
		}
		if got := c.line(); got != kicked {
			w.t.Errorf("got %q", got)
		}
		if d := time.Since(start); d != 0 {
			w.t.Errorf("ended after %v", d)
		}
		c.ended()
	})
}
