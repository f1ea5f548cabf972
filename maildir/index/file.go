package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// Names of the files in a folder (in its index directory).
const (
	Name     = "imapd.index"
	LockName = "imapd.index.lock"
	tmpName  = "imapd.index.tmp"
)

// ErrDamaged says that the index is not one, or is torn where it must not be. It
// has to be made anew.
var ErrDamaged = errors.New("imapd.index: damaged")

// ErrLocked says that another process has held the lock for too long.
var ErrLocked = errors.New("imapd.index: locked by another process")

// lockWait bounds the wait for the lock, which is held for a write and its fdatasync:
// some seconds on a disk that is busy. Who waits keeps a mailbox waiting: a process that
// was stopped with the lock must not stop the others.
const lockWait = 10 * time.Second

// ErrReplaced says that another process has written the index anew, removed it, or
// written to it since Tail: Tail says which, and what to do is to load or to read on.
var ErrReplaced = errors.New("imapd.index: replaced")

// ErrLong says that the journal has no room for a batch: the index has to be
// written anew.
var ErrLong = errors.New("imapd.index: journal too long")

// A File is the index of one folder. It is not safe for use by several
// goroutines. The zero value but for Dir is a File that has not been loaded.
type File struct {
	Dir vfs.Dir
	// Far says that hosts share the file through a server. A host learns of what
	// another has written when it opens the file, and tells of what it has written
	// itself when it closes it (NFS): so it is open for no longer than the lock is held.
	Far bool

	lock  vfs.File // while it is held
	limit uint64   // see Limit
	ours  bool     // it was loaded, and may be written
	fd    *os.File // for reading; kept by the names that are still to be read
	ident ident

	locks, writes   vfs.Kept         // the lock file, and the index open for appending
	locked, written ident            // which files these are
	base            int64            // where the journal begins
	end             int64            // behind the last batch that was read or written
	wait            int64            // see Defer
	head            [prefixSize]byte // of the file that was loaded

	// Torn says that the last Tail found a batch that was not whole.
	Torn bool
}

// ident tells one file of the name from another. The descriptor that is open
// keeps the inode number from being used again.
type ident struct{ dev, ino uint64 }

func identOf(st *unix.Stat_t) ident { return ident{uint64(st.Dev), st.Ino} }

