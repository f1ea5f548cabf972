package uidlist

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// How a lock file is made.
//
// It must say from its first moment whose it is: a process that is killed between
// creating a lock and writing whose it is would leave one that nobody may break
// for two minutes. So it is written under another name and linked to its own,
// which also is what works on every NFS.
//
// A new file for each lock is dear. ext4 does not use an inode again for minutes
// after it was freed, and looks for one from the same place on each time: where
// flags are changed one by one, creating the file was a third of what a change
// cost, more than its rename. So who locks often keeps the file: a lock is then one
// more name of it, and unlocking takes that name away. It lies in tmp/, where
// leftovers of processes that were killed are looked for, and is removed with the
// last session of the mailbox.
//
// What a new file gave by itself must be seen to: the times, which judge a lock
// stale, and the event that wakes a Dovecot that waits for the lock (its file is
// removed or written to). Writing the same octets once more when it is unlocked does
// both; when it is locked after a while (resign) they are written too. It stays open for as
// long as it is used all the time (vfs.Kept).
//
// Rejected, for they take a new file each time: O_CREAT|O_EXCL under the lock's own
// name (as Dovecot does; empty after a crash), O_TMPFILE and linkat (needs /proc or
// a young kernel), rename with NOREPLACE (not on NFS). With a quiet machine and few
// files freed they cost 17 to 23 us, link and two unlinks 33, this 9 (ext4).

// Slots bounds how many operations work on a disk at the same time.
type Slots interface {
	Enter(context.Context) error
	Leave() // after Enter without an error
}

// A Spare is the file of a lock that is taken often, while it is not the lock. It
// is safe for use by several goroutines.
type Spare struct {
	// Dir is where it lies, on the file system of the lock; nil: none is kept.
	Dir vfs.Dir
	// Slots bounds the attempts to lock; nil: nothing does.
	Slots Slots

	mu     sync.Mutex
	lock   lockKey // which lock it is for
	name   string  // in Dir; empty: there is none yet
	dev    uint64
	ino    uint64
	file   vfs.Kept  // open for writing
	signed time.Time // when it was written last
}

// resign is for how long the times of the file are good enough for another lock:
// much shorter than anybody waits before he takes one for stale.
const resign = time.Second

// key returns which lock name in dir is, which is asked for once.
func (s *Spare) key(dir vfs.Dir, name string) (lockKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.lock == (lockKey{}) {
		s.lock, err = keyOf(dir, name)
	}
	return s.lock, err
}

// Drop removes the file. The next lock makes another one.
func (s *Spare) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.name != "" {
		s.Dir.Unlink(s.name) // it is swept else
	}
	s.forget()
}

// forget has the next lock make another file.
func (s *Spare) forget() {
	s.name = ""
	s.file.Close()
}

