package tree

import (
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// A rename of folders is several renames of directories where each folder is one
// of the root (Maildir++) and where their UID lists lie elsewhere. All of them
// are noted before the first is made. What a process left that was killed between
// them is finished by the next one that changes the tree or opens it; or taken
// back, if a new name has been given to something else meanwhile. So all folders
// have their new names then, or all have the old ones.

// A Journal notes what is about to be done. It is called under the tree's lock.
type Journal interface {
	// Intend notes moves, durably if it can. end says that there is nothing left
	// to do of them; or that there is, where finished is false.
	Intend(root vfs.Dir, moves []Move) (end func(finished bool))
	// Waiting reports whether root may have notes. It needs no lock.
	Waiting(root vfs.Dir) bool
	// Unfinished returns the notes of processes that are gone. Where there are
	// some, end is called in the end.
	Unfinished(root vfs.Dir) (notes [][]Move, end func(finished bool))
}

// A Move is one rename of a directory. The paths are relative to the root, or to
// the control directory.
type Move struct {
	Control  bool
	From, To string
}

// Recover finishes what processes that are gone have left, if there is anything
// and nobody else changes the tree. It costs a few stats if not.
func (t *Tree) Recover() error {
	root, err := t.open(t.root)
	if err != nil {
		return ignoreNotExist(err)
	}
	defer root.Close()
	control, err := t.openTrashed()
	if err != nil {
		return err
	}
	if control != nil {
		defer control.Close()
	}
	if control == nil && !isThere(root, trashName) && (t.journal == nil || !t.journal.Waiting(root)) {
		return nil
	}
	unlock, err := tryTreeLock(root)
	if err != nil {
		if errors.Is(err, ErrBusy) {
			return nil
		}
		return err
	}
	defer unlock()
	if control != nil {
		emptyTrash(control)
	}
	t.tidy(root)
	return nil
}

// openTrashed opens the control directory if it is not the root and a
// crash has left a trash there, else it returns nil.
func (t *Tree) openTrashed() (vfs.Dir, error) {
	if t.control == t.root {
		return nil, nil
	}
	control, err := t.open(t.control)
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	if !isThere(control, trashName) {
		return nil, control.Close()
	}
	return control, nil
}

// tidy does the work of Recover under the lock. What fails is left for the next
// time.
func (t *Tree) tidy(root vfs.Dir) {
	if isThere(root, trashName) {
		emptyTrash(root)
	}
	if t.journal == nil || !t.journal.Waiting(root) {
		return
	}
	notes, end := t.journal.Unfinished(root)
	finished := true
	for _, moves := range notes {
		finished = t.redo(moves) == nil && finished
	}
	if len(notes) > 0 {
		end(finished)
	}
}

// intend notes what a rename of folders will do, if that is more than one step.
func (t *Tree) intend(root vfs.Dir, moves []Move) (done func(error)) {
	if len(moves) < 2 || t.journal == nil {
		return func(error) {}
	}
	end := t.journal.Intend(root, moves)
	return func(failed error) {
		end(failed == nil || !t.mixed(moves))
	}
}

// plan returns the renames that make from the folder to.
func (t *Tree) plan(from, to []string) (moves []Move, err error) {
	for _, control := range []bool{true, false} {
		if control && t.control == t.root {
			continue
		}
		if t.layout == FS {
			m := Move{control, t.relative(from), t.relative(to)}
			if there, _, err := t.standing(m); err == nil && there {
				moves = append(moves, m)
			}
			continue
		}
		dir, err := t.open(t.base(control))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		flat, err := flatMoves(place{dir: dir, entry: t.relative(from)}, t.relative(to))
		dir.Close()
		if err != nil {
			return nil, err
		}
		for _, m := range flat {
			moves = append(moves, Move{control, m.from, m.to})
		}
	}
	return moves, nil
}

func (t *Tree) base(control bool) string {
	if control {
		return t.control
	}
	return t.root
}

// possible reports whether a note can be ours: nobody can have us rename what is
// no folder, or is elsewhere.
func (t *Tree) possible(m Move) bool {
	for _, p := range []string{m.From, m.To} {
		if !filepath.IsLocal(p) || path.Clean(p) != p || p == "." {
			return false
		}
		if t.layout != FS && (p[0] != '.' || strings.Contains(p, "/")) {
			return false
		}
		for part := range strings.SplitSeq(p, "/") {
			if part == "cur" || part == "new" || part == "tmp" {
				return false
			}
		}
	}
	return true
}

// standing reports which of the two names of a move exist.
func (t *Tree) standing(m Move) (from, to bool, err error) {
	dir, err := t.open(t.base(m.Control))
	if err != nil {
		return false, false, err
	}
	defer dir.Close()
	return isThere(dir, m.From), isThere(dir, m.To), nil
}

// mixed reports whether some of moves are made and others not.
func (t *Tree) mixed(moves []Move) bool {
	old, made := false, false
	for _, m := range moves {
		from, to, err := t.standing(m)
		if err != nil {
			return true
		}
		old, made = old || from, made || to && !from
	}
	return old && made
}

// redo makes the moves that are not made yet; where one cannot be, it takes back
// those that are.
func (t *Tree) redo(moves []Move) error {
	forward := true
	for _, m := range moves {
		if !t.possible(m) {
			return nil
		}
		from, to, err := t.standing(m)
		if err != nil {
			return err
		}
		forward = forward && !(from && to)
	}
	moves = slices.Clone(moves)
	if !forward {
		slices.Reverse(moves)
		for i, m := range moves {
			moves[i] = Move{m.Control, m.To, m.From}
		}
	}
	for _, m := range moves {
		from, to, err := t.standing(m)
		if err == nil && from && !to {
			err = t.makeMove(m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makeMove renames one directory, durably, and makes the parents that it needs.
func (t *Tree) makeMove(m Move) error {
	base := t.base(m.Control)
	src, err := t.open(path.Join(base, path.Dir(m.From)))
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := t.open(base)
	if err != nil {
		return err
	}
	for part := range strings.SplitSeq(path.Dir(m.To), "/") {
		sub, err := vfs.MkdirLike(dst, part)
		if errors.Is(err, fs.ErrExist) {
			sub, err = dst.OpenDir(part)
		}
		dst.Close()
		if err != nil {
			return err
		}
		dst = sub
	}
	defer dst.Close()
	if err := src.RenameNoReplace(path.Base(m.From), dst, path.Base(m.To)); err != nil {
		return err
	}
	return errors.Join(dst.Sync(), src.Sync())
}

// strayAge is how old a folder must be that is being built to be nobody's.
const strayAge = 36 * time.Hour

// sweepBuilt removes folders that were never finished from tmp. It looks at the
// first thousand entries or so: what is further behind is not in the way.
func sweepBuilt(tmp vfs.Dir, now time.Time) {
	d, err := tmp.OpenDir(".")
	if err != nil {
		return
	}
	defer d.Close()
	buf := make([]byte, 64<<10)
	n, err := unix.ReadDirent(d.Fd(), buf)
	if err != nil || n <= 0 {
		return
	}
	_, _, names := unix.ParseDirent(buf[:n], -1, nil)
	for _, name := range names {
		var st unix.Stat_t
		if strings.HasPrefix(name, builtPrefix) && unix.Fstatat(tmp.Fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil &&
			now.Sub(time.Unix(st.Ctim.Unix())) > strayAge {
			removeAll(tmp, name, 0)
		}
	}
}
