package test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// A caller is a connection before login.
type caller struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// ring connects to s from another address of the loopback network and returns
// the first line that the server says.
func ring(t *testing.T, s *peer.Server, from byte) (*caller, string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}}
	conn, err := d.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &caller{t, conn, bufio.NewReader(conn)}
	return c, c.line()
}

// welcome connects to s until it is greeted: who has left may still be counted
// for a moment.
func welcome(t *testing.T, s *peer.Server, from byte) *caller {
	t.Helper()
	var c *caller
	var line string
	eventually(t, func() string { return "no welcome: " + line }, func() bool {
		c, line = ring(t, s, from)
		return strings.HasPrefix(line, "* OK")
	})
	return c
}

// answerTime is how long a caller waits for an answer.
const answerTime = 2 * time.Minute

// line returns the next line, or "" where the connection has ended.
func (c *caller) line() string {
	c.t.Helper()
	c.conn.SetDeadline(time.Now().Add(answerTime))
	line, err := c.r.ReadString('\n')
	if err != nil && err != io.EOF {
		c.t.Fatal(err)
	}
	return strings.TrimRight(line, "\r\n")
}

// ask sends a command and returns the tagged response without the tag, or what
// the server said last before it hung up.
func (c *caller) ask(command string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, "a "+command+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	last := ""
	for {
		line := c.line()
		if line == "" {
			return last
		}
		if answer, ok := strings.CutPrefix(line, "a "); ok {
			return answer
		}
		last = line
	}
}

func (c *caller) login(s *peer.Server) {
	c.t.Helper()
	if answer := c.ask("LOGIN " + s.User + " " + peer.Password); !strings.HasPrefix(answer, "OK") {
		c.t.Fatal(answer)
	}
}

// bye holds that line refuses a connection with text, and that the connection
// then ends.
func (c *caller) bye(line, text string) {
	c.t.Helper()
	if want := "* BYE [UNAVAILABLE] " + text; line != want {
		c.t.Errorf("told %q, want %q", line, want)
	}
	if more := c.line(); more != "" {
		c.t.Errorf("after BYE came %q", more)
	}
}

// TestConnections holds that one connection too many is told so, and nobody
// else notices.
func TestConnections(t *testing.T) {
	t.Parallel()
	const limit = 100
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{fmt.Sprintf("limit_connections: %d", limit)}})
	var inside []*caller
	for range limit {
		c := welcome(t, s, 1)
		c.login(s)
		inside = append(inside, c)
	}
	c, line := ring(t, s, 1)
	c.bye(line, "Too many connections")
	// Under TLS a handshake would cost what is being saved.
	if conn, err := s.DialTLS(); err == nil {
		conn.Close()
		t.Error("one connection too many was given a TLS handshake")
	}
	for _, c := range inside {
		if answer := c.ask("STATUS INBOX (MESSAGES)"); !strings.HasPrefix(answer, "OK") && !strings.HasPrefix(answer, "BAD Unknown") {
			t.Fatal(answer)
		}
	}
	inside[0].conn.Close()
	welcome(t, s, 1).login(s)
}

// TestRefusedCounted holds that the log tells of every connection that was refused,
// and of none besides, however few its lines are.
func TestRefusedCounted(t *testing.T) {
	t.Parallel()
	o := peer.Options{Imapd: []string{"limit_preauth_per_address: 3"}}
	for name, start := range map[string]func(*testing.T) *peer.Server{
		"standalone": func(t *testing.T) *peer.Server { return peer.Imapd(t, basic(t), o) },
		"user":       func(t *testing.T) *peer.Server { return usersSite(t, o) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			const from = 9 // the server is asked from elsewhere whether it is there
			for range 3 {
				welcome(t, s, from)
			}
			refused := 0
			for ; refused < 50; refused++ {
				c, line := ring(t, s, from)
				c.bye(line, "Too many connections from one address")
			}
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}}
			for range 5 { // who is told nothing
				conn := must(d.Dial("tcp", s.TLSAddr))(t)
				if line := (&caller{t, conn, bufio.NewReader(conn)}).line(); line != "" {
					t.Errorf("told %q", line)
				}
				refused++
			}
			s.Stop()
			lines := regexp.MustCompile(`: connection refused host=\[127\.0\.0\.9\] err="too many connections from one address" more=(\d+)\n`).FindAllStringSubmatch(s.Log(), -1)
			told := len(lines)
			for _, m := range lines {
				told += number(m[1])
			}
			if told != refused || len(lines) > 10 {
				t.Errorf("%d connections refused; %d lines tell of %d:\n%s", refused, len(lines), told, s.Log())
			}
		})
	}
}

