package tree

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// treeLock is the file that Dovecot locks while it makes, renames or removes a
// folder. Its lock is a POSIX record lock, which excludes our open file
// description lock and the other way round; who has the lock removes the file.
const treeLock = "mailboxes.lock"

// begin opens the root for a change and takes the tree's lock. Both, and a slot, are
// held until end is called.
func (t *Tree) begin() (root vfs.Dir, end func(), err error) {
	deadline := time.Now().Add(lockWait)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		root, end, err = t.tryBegin()
		if err == nil {
			t.tidy(root)
			return root, end, nil
		}
		if !errors.Is(err, ErrBusy) || time.Now().After(deadline) {
			return nil, nil, err
		}
		time.Sleep(wait)
	}
}

// tryBegin makes one attempt; ErrBusy says that another may succeed.
func (t *Tree) tryBegin() (root vfs.Dir, end func(), err error) {
	leave, err := t.slot()
	if err != nil {
		return nil, nil, err
	}
	if root, err = t.open(t.root); err != nil {
		leave()
		return nil, nil, err
	}
	unlock, err := tryTreeLock(root)
	if err != nil {
		root.Close()
		leave()
		return nil, nil, fmt.Errorf("%s/%s: %w", t.root, treeLock, err)
	}
	return root, func() { unlock(); root.Close(); leave() }, nil
}

// tryTreeLock makes one attempt; ErrBusy says that another may succeed.
func tryTreeLock(root vfs.Dir) (unlock func(), err error) {
	f, err := root.Append(treeLock)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = vfs.CreateLike(root, treeLock)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil, ErrBusy
	}
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(uintptr(f.Fd()), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if err == unix.EAGAIN || err == unix.EACCES || err == nil && !sameFile(root, f) {
		f.Close()
		return nil, ErrBusy
	}
	// A file system without locks has none that could be held.
	return func() {
		if sameFile(root, f) {
			root.Unlink(treeLock)
		}
		f.Close()
	}, nil
}

// sameFile reports whether f is still the tree's lock file.
func sameFile(root vfs.Dir, f vfs.File) bool {
	var a, b unix.Stat_t
	return unix.Fstat(f.Fd(), &a) == nil && unix.Fstatat(root.Fd(), treeLock, &b, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		a.Dev == b.Dev && a.Ino == b.Ino
}

// A place is where the directory of a folder is, or would be.
type place struct {
	dir   vfs.Dir // its parent directory
	entry string
	undo  func() // removes the parents that were made
}

func (p place) close() { p.dir.Close() }

func (p place) exists() bool { return isThere(p.dir, p.entry) }

// find opens the parent of a folder's directory below base, which is the root
// or the control directory. It fails with fs.ErrNotExist where there is none.
func (t *Tree) find(base string, parts []string) (place, error) {
	raw := t.encode(parts)
	path := base
	if t.layout == FS {
		for _, r := range raw[:len(raw)-1] {
			path += "/" + r
		}
		d, err := t.open(path)
		return place{dir: d, entry: raw[len(raw)-1], undo: func() {}}, err
	}
	d, err := t.open(base)
	return place{dir: d, entry: t.relative(parts), undo: func() {}}, err
}

// makePlace is find, but makes the parents that the fs layout needs.
func (t *Tree) makePlace(base string, parts []string) (place, error) {
	if t.layout != FS {
		return t.find(base, parts)
	}
	raw := t.encode(parts)
	dir, err := t.open(base)
	if err != nil {
		return place{}, err
	}
	made := []func(){}
	undo := func() {
		for i := len(made) - 1; i >= 0; i-- {
			made[i]()
		}
	}
	for i, r := range raw[:len(raw)-1] {
		sub, err := vfs.MkdirLike(dir, r)
		if err == nil {
			made = append(made, t.rmdirLater(base, raw[:i], r))
			if err = dir.Sync(); err != nil {
				sub.Close()
			}
		} else if errors.Is(err, fs.ErrExist) {
			sub, err = dir.OpenDir(r)
		}
		dir.Close()
		if err != nil {
			undo()
			return place{}, err
		}
		dir = sub
	}
	return place{dir: dir, entry: raw[len(raw)-1], undo: undo}, nil
}

// rmdirLater returns a function that removes the directory r, if it is empty.
func (t *Tree) rmdirLater(base string, above []string, r string) func() {
	path := base
	for _, a := range above {
		path += "/" + a
	}
	return func() {
		if d, err := t.open(path); err == nil {
			d.Rmdir(r)
			d.Close()
		}
	}
}

// uniqueName returns a name that nothing has.
func uniqueName(prefix string) string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return prefix + hex.EncodeToString(b[:])
}

// trashName is the directory of a root that folders go through on their way
// out. Dovecot does not list it, and empties it when it is an hour old.
const trashName = "..DOVECOT-TRASHED"

// trash opens the trash of base, made if need be.
func trash(base vfs.Dir) (vfs.Dir, error) {
	d, err := vfs.MkdirLike(base, trashName)
	if errors.Is(err, fs.ErrExist) {
		return base.OpenDir(trashName)
	}
	return d, err
}

// emptyTrash removes all that is in the trash of base, what a crash left there
// included. Others may do the same at the same time. What cannot be removed is
// left for the next time: the folder is gone already.
func emptyTrash(base vfs.Dir) {
	d, err := base.OpenDir(trashName)
	if err != nil {
		return
	}
	defer d.Close()
	names, err := vfs.ReadNames(d)
	if err != nil {
		return
	}
	for _, name := range names {
		removeAll(d, name, 0)
	}
	base.Rmdir(trashName)
}

// removeAll removes name and what is below it, and follows no symbolic link.
func removeAll(dir vfs.Dir, name string, depth int) error {
	var st, opened unix.Stat_t
	if err := unix.Fstatat(dir.Fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: dir.Path() + "/" + name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return dir.Unlink(name)
	}
	if depth > 2*maxDepth {
		return &os.PathError{Op: "remove", Path: dir.Path() + "/" + name, Err: unix.ELOOP}
	}
	sub, err := dir.OpenDir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := unix.Fstat(sub.Fd(), &opened); err != nil || opened.Dev != st.Dev || opened.Ino != st.Ino {
		return &os.PathError{Op: "remove", Path: sub.Path(), Err: unix.ELOOP}
	}
	names, err := vfs.ReadNames(sub)
	if err != nil {
		return err
	}
	var first error
	for _, n := range names {
		if err := removeAll(sub, n, depth+1); err != nil && !errors.Is(err, fs.ErrNotExist) && first == nil {
			first = err
		}
	}
	if first != nil {
		return first
	}
	return dir.Rmdir(name)
}
