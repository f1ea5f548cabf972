package vfs

import (
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// A Fence is a file in memory that can be watched like one on disk. The kernel
// reports the events of all that an inotify instance watches in one order: who
// has rung the fence and sees that event has seen all events before it.
// It is safe for use by several goroutines.
type Fence struct {
	path string

	mu sync.Mutex // from a call to its end: a descriptor that is closed is soon another's
	fd int        // -1: closed
}

// NewFence makes a fence. The caller closes it.
func NewFence() (*Fence, error) {
	fd, err := unix.MemfdCreate("fence", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return &Fence{path: "/proc/self/fd/" + strconv.Itoa(fd), fd: fd}, nil
}

// Path is what to watch.
func (f *Fence) Path() string { return f.path }

// Ring makes an event of the fence, a change of its attributes.
func (f *Fence) Ring() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return os.NewSyscallError("fchmod", unix.Fchmod(f.fd, 0o600))
}

// Close gives the descriptor back.
func (f *Fence) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fd := f.fd
	f.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}
