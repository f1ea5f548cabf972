package imap

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"imapd/control"
)

// timed counts the deadlines that a connection is given.
type timed struct {
	*net.TCPConn
	read, write int
}

func (c *timed) SetReadDeadline(t time.Time) error { c.read++; return c.TCPConn.SetReadDeadline(t) }
func (c *timed) SetWriteDeadline(t time.Time) error {
	c.write++
	return c.TCPConn.SetWriteDeadline(t)
}

// linked returns a link and its client.
func linked(t *testing.T) (*link, *timed, net.Conn) {
	t.Helper()
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	client, err := net.Dial("tcp", door.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	conn, err := door.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := &timed{TCPConn: conn.(*net.TCPConn)}
	l := newLink(&control.Conn{Conn: c})
	l.patience, l.writeWait = time.Minute, time.Minute
	t.Cleanup(l.close)
	return l, c, client
}

// A client that sends one command after the other costs no timer for each, and what
// the deadlines are for still happens.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	l, conn, client := linked(t)
	far := time.Now().Add(time.Hour)
	const commands = 200
	for range commands {
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := l.await(far); err != nil {
			t.Fatal(err)
		}
		if _, err := l.r.ReadByte(); err != nil {
			t.Fatal(err)
		}
		l.out = append(l.out, "answer\r\n"...)
	}
	if conn.read > commands/10 || conn.write > commands/10 {
		t.Errorf("%d commands moved the deadline of reading %d times, that of writing %d times", commands, conn.read, conn.write)
	}
	// It was woken, waits again, and is woken again.
	for range 2 {
		time.AfterFunc(10*time.Millisecond, l.wake)
		if err := l.await(far); err != errWoken {
			t.Fatal(err)
		}
	}
	if err := l.await(time.Now().Add(10 * time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	// A client that does not read is given writeWait, and not what is left of an
	// earlier one.
	l.writeWait = 50 * time.Millisecond
	start := time.Now()
	for l.werr == nil {
		l.send(make([]byte, 1<<20))
	}
	if d := time.Since(start); d < l.writeWait || d > 10*time.Second {
		t.Errorf("a Write to a client that does not read took %v: %v", d, l.werr)
	}
}

// A session that falls silent says so, and one at work does not.
func TestSilent(t *testing.T) {
	t.Parallel()
	l, _, client := linked(t)
	l.grace = time.Minute
	l.unpark()
	parked, want := 0, 0
	l.silent = func() {
		parked++
		l.grace = time.Minute
		client.Write([]byte("x"))
	}
	for i := range 20 {
		if i%5 == 4 {
			l.grace = time.Millisecond
			want++
		} else if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := l.await(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := l.r.ReadByte(); err != nil {
			t.Fatal(err)
		}
		if parked != want {
			t.Errorf("command %d: has parked %d times, want %d", i, parked, want)
		}
	}
}

// A stuck is a connection whose Write ends when the test says how.
type stuck struct {
	*net.TCPConn
	writing chan struct{}
	ends    chan error
	until   time.Time // deadline of writing
}

func (c *stuck) Write(p []byte) (int, error)        { c.writing <- struct{}{}; return len(p), <-c.ends }
func (c *stuck) SetWriteDeadline(t time.Time) error { c.until = t; return nil }

// A Write that is under way at the cut has little time left, and one that the client
// takes in it leaves what is said afterwards the usual time, once.
func TestCutWhileSending(t *testing.T) {
	t.Parallel()
	_, tcp, _ := linked(t)
	for _, fails := range []error{nil, os.ErrDeadlineExceeded} {
		c := &stuck{TCPConn: tcp.TCPConn, writing: make(chan struct{}), ends: make(chan error)}
		l := newLink(&control.Conn{Conn: c})
		write := func(meanwhile func(), err error) {
			wrote := make(chan error)
			go func() {
				_, err := l.Write([]byte("x"))
				wrote <- err
			}()
			<-c.writing
			meanwhile()
			c.ends <- err
			if err := <-wrote; (err == nil) != (fails == nil) {
				t.Fatal(err)
			}
		}
		left := func(want time.Duration) {
			t.Helper()
			if d := time.Until(c.until); d > want || d < want-2*time.Second {
				t.Errorf("time left to write %v, want %v", d, want)
			}
		}
		begin := time.Now()
		write(func() { l.cut(); left(cutRest) }, fails)
		if fails != nil {
			left(cutRest)
			continue
		}
		left(cutWait)
		until := c.until
		if write(func() {}, nil); c.until != until {
			t.Errorf("it is given more time again, %v", c.until.Sub(begin))
		}
	}
}
