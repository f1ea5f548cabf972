// Package intents reads and writes imapd-intents, where a process notes what it
// is about to do to several files, so that another one can finish or undo it if
// the first does not live to.
//
// The file lies in a folder (in its control directory), or in the root of a
// tree for what concerns that. It holds intents one behind the other and is empty
// while nothing is going on. Who has written an intent owns it: it holds a lock of
// the open file description (fcntl(2), F_OFD_SETLK) on one octet of the file, at
// the offset at which the intent begins, until it is done. The kernel gives up
// the lock when the process ends, whatever ends it. An intent whose octet is not
// locked is one to recover. Another lock, on an octet that no file reaches, is held
// for the moment in which the file is appended to or emptied.
//
// A file for each intent would cost a sync of the directory each time, and
// finding one a look at the whole folder. An intent here costs one fdatasync, and
// not even that where it can share the journal's commit with a sync that follows.
// That it is done need not be on disk: what is recovered once too often finds
// nothing to do.
package intents

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// Name is the file's name.
const Name = "imapd-intents"

const (
	maxSize = 256 << 20
	mutexAt = 1 << 62
	// mutexWait is how long the file may be in use by others. They hold it for a
	// write, so whoever takes longer hangs.
	mutexWait = time.Second
)

// ErrUnusable says that no intents can be noted here: the file system has no
// locks, or the file is none of ours.
var ErrUnusable = errors.New("imapd-intents cannot be used")

// A Kind is what is to be done.
type Kind byte

const (
	Move   Kind = 'M' // messages leave this folder
	Place  Kind = 'P' // messages come into this folder
	Rename Kind = 'R' // folders of this tree
)

// An Intent is what somebody was about to do.
type Intent struct {
	Kind     Kind
	Validity uint32 // UIDVALIDITY of the folder, for Place
	Target   string // path of the other folder below the root, for Move
	Steps    []Step
}

// A Step is one file of it. Names have no LF and no NUL.
type Step struct {
	From, To string
	Dev, Ino uint64 // of the file; 0: not known
}

// Held is intents that this process owns. It belongs to one goroutine.
type Held struct {
	Intents []Intent
	file    vfs.File
	ids     []int64
	end     int64   // of the file, when the only intent was written
	made    vfs.Dir // where the file was made for it, and its name is not synced
}

// Begin notes i in the file of dir and owns it. A process that comes after us
// finds it; that it is there after a power cut too Sync sees to. A folder without
// the file gets one. Where Begin fails nothing is noted. dir stays open until Sync.
func Begin(dir vfs.Dir, i Intent) (*Held, error) {
	if !i.possible() {
		return nil, fmt.Errorf("%s/%s: a name with a line end: %w", dir.Path(), Name, ErrUnusable)
	}
	f, made, err := open(dir)
	if err != nil {
		return nil, err
	}
	h := &Held{Intents: []Intent{i}, file: f}
	if made {
		h.made = dir
	}
	if err := h.write(dir, &i); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// Sync makes what was noted durable.
func (h *Held) Sync() error {
	if h == nil || h.file == nil {
		return nil
	}
	err := h.file.Datasync()
	if err == nil && h.made != nil {
		err = h.made.Sync()
	}
	return err
}

// open opens the file, made if need be.
func open(dir vfs.Dir) (f vfs.File, made bool, err error) {
	f, err = dir.Append(Name)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = vfs.CreateLike(dir, Name); err == nil {
			// Created files are not open for appending, and others write too.
			made = true
			f.Close()
			f, err = dir.Append(Name)
		}
		if errors.Is(err, fs.ErrExist) {
			f, err = dir.Append(Name)
		}
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EISDIR) {
		err = fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return f, made, err
}

func (h *Held) write(dir vfs.Dir, i *Intent) error {
	unlock, err := h.mutex()
	if err != nil {
		return err
	}
	defer unlock()
	size, err := h.size()
	if err != nil {
		return err
	}
	var b []byte
	if size > 0 && !h.endsInLine(size) {
		b = append(b, '\n') // a crash cut what is before short
	}
	id := size + int64(len(b))
	if b = i.append(b, id); size+int64(len(b)) > maxSize {
		return &os.PathError{Op: "write", Path: dir.Path() + "/" + Name, Err: unix.EFBIG}
	}
	if err := own(h.file, id); err != nil {
		return err
	}
	if _, err := h.file.Write(b); err != nil {
		return errors.Join(err, h.file.Truncate(size))
	}
	h.ids, h.end = []int64{id}, size+int64(len(b))
	return nil
}

func (h *Held) size() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(h.file.Fd(), &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: Name, Err: err}
	}
	return st.Size, nil
}

