package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// Delete removes the folder name with its mail; folders below it stay, and
// subscriptions too. The caller holds the lock of the folder's UID list, so that
// nobody else works on it. It fails with ErrNotFound, with ErrHasChildren for
// a container that is not empty (fs layout), and with ErrName for INBOX.
func (t *Tree) Delete(name string) error {
	parts, err := t.read(name, t.parse)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		return nameError(name, "INBOX cannot be deleted")
	}
	root, end, err := t.begin()
	if err != nil {
		return notFound(name, err)
	}
	defer end()
	p, err := t.find(t.root, parts)
	if err != nil {
		return notFound(name, err)
	}
	defer p.close()
	if !t.isFolder(p.dir, p.entry) {
		return t.deleteContainer(name, p)
	}
	if err := t.discard(root, p); err != nil {
		return err
	}
	emptyTrash(root)
	for _, base := range t.sides() {
		// The folder is gone; what stays here a new one would not take over.
		_ = t.deleteSide(base, parts)
	}
	return nil
}

func notFound(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return err
}

// deleteContainer removes a directory of the fs layout that holds no mail.
func (t *Tree) deleteContainer(name string, p place) error {
	if t.layout != FS || !isDir(p.dir, p.entry) {
		return fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	err := p.dir.Rmdir(p.entry)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%s: %w", name, ErrHasChildren)
	}
	if err != nil {
		return err
	}
	return p.dir.Sync()
}

// deleteSide removes what belonged to a folder that is gone and lies below
// side.
func (t *Tree) deleteSide(side string, parts []string) error {
	base, err := t.open(side)
	if err != nil {
		return ignoreNotExist(err)
	}
	defer base.Close()
	defer emptyTrash(base)
	p, err := t.find(side, parts)
	if err != nil {
		return ignoreNotExist(err)
	}
	defer p.close()
	if !p.exists() {
		return nil
	}
	return t.discard(base, p)
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// discard moves a folder's directory into the trash of base, or, where children
// are in it, only what belongs to the folder itself. Afterwards the folder is
// gone, durably.
func (t *Tree) discard(base vfs.Dir, p place) error {
	to, err := trash(base)
	if err != nil {
		return err
	}
	defer to.Close()
	name := uniqueName("")
	if t.layout == FS {
		dir, own, err := shared(p)
		if err != nil {
			return err
		}
		if dir != nil {
			defer dir.Close()
			return shed(dir, own, to, name)
		}
	}
	if err := p.dir.Rename(p.entry, to, name); err != nil {
		return err
	}
	return p.dir.Sync()
}

// shared opens the directory of a folder if it has other folders in it, and
// returns the names that belong to the folder itself, cur first. A link is the
// folder's own, whatever it leads to.
func shared(p place) (dir vfs.Dir, own []string, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir.Fd(), p.entry, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, nil, err
	}
	dir, err = p.dir.OpenDir(p.entry)
	if err != nil {
		return nil, nil, err
	}
	names, err := vfs.ReadNames(dir)
	if err != nil {
		dir.Close()
		return nil, nil, err
	}
	children := false
	for _, n := range names {
		switch {
		case n == "cur" || n == "new" || n == "tmp":
			own = append(own, n)
		case isDir(dir, n):
			children = true
		case n != "dovecot-uidlist.lock": // the caller's, who removes it
			own = append(own, n)
		}
	}
	if !children {
		dir.Close()
		return nil, nil, nil
	}
	slices.Sort(own) // cur, then dovecot...: no longer a folder from the first rename on
	return dir, own, nil
}

// shed moves the names own of dir into a new directory of the trash. If one
// fails the others are moved back.
func shed(dir vfs.Dir, own []string, to vfs.Dir, name string) error {
	into, err := vfs.MkdirLike(to, name)
	if err != nil {
		return err
	}
	defer into.Close()
	for i, n := range own {
		if err := dir.Rename(n, into, n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			for _, back := range own[:i] {
				into.RenameNoReplace(back, dir, back)
			}
			return err
		}
		// No power cut may leave the mail and take the list of its UIDs.
		if i == 0 {
			if err := dir.Sync(); err != nil {
				into.RenameNoReplace(n, dir, n)
				return err
			}
		}
	}
	return dir.Sync()
}
