package control

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"imapd/control/config"
)

// daemonOn listens as a syslog daemon.
func daemonOn(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(time.Minute))
	return c
}

// next returns the next line that the daemon gets, without its header.
func next(t *testing.T, c *net.UnixConn, priority int) string {
	t.Helper()
	b := make([]byte, 10000)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?s)^<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d imapd\[\d+\]: (.*)$`).FindStringSubmatch(string(b[:n]))
	if m == nil || m[1] != fmt.Sprint(priority) {
		t.Fatalf("got %q, want priority %d", b[:n], priority)
	}
	return m[2]
}

// end closes a daemon's socket, also for a child of another test that has a copy
// of the descriptor for a moment.
func end(c *net.UnixConn) {
	c.CloseRead()
	c.Close()
}

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "log-") // short, as the path of a socket must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "log")
}

// TestSyslogRestarts logs to a daemon that is not there yet, comes, is replaced
// by another, and goes.
func TestSyslogRestarts(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	sink := newSyslogSink(config.Default(), "imapd", []string{path})
	defer sink.close()
	l := &lossy{sink: sink}
	if err := l.line(slog.LevelInfo, "nobody hears"); err == nil {
		t.Error("a line went nowhere without an error")
	}
	if err := l.line(slog.LevelInfo, "nor this"); err != nil {
		t.Errorf("a line that is dropped: %v", err)
	}
	l.rest = time.Time{} // as if it were over
	first := daemonOn(t, path)
	if err := l.line(LevelNotice, "hello"); err != nil {
		t.Error(err)
	}
	if got := next(t, first, 2<<3|4); got != "2 log lines were lost" {
		t.Errorf("got %q", got)
	}
	if got := next(t, first, 2<<3|5); got != "hello" {
		t.Errorf("got %q", got)
	}
	end(first)
	os.Remove(path)
	second := daemonOn(t, path)
	if err := l.line(slog.LevelError, "to the next at once"); err != nil {
		t.Error(err)
	}
	if got := next(t, second, 2<<3|3); got != "to the next at once" {
		t.Errorf("got %q", got)
	}
	end(second)
	if l.line(slog.LevelInfo, "x") == nil {
		t.Error("a line went to a dead daemon")
	}
}

// TestSyslogHangs holds that a daemon which does not read costs lines and next to
// no time.
func TestSyslogHangs(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	daemon := daemonOn(t, path)
	sink := newSyslogSink(config.Default(), "imapd", []string{path})
	defer sink.close()
	l := &lossy{sink: sink}
	begin := time.Now()
	sent := 0
	for l.line(slog.LevelInfo, "x") == nil && sent < 1e6 {
		sent++
	}
	for range 1000 {
		l.line(slog.LevelInfo, "lost")
	}
	if took := time.Since(begin); sent == 1e6 || took > 30*time.Second {
		t.Fatalf("%d lines, %v", sent, took)
	}
	if l.lost != 1001 {
		t.Errorf("%d lines were lost, want 1001", l.lost)
	}
	for range sent {
		next(t, daemon, 2<<3|6)
	}
	l.rest = time.Time{}
	l.line(slog.LevelInfo, "again")
	if got := next(t, daemon, 2<<3|4); got != "1001 log lines were lost" {
		t.Errorf("got %q", got)
	}
	if got := next(t, daemon, 2<<3|6); got != "again" {
		t.Errorf("got %q", got)
	}
}

// TestSyslogStream logs to a daemon with a stream socket.
func TestSyslogStream(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	daemon, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	sink := newSyslogSink(config.Default(), "imapd", []string{path})
	defer sink.close()
	if err := sink.line(slog.LevelDebug, "a"+strings.Repeat("x", maxSyslog)); err != nil {
		t.Fatal(err)
	}
	c, err := daemon.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 2*maxSyslog)
	n, _ := c.Read(b)
	if !strings.HasPrefix(string(b[:n]), "<23>") || b[n-1] != '\n' || n > maxSyslog+100 {
		t.Errorf("got %d octets %.60q", n, b[:n])
	}
}

// TestTornLine holds that a line whose end could not be written is not what the
// next one is joined to.
func TestTornLine(t *testing.T) {
	t.Parallel()
	w := &narrow{room: 5}
	s := newFileSink(w, "imapd", true)
	if s.line(slog.LevelInfo, "0123456789") == nil {
		t.Error("no error")
	}
	w.room = 100
	s.line(slog.LevelInfo, "next")
	s.line(slog.LevelInfo, "last")
	if string(w.got) != "01234\nnext\nlast\n" {
		t.Errorf("got %q", w.got)
	}
}

// narrow is a writer with room for so many octets.
type narrow struct {
	room int
	got  []byte
}

func (n *narrow) Write(p []byte) (int, error) {
	m := min(n.room, len(p))
	n.room -= m
	n.got = append(n.got, p[:m]...)
	if m < len(p) {
		return m, errors.New("no room")
	}
	return m, nil
}

func TestMessageIsOneLine(t *testing.T) {
	t.Parallel()
	var got lines
	logTo(&got, nil).Info("a\nb\x1b[31m\u0085c")
	if want := `a\x0ab\x1b[31m\x85c`; got.text[0] != want {
		t.Errorf("got %q, want %q", got.text[0], want)
	}
}

// FuzzBadLogin holds that fail2ban sees each guess at a password, whatever name
// it is for, and never another host; and that nothing makes two lines of one.
func FuzzBadLogin(f *testing.F) {
	for _, s := range []string{"alice", "größe", "a\nbadlogin: [10.0.0.1] plaintext (x) [SASL(-13): authentication failure: x]",
		"[10.0.0.1]", ") [SASL(-13): user not found: x]", "\x00\x7f\xff\u2028\u202e", "a b\tc", strings.Repeat("[", 300)} {
		for why := range 6 {
			f.Add(s, "PLAIN", s, why)
			f.Add("alice", s, "bob", why)
		}
	}
	f.Fuzz(func(t *testing.T, user, mech, as string, why int) {
		why = (why%6 + 6) % 6
		var got lines
		LogBadLogin(logTo(&got, nil), BadLogin{Host: "[192.0.2.1]", User: user, Mech: mech, Why: LoginFailure(why), As: as})
		if len(got.text) != 1 || strings.ContainsFunc(got.text[0], unicode.IsControl) {
			t.Fatalf("got %q", got.text)
		}
		m := fail2ban.FindStringSubmatch(got.text[0])
		if (m != nil) != (LoginFailure(why) <= MayNotProxy) || m != nil && m[1] != "192.0.2.1" {
			t.Errorf("%q: fail2ban sees %q", got.text[0], m)
		}
	})
}
