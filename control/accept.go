package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The processes of a service share one listening socket. One of them, the
// holder of a lock, waits at it; the others wait for the lock, so that a client
// wakes one process and not all. The file is Cyrus's, and siblings that are
// Cyrus's own programs respect it.
//
// The socket is used as it comes: a flag like O_NONBLOCK belongs to all who
// share it. So two system calls block, each for ever, and neither can be
// interrupted in Go. They run in a goroutine of their own, and where the process
// is to end before they return it is left there.

// openLock opens the lock file. Without it clients are served as well.
func (m *Master) openLock() {
	name := filepath.Join(m.conf.ConfigDirectory, "socket", m.conf.Service+"-"+os.Getenv("CYRUS_ID")+".lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		_ = os.Mkdir(filepath.Dir(name), 0o700) // or a sibling has made it just now
		f, err = os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	}
	if err != nil {
		m.log.Error("locking disabled: couldn't open socket lockfile", "err", err)
		return
	}
	m.lock = f
}

// setLock takes (F_WRLCK) or gives back (F_UNLCK) the lock.
func (m *Master) setLock(kind int16) {
	if m.lock == nil {
		return
	}
	for {
		err := syscall.FcntlFlock(m.lock.Fd(), syscall.F_SETLKW, &syscall.Flock_t{Type: kind, Whence: io.SeekStart})
		switch err {
		case nil:
			return
		case syscall.EINTR:
		default:
			m.log.Error("locking disabled", "file", m.lock.Name(), "err", err)
			m.lock = nil
			return
		}
	}
}

// A turn is one wait for a client: either the process leaves, or a client has
// come, never both.
type turn struct {
	came  chan *Conn // gets the client
	fail  chan error
	state atomic.Int32 // waiting, accepting or left
}

// What a turn is at. From accepting there is no way back but that nobody has
// come: from then on the process has to reckon with a client.
const (
	waiting int32 = iota
	accepting
	left // no client is accepted any more
)

// leave makes the process take no client. It reports false where one may have
// been taken already.
func (t *turn) leave() bool { return t.state.CompareAndSwap(waiting, left) }

// next waits for the next client. It returns nil where the process is to end,
// with an error where that is not as it should be.
func (m *Master) next(ctx context.Context) (*Conn, error) {
	t := &turn{came: make(chan *Conn, 1), fail: make(chan error, 1)}
	go m.wait(t)
	patience, quiet, hangup := m.patience(), time.After(quietTime), m.hangup
	var taken <-chan time.Time // the end of acceptTime; nil before the process wants to leave
	for {
		select {
		case c := <-t.came:
			return c, nil
		case err := <-t.fail:
			return nil, err
		case <-ctx.Done():
			return nil, ErrTerminated
		case <-quiet:
			debug.FreeOSMemory()
			continue
		case <-hangup:
		case <-patience:
		case <-taken:
			t.leave() // where the call blocks, the end of the process takes it back
			return nil, nil
		}
		if t.leave() {
			return nil, nil
		}
		hangup, patience, taken = nil, nil, time.After(acceptTime)
	}
}

// acceptTime is how long a process that wants to end waits for the client that it
// is accepting. That takes no time, unless somebody without the lock was quicker:
// then the call blocks until the next client.
const acceptTime = 100 * time.Millisecond

// quietTime is how long a process waits before it gives back what its clients
// have made it take: memory, and files that are closed when nothing refers to
// them any more. A collection costs as much time as a short session does.
const quietTime = time.Second

// errOrphan ends a process whose master is there no more.
var errOrphan = errors.New("master is gone")

// errChanged ends a process whose program was replaced: a new one serves the
// client.
var errChanged = errors.New("program has changed")

// wait is the goroutine of a turn.
func (m *Master) wait(t *turn) {
	short := false
	for {
		m.setLock(syscall.F_WRLCK)
		err := approach()
		var c *Conn
		if err == nil && m.program.changed() {
			err = errChanged
		}
		if err == nil {
			c, err = m.accept(t)
		}
		m.setLock(syscall.F_UNLCK)
		switch {
		case c != nil:
			t.came <- c
			return
		case err == nil: // left, or somebody was quicker
			if t.state.Load() == left {
				return
			}
		case exhausted(err):
			if !short {
				m.log.Error("accept failed", "err", err)
			}
			short = true
			time.Sleep(backoff)
		default:
			t.fail <- err
			return
		}
	}
}

// approach waits until a client is at the socket, or master is gone.
func approach() error {
	fds := []unix.PollFd{{Fd: listenFD, Events: unix.POLLIN}, {Fd: statusFD}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case fds[1].Revents&(unix.POLLERR|unix.POLLHUP) != 0:
			return errOrphan
		default:
			return nil
		}
	}
}

// accept accepts a client for t. It returns nil and no error where there is
// none.
func (m *Master) accept(t *turn) (*Conn, error) {
	if !t.state.CompareAndSwap(waiting, accepting) {
		return nil, nil
	}
	c, err := accept()
	if c == nil {
		t.state.Store(waiting)
	}
	return c, err
}

// accept returns nil and no error where somebody was quicker, or the client has
// gone again.
func accept() (*Conn, error) {
	fd, _, err := unix.Accept4(listenFD, unix.SOCK_CLOEXEC)
	if passing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("accept failed: %w", err)
	}
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close()
	c, err := net.FileConn(f) // makes its own duplicate
	if err != nil || c.RemoteAddr() == nil {
		if err == nil {
			c.Close()
		}
		return nil, nil
	}
	return newConn(c), nil
}

// passing tells whether err of accept is about one client, or about nothing
// that lasts. See accept(2).
func passing(err error) bool {
	switch err {
	case unix.EINTR, unix.EAGAIN, unix.ECONNABORTED, unix.EPROTO, unix.ENETDOWN, unix.ENOPROTOOPT, unix.EHOSTDOWN,
		unix.ENONET, unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH:
		return true
	}
	return false
}

// exhausted tells whether err says that the system has no room for a client
// now.
func exhausted(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}
