package vfs

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Fence is a file in memory that can be watched like one on disk. The kernel
// reports the events of all that an inotify instance watches in one order: who
// has rung the fence and sees that event has seen all events before it.
type Fence struct{ fd int }

// NewFence makes a fence. The caller closes it.
func NewFence() (*Fence, error) {
	fd, err := unix.MemfdCreate("fence", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return &Fence{fd}, nil
}

// Path is what to watch.
func (f *Fence) Path() string { return "/proc/self/fd/" + strconv.Itoa(f.fd) }

// Ring makes an event of the fence, a change of its attributes.
func (f *Fence) Ring() error {
	return os.NewSyscallError("fchmod", unix.Fchmod(f.fd, 0o600))
}

// Close gives the descriptor back.
func (f *Fence) Close() error { return unix.Close(f.fd) }
