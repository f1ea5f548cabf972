package imap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imapd/control"
	"imapd/control/config"
)

// soon is within what time a session ends that has to. What it is at here takes
// several times as long.
const soon = 20 * time.Second

// endsSoon holds that c's session ends.
func (c *client) endsSoon() {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(soon):
		c.t.Error("the session goes on")
	}
}

// deliverMany puts n messages with one text into the user's INBOX.
func (w *world) deliverMany(user string, n int, text string) {
	w.t.Helper()
	w.deliver(user, "", "cur/0.m.h:2,S", text)
	dir := filepath.Join(w.root, user, "cur")
	for i := 1; i < n; i++ {
		if err := os.Link(filepath.Join(dir, "0.m.h:2,S"), filepath.Join(dir, fmt.Sprintf("%d.m.h:2,S", i))); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestSearchClientGone holds that a search ends when its client is gone.
func TestSearchClientGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) { c.Limits.SearchTime = 3 * soon })
	w.deliverMany("u", 2000, "Subject: a\n\n"+strings.Repeat("zzzzzzz some text\n", 60_000))
	c := w.login("u")
	c.must(" OK", "SELECT INBOX")
	c.send("x SEARCH" + manyKeys("BODY", 1000) + "\r\n")
	c.conn.Close()
	c.endsSoon()
}

// TestFetchClientGone holds that a FETCH that reads much and says little ends when
// its client is gone.
func TestFetchClientGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliverMany("u", 2000, strings.Repeat("aaaaaaab: x\n", 100_000)+"\n")
	c := w.login("u")
	c.must(" OK", "SELECT INBOX")
	c.send("x FETCH 1:* BODY.PEEK[HEADER.FIELDS (Subject)]\r\n")
	c.conn.Close()
	c.endsSoon()
}

// TestFetchCut holds that a FETCH ends in the middle of a message when the session
// is cut, and that nothing is said in the middle of a response.
func TestFetchCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("u", "", "cur/1.m.h:2,S", "Subject: a\n\n"+strings.Repeat("x", 2*flushAt))
	w.deliver("u", "", "cur/2.m.h:2,S", "Subject: b\n\n")
	if err := os.Truncate(filepath.Join(w.root, "u/cur/2.m.h:2,S"), 1<<40); err != nil { // a hole, that takes minutes to read
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := w.dialAs(ctx, &control.Conn{})
	c.line()
	c.must(" OK", "LOGIN u secret")
	c.must(" OK", "SELECT INBOX")
	c.send("x FETCH 1:2 BODY.PEEK[TEXT]\r\n")
	c.want("* 1 FETCH (BODY[TEXT] {")
	io.CopyN(io.Discard, c.r, 2*flushAt) // now the second is next
	cancel()
	c.endsSoon()
	if rest, _ := io.ReadAll(c.r); string(rest) != ")\r\n* BYE Server is shutting down\r\n" {
		t.Errorf("%q", rest)
	}
}

// TestHeed says for what a command that takes long is given up.
func TestHeed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	session := func(pair func(testing.TB) (ours, theirs net.Conn)) (*Session, net.Conn) {
		ours, theirs := pair(t)
		s := w.srv.newSession(context.Background(), &control.Conn{Conn: theirs})
		t.Cleanup(func() { s.close(); ours.Close() })
		return s, ours
	}
	for _, pair := range []func(testing.TB) (ours, theirs net.Conn){socketPair, tcpPair} {
		s, ours := session(pair)
		heed := func(between bool) {
			t.Helper()
			if err := s.heed(between); err != nil {
				t.Errorf("between %v: %v", between, err)
			}
		}
		read := func(r io.Reader, want string) {
			t.Helper()
			got := make([]byte, len(want))
			if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		}
		heed(true)
		ours.SetDeadline(time.Now().Add(soon))
		io.WriteString(ours, "y NOOP\r\n")
		heed(true)
		ours.(interface{ CloseWrite() error }).CloseWrite()
		heed(false)
		heed(true) // it may listen still
		s.out = append(s.out, "x OK\r\n"...)
		s.flush()
		read(ours, "* OK Still here\r\nx OK\r\n")
		read(s.r, "y NOOP\r\n") // nothing has swallowed it
		ours.Close()
		var err error
		for until := time.Now().Add(soon); err == nil && time.Now().Before(until); {
			err = s.heed(true) // a socket says so at once, TCP when it has been sent something
		}
		if !errors.Is(err, errSilent) {
			t.Errorf("the client is gone: %v", err)
		}
		if err := s.heed(false); !errors.Is(err, errGone) {
			t.Errorf("the client is gone: %v", err)
		}
		s.cut()
		if err := s.heed(false); err != errCut {
			t.Errorf("cut: %v", err)
		}
	}
}

func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err == nil {
		b, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}
