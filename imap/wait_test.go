package imap

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imapd/control"
	"imapd/control/config"
)

// notices is what a test lets the administrator say.
type notices struct {
	mu             sync.Mutex
	motd, shutdown *string
	changed        chan struct{}
}

func (n *notices) set(motd, shutdown *string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.motd, n.shutdown = motd, shutdown
	if n.changed != nil {
		close(n.changed)
	}
	n.changed = make(chan struct{})
}

func say(p *string) (string, bool) {
	if p == nil {
		return "", false
	}
	return *p, true
}

func (n *notices) Motd() (string, bool)     { n.mu.Lock(); defer n.mu.Unlock(); return say(n.motd) }
func (n *notices) Shutdown() (string, bool) { n.mu.Lock(); defer n.mu.Unlock(); return say(n.shutdown) }
func (n *notices) Refresh()                 {}
func (n *notices) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.changed
}

// pipe begins a session over a net.Pipe, for tests with a clock of their own.
func (w *world) pipe(ctx context.Context) *client {
	ours, theirs := net.Pipe()
	return w.serve(ctx, &control.Conn{Conn: theirs, Host: "[192.0.2.1]"}, ours)
}

// bubble runs f with a clock of its own.
func bubble(t *testing.T, change func(*config.Config, *Options), f func(*world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { f(newWorld(t, change)) })
}

func TestTimeToLogIn(t *testing.T) {
	bubble(t, nil, func(w *world) {
		c := w.pipe(context.Background())
		c.line()
		start := time.Now()
		for i := range 17 { // busy all the time
			time.Sleep(10 * time.Second)
			c.must(" OK", "NOOP")
			_ = i
		}
		c.want("* BYE idle for too long")
		if d := time.Since(start); d != 180*time.Second {
			w.t.Errorf("ended after %v", d)
		}
		c.ended()
	})
}

func TestTimeToLogInWithinLiteral(t *testing.T) {
	bubble(t, nil, func(w *world) {
		c := w.pipe(context.Background())
		c.line()
		c.send("a LOGIN {5}\r\n")
		c.want("+ OK")
		c.send("ab")
		start := time.Now()
		c.want("* BYE idle for too long")
		if d := time.Since(start); d != 180*time.Second {
			w.t.Errorf("ended after %v", d)
		}
		c.ended()
	})
}

func TestAutologout(t *testing.T) {
	bubble(t, func(c *config.Config, _ *Options) { c.Timeout = 32 * time.Minute }, func(w *world) {
		c := w.pipe(context.Background())
		c.line()
		c.must(" OK", "LOGIN u secret")
		time.Sleep(31 * time.Minute)
		c.must(" OK", "NOOP")
		start := time.Now()
		c.want("* BYE idle for too long")
		if d := time.Since(start); d != 32*time.Minute {
			w.t.Errorf("ended after %v", d)
		}
		c.ended()
		if !strings.Contains(w.log.String(), "idle for too long, closing connection") {
			w.t.Error("not logged")
		}
	})
}

func TestIdleKeepalive(t *testing.T) {
	bubble(t, func(c *config.Config, _ *Options) { c.IdleTimeout = time.Hour }, func(w *world) {
		c := w.pipe(context.Background())
		c.line()
		c.must(" OK", "LOGIN u secret")
		start := time.Now()
		c.send("a IDLE\r\n")
		c.want("+ idling")
		for i := 1; i <= 2; i++ {
			c.want("* OK Still here")
			if d := time.Since(start); d != time.Duration(i)*29*time.Minute {
				w.t.Errorf("keep-alive after %v", d)
			}
		}
		c.want("* BYE idle for too long")
		if d := time.Since(start); d != time.Hour {
			w.t.Errorf("ended after %v", d)
		}
		c.ended()
	})
}

func TestFailedLoginPause(t *testing.T) {
	bubble(t, func(c *config.Config, _ *Options) { c.FailedLoginPause = 3 * time.Second }, func(w *world) {
		c := w.pipe(context.Background())
		c.line()
		start := time.Now()
		for i, user := range []string{"u", "nobody", "a/b"} {
			if _, got := c.do("LOGIN " + user + " wrong"); got != " NO [AUTHENTICATIONFAILED] Authentication failed" {
				w.t.Errorf("%s: got %q", user, got)
			}
			if d := time.Since(start); d != time.Duration(i+1)*3*time.Second {
				w.t.Errorf("%s: answered after %v", user, d)
			}
		}
		c.want("* BYE Too many failed logins")
		c.ended()
		for _, line := range []string{
			"badlogin: [192.0.2.1] plaintext (u) [SASL(-13): authentication failure: checkpass failed]",
			"badlogin: [192.0.2.1] plaintext (nobody) [SASL(-13): user not found: checkpass failed]",
			"badlogin: [192.0.2.1] plaintext (a/b) invalid user",
		} {
			if !strings.Contains(w.log.String(), line) {
				w.t.Errorf("not in the log: %s", line)
			}
		}
	})
}

