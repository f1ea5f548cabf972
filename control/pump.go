package control

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A session under TLS whose user has a process of its own is pumped: the front
// copies between the client, whose keys it has, and the worker. Most such sessions
// do nothing but wait, so neither direction may hold a buffer while it waits.
//
// What the worker says comes from a plain socket: a buffer is taken once the
// kernel says that there is something, and given back when it was sent.
//
// What the client says comes through TLS, which may hold octets that the socket
// does not show any more, decrypted or not. So a direction that has read goes on to
// read for a moment; a Read that times out then has proved that nothing whole is
// left over, and only the socket can bring more. Waiting for that needs no buffer.
// (A session that runs where its connection is does the same; see link in package
// imap.)

// pumpIn and pumpOut are how much is copied at a time: little from clients, which
// send commands, much to them.
const pumpIn, pumpOut = 4 << 10, 32 << 10

// pumpWait is how long a client may take to take what is sent at a time.
const pumpWait = 5 * time.Minute

// pumpLinger is how long a buffer is kept for a client that may say more.
const pumpLinger = time.Second

// Buffers of all pumps, while nobody uses them.
var (
	insides  = sync.Pool{New: func() any { return new([pumpIn]byte) }}
	outsides = sync.Pool{New: func() any { return new([pumpOut]byte) }}
)

// pump copies between the client and the worker, both ways, until one of them
// is gone. What the worker has said is sent before the client is let go.
func (a *Away) pump() {
	_ = a.client.SetDeadline(time.Time{})
	a.pumps.Go(a.hearClient)
	a.pumps.Go(a.hearWorker)
}

// hearClient copies what the client says.
func (a *Away) hearClient() {
	socket := RawConn(a.client)
	for a.listen() == nil {
		if socket == nil {
			break // cannot be: TLS is over one
		}
		if a.client.SetReadDeadline(time.Time{}) != nil || socket.Read(HasInput) != nil {
			break
		}
	}
	if u, ok := a.plain.(*net.UnixConn); ok {
		_ = u.CloseWrite() // the worker sees the end, and may still answer
	}
}

// listen copies what the client says until it has been silent for a moment. The
// error says that one of the two is gone.
func (a *Away) listen() error {
	buffer := insides.Get().(*[pumpIn]byte)
	defer insides.Put(buffer)
	for {
		if err := a.client.SetReadDeadline(time.Now().Add(a.linger)); err != nil {
			return err
		}
		n, err := a.client.Read(buffer[:])
		if n > 0 {
			if _, err := a.plain.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// hearWorker copies what the worker says.
func (a *Away) hearWorker() {
	defer a.plain.Close()
	socket := RawConn(a.plain)
	if socket == nil {
		a.client.Close()
		return // cannot be: it is one of our own making
	}
	for {
		buffer, n, err := said(socket)
		if err != nil {
			a.client.Close()
			return
		}
		err = a.relay(buffer[:n])
		outsides.Put(buffer)
		if err != nil {
			a.drop()
			return
		}
	}
}

// relay sends what the worker has said.
func (a *Away) relay(text []byte) error {
	if err := a.client.SetWriteDeadline(time.Now().Add(pumpWait)); err != nil {
		return err
	}
	_, err := a.client.Write(text)
	return err
}

// drop closes the connection of a client that takes nothing: to tell it that TLS ends
// would take another five seconds.
func (a *Away) drop() {
	if under, ok := a.client.(interface{ NetConn() net.Conn }); ok {
		under.NetConn().Close()
	}
	a.client.Close()
}

// said waits until socket has something to read, and reads it into a buffer.
func said(socket syscall.RawConn) (buffer *[pumpOut]byte, n int, err error) {
	var failed error
	err = socket.Read(func(fd uintptr) bool {
		buffer = outsides.Get().(*[pumpOut]byte)
		n, failed = unix.Read(int(fd), buffer[:])
		for failed == unix.EINTR {
			n, failed = unix.Read(int(fd), buffer[:])
		}
		if failed == nil && n > 0 {
			return true
		}
		outsides.Put(buffer)
		return failed != unix.EAGAIN
	})
	if err == nil {
		err = failed
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	return buffer, n, err
}

// HasInput tells whether a socket has something to read, its end included: what to
// give to the Read of a syscall.RawConn to wait for it without a buffer.
func HasInput(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return n > 0 || err != nil && err != unix.EINTR
}

// HungUp tells how the other end of a socket is, without reading: shut says that it
// will send no more, gone that it will not read any more either. The other end of a
// TCP connection that is closed is no more than shut until it is sent something.
func HungUp(fd uintptr) (shut, gone bool) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(p, 0); n <= 0 || err != nil {
		return false, false
	}
	return true, p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

// Takes tells whether a socket has room for output: where the system says so there is
// some more than for a line.
func Takes(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(p, 0)
	return n > 0 && err == nil && p[0].Revents&(unix.POLLOUT|unix.POLLHUP|unix.POLLERR) == unix.POLLOUT
}

// RawConn returns the socket below c, or nil if there is none.
func RawConn(c net.Conn) syscall.RawConn {
	for c != nil {
		if s, ok := c.(syscall.Conn); ok {
			raw, err := s.SyscallConn()
			if err != nil {
				return nil
			}
			return raw
		}
		under, ok := c.(interface{ NetConn() net.Conn }) // tls.Conn
		if !ok {
			return nil
		}
		c = under.NetConn()
	}
	return nil
}
