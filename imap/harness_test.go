package imap

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/control"
	"imapd/control/config"
	"imapd/maildir"
	"imapd/sasl"
)

// A world is a server in this process with the mail of its users in a
// temporary directory.
type world struct {
	t    testing.TB
	root string
	conf *config.Config
	opt  Options
	srv  *Server
	log  *logBuffer
}

// passwords is the Authenticator of tests: the password of every user is
// "secret", except that "broken" cannot be checked.
type passwords struct{}

func (p passwords) Login(_ context.Context, authzid, authcid, password string) (sasl.Identity, error) {
	name, err := sasl.Canonical(authcid, true)
	switch {
	case err != nil:
		return sasl.Identity{}, err
	case name == "broken":
		return sasl.Identity{}, io.ErrNoProgress
	case name == "nobody":
		return sasl.Identity{}, sasl.ErrNoUser
	case password != "secret":
		return sasl.Identity{}, sasl.ErrBadPassword
	case authzid != "" && authzid != name:
		return sasl.Identity{}, sasl.ErrNotAllowed
	}
	return sasl.Identity{User: sasl.User{Name: name, UID: -1, GID: -1}, Login: name, Admin: name == "root"}, nil
}

// logBuffer keeps log lines for a test to look at.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newWorld returns a world whose configuration allows passwords in clear and
// does not make failed logins wait. change may alter it before the server is made.
func newWorld(t testing.TB, change func(*config.Config, *Options)) *world {
	t.Helper()
	w := &world{t: t, root: t.TempDir(), conf: config.Default(), log: &logBuffer{}}
	w.conf.Maildir = filepath.Join(w.root, "%u")
	w.conf.ServerName = "mail.example.org"
	w.conf.AllowPlaintext = true
	w.conf.FailedLoginPause = 0
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	host := maildir.NewHost(maildir.Options{Log: log})
	t.Cleanup(func() {
		host.Close()
		if t.Failed() {
			t.Log(w.log.String())
		}
	})
	w.opt = Options{Config: w.conf, Host: host, Auth: passwords{}, Log: log, Version: "1.0"}
	if change != nil {
		change(w.conf, &w.opt)
	}
	w.srv = New(w.opt)
	return w
}

// deliver puts a message into new/ of the user's folder ("" is INBOX), as a delivery agent does.
func (w *world) deliver(user, folder, name, text string) {
	w.t.Helper()
	dir := filepath.Join(w.root, user, folder)
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			w.t.Fatal(err)
		}
	}
	tmp := filepath.Join(dir, "tmp", filepath.Base(name))
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

// A client is the other end of a session.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	n    int
	done chan struct{} // closed when Serve has returned
}

// serve begins a session on conn, whose other end is peer.
func (w *world) serve(ctx context.Context, peer *control.Conn, conn net.Conn) *client {
	c := &client{t: w.t, conn: conn, r: bufio.NewReader(conn), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		w.srv.Serve(ctx, peer)
	}()
	return c
}

// dial begins a session over a socket.
func (w *world) dial() *client {
	w.t.Helper()
	return w.dialAs(context.Background(), &control.Conn{})
}

// dialAs is dial with what is set in p about the client.
func (w *world) dialAs(ctx context.Context, p *control.Conn) *client {
	w.t.Helper()
	ours, theirs := socketPair(w.t)
	ours.SetDeadline(time.Now().Add(20 * time.Second))
	p.Conn, p.Host = theirs, "[192.0.2.1]"
	c := w.serve(ctx, p, ours)
	w.t.Cleanup(func() {
		ours.Close()
		<-c.done
	})
	return c
}

// login begins a session, reads the greeting and logs in as user.
func (w *world) login(user string) *client {
	w.t.Helper()
	c := w.dial()
	c.line()
	if _, got := c.do("LOGIN " + user + " secret"); !strings.Contains(got, " OK ") {
		w.t.Fatalf("LOGIN: %s", got)
	}
	return c
}

func socketPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return conns[0], conns[1]
}

// send sends text as it is.
func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatalf("send %.40q: %v", text, err)
	}
}

// line reads one line, without its end; "" at the end of the connection.
func (c *client) line() string {
	c.t.Helper()
	s, err := c.r.ReadString('\n')
	if err == io.EOF && s == "" {
		return ""
	}
	if err != nil {
		c.t.Fatalf("reading (got %q): %v", s, err)
	}
	if !strings.HasSuffix(s, "\r\n") {
		c.t.Fatalf("line without CRLF: %q", s)
	}
	return s[:len(s)-2]
}

// want reads one line, which must begin with prefix.
func (c *client) want(prefix string) string {
	c.t.Helper()
	got := c.line()
	if !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("got %q, want %q", got, prefix)
	}
	return got
}

// ended reads the end of the connection.
func (c *client) ended() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		c.t.Fatalf("got %q (%v), want the end of the connection", rest, err)
	}
	c.conn.Close()
	<-c.done
}

// do sends one command with a tag of its own and returns the lines before the
// tagged one, and that one without its tag.
func (c *client) do(command string) (untagged []string, tagged string) {
	c.t.Helper()
	c.n++
	tag := fmt.Sprintf("t%d", c.n)
	c.send(tag + " " + command + "\r\n")
	for {
		l := c.line()
		if l == "" {
			return untagged, ""
		}
		if rest, ok := strings.CutPrefix(l, tag); ok {
			return untagged, rest
		}
		untagged = append(untagged, l)
	}
}

// must is do for a command whose status is given, as in " OK" or " NO [CANNOT]".
func (c *client) must(status, command string) []string {
	c.t.Helper()
	untagged, got := c.do(command)
	if !strings.HasPrefix(got, status) {
		c.t.Fatalf("%s: got %q, want %q", command, got, status)
	}
	return untagged
}
