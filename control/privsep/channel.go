package privsep

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Channel carries messages, and files with them, between two processes. Send
// may be called by several goroutines, Recv by one.
type Channel struct {
	conn *net.UnixConn
	raw  syscall.RawConn
}

// MaxMessage is the most octets that a message may have.
const MaxMessage = 64 << 10

// maxFiles is the most files that go with a message; the kernel takes 253.
const maxFiles = 200

// errMessage ends a Channel whose other side sends what no Send does.
var errMessage = errors.New("malformed message")

// buffers are what messages are received into, while nobody does.
var buffers = sync.Pool{New: func() any { return new([MaxMessage]byte) }}

// Pair returns the two ends of a new Channel, to be given away or to be made
// Channels of.
func Pair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "channel"), os.NewFile(uintptr(fds[1]), "channel"), nil
}

// NewChannel makes a Channel of the end f, which it closes.
func NewChannel(f *os.File) (*Channel, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		u.Close()
		return nil, err
	}
	return &Channel{u, raw}, nil
}

// Send sends one message, and files with it, which stay the caller's. It waits
// where the other side is slow.
func (c *Channel) Send(message []byte, files ...*os.File) error {
	return c.send(true, message, files)
}

// TrySend is Send that fails, with EAGAIN, where it would have to wait.
func (c *Channel) TrySend(message []byte, files ...*os.File) error {
	return c.send(false, message, files)
}

func (c *Channel) send(wait bool, message []byte, files []*os.File) error {
	if len(message) == 0 || len(message) > MaxMessage || len(files) > maxFiles {
		return fmt.Errorf("message of %d octets and %d files", len(message), len(files))
	}
	var rights []byte
	if len(files) > 0 {
		fds, err := descriptors(files)
		if err != nil {
			return err
		}
		rights = unix.UnixRights(fds...)
	}
	defer runtime.KeepAlive(files)
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		failed = unix.Sendmsg(int(fd), message, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		return !errors.Is(failed, unix.EINTR) && (!wait || !errors.Is(failed, unix.EAGAIN))
	})
	if err == nil {
		err = failed
	}
	return err
}

// descriptors returns those of files. File.Fd would make them blocking, for the
// process that shares them as well.
func descriptors(files []*os.File) ([]int, error) {
	fds := make([]int, len(files))
	for i, f := range files {
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds[i] = int(fd) })
		}
		if err != nil {
			return nil, err
		}
	}
	return fds, nil
}

// Recv returns the next message and the files that came with it, which are the
// caller's; io.EOF when the other side is gone. While it waits it holds no
// buffer: there is a Channel for each session.
func (c *Channel) Recv() (message []byte, files []*os.File, err error) {
	var failed error
	err = c.raw.Read(func(fd uintptr) bool {
		buffer := buffers.Get().(*[MaxMessage]byte)
		defer buffers.Put(buffer)
		var again bool
		message, files, again, failed = receive(int(fd), buffer[:])
		return !again
	})
	if err == nil {
		err = failed
	}
	return message, files, err
}

// receive takes one message off the socket fd; again says that there is none.
func receive(fd int, buffer []byte) (message []byte, files []*os.File, again bool, err error) {
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := unix.Recvmsg(fd, buffer, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil, nil, true, nil
	}
	if errors.Is(err, unix.ECONNRESET) {
		// The other side has closed without reading all that we said. The kernel says so
		// once, and before it gives what the other side has said: that is there still.
		n, oobn, flags, _, err = unix.Recvmsg(fd, buffer, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	}
	if errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EAGAIN) {
		err = io.EOF
	}
	if err != nil {
		return nil, nil, false, err
	}
	files, err = rights(oob[:oobn])
	switch {
	case err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errMessage
	case err == nil && n == 0: // or an empty message, which no Send sends; files come with it all the same
		err = io.EOF
	}
	if err != nil {
		Close(files)
		return nil, nil, false, err
	}
	return append([]byte(nil), buffer[:n]...), files, false, nil
}

// rights returns the files that came with a message.
func rights(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // of another kind
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

// Close closes files.
func Close(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Close ends the Channel. The other side's Recv returns io.EOF.
func (c *Channel) Close() error { return c.conn.Close() }