// back takes the file again that was a lock, and wakes who waits for that.
func (s *Spare) back(f vfs.File) {
	_, err := f.WriteAt(signature(), 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.name == "" || err != nil {
		f.Close()
		return
	}
	s.signed = time.Now()
	s.file.Give(f)
}

// open returns the file, signed and open, as the lock l needs it.
func (s *Spare) open(l *Lock) (vfs.File, error) {
	if f := s.file.Take(); f != nil {
		if time.Since(s.signed) < resign {
			return f, nil
		}
		return f, s.sign(f)
	}
	if s.name != "" {
		f, err := s.Dir.Update(s.name)
		if err == nil && s.is(f) {
			return f, s.sign(f)
		}
		if err == nil {
			f.Close()
		}
		s.forget() // swept, or the folder is another one
	}
	name := l.asideName()
	f, err := vfs.CreateAs(s.Dir, name, l.dir)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = s.sign(f); err == nil {
		err = unix.Fstat(f.Fd(), &st)
	}
	if err != nil {
		f.Close()
		s.Dir.Unlink(name)
		return nil, err
	}
	s.name, s.dev, s.ino = name, uint64(st.Dev), st.Ino
	return f, nil
}

func (s *Spare) sign(f vfs.File) error {
	s.signed = time.Now()
	return sign(f)
}

func (s *Spare) is(f vfs.File) bool {
	var st unix.Stat_t
	return unix.Fstat(f.Fd(), &st) == nil && uint64(st.Dev) == s.dev && st.Ino == s.ino
}

// create makes the lock file, in place of one that its owner left behind, or takes
// over the one that was left for it.
func (l *Lock) create() error {
	if l.slot.left.file != nil {
		l.held, l.slot.left = l.slot.left, held{}
		if l.Held() {
			return nil
		}
		l.end()
	}
	if time.Now().Before(l.slot.after) {
		return lockedError(l.dir, l.key.name)
	}
	done, err := l.bySpare()
	if done && !errors.Is(err, ErrLocked) {
		return err
	}
	if done || l.exists() {
		if err := l.breakStale(); err != nil {
			return err
		}
	}
	if done {
		done, err = l.bySpare()
	}
	if !done {
		err = l.byNew()
	}
	return err
}

// bySpare makes the lock file of the spare one. It reports false where that cannot
// be done here.
func (l *Lock) bySpare() (done bool, err error) {
	s := l.spare
	if s == nil {
		return false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Dir == nil {
		return false, nil
	}
	err = l.linkSpare(s)
	if errors.Is(err, fs.ErrNotExist) { // swept while it was open
		err = l.linkSpare(s)
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrExist):
		return true, lockedError(l.dir, l.key.name)
	case noLinks(err) || errors.Is(err, unix.EXDEV):
		s.Dir = nil
	}
	return false, nil
}

// linkSpare makes the file of s the lock. Where that fails it is not kept, unless
// there is a lock already. s.mu is held.
func (l *Lock) linkSpare(s *Spare) error {
	f, err := s.open(l)
	if err != nil {
		if f != nil {
			f.Close()
		}
		return err
	}
	err = s.Dir.Link(s.name, l.dir, l.key.name)
	l.held = held{f, s.dev, s.ino, s, time.Now()}
	if err == nil || l.Held() { // it was done; only the file server's answer got lost
		return nil
	}
	l.held = held{}
	if errors.Is(err, fs.ErrExist) {
		s.file.Give(f)
		return err
	}
	f.Close()
	s.Dir.Unlink(s.name)
	s.forget()
	return err
}

// noLinks reports whether err says that the file system has no hard links.
func noLinks(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// byNew makes a new file for this lock.
func (l *Lock) byNew() error {
	aside, f, err := l.writeAside()
	if err != nil {
		return err
	}
	err = l.dir.Link(aside, l.dir, l.key.name)
	var st unix.Stat_t
	if err != nil && unix.Fstat(f.Fd(), &st) == nil && st.Nlink == 2 {
		err = nil // it was done; only the file server's answer got lost
	}
	l.dir.Unlink(aside) // should it stay it does no harm
	if noLinks(err) {
		f.Close()
		f, err = l.write(l.key.name)
	}
	if err == nil {
		if err = unix.Fstat(f.Fd(), &st); err == nil {
			l.held = held{f, uint64(st.Dev), st.Ino, nil, time.Now()}
			return nil
		}
		l.dir.Unlink(l.key.name)
	}
	if f != nil {
		f.Close()
	}
	if errors.Is(err, fs.ErrExist) {
		return lockedError(l.dir, l.key.name)
	}
	return err
}

// writeAside makes the lock file under another name. One that is there was left
// by a process that had our process id.
func (l *Lock) writeAside() (name string, f vfs.File, err error) {
	for range 1000 {
		name = l.asideName()
		if f, err = l.write(name); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return name, f, err
}

// write makes the file name, which must not exist, and says in it whose it is.
func (l *Lock) write(name string) (vfs.File, error) {
	f, err := vfs.CreateLike(l.dir, name)
	if err != nil {
		return nil, err
	}
	if err := sign(f); err != nil {
		f.Close()
		l.dir.Unlink(name)
		return nil, err
	}
	return f, nil
}

func (l *Lock) exists() bool {
	var st unix.Stat_t
	return unix.Fstatat(l.dir.Fd(), l.key.name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}
