package uidlist

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
// one of them polls the file. While there is a queue the file stays: who unlocks
// hands it to the next one. Other programs must get their turn, though: after
// chain the file goes whoever waits here, and for rest nobody here makes it again.
// Dovecot waits for an event of the file that it has met, and then tries at once.
type Locks struct {
	// Log is told of locks that keep somebody waiting, and of those that are taken
	// away because their owner is gone; nil: nobody is.
	Log *slog.Logger

	mu    sync.Mutex
	slots map[lockKey]*slot
	told  map[lockKey]time.Time // when the log was told of a lock that was not to be had
}

// A lockKey is a lock file, whatever path leads to its directory.
type lockKey struct {
	dev, ino uint64
	name     string
}

const (
	// chain is how long the lock may go from hand to hand in this process.
	chain = 100 * time.Millisecond
	// rest is how long it is left to others then.
	rest = 10 * time.Millisecond
)

// A slot is the right of one goroutine to hold or poll a lock.
type slot struct {
	taken chan struct{} // capacity 1; Go serves those who wait in order
	refs  int           // goroutines that hold or want it; under Locks.mu

	// Of the one who has it, or of the last one to leave:
	left  held      // the file, if the one before has left it
	after time.Time // no lock may be made before
}

// held is a lock file that is in its place.
type held struct {
	file     vfs.File // open, so that its inode number means this file; nil: there is none
	dev, ino uint64
	spare    *Spare // whose file it is, which lives on; nil: it goes with the lock
	since    time.Time
}

// A Lock is a lock that is held. It belongs to one goroutine at a time.
type Lock struct {
	locks *Locks
	key   lockKey
	slot  *slot
	dir   vfs.Dir
	spare *Spare // nil: none is kept
	met   met    // what is in the way

	mu    sync.Mutex // held by touch and by Unlock
	pulse *time.Timer
	held
}

// stillAlive is how often a lock file says that its holder is at work, whatever that
// does: another host takes him for dead after foreignAge.
const stillAlive = 10 * time.Second

// Try takes the lock file name in dir if it is free, or only left over from a
// crash. Else it fails with ErrLocked. dir stays open until Unlock.
func (t *Locks) Try(dir vfs.Dir, name string) (*Lock, error) {
	l, err := t.want(dir, name, nil)
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
	l.live()
	return l, nil
}

// Acquire waits for the lock file name in dir until ctx ends, and then fails
// with an error that is both ErrLocked and the context's. The caller holds
// nothing that others need meanwhile: the wait may be long. dir stays open
// until Unlock.
func (t *Locks) Acquire(ctx context.Context, dir vfs.Dir, name string) (*Lock, error) {
	return t.AcquireWith(ctx, dir, name, nil)
}

// AcquireWith is Acquire for those who lock often: s, which is for one lock file
// only, keeps what makes that cheap.
func (t *Locks) AcquireWith(ctx context.Context, dir vfs.Dir, name string, s *Spare) (*Lock, error) {
	l, err := t.want(dir, name, s)
	if err != nil {
		return nil, err
	}
	r := Reminder{Ctx: ctx}
	if err := l.queue(ctx, &r); err != nil {
		t.leave(l)
		return nil, fmt.Errorf("%w: %w", lockedError(dir, name), err)
	}
	if err := l.poll(ctx, &r); err != nil {
		l.release()
		return nil, err
	}
	l.live()
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
func (t *Locks) want(dir vfs.Dir, name string, spare *Spare) (*Lock, error) {
	find := keyOf
	if spare != nil {
		find = spare.key
	}
	key, err := find(dir, name)
	if err != nil {
		return nil, err
	}
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
	return &Lock{locks: t, key: key, slot: s, dir: dir, spare: spare}, nil
}

func keyOf(dir vfs.Dir, name string) (lockKey, error) {
	var st unix.Stat_t
	if err := unix.Fstat(dir.Fd(), &st); err != nil {
		return lockKey{}, &os.PathError{Op: "stat", Path: dir.Path(), Err: err}
	}
	return lockKey{uint64(st.Dev), st.Ino, name}, nil
}

// leave gives up what want got. A lock that was left for somebody who does not
// come any more is removed.
func (t *Locks) leave(l *Lock) {
	t.mu.Lock()
	if l.slot.refs--; l.slot.refs == 0 {
		delete(t.slots, l.key)
		l.held, l.slot.left = l.slot.left, held{}
	}
	t.mu.Unlock()
	if l.file != nil && l.Held() {
		l.drop()
	} else if l.file != nil {
		l.end()
	}
}

// wanted reports whether others are in the queue.
func (t *Locks) wanted(l *Lock) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return l.slot.refs > 1
}

