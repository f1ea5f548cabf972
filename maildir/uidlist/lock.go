package uidlist

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// LockName is the lock of a folder's list, and of every rename, link and unlink
// in it.
const LockName = Name + ".lock"

// ErrLocked says that somebody else holds the lock.
var ErrLocked = errors.New("locked")

// Locks holds the dot locks of this process. The zero value is ready. All locks
// of a process must come from one Locks: a lock file with our own process id
// that it does not know is taken for the remains of a crash.
//
// A dot lock is a file that only one can make (link(2), or O_EXCL); it holds
// "<pid>:<host>" of its owner. Dovecot uses the same files in the same way.
// Within the process those who want the same lock wait in a queue, so at most
// one of them polls the file.
type Locks struct {
	mu    sync.Mutex
	slots map[lockKey]*slot
}

// A lockKey is a lock file, whatever path leads to its directory.
type lockKey struct {
	dev, ino uint64
	name     string
}

// A slot is the right of one goroutine to hold or poll a lock.
type slot struct {
	taken chan struct{} // capacity 1; Go serves those who wait in order
	refs  int           // goroutines that hold or want it; under Locks.mu
}

// A Lock is a lock that is held. It belongs to one goroutine at a time.
type Lock struct {
	locks *Locks
	key   lockKey
	slot  *slot
	dir   vfs.Dir
	file  vfs.File // open, so that its inode number means this file
}

// Try takes the lock file name in dir if it is free, or only left over from a
// crash. Else it fails with ErrLocked. dir stays open until Unlock.
func (t *Locks) Try(dir vfs.Dir, name string) (*Lock, error) {
	l, err := t.want(dir, name)
	if err != nil {
		return nil, err
	}
	select {
	case l.slot.taken <- struct{}{}:
	default:
		t.leave(l)
		return nil, lockedError(dir, name)
	}
	if err := l.create(); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// Acquire waits for the lock file name in dir until ctx ends, and then fails
// with an error that is both ErrLocked and the context's. The caller holds
// nothing that others need meanwhile: the wait may be long. dir stays open
// until Unlock.
func (t *Locks) Acquire(ctx context.Context, dir vfs.Dir, name string) (*Lock, error) {
	l, err := t.want(dir, name)
	if err != nil {
		return nil, err
	}
	select {
	case l.slot.taken <- struct{}{}:
	case <-ctx.Done():
		t.leave(l)
		return nil, fmt.Errorf("%w: %w", lockedError(dir, name), ctx.Err())
	}
	if err := l.poll(ctx); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// Lock is Acquire for those who only need to know how to unlock.
func (t *Locks) Lock(ctx context.Context, dir vfs.Dir, name string) (unlock func() error, err error) {
	l, err := t.Acquire(ctx, dir, name)
	if err != nil {
		return nil, err
	}
	return l.Unlock, nil
}

func lockedError(dir vfs.Dir, name string) error {
	return fmt.Errorf("%s/%s: %w", dir.Path(), name, ErrLocked)
}

// want enters the queue for a lock.
func (t *Locks) want(dir vfs.Dir, name string) (*Lock, error) {
	var st unix.Stat_t
	if err := unix.Fstat(dir.Fd(), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: dir.Path(), Err: err}
	}
	key := lockKey{uint64(st.Dev), st.Ino, name}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.slots[key]
	if s == nil {
		if t.slots == nil {
			t.slots = map[lockKey]*slot{}
		}
		s = &slot{taken: make(chan struct{}, 1)}
		t.slots[key] = s
	}
	s.refs++
	return &Lock{locks: t, key: key, slot: s, dir: dir}, nil
}

// leave gives up what want got.
func (t *Locks) leave(l *Lock) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.slot.refs--; l.slot.refs == 0 {
		delete(t.slots, l.key)
	}
}

func (l *Lock) release() {
	<-l.slot.taken
	l.locks.leave(l)
}

// poll tries to create the file, first often, then 20 times a second.
func (l *Lock) poll(ctx context.Context) error {
	wait := time.Millisecond
	for {
		err := l.create()
		if !errors.Is(err, ErrLocked) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
		wait = min(2*wait, 50*time.Millisecond)
	}
}

// create makes the lock file, in place of one that its owner left behind.
//
// It is written under another name and linked to its own: a process that is
// killed between creating a lock and writing whose it is would leave one that
// nobody may break for two minutes.
func (l *Lock) create() error {
	if l.exists() {
		if err := l.breakStale(); err != nil {
			return err
		}
	}
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
	if err == nil {
		l.file = f
		return nil
	}
	f.Close()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		l.file, err = l.write(l.key.name) // a file system without links
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

// sign writes into the lock file whose it is. On a full disk the file stays
// empty: should we crash, others wait for it longer, but mail can be expunged,
// and that is what makes room again.
func sign(f vfs.File) error {
	_, err := f.Write([]byte(strconv.Itoa(os.Getpid()) + ":" + hostname()))
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return f.Truncate(0)
	}
	return err
}

// Touch tells others, who wait for our lock, that we are alive. A holder that
// works for longer calls it every 10 seconds.
func (l *Lock) Touch() error { return l.file.SetTime(time.Now()) }

// Held reports whether the lock file is still ours: nobody took us for dead
// and removed it.
func (l *Lock) Held() bool {
	var own, now unix.Stat_t
	return unix.Fstat(l.file.Fd(), &own) == nil &&
		unix.Fstatat(l.dir.Fd(), l.key.name, &now, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		own.Dev == now.Dev && own.Ino == now.Ino
}

// Unlock removes the lock file, if it is still ours, and lets the next one in.
// A second call does nothing.
func (l *Lock) Unlock() error {
	if l.file == nil {
		return nil
	}
	held := l.Held()
	l.file.Close()
	l.file = nil
	defer l.release()
	if !held {
		return fmt.Errorf("%s/%s: the lock was taken from us", l.dir.Path(), l.key.name)
	}
	return l.dir.Unlink(l.key.name)
}

// hostname is the name that Dovecot on this machine writes into its locks.
var hostname = sync.OnceValue(func() string {
	if h := os.Getenv("DOVECOT_HOSTNAME"); h != "" {
		return h
	}
	h, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return h
})
