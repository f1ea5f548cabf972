package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"imapd/test/peer"
)

// patience is how long one command may take.
const patience = time.Minute

// A conn is one connection. It keeps the octets of an answer as they came:
// they are read apart when the clock stands.
type conn struct {
	net  net.Conn
	buf  *[]byte // what is read goes here, over what was there
	tags int
}

// An answer is all that came from the command to its tagged response, which
// begins with tag. It is overwritten by the next command on its connection.
type answer struct {
	tag string
	raw []byte
}

// dial connects and reads the greeting. The caller closes the connection.
func dial(addr string, buf *[]byte) (*conn, error) {
	n, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return greeted(n, buf)
}

// greeted reads the greeting on a connection.
func greeted(n net.Conn, buf *[]byte) (*conn, error) {
	c := &conn{net: n, buf: buf}
	if len(*buf) == 0 {
		*buf = make([]byte, 4096)
	}
	n.SetDeadline(time.Now().Add(patience))
	_, err := c.until(func(read []byte) bool { return bytes.HasSuffix(read, crlf) })
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("greeting: %w", err)
	}
	return c, nil
}

// login logs in.
func (c *conn) login(user string) error {
	_, err := c.do("LOGIN " + user + " " + peer.Password)
	return err
}

// do sends a command and reads its answer. A literal is written into the
// command as a non-synchronizing one. Any answer but OK is an error.
func (c *conn) do(command string) (answer, error) {
	c.tags++
	tag := "bench" + strconv.Itoa(c.tags) + " "
	if err := c.send(tag + command); err != nil {
		return answer{}, err
	}
	raw, err := c.until(func(read []byte) bool { return lastLineStarts(read, tag) })
	if err != nil {
		return answer{}, fmt.Errorf("%.60s: %w", command, err)
	}
	last := raw[bytes.LastIndexByte(raw[:len(raw)-2], '\n')+1:]
	if !bytes.HasPrefix(last[len(tag):], []byte("OK")) {
		return answer{}, fmt.Errorf("%.60s: %.200s", command, last)
	}
	return answer{tag, raw}, nil
}

// send sends one line and waits for nothing.
func (c *conn) send(line string) error {
	c.net.SetDeadline(time.Now().Add(patience))
	_, err := io.WriteString(c.net, line+"\r\n")
	return err
}

// line waits for a line that starts with prefix, or with "* ", a number and
// prefix. It must not be used while a literal can come.
func (c *conn) line(prefix string) error {
	_, err := c.until(func(read []byte) bool {
		if !bytes.HasSuffix(read, crlf) {
			return false
		}
		for l := range bytes.SplitSeq(read, crlf) {
			_, counted, _ := bytes.Cut(bytes.TrimPrefix(l, []byte("* ")), []byte(" "))
			if bytes.HasPrefix(l, []byte(prefix)) || bytes.HasPrefix(counted, []byte(prefix)) {
				return true
			}
		}
		return false
	})
	return err
}

// until reads until enough of what was read.
func (c *conn) until(enough func(read []byte) bool) ([]byte, error) {
	b, n := *c.buf, 0
	for {
		if n == len(b) {
			b = append(b, make([]byte, len(b))...)
			*c.buf = b
		}
		k, err := c.net.Read(b[n:])
		if n += k; k > 0 && enough(b[:n]) {
			return b[:n], nil
		}
		if err != nil {
			return nil, fmt.Errorf("after %q: %w", b[max(0, n-100):n], err)
		}
	}
}

// close logs out; what the server says to that no longer matters.
func (c *conn) close() {
	c.do("LOGOUT")
	c.net.Close()
}

var crlf = []byte("\r\n")

// lastLineStarts reports whether b ends with a whole line that starts with
// prefix. No text of the corpus has a line that starts as our tags do.
func lastLineStarts(b []byte, prefix string) bool {
	if !bytes.HasSuffix(b, crlf) {
		return false
	}
	return bytes.HasPrefix(b[bytes.LastIndexByte(b[:len(b)-2], '\n')+1:], []byte(prefix))
}
