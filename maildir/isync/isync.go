// Package isync reads what isync's mbsync keeps of a Maildir folder in its native
// scheme: UIDVALIDITY and the highest UID in the file .uidvalidity, a line each,
// and the UID of a message in its base name, as the field ",U=".
//
// mbsync holds a lock of fcntl(2) on .uidvalidity while it works on the folder.
package isync

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// name is the file in a folder.
const name = ".uidvalidity"

// Errors that callers tell apart with errors.Is.
var (
	ErrBusy    = errors.New("mbsync is at work")
	ErrDamaged = errors.New(".uidvalidity cannot be understood")
)

// A Folder is what isync knows of one, locked against it until Close.
type Folder struct {
	Validity uint32 // 1 and up
	Highest  uint32 // UID given so far; 0: none
	file     vfs.File
	stat     unix.Stat_t
}

// Stat returns what stat(2) says of .uidvalidity.
func (f *Folder) Stat() *unix.Stat_t { return &f.stat }

// Open reads the folder dir and locks it. Without .uidvalidity the error is
// fs.ErrNotExist; it is ErrBusy while mbsync has the lock.
func Open(dir vfs.Dir) (*Folder, error) {
	file, err := dir.Append(name)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EISDIR) {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	f := &Folder{file: file}
	// The lock of an open file description excludes those that belong to a
	// process, as mbsync's, and is not lost when somebody here closes the file.
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET}
	err = unix.FcntlFlock(uintptr(file.Fd()), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		err = fmt.Errorf("%s: %w", dir.Path(), ErrBusy)
	} else if err != nil {
		err = &os.PathError{Op: "lock", Path: dir.Path() + "/" + name, Err: err}
	}
	if err == nil {
		err = f.read()
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return f, nil
}

func (f *Folder) read() error {
	var b [64]byte
	if err := unix.Fstat(f.file.Fd(), &f.stat); err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	n, err := vfs.ReadFullAt(f.file.Fd(), b[:], 0)
	if err != nil && err != io.EOF {
		return &os.PathError{Op: "read", Path: name, Err: err}
	}
	if n == len(b) || n == 0 {
		return fmt.Errorf("%w: it has %d octets or more", ErrDamaged, n)
	}
	f.Validity, f.Highest, err = parse(string(b[:n]))
	return err
}

// parse reads the content of .uidvalidity.
func parse(text string) (validity, highest uint32, err error) {
	first, rest, _ := strings.Cut(text, "\n")
	second, _, _ := strings.Cut(rest, "\n")
	v, verr := strconv.ParseUint(first, 10, 32)
	h, herr := strconv.ParseUint(second, 10, 32)
	if verr != nil || herr != nil || v == 0 {
		return 0, 0, fmt.Errorf("%w: %q", ErrDamaged, text)
	}
	return uint32(v), uint32(h), nil
}

// UID returns the UID in a base name. One above the highest of the folder came
// with the file from another folder, and does not count.
func (f *Folder) UID(base string) (uint32, bool) {
	_, rest, ok := strings.Cut(base, ",U=")
	if !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, ",")
	uid, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || uid == 0 || uid > uint64(f.Highest) {
		return 0, false
	}
	return uint32(uid), true
}

// Close lets mbsync go on.
func (f *Folder) Close() error { return f.file.Close() }
