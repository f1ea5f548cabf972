package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// Create makes the folder name, with a new UIDVALIDITY. Parents are made only
// where the layout needs them. A name that ends in the separator asks for a
// place for children (RFC 9051 section 6.3.4): in the fs layout that is a
// container, in Maildir++ a folder as any other. Create fails with ErrExists,
// ErrName, and with ErrLimit where there are Config.MaxFolders.
func (t *Tree) Create(name string) error {
	parts, err := t.read(name, t.parseNew)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		return fmt.Errorf("%s: %w", name, ErrExists)
	}
	root, end, err := t.begin()
	if err != nil {
		return err
	}
	defer end()
	if err := t.room(); err != nil {
		return err
	}
	p, err := t.makePlace(t.root, parts)
	if err != nil {
		return t.blocked(name, err)
	}
	defer p.close()
	switch {
	case t.isFolder(p.dir, p.entry):
		err = fmt.Errorf("%s: %w", name, ErrExists)
	case strings.HasSuffix(name, string(t.separator)) && t.layout == FS:
		err = container(p, name)
	case p.exists():
		err = t.complete(p, parts)
	default:
		err = t.build(root, p, parts)
	}
	if err != nil {
		p.undo()
	}
	return err
}

// blocked explains an error of making parents.
func (t *Tree) blocked(name string, err error) error {
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTDIR) {
		return nameError(name, "something else has its place")
	}
	return err
}

// uncounted is how many folders are made before they are counted again. The
// limit is there to bound what a user can do, not to be met exactly.
const uncounted = 100

// room checks the number of folders.
func (t *Tree) room() error {
	if t.spare.Add(-1) >= 0 {
		return nil
	}
	n := 0
	err := t.walkNames(func([]string) bool {
		n++
		return n < t.maxFolders
	})
	t.spare.Store(0)
	if err != nil {
		return err
	}
	if n >= t.maxFolders {
		return fmt.Errorf("%s: %w", t.root, ErrLimit)
	}
	t.spare.Store(int32(min(uncounted, t.maxFolders-n-1)))
	return nil
}

func container(p place, name string) error {
	d, err := vfs.MkdirLike(p.dir, p.entry)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", name, ErrExists)
	}
	if err != nil {
		return err
	}
	d.Close()
	return p.dir.Sync()
}

// builtPrefix begins the names of folders that are being built.
const builtPrefix = "imapd-new."

// build makes a whole folder in the root's tmp/ and renames it into place.
func (t *Tree) build(root vfs.Dir, p place, parts []string) error {
	tmp, err := root.OpenDir("tmp")
	if errors.Is(err, fs.ErrNotExist) {
		tmp, err = vfs.MkdirLike(root, "tmp")
	}
	if err != nil {
		return err
	}
	defer tmp.Close()
	sweepBuilt(tmp, time.Now())
	name := uniqueName(builtPrefix)
	dir, err := vfs.MkdirAs(tmp, name, root)
	if err != nil {
		return err
	}
	defer dir.Close()
	undo, err := t.furnish(dir, parts)
	if err == nil {
		err = tmp.RenameNoReplace(name, p.dir, p.entry)
	}
	if err != nil {
		removeAll(tmp, name, 0)
		undo()
		return err
	}
	return p.dir.Sync()
}

// complete turns a directory that is there into a folder: a container, or what
// a crash of another program left. cur/ comes last: it makes the folder.
func (t *Tree) complete(p place, parts []string) error {
	dir, err := p.dir.OpenDir(p.entry)
	if err != nil {
		return t.blocked(t.name(parts), err)
	}
	defer dir.Close()
	undo, err := t.furnish(dir, parts)
	if err != nil {
		undo()
		return err
	}
	return p.dir.Sync()
}

// furnish makes what belongs into the directory of a folder, and its UID list.
// undo takes back what is outside of dir.
func (t *Tree) furnish(dir vfs.Dir, parts []string) (undo func(), err error) {
	undo = func() {}
	for _, sub := range []string{"tmp", "new"} {
		if err := subDir(dir, sub); err != nil {
			return undo, err
		}
	}
	if t.layout != FS {
		f, err := vfs.CreateLike(dir, "maildirfolder")
		if err == nil {
			err = f.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return undo, err
		}
	}
	control := dir
	if t.control != t.root {
		if control, undo, err = t.controlDir(parts); err != nil {
			return undo, err
		}
		defer control.Close()
	}
	if t.index != t.root && t.index != t.control {
		// An index that is still there is checked by whoever opens it; this
		// only tidies up.
		_ = t.deleteSide(t.index, parts)
	}
	if t.seed != nil {
		validity, err := t.NextValidity()
		if err != nil {
			return undo, err
		}
		if err := t.seed(control, validity); err != nil {
			return undo, err
		}
	}
	if err := subDir(dir, "cur"); err != nil {
		return undo, err
	}
	return undo, dir.Sync()
}

func subDir(dir vfs.Dir, name string) error {
	d, err := vfs.MkdirLike(dir, name)
	if errors.Is(err, fs.ErrExist) && isDir(dir, name) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.Close()
}

// controlDir makes the control directory of a new folder. UIDs of a folder that
// is gone, should they still be there, must not come back.
func (t *Tree) controlDir(parts []string) (control vfs.Dir, undo func(), err error) {
	undo = func() {}
	base, err := t.OpenUser()
	if err != nil {
		return nil, undo, err
	}
	defer base.Close()
	p, err := t.makePlace(t.control, parts)
	if err != nil {
		return nil, undo, err
	}
	defer p.close()
	if p.exists() {
		if err := t.discard(base, p); err != nil {
			return nil, undo, err
		}
		emptyTrash(base)
	}
	control, err = vfs.MkdirLike(p.dir, p.entry)
	if errors.Is(err, fs.ErrExist) { // children of the folder are in it
		control, err = p.dir.OpenDir(p.entry)
		return control, undo, err
	}
	if err != nil {
		p.undo()
		return nil, undo, err
	}
	undo = func() {
		if p, err := t.find(t.control, parts); err == nil {
			removeAll(p.dir, p.entry, 0)
			p.close()
		}
	}
	if err := p.dir.Sync(); err != nil {
		control.Close()
		return nil, undo, err
	}
	return control, undo, nil
}
