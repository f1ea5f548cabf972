package telemetry

import (
	"errors"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Tap sees what one session reads and writes. In and Out may be called at
// any time, also from two goroutines and after Close; they keep nothing of
// what they are given.
type Tap struct {
	file          atomic.Pointer[os.File] // nil where nothing is logged
	logs          *Logs
	owner         *user // nil where nothing is ever logged
	user, session string
	give          func(*os.File) // see Lend; nil for a session of this process
	place         place          // directory of file, or of the file that failed; guarded by owner.mu
}

// In logs what was read from the client, after all layers were taken off.
func (t *Tap) In(p []byte) { t.chunk('<', p) }

// Out logs what is written to the client, before any layer is put on.
func (t *Tap) Out(p []byte) { t.chunk('>', p) }

// On tells whether anything is logged now.
func (t *Tap) On() bool { return t.file.Load() != nil }

// Close ends the log. More calls do nothing.
func (t *Tap) Close() {
	if t.owner != nil {
		t.logs.leave(t)
	}
}

// chunk writes one chunk: the mark, the seconds since 1970, the mark, and the
// octets as they are, with no line end added.
func (t *Tap) chunk(mark byte, p []byte) {
	f := t.file.Load()
	if f == nil || len(p) == 0 {
		return
	}
	head := append(make([]byte, 0, 16), mark)
	head = strconv.AppendInt(head, time.Now().Unix(), 10)
	head = append(head, mark)
	if err := write(f, head, p); err != nil && t.file.CompareAndSwap(f, nil) { // else it was ended
		f.Close()
		if t.logs != nil {
			t.logs.warn("telemetry log ended", t, err)
		}
	}
}

// end closes the file if there is one. It does not wait for who writes. owner.mu is
// held.
func (t *Tap) end() {
	if f := t.file.Swap(nil); f != nil {
		f.Close()
		if t.give != nil {
			t.give(nil)
		}
	}
	t.place = place{}
}

// A place is the identity of a directory.
type place struct{ dev, ino uint64 }

var (
	errShort = errors.New("short write")
	errKind  = errors.New("not a plain file of our own")
)

// open makes or continues the file name in the directory dir. A file that is
// there already counts only if this process could have made it: a user who may
// write to the directory must not aim the log at another file.
func open(dir int, name string) (*os.File, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1 || int(st.Uid) != unix.Geteuid() {
			err = errKind
		} else if st.Mode&0o077 != 0 {
			err = unix.Fchmod(fd, 0o600)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// write appends a and b to f, as one piece where the file system does so.
func write(f *os.File, a, b []byte) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		for {
			if n, failed = unix.Writev(int(fd), [][]byte{a, b}); failed != unix.EINTR {
				return true
			}
		}
	})
	switch {
	case err != nil:
		return err
	case failed != nil:
		return failed
	case n < len(a)+len(b):
		return errShort
	}
	return nil
}

// lost tells whether f has no name left.
func lost(f *os.File) bool {
	if f == nil {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 0
}

func fileName(pid, n int) string {
	name := strconv.Itoa(pid)
	if n > 0 {
		name += "." + strconv.Itoa(n)
	}
	return name
}