// TestCrowded holds that of those who do not log in the oldest makes room, and
// that nobody who has is touched.
func TestCrowded(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"limit_preauth_connections: 3"}})
	user := welcome(t, s, 1)
	user.login(s)
	first, second, third := welcome(t, s, 1), welcome(t, s, 2), welcome(t, s, 3)
	for _, c := range []*caller{first, second, third} {
		if answer := c.ask("NOOP"); !strings.HasPrefix(answer, "OK") {
			t.Fatal(answer)
		}
	}
	fourth := welcome(t, s, 4)
	first.bye(first.line(), "Too many clients wait to log in")
	for _, c := range []*caller{user, second, third, fourth} {
		if answer := c.ask("NOOP"); !strings.HasPrefix(answer, "OK") {
			t.Errorf("%s", answer)
		}
	}
}

// TestCrowdedAddress holds that one address can take only its share of those
// who wait to log in, and gets it back by logging in.
func TestCrowdedAddress(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"limit_preauth_per_address: 2"}})
	first, second := welcome(t, s, 1), welcome(t, s, 1)
	if answer := first.ask("NOOP"); !strings.HasPrefix(answer, "OK") {
		t.Fatal(answer)
	}
	c, line := ring(t, s, 1)
	c.bye(line, "Too many connections from one address")
	welcome(t, s, 2)
	first.login(s)
	welcome(t, s, 1)
	second.conn.Close()
	welcome(t, s, 1)
}

// TestSlowLogin holds that a client has limit_preauth_time to log in, however
// busy it is until then, and limit_tls_handshake_time for the handshake.
func TestSlowLogin(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"limit_preauth_time: 2s", "limit_tls_handshake_time: 2s"}})
	user := welcome(t, s, 1)
	user.login(s)
	silent, err := net.Dial("tcp", s.TLSAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	begin := time.Now()
	busy := welcome(t, s, 1)
	answer := ""
	for answer = busy.ask("NOOP"); strings.HasPrefix(answer, "OK") && time.Since(begin) < 20*time.Second; {
		answer = busy.ask("NOOP")
	}
	if !strings.HasPrefix(answer, "* BYE") || time.Since(begin) < 1900*time.Millisecond {
		t.Errorf("after %v: %q", time.Since(begin), answer)
	}
	silent.SetDeadline(time.Now().Add(20 * time.Second))
	if b, err := io.ReadAll(silent); err != nil || len(b) > 0 {
		t.Errorf("a TLS client that says nothing is told %q: %v", b, err)
	}
	if answer := user.ask("NOOP"); !strings.HasPrefix(answer, "OK") {
		t.Error(answer)
	}
}

// TestDescriptors holds that a server without file descriptors left refuses,
// serves those it has, and goes on when there are some again.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	peer.Need(t, "prlimit")
	const descriptors = 90
	s := peer.Imapd(t, basic(t), peer.Options{
		Wrap:  []string{"prlimit", fmt.Sprintf("--nofile=%d:%[1]d", descriptors)},
		Imapd: []string{"limit_preauth_per_address: 1000"},
	})
	user := welcome(t, s, 1)
	user.login(s)
	var others []*caller
	for range 110 {
		conn, err := s.Dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		others = append(others, &caller{t, conn, bufio.NewReader(conn)})
	}
	var held []os.DirEntry
	eventually(t, func() string { return fmt.Sprintf("%d descriptors of %d are taken", len(held), descriptors) }, func() bool {
		// The log alone may tell of files that are closed again by now.
		held, _ = os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID))
		return len(held) >= descriptors && strings.Contains(s.Log(), "too many open files")
	})
	if answer := user.ask("SELECT INBOX"); !strings.HasPrefix(answer, "NO [LIMIT]") {
		t.Errorf("SELECT without descriptors: %s", answer)
	}
	for _, c := range others[:70] {
		c.conn.Close()
	}
	for i, c := range others[70:] {
		if line := c.line(); !strings.HasPrefix(line, "* OK") {
			t.Fatalf("%d: %q", i, line)
		}
	}
	eventually(t, func() string { return "SELECT does not work again" }, func() bool {
		return strings.HasPrefix(user.ask("SELECT INBOX"), "OK")
	})
	conn, err := tls.Dial("tcp", s.TLSAddr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
