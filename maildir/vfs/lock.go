package vfs

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// TryLock takes the exclusive lock of f (an open file description lock, see
// fcntl(2)), which goes with the process or with f's Close. It reports false
// where somebody else has it. An error of the system says that the file system
// has no locks.
func TryLock(f File) (bool, error) {
	err := setLock(f, unix.F_WRLCK)
	if err == unix.EAGAIN || err == unix.EACCES {
		return false, nil
	}
	if err != nil {
		return false, os.NewSyscallError("lock", err)
	}
	return true, nil
}

// Unlock gives the lock of f back.
func Unlock(f File) error { return os.NewSyscallError("unlock", setLock(f, unix.F_UNLCK)) }

func setLock(f File, kind int16) error {
	l := unix.Flock_t{Type: kind, Whence: io.SeekStart}
	return retry(func() error { return unix.FcntlFlock(uintptr(f.Fd()), unix.F_OFD_SETLK, &l) })
}
