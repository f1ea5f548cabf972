package telemetry

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Tap sees what one session reads and writes. In and Out may be called at
// any time, also from two goroutines and after Close; they keep nothing of
// what they are given.
type Tap struct {
	file          atomic.Pointer[file] // nil where nothing is logged
	logs          *Logs
	user, session string
	give          func(*os.File) // see Lend; nil for a session of this process
	place         place          // directory of file, or of the file that failed; guarded by logs.mu
}

// In logs what was read from the client, after all layers were taken off.
func (t *Tap) In(p []byte) { t.chunk('<', p) }

// Out logs what is written to the client, before any layer is put on.
func (t *Tap) Out(p []byte) { t.chunk('>', p) }

// On tells whether anything is logged now.
func (t *Tap) On() bool { return t.file.Load() != nil }

// Close ends the log. More calls do nothing.
func (t *Tap) Close() {
	l := t.logs
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t.end()
	if u := l.users[t.user]; u != nil {
		if delete(u.taps, t); len(u.taps) == 0 {
			delete(l.users, t.user)
		}
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
	if err := f.write(head, p); err != nil {
		t.file.CompareAndSwap(f, nil)
		f.close()
		if !errors.Is(err, errEnded) && t.logs != nil {
			t.logs.warn("telemetry log ended", t, err)
		}
	}
}

// end closes the file if there is one. logs.mu is held.
func (t *Tap) end() {
	if f := t.file.Swap(nil); f != nil {
		f.close()
		if t.give != nil {
			t.give(nil)
		}
	}
	t.place = place{}
}

// logged tells whether one of the sessions holds a file, or gave up on one.
func (u *user) logged() bool {
	for t := range u.taps {
		if t.place != (place{}) {
			return true
		}
	}
	return false
}

// A place is the identity of a directory.
type place struct{ dev, ino uint64 }

var (
	errEnded = errors.New("the log has ended")
	errShort = errors.New("short write")
	errKind  = errors.New("not a plain file of our own")
)

// A file is one open log.
type file struct {
	mu sync.Mutex
	fd int // -1 once closed
}

// open makes or continues the file name in the directory dir. A file that is
// there already counts only if this process could have made it: a user who may
// write to the directory must not aim the log at another file.
func open(dir int, name string) (int, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0o600)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || int(st.Uid) != unix.Geteuid() {
			err = errKind
		} else if st.Mode&0o077 != 0 {
			err = unix.Fchmod(fd, 0o600)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// write appends a and b, as one piece where the file system does so.
func (f *file) write(a, b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd < 0 {
		return errEnded
	}
	for {
		n, err := unix.Writev(f.fd, [][]byte{a, b})
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n < len(a)+len(b):
			return errShort
		}
		return nil
	}
}

// lost tells whether the file has no name left.
func (f *file) lost() bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var st unix.Stat_t
	return f.fd >= 0 && unix.Fstat(f.fd, &st) == nil && st.Nlink == 0
}

func (f *file) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
}

func fileName(pid, n int) string {
	name := strconv.Itoa(pid)
	if n > 0 {
		name += "." + strconv.Itoa(n)
	}
	return name
}
