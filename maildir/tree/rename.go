package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"imapd/maildir/vfs"
)

// Rename gives the folder old and all below it the name name. Subscriptions
// stay as they are (RFC 9051 section 6.3.6). Either all folders move or, if one
// cannot, none, also after a crash (redo.go). It fails with ErrNotFound, ErrExists (for
// any of the new names), and ErrName: for INBOX, for a name below old, and where
// a folder below old would get too long a name.
func (t *Tree) Rename(old, name string) error {
	from, err := t.read(old, t.parse)
	if err != nil {
		return err
	}
	to, err := t.read(name, t.parseNew)
	if err != nil {
		return err
	}
	if err := t.checkRename(old, name, from, to); err != nil {
		return err
	}
	root, end, err := t.begin()
	if err != nil {
		return notFound(old, err)
	}
	defer end()
	if err := t.checkFamily(old, name, from, to); err != nil {
		return err
	}
	moves, err := t.plan(from, to)
	if err != nil {
		return err
	}
	if err := t.vacate(root, moves); err != nil {
		return err
	}
	done := t.intend(root, moves)
	err = t.renameAll(old, name, from, to)
	done(err)
	return err
}

func (t *Tree) checkRename(old, name string, from, to []string) error {
	switch {
	case len(from) == 0:
		return nameError(old, "INBOX is renamed by moving its messages")
	case len(to) == 0 || slices.Equal(from, to):
		return fmt.Errorf("%s: %w", name, ErrExists)
	case len(to) > len(from) && slices.Equal(from, to[:len(from)]):
		return nameError(name, "it is below the mailbox itself")
	case t.aboveInbox(from):
		return nameError(old, "INBOX is below it on disk")
	}
	return nil
}

// checkFamily looks at the new name of every folder from old down, of which
// there must be one.
func (t *Tree) checkFamily(old, name string, from, to []string) error {
	fault, found := "", false
	err := t.walk(func(raw []string, exists bool) bool {
		parts, ok := t.decode(raw)
		if !ok || !exists && t.layout != FS || len(parts) < len(from) || !slices.Equal(parts[:len(from)], from) {
			return true
		}
		found = true
		moved := slices.Concat(to, parts[len(from):])
		if fault = t.faults(moved); fault == "" && len(t.name(moved)) > t.maxName {
			fault = "it is too long"
		}
		return fault == ""
	})
	switch {
	case err != nil:
		return err
	case !found:
		return fmt.Errorf("%s: %w", old, ErrNotFound)
	case fault != "":
		return nameError(name, "of a mailbox below the old one: "+fault)
	}
	return nil
}

// vacate discards what folders that are gone have left in the control directory where
// moves put others, as Create does: no client can see that it is in the way.
func (t *Tree) vacate(root vfs.Dir, moves []Move) error {
	if t.control == t.root {
		return nil
	}
	control, err := t.open(t.control)
	if err != nil {
		return ignoreNotExist(err)
	}
	defer control.Close()
	for _, m := range moves {
		if !isThere(control, m.To) || isThere(root, m.To) {
			continue
		}
		if err := throwOut(control, m.To); err != nil {
			return err
		}
	}
	emptyTrash(control)
	return nil
}

// throwOut moves what is at rel below base into its trash, with all that is below.
func throwOut(base vfs.Dir, rel string) error {
	to, err := trash(base)
	if err != nil {
		return err
	}
	defer to.Close()
	dir, err := base.OpenDir(path.Dir(rel))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Rename(path.Base(rel), to, uniqueName("")); err != nil {
		return err
	}
	return dir.Sync()
}

// renameAll moves the control directories, then the mail, then the indexes: one
// that cannot follow its folder is lost, which is no reason to refuse.
func (t *Tree) renameAll(old, name string, from, to []string) error {
	undo := func() {}
	if t.control != t.root {
		back, err := t.move(t.control, old, name, from, to)
		if back != nil {
			undo = back
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			undo()
			return err
		}
	}
	back, err := t.move(t.root, old, name, from, to)
	if err != nil {
		if back != nil {
			back()
		}
		undo()
		return err
	}
	if t.index != t.root && t.index != t.control {
		if err := t.deleteSide(t.index, to); err == nil {
			_, _ = t.move(t.index, old, name, from, to)
		}
	}
	return nil
}

