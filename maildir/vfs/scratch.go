package vfs

import (
	"crypto/rand"
	"encoding/hex"
	"os"

	"golang.org/x/sys/unix"
)

// Scratch makes a file that has no name, for what is too large for memory. It goes
// when it is closed. It is made in dir, or where that cannot be, or dir is nil, in
// the directory for temporary files (TMPDIR, or /tmp).
func Scratch(dir Dir) (File, error) {
	if dir != nil {
		if f, err := scratchIn(dir); err == nil {
			return f, nil
		}
	}
	d, err := Open(os.TempDir())
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return scratchIn(d)
}

func scratchIn(d Dir) (File, error) {
	fd, err := retryFd(func() (int, error) {
		return unix.Openat(d.Fd(), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	})
	switch err {
	case nil:
		return &file{fd, d.Path() + "/(no name)"}, nil
	case unix.EOPNOTSUPP, unix.EISDIR, unix.EINVAL: // the file system cannot do that
		return scratchByName(d)
	}
	return nil, &os.PathError{Op: "open", Path: d.Path(), Err: err}
}

func scratchByName(d Dir) (File, error) {
	var b [16]byte
	rand.Read(b[:]) // never fails
	name := "imapd-" + hex.EncodeToString(b[:])
	f, err := d.Create(name, 0o600)
	if err != nil {
		return nil, err
	}
	if err := d.Unlink(name); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