func (h *Held) endsInLine(size int64) bool {
	var last [1]byte
	_, err := h.file.ReadAt(last[:], size-1)
	return err == nil && last[0] == '\n'
}

// Waiting reports whether dir may hold intents, its own included.
func Waiting(dir vfs.Dir) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir.Fd(), Name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Size > 0 && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// Claim takes over the intents of dir for which want returns true and whose owners
// are gone. Nil means that there are none.
func Claim(dir vfs.Dir, want func(Kind) bool) (*Held, error) {
	if !Waiting(dir) {
		return nil, nil
	}
	f, err := dir.Append(Name)
	if err != nil {
		return nil, err
	}
	h := &Held{file: f}
	if err := h.claim(want); err != nil || len(h.ids) == 0 {
		h.Close()
		return nil, err
	}
	return h, nil
}

func (h *Held) claim(want func(Kind) bool) error {
	unlock, err := h.mutex()
	if err != nil {
		return err
	}
	defer unlock()
	all, err := h.read()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return h.file.Truncate(0) // what a crash cut short
	}
	for _, n := range all {
		if !want(n.Kind) || own(h.file, n.id) != nil {
			continue
		}
		h.ids = append(h.ids, n.id)
		h.Intents = append(h.Intents, n.Intent)
	}
	return nil
}

func (h *Held) read() ([]noted, error) {
	size, err := h.size()
	if err != nil {
		return nil, err
	}
	if size > maxSize {
		return nil, &os.PathError{Op: "read", Path: Name, Err: unix.EFBIG}
	}
	b := make([]byte, size)
	n, err := h.file.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return parse(b[:n]), nil
}

// Done says that nothing of what is held is left to do. Where that cannot be
// written somebody will find it out again.
func (h *Held) Done() {
	if h == nil || h.file == nil {
		return
	}
	// Close gives up the mutex too, and not before the octets: the next intent may begin
	// at one of them.
	defer h.Close()
	if _, err := h.mutex(); err != nil {
		return
	}
	size, err := h.size()
	if err != nil {
		return
	}
	if len(h.ids) == 1 && h.ids[0] == 0 && size == h.end {
		h.file.Truncate(0) // nobody else has written: the common case
		return
	}
	var b []byte
	for _, id := range h.ids {
		b = appendDone(b, id)
	}
	if _, err := h.file.Write(b); err != nil {
		return
	}
	if all, err := h.read(); err == nil && len(all) == 0 {
		h.file.Truncate(0)
	}
}

// Close gives up what is held without having done it, so that it is recovered.
// After Done it does nothing.
func (h *Held) Close() {
	if h != nil && h.file != nil {
		h.file.Close()
		h.file = nil
	}
}

// Alone reports whether the file has nothing but the intent that Begin noted.
func (h *Held) Alone() bool {
	if h.file == nil || len(h.ids) != 1 || h.ids[0] != 0 {
		return false
	}
	size, err := h.size()
	return err == nil && size == h.end
}

// own takes the lock on one octet.
func own(f vfs.File, at int64) error {
	return setLock(f, at, unix.F_WRLCK)
}

func setLock(f vfs.File, at int64, kind int16) error {
	err := unix.FcntlFlock(uintptr(f.Fd()), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: at, Len: 1})
	if err == unix.EAGAIN || err == unix.EACCES || err == nil {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnusable, err)
}

// mutex has the file to itself.
func (h *Held) mutex() (unlock func(), err error) {
	deadline := time.Now().Add(mutexWait)
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		err := own(h.file, mutexAt)
		if err == nil {
			return func() { setLock(h.file, mutexAt, unix.F_UNLCK) }, nil
		}
		if errors.Is(err, ErrUnusable) || time.Now().After(deadline) {
			return nil, err
		}
		time.Sleep(wait)
	}
}
