package control

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pumped returns the two ends of a session that is pumped: the client's, under
// TLS, and the worker's.
func pumped(t *testing.T, linger time.Duration) (client *tls.Conn, worker net.Conn, a *Away) {
	t.Helper()
	_, certs, _ := tlsConfig(t)
	near, far := tcpPair(t)
	defer far.Close()
	front, err := net.FileConn(far)
	if err != nil {
		t.Fatal(err)
	}
	plain, other := socketPair(t)
	defer other.Close()
	if worker, err = net.FileConn(other); err != nil {
		t.Fatal(err)
	}
	client = tls.Client(near, &tls.Config{InsecureSkipVerify: true})
	for _, c := range []net.Conn{client, worker} {
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	server := tls.Server(front, certs.Config())
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	a = &Away{client: server, plain: plain, linger: linger}
	a.pump()
	t.Cleanup(func() {
		client.Close()
		worker.Close()
		a.pumps.Wait()
	})
	return client, worker, a
}

// expect reads as much as want is, which must be that.
func expect(t *testing.T, c net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d octets are not those that were sent: %v", len(want), err)
	}
}

// TestPump has everything arrive that a client and a worker say, at once and
// whatever TLS holds back, also when both directions have long been silent.
func TestPump(t *testing.T) {
	t.Parallel()
	for _, linger := range []time.Duration{time.Millisecond, time.Hour} {
		client, worker, _ := pumped(t, linger)
		// One record is more than a buffer: the rest is not to be seen at the
		// socket. Several in one segment are neither.
		large := bytes.Repeat([]byte("0123456789abcdef"), 1000)
		for range 3 {
			for _, text := range [][]byte{[]byte("a NOOP\r\n"), large, bytes.Repeat(large, 20)} {
				go client.Write(text)
				expect(t, worker, text)
				go worker.Write(text)
				expect(t, client, text)
			}
			time.Sleep(20 * time.Millisecond) // silence
		}
	}
}

// TestPumpEnd has the worker say its last, and end.
func TestPumpEnd(t *testing.T) {
	t.Parallel()
	for _, linger := range []time.Duration{time.Millisecond, time.Hour} {
		client, worker, a := pumped(t, linger)
		go func() {
			worker.Write(last)
			worker.Close()
		}()
		expect(t, client, last)
		if n, err := client.Read(make([]byte, 1)); err == nil {
			t.Errorf("%d octets after the end", n)
		}
		a.pumps.Wait()
	}
}

// TestPumpHalf has the client end, which may still be answered.
func TestPumpHalf(t *testing.T) {
	t.Parallel()
	for _, linger := range []time.Duration{time.Millisecond, time.Hour} {
		client, worker, a := pumped(t, linger)
		go func() {
			client.Write(last)
			client.CloseWrite()
		}()
		expect(t, worker, last)
		if n, err := worker.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%d, %v, want the end", n, err)
		}
		go func() {
			worker.Write(last)
			worker.Close()
		}()
		expect(t, client, last)
		a.pumps.Wait()
	}
}

var last = bytes.Repeat([]byte("* BYE\r\n"), 50000)

// TestTakes holds that a socket that is full takes no more.
func TestTakes(t *testing.T) {
	t.Parallel()
	here, there := socketPair(t)
	defer here.Close()
	defer there.Close()
	if !Takes(there.Fd()) {
		t.Error("an empty socket takes nothing")
	}
	fd := int(there.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for err := error(nil); err == nil; {
		_, err = unix.Write(fd, make([]byte, 4096))
	}
	if Takes(there.Fd()) {
		t.Error("a full socket takes more")
	}
}
