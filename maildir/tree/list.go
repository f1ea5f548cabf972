package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// A Folder is one name of the tree.
type Folder struct {
	Name        string // as clients see it
	Exists      bool   // it can be selected
	Container   bool   // it does not, but is a directory (fs layout)
	HasChildren bool
}

// List returns all folders by name, INBOX first and parents before children,
// and with parents that do not exist. A directory counts if it has a
// cur/, or in Maildir++ a new/, and a name that decodes. It fails with ErrLimit where there are more
// than 100,000, or than twice as many as may be created.
func (t *Tree) List() ([]Folder, error) {
	raw, err := t.folders()
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // nothing but an INBOX that is not there yet
	}
	if err != nil {
		return nil, err
	}
	found := map[string]*Folder{"INBOX": {Name: "INBOX"}}
	for _, f := range raw {
		if len(f.parts) == 0 {
			found["INBOX"].Exists = f.exists
		} else if parts, ok := t.decode(f.parts); ok {
			name := t.name(parts)
			found[name] = &Folder{Name: name, Exists: f.exists, Container: !f.exists}
		}
	}
	t.addParents(found)
	return t.sorted(found), nil
}

// A rawFolder is INBOX (no parts) or a directory that may be a folder.
type rawFolder struct {
	parts  []string // as they are on disk
	exists bool
}

// folders returns what there is of folders, and lets it tell the encoding of
// names if that is open.
func (t *Tree) folders() (list []rawFolder, err error) {
	var v vote
	err = t.walk(func(parts []string, exists bool) bool {
		v.count(parts)
		if exists || len(parts) == 0 || t.layout == FS {
			list = append(list, rawFolder{parts, exists})
		}
		return true
	})
	if err == nil {
		t.names.CompareAndSwap(int32(AutoNames), int32(v.encoding()))
	}
	return list, err
}

// addParents enters the parents of what was found, and HasChildren.
func (t *Tree) addParents(found map[string]*Folder) {
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	for _, name := range names {
		for i := strings.LastIndexByte(name, t.separator); i > 0; i = strings.LastIndexByte(name, t.separator) {
			name = name[:i]
			f := found[name]
			if f == nil {
				f = &Folder{Name: name}
				found[name] = f
			}
			if f.HasChildren {
				break // and so have its own parents
			}
			f.HasChildren = true
		}
	}
}

func (t *Tree) sorted(found map[string]*Folder) []Folder {
	list := make([]Folder, 0, len(found))
	for _, f := range found {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b Folder) int { return Compare(a.Name, b.Name, t.separator) })
	return list
}

// Compare orders names: INBOX and what is below it first, then by octets with
// the separator before all others, so that parents come before children.
func Compare(a, b string, separator byte) int {
	first, second := inInbox(a, separator), inInbox(b, separator)
	switch {
	case first && !second:
		return -1
	case second && !first:
		return 1
	}
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			continue
		}
		switch {
		case a[i] == separator:
			return -1
		case b[i] == separator:
			return 1
		}
		return int(a[i]) - int(b[i])
	}
	return len(a) - len(b)
}

func inInbox(name string, separator byte) bool {
	rest, ok := strings.CutPrefix(name, "INBOX")
	return ok && (rest == "" || rest[0] == separator)
}

// walk calls fn for INBOX (no parts) and every directory that may be a folder, with
// its parts as they are on disk, until fn returns false. If INBOX is below the root its
// directory is among the others too: no name decodes to it. It fails with
// ErrLimit where there are too many: links between a few directories of an fs layout can
// make a million names.
func (t *Tree) walk(fn func(raw []string, exists bool) bool) error {
	root, err := t.open(t.root)
	if err != nil {
		return err
	}
	defer root.Close()
	left := t.maxWalk
	each := func(raw []string, exists bool) bool {
		if exists || t.layout == FS {
			left--
		}
		return left >= 0 && fn(raw, exists)
	}
	if exists, _ := isDirectory(t.inbox + "/cur"); !each(nil, exists) {
		return nil
	}
	if t.layout == FS {
		w := walker{fn: each}
		err = w.root(root)
	} else {
		err = flatNames(root, func(e string, raw []string) bool { return each(raw, t.isFolder(root, e)) })
	}
	if err == nil && left < 0 {
		err = fmt.Errorf("%s: %w", t.root, ErrLimit)
	}
	return err
}

// isFolder reports whether the directory entry of dir is a folder. In Maildir++ one
// that has lost its cur/ is, for there may be mail in new/; elsewhere a deleted
// folder may still have a new/ if there are folders in it.
func (t *Tree) isFolder(dir vfs.Dir, entry string) bool {
	return isDir(dir, entry+"/cur") || t.layout != FS && isDir(dir, entry+"/new")
}