// Lock waits for the lock of the index and takes it. Where the file system has
// no locks the error is one of the system.
func (f *File) Lock(ctx context.Context) error {
	deadline := time.Now().Add(lockWait)
	for wait := 20 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		ok, err := f.tryLock()
		if ok && f.Far && f.ours {
			if w, _, err := f.openWrite(); err == nil {
				f.writes.Give(w)
			}
		}
		if err != nil || ok {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %w", f.Dir.Path(), ErrLocked)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// tryLock takes the lock if it is free. A lock file that somebody has removed
// keeps nobody out: then there is another one to lock.
func (f *File) tryLock() (bool, error) {
	for range 3 {
		l, err := f.takeLock()
		if err != nil {
			return false, err
		}
		ok, err := l.TryLock()
		if err != nil {
			l.Close()
			return false, err
		}
		if !ok {
			f.locks.Give(l)
			return false, nil
		}
		var now unix.Stat_t
		if unix.Fstatat(f.Dir.Fd(), LockName, &now, unix.AT_SYMLINK_NOFOLLOW) == nil && identOf(&now) == f.locked {
			f.lock = l
			f.limit, _, _, _ = readLimit(l)
			return true, nil
		}
		l.Close()
	}
	return false, nil
}

// takeLock returns the lock file, open.
func (f *File) takeLock() (vfs.File, error) {
	if l := f.locks.Take(); l != nil {
		return l, nil
	}
	l, err := f.openLock()
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(l.Fd(), &st); err != nil {
		l.Close()
		return nil, os.NewSyscallError("fstat", err)
	}
	f.locked = identOf(&st)
	return l, nil
}

// openLock opens the lock file, and makes it if there is none.
func (f *File) openLock() (vfs.File, error) {
	for range 3 {
		l, err := f.Dir.Update(LockName)
		if !errors.Is(err, fs.ErrNotExist) {
			return l, err
		}
		l, err = vfs.CreateLike(f.Dir, LockName)
		if !errors.Is(err, fs.ErrExist) {
			return l, err
		}
	}
	return nil, ErrLocked
}

// Unlock gives the lock back.
func (f *File) Unlock() error {
	if f.lock == nil {
		return nil
	}
	if f.Far {
		f.writes.Close()
	}
	l := f.lock
	f.lock = nil
	if err := l.Unlock(); err != nil {
		return errors.Join(err, l.Close())
	}
	f.locks.Give(l)
	return nil
}

// TryLocks finds out whether the file system has locks; the error, one of the
// system, says why it has none. The lock is not held.
func (f *File) TryLocks() error {
	if _, err := f.tryLock(); err != nil {
		return err
	}
	return f.Unlock()
}

// Close gives all descriptors back; names that were not read yet can be read on.
// It may be loaded again.
func (f *File) Close() {
	f.Unlock()
	f.locks.Close()
	f.writes.Close()
	f.ours = false
	f.fd = nil // closed when no page needs it any more
}

// Loaded reports whether there is an index that can be appended to.
func (f *File) Loaded() bool { return f.ours }

// JournalIsLong reports whether the journal is so long that the index should be written
// anew: half of the base, so that each octet of it costs two. For whoever is leaving it
// is long sooner, for the next one to come has to go through all of it.
func (f *File) JournalIsLong(leaving bool) bool {
	share := int64(2)
	if leaving {
		share = 64
	}
	return f.ours && f.end-f.base > max(minJournal, f.base/share, f.wait)
}

// Defer has the journal count as long only when it is twice as long as now, or that of
// another index: writing it anew has failed.
func (f *File) Defer() { f.wait = 2 * (f.end - f.base) }

const minJournal = 64 << 10

// Changed reports whether another process has written to the index since the last
// Load, Tail or Append.
func (f *File) Changed() bool {
	var st unix.Stat_t
	return unix.Fstatat(f.Dir.Fd(), Name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil ||
		f.ident != identOf(&st) || st.Size != f.end
}

// Tail returns what other processes have appended since the last Load, Tail or
// Append. It fails with ErrReplaced where there is another file now. With the
// lock held, a torn batch is cut off.
func (f *File) Tail(locked bool) ([]Event, error) {
	var st unix.Stat_t
	f.Torn = false
	if err := unix.Fstatat(f.Dir.Fd(), Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return nil, ErrReplaced
		}
		return nil, &fs.PathError{Op: "stat", Path: f.path(), Err: err}
	}
	if f.fd == nil || f.ident != identOf(&st) || st.Size < f.end {
		return nil, ErrReplaced
	}
	if st.Size == f.end {
		return nil, nil
	}
	if st.Size-f.base > maxJournal || !f.same() {
		return nil, ErrReplaced
	}
	events, err := f.more(st.Size)
	if err != nil {
		return nil, err
	}
	f.Torn = f.end < st.Size
	if locked && f.Torn {
		return events, f.cut()
	}
	return events, nil
}

// cut takes a torn batch off the end: behind it nobody would find what is written. The
// lock is held.
func (f *File) cut() error {
	if !f.ours {
		return nil
	}
	err := f.write(func(w vfs.File, _ int64) error { return w.Truncate(f.end) })
	if err == nil {
		f.date()
	}
	return err
}

// same reports whether the file that was loaded has still the base that it had
// then: somebody may have written another one over it.
func (f *File) same() bool {
	var head [prefixSize]byte
	n, err := vfs.ReadFullAt(int(f.fd.Fd()), head[:], 0)
	return err == nil && n == prefixSize && head == f.head
}

// more returns the events up to the offset size that were not read yet.
func (f *File) more(size int64) ([]Event, error) {
	data := make([]byte, size-f.end)
	n, err := vfs.ReadFullAt(int(f.fd.Fd()), data, f.end)
	if err != nil && err != io.EOF {
		return nil, &fs.PathError{Op: "read", Path: f.path(), Err: err}
	}
	j := parseJournal(data[:n])
	f.end += j.size
	return j.events, nil
}

// Rest returns what was still appended to the file that was loaded before it was
// replaced or removed, as far as it can be read.
func (f *File) Rest() []Event {
	var st unix.Stat_t
	if f.fd == nil || unix.Fstat(int(f.fd.Fd()), &st) != nil || st.Size <= f.end || st.Size-f.base > maxJournal || !f.same() {
		return nil
	}
	events, _ := f.more(st.Size)
	return events
}

// Append adds b to the journal, durably if asked. The lock is held and Tail has
// returned all there was, else it fails with ErrReplaced: what it has not seen may be
// what another process has told. Where the write fails, what was written of it is cut
// off again.
func (f *File) Append(b *Batch, durable bool) error {
	if b.Empty() {
		return nil
	}
	if !f.ours {
		return fmt.Errorf("%s: %w", f.path(), fs.ErrPermission)
	}
	return f.append(b, durable)
}

// date has the file say that it is as we have left it: it was cut, or renamed. It is
// no loss where it cannot.
func (f *File) date() {
	if f.ours {
		f.append(new(Batch), false)
	}
}

func (f *File) append(b *Batch, durable bool) error {
	data := b.bytes(time.Now())
	if f.end-f.base+int64(len(data)) > maxJournal {
		return ErrLong
	}
	err := f.write(func(w vfs.File, size int64) error {
		if size > f.end {
			return ErrReplaced
		}
		_, err := w.Write(data)
		if err == nil && durable {
			err = w.Datasync()
		}
		if err != nil {
			return errors.Join(err, w.Truncate(f.end))
		}
		return nil
	})
	if err == nil {
		f.end += int64(len(data))
	}
	return err
}

// write hands do the file that was loaded, open for appending, and its size.
func (f *File) write(do func(w vfs.File, size int64) error) error {
	w, size, err := f.openWrite()
	if err != nil {
		return err
	}
	if size < f.end {
		w.Close()
		return ErrReplaced
	}
	if err := do(w, size); err != nil {
		w.Close()
		return err
	}
	f.writes.Give(w)
	return nil
}

// openWrite returns the file that was loaded, open for appending, and its size.
// The name has just been seen to be that file's, by Tail.
func (f *File) openWrite() (w vfs.File, size int64, err error) {
	var st unix.Stat_t
	if w = f.writes.Take(); w != nil && f.written != f.ident {
		w.Close()
		w = nil
	}
	if w == nil {
		if w, err = f.Dir.Append(Name); errors.Is(err, fs.ErrNotExist) {
			return nil, 0, ErrReplaced
		}
		if err != nil {
			return nil, 0, err
		}
	}
	if err := unix.Fstat(w.Fd(), &st); err != nil {
		w.Close()
		return nil, 0, &fs.PathError{Op: "stat", Path: f.path(), Err: err}
	}
	if f.written = identOf(&st); f.written != f.ident {
		w.Close()
		return nil, 0, ErrReplaced
	}
	return w, st.Size, nil
}

func (f *File) path() string { return f.Dir.Path() + "/" + Name }
