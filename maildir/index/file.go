package index

import (
	"context"
	"errors"
	"fmt"
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

// lockWait bounds the wait for the lock, which is held for a write.
const lockWait = 10 * time.Second

// ErrReplaced says that another process has written the index anew, or removed
// it: it must be loaded again.
var ErrReplaced = errors.New("imapd.index: replaced")

// A File is the index of one folder. It is not safe for use by several
// goroutines. The zero value but for Dir is a File that has not been loaded.
type File struct {
	Dir vfs.Dir

	lock  vfs.File
	file  vfs.File // for appending; nil: not loaded, or none, or not ours to write
	fd    *os.File // for reading; kept by the names that are still to be read
	ident ident
	base  int64 // where the journal begins
	end   int64 // behind the last batch that was read or written
	wait  int64 // see Defer
}

// ident tells one file of the name from another. The descriptor that is open
// keeps the inode number from being used again.
type ident struct{ dev, ino uint64 }

// Lock waits for the lock of the index and takes it. Where the file system has
// no locks the error is one of the system.
func (f *File) Lock(ctx context.Context) error {
	if f.lock == nil {
		l, err := f.openLock()
		if err != nil {
			return err
		}
		f.lock = l
	}
	deadline := time.Now().Add(lockWait)
	for wait := 20 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		ok, err := vfs.TryLock(f.lock)
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

// openLock opens the lock file, and makes it if there is none.
func (f *File) openLock() (vfs.File, error) {
	for range 3 {
		l, err := f.Dir.Append(LockName)
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
func (f *File) Unlock() error { return vfs.Unlock(f.lock) }

// Close gives all descriptors back; names that were not read yet can be read on.
// It may be loaded again.
func (f *File) Close() {
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
	if f.lock != nil {
		f.lock.Close()
		f.lock = nil
	}
	f.fd = nil // closed when no page needs it any more
}

// Loaded reports whether there is an index that can be appended to.
func (f *File) Loaded() bool { return f.file != nil }

// JournalIsLong reports whether the journal is so long that the index should be
// written anew.
func (f *File) JournalIsLong() bool {
	return f.file != nil && f.end-f.base > max(minJournal, f.base/2, f.wait)
}

// Defer has the journal count as long only when it is twice as long as now:
// writing the index anew has failed.
func (f *File) Defer() { f.wait = 2 * (f.end - f.base) }

const minJournal = 64 << 10

// Changed reports whether another process has written to the index since the last
// Load, Tail or Append.
func (f *File) Changed() bool {
	var st unix.Stat_t
	return unix.Fstatat(f.Dir.Fd(), Name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil ||
		f.ident != (ident{uint64(st.Dev), st.Ino}) || st.Size != f.end
}

// Tail returns what other processes have appended since the last Load, Tail or
// Append. It fails with ErrReplaced where there is another file now. With the
// lock held, a torn batch is cut off.
func (f *File) Tail(locked bool) ([]Event, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(f.Dir.Fd(), Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return nil, ErrReplaced
		}
		return nil, &fs.PathError{Op: "stat", Path: f.path(), Err: err}
	}
	if f.fd == nil || f.ident != (ident{uint64(st.Dev), st.Ino}) || st.Size < f.end {
		return nil, ErrReplaced
	}
	if st.Size == f.end {
		return nil, nil
	}
	data := make([]byte, st.Size-f.end)
	n, err := vfs.ReadFullAt(int(f.fd.Fd()), data, f.end)
	if n == 0 && err != nil {
		return nil, &fs.PathError{Op: "read", Path: f.path(), Err: err}
	}
	events, size := parseJournal(data[:n])
	f.end += size
	if locked && f.file != nil && f.end < st.Size {
		if err := f.file.Truncate(f.end); err != nil {
			return events, err
		}
	}
	return events, nil
}

// Append adds b to the journal, durably if asked. The lock is held and Tail has
// returned all there was. Where the write fails, what was written of it is cut
// off again.
func (f *File) Append(b *Batch, durable bool) error {
	if b.Empty() {
		return nil
	}
	if f.file == nil {
		return fmt.Errorf("%s: %w", f.path(), fs.ErrPermission)
	}
	data := b.bytes()
	_, err := f.file.Write(data)
	if err == nil && durable {
		err = f.file.Datasync()
	}
	if err != nil {
		return errors.Join(err, f.file.Truncate(f.end))
	}
	f.end += int64(len(data))
	return nil
}

// Sync makes all that was appended durable.
func (f *File) Sync() error { return f.file.Datasync() }

func (f *File) path() string { return f.Dir.Path() + "/" + Name }