// move renames the directories of a folder and those below it in base. undo
// takes it back; with an error it is nil unless they have been renamed.
func (t *Tree) move(base, old, name string, from, to []string) (undo func(), err error) {
	src, err := t.find(base, from)
	if err != nil {
		return nil, notFound(old, err)
	}
	defer src.close()
	if t.layout != FS {
		return t.moveFlat(src, base, old, name, to)
	}
	if !isDir(src.dir, src.entry) {
		return nil, fmt.Errorf("%s: %w", old, ErrNotFound)
	}
	dst, err := t.makePlace(base, to)
	if err != nil {
		return nil, t.blocked(name, err)
	}
	defer dst.close()
	if err = src.dir.RenameNoReplace(src.entry, dst.dir, dst.entry); err != nil {
		dst.undo()
		return nil, exists(name, err)
	}
	undo = func() { t.move(base, name, old, to, from) }
	if err := errors.Join(dst.dir.Sync(), src.dir.Sync()); err != nil || len(from) == 1 {
		return undo, err
	}
	// As Dovecot does: a parent that held nothing else goes too.
	t.rmdirParent(base, from[:len(from)-1])
	return undo, nil
}

// rmdirParent removes a container if it is empty.
func (t *Tree) rmdirParent(base string, parts []string) {
	if p, err := t.find(base, parts); err == nil {
		p.dir.Rmdir(p.entry)
		p.close()
	}
}

func exists(name string, err error) error {
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", name, ErrExists)
	}
	return err
}

// A rename of one directory entry.
type entryMove struct{ from, to string }

// moveFlat renames .old and all .old.* of a Maildir++ root, whatever they are.
func (t *Tree) moveFlat(src place, base, old, name string, to []string) (undo func(), err error) {
	if isThere(src.dir, t.relative(to)) {
		return nil, fmt.Errorf("%s: %w", name, ErrExists)
	}
	moves, err := flatMoves(src, t.relative(to))
	if err != nil {
		return nil, err
	}
	if len(moves) == 0 {
		return nil, fmt.Errorf("%s: %w", old, ErrNotFound)
	}
	for _, m := range moves {
		if len(m.to) > maxPart {
			return nil, nameError(name, "of a mailbox below the old one: it is too long")
		}
		if isThere(src.dir, m.to) {
			return nil, fmt.Errorf("%s: %w", name, ErrExists)
		}
	}
	for i, m := range moves {
		if err := src.dir.RenameNoReplace(m.from, src.dir, m.to); err != nil {
			renameBack(src.dir, moves[:i])
			return nil, exists(name, err)
		}
	}
	undo = func() {
		if d, err := t.open(base); err == nil {
			renameBack(d, moves)
			d.Close()
		}
	}
	return undo, src.dir.Sync()
}

// flatMoves returns the renames that make src.entry the entry to, parents
// first.
func flatMoves(src place, to string) ([]entryMove, error) {
	names, err := vfs.ReadNames(src.dir)
	if err != nil {
		return nil, err
	}
	var moves []entryMove
	for _, n := range names {
		if rest, ok := strings.CutPrefix(n, src.entry); ok && (rest == "" || rest[0] == '.') {
			moves = append(moves, entryMove{n, to + rest})
		}
	}
	slices.SortFunc(moves, func(a, b entryMove) int { return strings.Compare(a.from, b.from) })
	return moves, nil
}

func renameBack(dir vfs.Dir, moves []entryMove) {
	for i := len(moves) - 1; i >= 0; i-- {
		dir.RenameNoReplace(moves[i].to, dir, moves[i].from)
	}
}
