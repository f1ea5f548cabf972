package vfs

import (
	"crypto/rand"
	"encoding/hex"
	"os"

	"golang.org/x/sys/unix"
)

// Scratch makes a file that has no name, in the directory for temporary files
// (TMPDIR, or /tmp), for what is too large for memory. It goes when it is closed.
func Scratch() (File, error) {
	path := os.TempDir()
	fd, err := retryFd(func() (int, error) {
		return unix.Open(path, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	})
	switch err {
	case nil:
		return &file{fd, path + "/(no name)"}, nil
	case unix.EOPNOTSUPP, unix.EISDIR, unix.EINVAL: // the file system cannot do that
		return scratchByName(path)
	}
	return nil, &os.PathError{Op: "open", Path: path, Err: err}
}

func scratchByName(path string) (File, error) {
	d, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
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
