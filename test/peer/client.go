package peer

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A Client speaks IMAP in the plainest way: it knows lines and literals, and
// nothing of what they mean. Its methods end the test when something is wrong.
type Client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	tag  int
	last string // of what Wait has passed over
}

// A Response is one untagged response. Its literals are not in Text, where
// {size} stands for each.
type Response struct {
	Text     string
	Literals []string
}

// Login connects to s as user and logs in. The connection ends with the test.
func (s *Server) Login(t testing.TB, user string) *Client {
	t.Helper()
	conn, err := s.Dial()
	if err != nil {
		t.Fatal(err)
	}
	return s.LoginOn(t, conn, user)
}

// LoginOn is Login on a connection that there is already.
func (s *Server) LoginOn(t testing.TB, conn net.Conn, user string) *Client {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	c := &Client{t: t, conn: conn, r: bufio.NewReader(conn)}
	if greeting := c.read(); !strings.HasPrefix(greeting.Text, "* OK") {
		t.Fatalf("%s greets with %q", s.Kind, greeting.Text)
	}
	c.Do("LOGIN %s %s", user, Password)
	return c
}

// Preauth speaks on a connection whose client need not log in.
func Preauth(t testing.TB, conn net.Conn) *Client {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	c := &Client{t: t, conn: conn, r: bufio.NewReader(conn)}
	conn.SetDeadline(time.Now().Add(time.Minute))
	if greeting := c.read(); !strings.HasPrefix(greeting.Text, "* PREAUTH") {
		t.Fatalf("greeting %q", greeting.Text)
	}
	return c
}

// Do sends a command, in which a literal is written as a non-synchronizing one,
// and returns the untagged responses. Any answer but OK ends the test.
func (c *Client) Do(format string, args ...any) []Response {
	c.t.Helper()
	untagged, answer := c.Try(format, args...)
	if !strings.HasPrefix(answer, "OK") {
		c.t.Fatalf("%.200s: %s", fmt.Sprintf(format, args...), answer)
	}
	return untagged
}

// Try sends a command and returns the untagged responses and the tagged one
// without its tag.
func (c *Client) Try(format string, args ...any) (untagged []Response, answer string) {
	c.t.Helper()
	c.tag++
	tag := fmt.Sprintf("t%d ", c.tag)
	c.Send(tag + fmt.Sprintf(format, args...))
	for {
		r := c.read()
		if text, ok := strings.CutPrefix(r.Text, tag); ok {
			return untagged, text
		}
		untagged = append(untagged, r)
	}
}

// Send sends one line and does not wait.
func (c *Client) Send(line string) {
	c.t.Helper()
	c.conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
		c.t.Fatalf("%.200s: %v", line, err)
	}
}

// Wait reads responses until one starts with prefix, and returns it.
func (c *Client) Wait(prefix string) Response {
	c.t.Helper()
	c.conn.SetDeadline(time.Now().Add(time.Minute))
	for {
		r := c.read()
		if strings.HasPrefix(r.Text, prefix) {
			return r
		}
		c.last = r.Text
	}
}

// WaitEnd waits for the end of the connection, before which nothing may come.
func (c *Client) WaitEnd() {
	c.t.Helper()
	c.conn.SetDeadline(time.Now().Add(time.Minute))
	if rest, err := io.ReadAll(c.r); len(rest) > 0 || err != nil {
		c.t.Errorf("at the end came %q, %v", rest, err)
	}
}

var literalEnd = regexp.MustCompile(`\{(\d+)\}$`)

func (c *Client) read() Response {
	c.t.Helper()
	var r Response
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("after %q, last %.200q: %v", r.Text+line, c.last, err)
		}
		line = strings.TrimRight(line, "\r\n")
		r.Text += line
		m := literalEnd.FindStringSubmatch(line)
		if m == nil {
			return r
		}
		size, _ := strconv.Atoi(m[1])
		literal := make([]byte, size)
		if _, err := io.ReadFull(c.r, literal); err != nil {
			c.t.Fatalf("after %q: %v", r.Text, err)
		}
		r.Literals = append(r.Literals, string(literal))
	}
}

// Literal writes text as the literal of a command.
func Literal(text string) string { return fmt.Sprintf("{%d+}\r\n%s", len(text), text) }
