package uidlist

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// A lock file whose owner is gone would lock a folder for ever. It is removed
//
//   - when it names a process of this host that does not run (or this process,
//     whose table of locks does not know it) and is 2 seconds old;
//   - when it names a process of this host and is older than the boot: the
//     process id belongs to somebody else now;
//   - when it names another host, or nobody (Dovecot's is empty between its
//     creation and the write, and any is on a full disk), and neither it nor
//     dovecot-uidlist changed for 120 seconds.
//
// A running process of this host keeps its lock for as long as it likes.
//
// The last two compare a time that the file server gave with the present. A
// file server's clock may be wrong by minutes, so the present is asked of it
// too, by making a file.
const (
	deadAge    = 2 * time.Second
	foreignAge = 120 * time.Second
)

// breakStale removes the lock file if its owner is gone, and else fails with
// ErrLocked. No error means that creating the file may be tried again.
func (l *Lock) breakStale() error {
	name := l.key.name
	content, st, err := vfs.ReadRegular(l.dir, name, 1024)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.EACCES):
		if err := unix.Fstatat(l.dir.Fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return lockedError(l.dir, name)
		}
	case err != nil && !errors.Is(err, unix.EFBIG):
		return err // a directory or a link: an administrator has to look
	}
	l.met = meet(content, st)
	if age := time.Since(time.Unix(st.Mtim.Unix())); age > -deadAge && age < deadAge {
		return lockedError(l.dir, name)
	}
	stale, err := l.stale(string(content), st)
	if err != nil {
		return err
	}
	if !stale {
		return lockedError(l.dir, name)
	}
	return l.remove(st)
}

// stale judges a lock file that is more than deadAge old.
func (l *Lock) stale(content string, st unix.Stat_t) (bool, error) {
	mtime := time.Unix(st.Mtim.Unix())
	pid, host, ok := owner(content)
	if ok && host == hostname() {
		if pid == os.Getpid() || dead(pid) {
			return true, nil
		}
		boot := bootTime()
		if boot.IsZero() || !mtime.Before(boot) {
			return false, nil
		}
		now, err := l.serverTime()
		if err != nil {
			return false, err
		}
		return now.Sub(mtime) > time.Since(boot), nil
	}
	changed := latest(mtime, time.Unix(st.Ctim.Unix()))
	var list unix.Stat_t
	if unix.Fstatat(l.dir.Fd(), Name, &list, unix.AT_SYMLINK_NOFOLLOW) == nil {
		changed = latest(changed, time.Unix(list.Mtim.Unix()), time.Unix(list.Ctim.Unix()))
	}
	now, err := l.serverTime()
	if err != nil {
		return false, err
	}
	return now.Sub(changed) > foreignAge, nil
}

// dead tells whether the process pid has ended, also where its parent does not wait
// for it, as in a container whose first process is no init.
func dead(pid int) bool {
	if unix.Kill(pid, 0) == unix.ESRCH {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	// The second field, the program's name, may hold anything; the third is the state.
	_, state, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

func latest(first time.Time, more ...time.Time) time.Time {
	for _, t := range more {
		if t.After(first) {
			first = t
		}
	}
	return first
}

// owner reads "<pid>:<host>".
func owner(content string) (pid int, host string, ok bool) {
	p, host, _ := strings.Cut(strings.TrimSpace(content), ":")
	n, err := strconv.ParseInt(p, 10, 32)
	pid = int(n)
	return pid, host, err == nil && pid > 0 && host != ""
}

// asideName returns a name that nobody else uses, nor has left behind: in
// containers the process of every host, before and after a crash, has one id.
func (l *Lock) asideName() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return l.key.name + "." + strconv.Itoa(os.Getpid()) + "." + hex.EncodeToString(b[:])
}

// serverTime is the present by the clock of the file server.
func (l *Lock) serverTime() (time.Time, error) {
	name, f, err := l.writeAside()
	if err != nil {
		return time.Time{}, err
	}
	var st unix.Stat_t
	err = unix.Fstat(f.Fd(), &st)
	f.Close()
	if uerr := l.dir.Unlink(name); err == nil {
		err = uerr
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("time of %s: %w", l.dir.Path(), err)
	}
	return time.Unix(st.Mtim.Unix()), nil
}

// remove takes the stale lock away. Somebody else may do the same, and then
// lock, before we come to it: so the file is moved aside first and looked at,
// and put back if it is not the one that was judged.
func (l *Lock) remove(old unix.Stat_t) error {
	name := l.asideName()
	err := l.dir.Rename(l.key.name, l.dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var now unix.Stat_t
	if err := unix.Fstatat(l.dir.Fd(), name, &now, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: l.dir.Path() + "/" + name, Err: err}
	}
	if now.Dev != old.Dev || now.Ino != old.Ino || now.Mtim != old.Mtim {
		if err := l.dir.RenameNoReplace(name, l.dir, l.key.name); err != nil {
			return err
		}
		return lockedError(l.dir, l.key.name)
	}
	l.log("a lock was taken away, its owner is gone")
	return l.dir.Unlink(name)
}

// bootTime is when this machine started, or zero if the kernel does not say.
// Ten seconds earlier than it says: the clock may have been set since.
var bootTime = sync.OnceValue(func() time.Time {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	_, rest, ok := strings.Cut(string(b), "\nbtime ")
	if !ok {
		return time.Time{}
	}
	line, _, _ := strings.Cut(rest, "\n")
	secs, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(secs, 0).Add(-10 * time.Second)
})

// IsAside reports whether name is one that a lock file has for a moment while it
// is made or broken. An old one was left by a process that was killed.
func IsAside(name string) bool { return strings.HasPrefix(name, LockName+".") }
