package proc

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Of a process that serves several clients the files of sessions that have ended,
// and those that an Entry has put away for newer ones, are kept for the next: to make
// and to remove files was a quarter of what a session cost that logs in, and several
// times that on an ext4 where many have just been removed. They are called as files are
// while they are written, which neither ls nor the * of a shell shows.
//
// A reader may still have one open that it has found by its old name. So the one
// that has rested for longest is taken first, and only while enough others rest.
const (
	restFiles = 8  // how many rest before the first is taken again
	keepFiles = 64 // how many are kept
)

// A file is that of a session, or one to become that.
type file struct {
	path string
	size int // in octets
}

// block is what sizes of files are multiples of, so that most of those that are
// written again keep theirs, which costs more to change than all of the text.
const block = 128

// pad fills the last line of text up with spaces.
func pad(text string) []byte {
	line := strings.TrimSuffix(text, "\n")
	size := (len(text) + block - 1) / block * block
	return []byte(line + strings.Repeat(" ", size-len(text)) + "\n")
}

// write brings the file up to date.
func (e *Entry) write() {
	t := e.table
	f, err := t.fill(pad(e.info.text(start())))
	if err == nil {
		err = e.become(f)
	}
	if err != nil {
		_ = unix.Unlink(f.path) // else a disk that is full gets one more each time
		t.warn(err)
	}
}

// fill returns a file that holds text and is no session's yet.
func (t *Table) fill(text []byte) (file, error) {
	f, ok := t.rested()
	flags := 0
	if !ok {
		f, flags = t.fresh(), unix.O_CREAT|unix.O_TRUNC
	}
	flags |= unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Open(f.path, flags, 0o600)
	if err == unix.ENOENT { // the directory was not made yet, or the file removed
		if err := os.MkdirAll(t.dir, 0o700); err != nil {
			return f, err
		}
		f.size = 0
		fd, err = unix.Open(f.path, flags|unix.O_CREAT, 0o600)
	}
	if err != nil {
		return f, &os.PathError{Op: "open", Path: f.path, Err: err}
	}
	defer unix.Close(fd)
	n, err := unix.Pwrite(fd, text, 0)
	if err == nil && n < len(text) {
		err = unix.ENOSPC
	}
	if err == nil && f.size > n {
		err = unix.Ftruncate(fd, int64(n)) // not to 0 first: then ext4 would write it to disk at once
	}
	if err != nil {
		return f, &os.PathError{Op: "write", Path: f.path, Err: err}
	}
	f.size = n
	return f, nil
}

// become makes f the file of the session. A rename onto a file that is
// there makes ext4 write the new one to disk at once, which is what programs
// want that save something, and a hundred times the cost of all else here. It
// does not where the two change places.
func (e *Entry) become(f file) error {
	path := filepath.Join(e.table.dir, e.name)
	if e.file.path != "" && unix.Renameat2(unix.AT_FDCWD, f.path, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE) == nil {
		e.table.rest(file{f.path, e.file.size})
	} else if err := unix.Rename(f.path, path); err != nil { // the first, or a file system that cannot exchange
		return &os.LinkError{Op: "rename", Old: f.path, New: path, Err: err}
	}
	e.file = file{path, f.size}
	return nil
}

// leave takes the file of the session off the list.
func (e *Entry) leave() {
	t, f := e.table, e.file
	if f.path == "" {
		return
	}
	t.mu.Lock()
	room := t.room()
	t.mu.Unlock()
	if room {
		if rest := t.fresh(); unix.Rename(f.path, rest.path) == nil {
			t.rest(file{rest.path, f.size})
			return
		}
	}
	// It may be gone: Cyrus's master removes the file of a process that ended.
	_ = unix.Unlink(f.path)
}

// fresh returns an unused path, of a file that is no session's.
func (t *Table) fresh() file {
	t.mu.Lock()
	defer t.mu.Unlock()
	name := filepath.Join(t.dir, hidden+strconv.Itoa(os.Getpid()))
	if t.several || len(t.entries) > 1 {
		t.lastSpare++
		name += "." + strconv.Itoa(t.lastSpare)
	}
	return file{path: name + suffix}
}

// A file that is no session's, or not yet, begins and ends so. Cyrus's programs do not
// take it for one.
const (
	hidden = "."
	suffix = ".new"
)

// room reports whether one more file is kept. t.mu is held.
func (t *Table) room() bool {
	return t.several && !t.closed && len(t.resting) < keepFiles
}

// rested takes a file that may be written again, if there is one.
func (t *Table) rested() (f file, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.resting) <= restFiles {
		return f, false
	}
	f = t.resting[0]
	t.resting = append(t.resting[:0], t.resting[1:]...)
	return f, true
}

// rest keeps f, or removes it.
func (t *Table) rest(f file) {
	t.mu.Lock()
	keep := t.room()
	if keep {
		t.resting = append(t.resting, f)
	}
	t.mu.Unlock()
	if !keep {
		_ = unix.Unlink(f.path)
	}
}

// Close removes the files that are kept. Those of sessions that are still there go
// with their sessions.
func (t *Table) Close() {
	t.mu.Lock()
	resting := t.resting
	t.resting, t.closed = nil, true
	t.mu.Unlock()
	for _, f := range resting {
		_ = unix.Unlink(f.path)
	}
}
