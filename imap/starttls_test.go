package imap

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"imapd/control"
	"imapd/control/config"
)

// withTLS gives a server a certificate, and takes passwords under TLS only.
func withTLS(t *testing.T) func(*config.Config, *Options) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)},
		&x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *config.Config, o *Options) {
		c.AllowPlaintext = false
		o.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	}
}

// startTLS makes the client's side of the handshake.
func (c *client) startTLS() error {
	conn := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		return err
	}
	c.conn, c.r = conn, bufio.NewReader(conn)
	return nil
}

func TestStartTLS(t *testing.T) {
	t.Parallel()
	for _, eager := range []bool{false, true} {
		testStartTLS(t, eager)
	}
}

// testStartTLS is TestStartTLS with sessions that park, if eager is set,
// whenever they wait: nothing that TLS has decrypted already may be lost.
func testStartTLS(t *testing.T, eager bool) {
	w := newWorld(t, withTLS(t))
	w.srv.eager = eager
	c := w.dial()
	if got := c.line(); !strings.Contains(got, " STARTTLS") || !strings.Contains(got, " LOGINDISABLED") {
		t.Errorf("greeting %q", got)
	}
	c.must(" OK", "STARTTLS")
	if err := c.startTLS(); err != nil {
		t.Fatal(err)
	}
	caps := c.must(" OK", "CAPABILITY")
	if strings.Contains(caps[0], "STARTTLS") || strings.Contains(caps[0], "LOGINDISABLED") || !strings.Contains(caps[0], "AUTH=PLAIN") {
		t.Errorf("got %q", caps)
	}
	c.must(" BAD", "STARTTLS")
	c.must(" OK", "LOGIN u secret")
	c.must(" BAD", "STARTTLS")
	c.send("a NOOP\r\nb NO")
	c.want("a OK")
	c.send("OP\r\n")
	c.want("b OK")
	if log := w.log.String(); !strings.Contains(log, "starttls: TLSv1.3 with cipher TLS_") || !strings.Contains(log, "plaintext+TLS User logged in") {
		t.Errorf("log: %s", log)
	}
}

// A taped connection remembers what was read from it.
type taped struct {
	net.Conn
	read []byte
}

func (w *taped) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.read = append(w.read, p[:n]...)
	return n, err
}

// The end of a session is said in TLS, with BYE as with LOGOUT: without it a client
// cannot tell the end from an attack (RFC 8446 section 6.1).
func TestStartTLSEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withTLS(t))
	for _, last := range []string{"a X\r\nb X\r\nc X\r\nd X\r\n", "a LOGOUT\r\n"} {
		c := w.dial()
		c.line()
		c.must(" OK", "STARTTLS")
		raw := &taped{Conn: c.conn}
		conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}) // where alerts are seen
		if _, err := io.WriteString(conn, last); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); err != nil || !strings.Contains(string(got), "* BYE ") {
			t.Errorf("%.4q: got %q, %v", last, got, err)
		}
		kind, records := byte(0), raw.read
		for len(records) >= 5 {
			kind, records = records[0], records[5+int(binary.BigEndian.Uint16(records[3:])):]
		}
		if kind != 21 {
			t.Errorf("%.4q: the last record is of type %d, want that of an alert", last, kind)
		}
	}
}

// What comes in clear behind STARTTLS is never run, and nothing is sent
// between the OK and the handshake.
func TestStartTLSInjection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withTLS(t))
	c := w.dial()
	c.line()
	c.send("a STARTTLS\r\nb NOOP\r\nc ID (\"name\" \"evil\")\r\n")
	c.want("a OK")
	if err := c.startTLS(); err != nil {
		t.Fatal(err)
	}
	c.must(" OK", "NOOP")
	if log := w.log.String(); strings.Contains(log, "evil") {
		t.Errorf("log: %s", log)
	}
}

func TestStartTLSUnavailable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.dial()
	if got := c.line(); strings.Contains(got, "STARTTLS") {
		t.Errorf("greeting %q", got)
	}
	c.must(" BAD", "STARTTLS")
	c.must(" BAD", "STARTTLS now")
}

func TestHandshakeFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withTLS(t))
	c := w.dial()
	c.line()
	c.must(" OK", "STARTTLS")
	c.send("b NOOP\r\n")
	if got := c.r.Buffered(); got > 0 {
		t.Errorf("%d octets before the handshake", got)
	}
	<-c.done
}

func TestHandshakeStalls(t *testing.T) {
	bubble(t, withTLS(t), func(w *world) {
		c := w.pipe(w.t.Context())
		c.line()
		c.must(" OK", "STARTTLS")
		start := time.Now()
		<-c.done
		if d := time.Since(start); d > 30*time.Second {
			w.t.Errorf("ended after %v", d)
		}
	})
}

func TestImaps(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withTLS(t))
	c := w.dialAs(t.Context(), &control.Conn{TLS: true, Private: true})
	if got := c.line(); strings.Contains(got, "STARTTLS") || strings.Contains(got, "LOGINDISABLED") {
		t.Errorf("greeting %q", got)
	}
	c.must(" BAD", "STARTTLS")
	c.must(" OK", "LOGIN u secret")
}

// A held connection keeps what is written to it, if on is set.
type held struct {
	net.Conn
	on   bool
	kept []byte
}

func (h *held) Write(p []byte) (int, error) {
	if !h.on {
		return h.Conn.Write(p)
	}
	h.kept = append(h.kept, p...)
	return len(p), nil
}

// A piece of a TLS record is no input: the client idles still, and hears of changes.
func TestStartTLSIdleWithinRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withTLS(t))
	w.srv.eager = true // a session that is parked must see that it is no input
	w.deliver("u", "", "cur/1.a:2,", note)
	c, other := w.dial(), w.dial()
	wire := &held{Conn: c.conn}
	c.conn = wire
	for _, c := range []*client{c, other} {
		c.line()
		c.must(" OK", "STARTTLS")
		if err := c.startTLS(); err != nil {
			t.Fatal(err)
		}
		c.must(" OK", "LOGIN u secret")
		c.must(" OK", "SELECT INBOX")
	}
	c.send("i IDLE\r\n")
	c.want("+ idling")
	wire.on = true
	c.send("DONE\r\n")
	for i := range wire.kept {
		other.must(" OK", "STORE 1 "+string("+-"[i%2])+"FLAGS (\\Seen)")
		c.want("* 1 FETCH")
		if _, err := wire.Conn.Write(wire.kept[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	c.want("i OK")
}