// walkNames is walk for those who only need names, and not the root.
func (t *Tree) walkNames(fn func(raw []string) bool) error {
	if t.layout == FS {
		return t.walk(func(raw []string, _ bool) bool { return len(raw) == 0 || fn(raw) })
	}
	root, err := t.open(t.root)
	if err != nil {
		return err
	}
	defer root.Close()
	return flatNames(root, func(_ string, raw []string) bool { return fn(raw) })
}

// flatNames calls fn for each entry of a Maildir++ root that may be a folder,
// until it returns false. The root has not been read before.
func flatNames(root vfs.Dir, fn func(entry string, raw []string) bool) error {
	buf, free := vfs.DirentBuffer()
	defer free()
	dirs, err := readDirs(root, buf, func(name []byte) bool {
		return len(name) > 1 && name[0] == '.' && name[1] != '.'
	})
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if !fn(d.name, strings.Split(d.name[1:], ".")) {
			break
		}
	}
	return nil
}

// A walker goes down an fs layout. Symbolic links are followed, as Dovecot
// does, but never to a directory that one is in already.
type walker struct {
	fn   func(raw []string, exists bool) bool
	in   []vfs.Dir // the directories above, and the present one
	buf  []byte
	done bool
}

func (w *walker) root(dir vfs.Dir) error {
	buf, free := vfs.DirentBuffer()
	defer free()
	w.buf = buf
	dirs, _, err := w.read(dir)
	if err == nil {
		w.below(dir, dirs, nil)
	}
	return err
}

// read returns the directories in dir that may be folders, and whether it has a
// cur/.
func (w *walker) read(dir vfs.Dir) (dirs []subdir, cur bool, err error) {
	dirs, err = readDirs(dir, w.buf, func(name []byte) bool {
		switch string(name) {
		case "new", "tmp":
			return false
		}
		return !bytes.HasPrefix(name, []byte(".."))
	})
	i := slices.IndexFunc(dirs, func(d subdir) bool { return d.name == "cur" })
	if i >= 0 {
		cur = dirs[i].is(dir)
		dirs = slices.Delete(dirs, i, i+1)
	}
	return dirs, cur, err
}

func (w *walker) below(dir vfs.Dir, dirs []subdir, raw []string) {
	if len(raw) >= maxDepth {
		return
	}
	w.in = append(w.in, dir)
	for _, d := range dirs {
		if w.done {
			break
		}
		w.enter(dir, d, append(slices.Clip(raw), d.name))
	}
	w.in = w.in[:len(w.in)-1]
}

// enter looks at one entry. What cannot be opened is passed over: another
// program may have removed it just now, or it belongs to somebody else. Only a
// link can lead back to where one is already.
func (w *walker) enter(dir vfs.Dir, d subdir, raw []string) {
	if !d.is(dir) {
		return
	}
	sub, err := dir.OpenDir(d.name)
	if err != nil {
		return
	}
	defer sub.Close()
	dirs, cur, err := w.read(sub)
	if !w.fn(raw, cur) {
		w.done = true
	} else if err == nil && (d.sure || !w.inside(sub)) {
		w.below(sub, dirs, raw)
	}
}

// inside reports whether dir is one of those that the walker is in.
func (w *walker) inside(dir vfs.Dir) bool {
	return slices.ContainsFunc(w.in, func(d vfs.Dir) bool { return sameDir(d, dir) })
}

func sameDir(a, b vfs.Dir) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a.Fd(), &x) == nil && unix.Fstat(b.Fd(), &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// isDir reports whether path below dir is a directory or a link to one.
func isDir(dir vfs.Dir, path string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir.Fd(), path, &st, 0) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// isThere reports whether the entry name exists, whatever it is.
func isThere(dir vfs.Dir, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir.Fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

func (t *Tree) detectLayout() (Layout, error) {
	root, err := t.open(t.root)
	if errors.Is(err, fs.ErrNotExist) {
		return PlusPlus, nil
	}
	if err != nil {
		return 0, err
	}
	defer root.Close()
	entries, err := vfs.ReadNames(root)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if e[0] == '.' && isDir(root, e+"/cur") {
			return PlusPlus, nil
		}
	}
	if slices.Contains(entries, "dovecot.list.index") && !slices.Contains(entries, "cur") &&
		slices.ContainsFunc(entries, func(e string) bool { return isHex(e) && isDir(root, e) }) {
		return 0, fmt.Errorf("%w: LAYOUT=index keeps names in dovecot.list.index only; move the mail with doveadm sync", ErrLayout)
	}
	layout, seen := PlusPlus, 0
	w := walker{fn: func(_ []string, exists bool) bool {
		if exists {
			layout = FS
		}
		seen++
		return !exists && seen < 1000
	}}
	return layout, w.root(root)
}

func isHex(s string) bool { return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == "" }
