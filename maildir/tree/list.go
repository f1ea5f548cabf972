package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imapd/imap/wire"
	"imapd/maildir/vfs"
)

// A Folder is one name of the tree.
type Folder struct {
	Name string // as clients see it
	// Path and ControlPath are what Tree.Path returns; empty for the parent
	// that is only a part of the prefix.
	Path, ControlPath string
	Exists            bool // it can be selected: it has a cur/
	Container         bool // it does not, but is a directory (fs layout)
	HasChildren       bool
}

// List returns all folders by name, INBOX first and parents before children,
// and with parents that do not exist. A directory counts if it has a
// cur/ and a name that decodes. It fails with ErrLimit where there are more
// than 100,000, or than twice as many as may be created.
func (t *Tree) List() ([]Folder, error) {
	limit := max(maxFolders, 2*t.maxFolders)
	found := map[string]*Folder{"INBOX": {Name: "INBOX", Path: t.root, ControlPath: t.inboxControl()}}
	err := t.walk(func(raw []string, exists bool) bool {
		if len(raw) == 0 {
			found["INBOX"].Exists = exists
			return true
		}
		parts, ok := t.decode(raw)
		if !ok || !exists && t.layout != FS {
			return true
		}
		rel := t.relative(parts)
		name := t.name(parts)
		found[name] = &Folder{Name: name, Path: t.root + "/" + rel, ControlPath: t.control + "/" + rel, Exists: exists, Container: !exists}
		return len(found) <= limit
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // nothing but an INBOX that is not there yet
	}
	if err != nil {
		return nil, err
	}
	if len(found) > limit {
		return nil, fmt.Errorf("%s: %w", t.root, ErrLimit)
	}
	t.addParents(found)
	return t.sorted(found), nil
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
				f.Path, f.ControlPath, _ = t.Path(name)
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

// walk calls fn for the root (no parts) and every directory that may be a
// folder, with its parts as they are on disk, until fn returns false.
func (t *Tree) walk(fn func(raw []string, exists bool) bool) error {
	root, err := t.open(t.root)
	if err != nil {
		return err
	}
	defer root.Close()
	if !fn(nil, isDir(root, "cur")) {
		return nil
	}
	if t.layout == FS {
		w := walker{fn: fn}
		return w.below(root, nil)
	}
	return flatNames(root, func(e string, raw []string) bool { return fn(raw, isDir(root, e+"/cur")) })
}

// walkNames is walk for those who only need names.
func (t *Tree) walkNames(fn func(raw []string) bool) error {
	if t.layout == FS {
		return t.walk(func(raw []string, _ bool) bool { return fn(raw) })
	}
	root, err := t.open(t.root)
	if err != nil {
		return err
	}
	defer root.Close()
	return flatNames(root, func(_ string, raw []string) bool { return fn(raw) })
}

// flatNames calls fn for each entry of a Maildir++ root that may be a folder,
// until it returns false.
func flatNames(root vfs.Dir, fn func(entry string, raw []string) bool) error {
	entries, err := readNames(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if len(e) > 1 && e[0] == '.' && e[1] != '.' && !fn(e, strings.Split(e[1:], ".")) {
			break
		}
	}
	return nil
}

// A walker goes down an fs layout. Symbolic links are followed, as Dovecot
// does, but never to a directory that one is in already.
type walker struct {
	fn   func(raw []string, exists bool) bool
	in   [][2]uint64 // dev and ino of the directories above
	done bool
}

func (w *walker) below(dir vfs.Dir, raw []string) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir.Fd(), &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir.Path(), Err: err}
	}
	id := [2]uint64{uint64(st.Dev), st.Ino}
	if len(raw) >= maxDepth || slices.Contains(w.in, id) {
		return nil
	}
	w.in = append(w.in, id)
	defer func() { w.in = w.in[:len(w.in)-1] }()
	entries, err := readNames(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !w.enter(dir, e, append(slices.Clip(raw), e)) {
			return nil
		}
	}
	return nil
}

// enter looks at one entry. What cannot be opened is passed over: another
// program may have removed it just now, or it belongs to somebody else.
func (w *walker) enter(dir vfs.Dir, e string, raw []string) bool {
	if e == "cur" || e == "new" || e == "tmp" || strings.HasPrefix(e, "..") || !isDir(dir, e) {
		return true
	}
	sub, err := dir.OpenDir(e)
	if err != nil {
		return true
	}
	defer sub.Close()
	if !w.fn(raw, isDir(sub, "cur")) {
		w.done = true
		return false
	}
	_ = w.below(sub, raw)
	return !w.done
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

// readNames returns the entries of dir but "." and "..".
func readNames(dir vfs.Dir) ([]string, error) {
	d, err := dir.OpenDir(".") // its own offset
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(d.Fd(), buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "readdir", Path: dir.Path(), Err: err}
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// detect sets the layout and the encoding where they are to be found out.
func (t *Tree) detect() error {
	if t.layout == Auto {
		layout, err := t.detectLayout()
		if err != nil {
			return err
		}
		t.layout = layout
	}
	if t.names == AutoNames {
		return t.detectNames()
	}
	return nil
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
	entries, err := readNames(root)
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
	err = w.below(root, nil)
	return layout, err
}

func isHex(s string) bool { return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == "" }

// detectNames counts the names that speak for either encoding.
func (t *Tree) detectNames() error {
	for7, for8 := 0, 0
	err := t.walkNames(func(raw []string) bool {
		for _, part := range raw {
			if p, err := wire.DecodeUTF7(part); err != nil {
				for8++
			} else if p != part && strings.IndexFunc(p, func(r rune) bool { return r > '~' }) >= 0 {
				for7++
			}
		}
		return true
	})
	t.names = UTF7
	if for8 > 0 && for8 >= for7 {
		t.names = UTF8
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