func (l *Lock) release() {
	<-l.slot.taken
	l.locks.leave(l)
}

// queue waits until it is our turn in this process.
func (l *Lock) queue(ctx context.Context, r *Reminder) error {
	select {
	case l.slot.taken <- struct{}{}:
		return nil // mostly
	default:
	}
	for {
		due, stop := r.Due()
		select {
		case l.slot.taken <- struct{}{}:
			stop()
			return nil
		case <-ctx.Done():
			stop()
			return ctx.Err()
		case <-due:
			r.Look()
		}
	}
}

// poll tries to create the file, first often, then 20 times a second.
func (l *Lock) poll(ctx context.Context, r *Reminder) error {
	began := time.Now()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := l.attempt(ctx)
		if err == nil {
			l.had()
		}
		if !errors.Is(err, ErrLocked) || errors.Is(err, ctx.Err()) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if errors.Is(ctx.Err(), context.DeadlineExceeded) && time.Since(began) >= vainWait {
				l.tell("a lock is not given back, what needed it is not done")
			}
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
		if time.Since(began) >= longWait {
			l.tell("waiting for a lock")
		}
		r.Look()
	}
}

// attempt is create with what bounds it.
func (l *Lock) attempt(ctx context.Context) error {
	if l.spare == nil || l.spare.Slots == nil {
		return l.create()
	}
	if err := l.spare.Slots.Enter(ctx); err != nil {
		return fmt.Errorf("%w: %w", lockedError(l.dir, l.key.name), err)
	}
	defer l.spare.Slots.Leave()
	return l.create()
}

var signature = sync.OnceValue(func() []byte { return []byte(strconv.Itoa(os.Getpid()) + ":" + hostname()) })

// sign writes into the lock file whose it is. On a full disk the file stays
// empty: should we crash, others wait for it longer, but mail can be expunged,
// and that is what makes room again.
func sign(f vfs.File) error {
	_, err := f.WriteAt(signature(), 0)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return f.Truncate(0)
	}
	return err
}

// live has touch called until the lock is given back.
func (l *Lock) live() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pulse = time.AfterFunc(stillAlive, l.touch)
}

// touch tells others, who wait for our lock, that we are alive.
func (l *Lock) touch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.SetTime(time.Now()) // it was ours until now; no more can be done
		l.pulse.Reset(stillAlive)
	}
}

// Held reports whether the lock file is still ours: nobody took us for dead
// and removed it.
func (l *Lock) Held() bool {
	var now unix.Stat_t
	return unix.Fstatat(l.dir.Fd(), l.key.name, &now, unix.AT_SYMLINK_NOFOLLOW) == nil && l.dev == uint64(now.Dev) && l.ino == now.Ino
}

// Unlock removes the lock file, if it is still ours, or leaves it to the next one
// who waits here, and lets that one in. A second call does nothing.
func (l *Lock) Unlock() error {
	if l.file == nil {
		return nil
	}
	l.pulse.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.release()
	tired := time.Since(l.since) >= chain
	switch {
	case !l.Held():
		l.end()
		return fmt.Errorf("%s/%s: the lock was taken from us", l.dir.Path(), l.key.name)
	case tired:
		l.slot.after = time.Now().Add(rest)
	case l.locks.wanted(l):
		l.slot.left, l.held = l.held, held{}
		return nil
	}
	return l.drop()
}

// drop removes the lock file. A program that waits for it hears of that: when a
// file loses its last name, or when it is written to.
func (l *Lock) drop() error {
	err := l.dir.Unlink(l.key.name)
	l.end()
	return err
}

// end gives the file back that is no lock any more.
func (h *held) end() {
	if h.spare != nil {
		h.spare.back(h.file)
	} else {
		h.file.Close()
	}
	*h = held{}
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
