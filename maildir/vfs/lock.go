package vfs

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// TryLock takes the exclusive lock of f (an open file description lock, see
// fcntl(2)), which goes with the process, with f's Close or by Unlock. It reports false
// where somebody else has it. An error of the system says that the file system
// has no locks.
func TryLock(f File) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err := retry(func() error { return unix.FcntlFlock(uintptr(f.Fd()), unix.F_OFD_SETLK, &l) })
	if err == unix.EAGAIN || err == unix.EACCES {
		return false, nil
	}
	if err != nil {
		return false, os.NewSyscallError("lock", err)
	}
	return true, nil
}

// Unlock gives the lock of TryLock back.
func Unlock(f File) error {
	l := unix.Flock_t{Type: unix.F_UNLCK, Whence: io.SeekStart}
	return os.NewSyscallError("unlock", retry(func() error { return unix.FcntlFlock(uintptr(f.Fd()), unix.F_OFD_SETLK, &l) }))
}