// A client that takes no answers is given up, and holds no more than one
// buffer of output until then.
func TestClientThatDoesNotRead(t *testing.T) {
	bubble(t, nil, func(w *world) {
		c := w.pipe(context.Background())
		c.line()
		c.send("a NOOP\r\n")
		start := time.Now()
		<-c.done
		if d := time.Since(start); d > 2*time.Minute {
			w.t.Errorf("ended after %v", d)
		}
	})
}

func TestServerEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for name, begin := range map[string]string{
		"between commands":  "",
		"in IDLE":           "a LOGIN u secret\r\nb IDLE\r\n",
		"within a literal":  "a LOGIN {5}\r\nab",
		"within a command":  "a LOG",
		"within a dialogue": "a AUTHENTICATE PLAIN\r\n",
	} {
		ctx, cancel := context.WithCancel(context.Background())
		c := w.dialAs(ctx, &control.Conn{})
		c.line()
		c.send(begin)
		for n := strings.Count(begin, "\r\n"); n > 0; n-- {
			c.line()
		}
		cancel()
		if got := c.line(); got != "* BYE Server is shutting down" {
			t.Errorf("%s: got %q", name, got)
		}
		c.ended()
	}
}

func TestCrowdedOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ctx, cancel := context.WithCancelCause(context.Background())
	c := w.dialAs(ctx, &control.Conn{})
	c.line()
	cancel(control.Crowded)
	c.want("* BYE [UNAVAILABLE] Too many clients wait to log in")
	c.ended()
}

func TestShutdownNotice(t *testing.T) {
	t.Parallel()
	n := &notices{}
	w := newWorld(t, func(_ *config.Config, o *Options) { o.Notices = n })
	idle, quiet, fresh, admin := w.login("u"), w.login("v"), w.dial(), w.login("root")
	fresh.line()
	idle.send("a IDLE\r\n")
	idle.want("+ idling")

	text := "Down for repairs"
	n.set(nil, &text)
	for _, c := range []*client{idle, quiet, fresh} {
		c.want("* BYE [ALERT] Down for repairs")
		c.ended()
	}
	admin.must(" OK", "NOOP")
	late := w.dial()
	late.want("* BYE [ALERT] Down for repairs")
	late.ended()

	empty := ""
	n.set(nil, &empty)
	late = w.dial()
	late.want("* BYE [ALERT] ")
	late.ended()

	n.set(nil, nil)
	late = w.dial()
	late.want("* OK ")
	late.must(" OK", "NOOP")
}

// A session that is cut in the middle of a command is told why, not that it was
// idle.
func TestShutdownNoticeWithinCommand(t *testing.T) {
	n := &notices{}
	bubble(t, func(_ *config.Config, o *Options) { o.Notices = n }, func(w *world) {
		c := w.pipe(context.Background())
		c.line()
		c.must(" OK", "LOGIN u secret")
		c.send("b LIST \"\" {1}\r\n")
		c.want("+ OK")
		text := "Down for repairs"
		start := time.Now()
		n.set(nil, &text)
		c.want("* BYE [ALERT] Down for repairs")
		if d := time.Since(start); d < 60*time.Second || d > 61*time.Second {
			w.t.Errorf("ended after %v", d)
		}
		c.ended()
		if strings.Contains(w.log.String(), "idle for too long") {
			w.t.Error("logged as idle")
		}
	})
}

// Who has not logged in is told that the server ends, also in the middle of a
// command.
func TestServerEndsForStrangers(t *testing.T) {
	t.Parallel()
	ending := make(chan struct{})
	w := newWorld(t, func(_ *config.Config, o *Options) { o.Ending = ending })
	quiet, within := w.dial(), w.dial()
	for _, c := range []*client{quiet, within} {
		c.line()
	}
	within.must(" OK", "NOOP")
	within.send("a LOGI")
	close(ending)
	for _, c := range []*client{quiet, within} {
		if got := c.line(); got != "* BYE Server is shutting down" {
			t.Errorf("got %q", got)
		}
		c.ended()
	}
}

func TestMotd(t *testing.T) {
	t.Parallel()
	text := "Be nice \xe4"
	n := &notices{motd: &text}
	w := newWorld(t, func(_ *config.Config, o *Options) { o.Notices = n })
	c := w.dial()
	c.want("* OK [CAPABILITY ")
	if got := c.line(); got != "* OK [ALERT] Be nice \xe4" {
		t.Errorf("got %q", got)
	}
	c.must(" OK", "NOOP")
}
