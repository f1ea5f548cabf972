package maildir

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imapd/maildir/intents"
	"imapd/maildir/vfs"
)

// What we do to several files one after the other, another process finishes or
// undoes if we do not live to. What is to be done is on disk before it begins
// (package intents), and whoever next has the folder's lock looks.
//
// A MOVE is finished: where the target has the message, as the same file, it is
// removed here. Anything else leaves it: a duplicate is allowed, a loss is not.
//
// Of APPENDs of several messages and COPYs of several messages the lines in the
// UID list are the commit: one write. Without them the files are removed again.
// A file that has a line stays, whoever wrote it: somebody has seen it. And so do
// the others then: a power cut can tear the write, and they will get UIDs.
//
// One message needs no intent to come whole or not at all. One that is moved does:
// it would be in both folders.

// intend notes an intent of m. Where that cannot be, for want of locks or of room,
// what a crash would leave half done stays so; that is no reason to refuse mail.
func (m *Mailbox) intend(i intents.Intent) *intents.Held {
	h, err := intents.Begin(m.control, i)
	if err != nil {
		m.host.opt.Log.Warn("cannot note what is to be done", "mailbox", m.name, "err", err)
	}
	return h
}

// syncIntent makes what intend noted durable.
func (m *Mailbox) syncIntent(h *intents.Held) {
	if m.host.opt.Fsync == FsyncNever {
		return
	}
	if err := h.Sync(); err != nil {
		m.host.opt.Log.Warn("cannot make durable what is to be done", "mailbox", m.name, "err", err)
	}
}

// intendPlacing notes, durably, that files are placed in m. The lock is held.
func (m *Mailbox) intendPlacing(add []newcomer) *intents.Held {
	if len(add) < 2 {
		return nil
	}
	i := intents.Intent{Kind: intents.Place, Validity: m.list.head.Validity}
	for _, a := range add {
		s := intents.Step{To: a.base}
		if a.from != m.tmp {
			s.From = a.name // it is somebody's mail already
		}
		var st unix.Stat_t
		if unix.Fstatat(a.from.Fd(), a.name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			s.Dev, s.Ino = uint64(st.Dev), st.Ino
		}
		i.Steps = append(i.Steps, s)
	}
	h := m.intend(i)
	m.syncIntent(h)
	return h
}

// intendMove notes that the messages of list go from m to the mailbox to, where
// they have the names of add. m is not held. It must be durable before the UIDs
// are, and not before the names: what a power cut between the two leaves is a
// duplicate. So it is synced when they have been placed, and syncing their
// directory finds the journal written then.
func (m *Mailbox) intendMove(list []source, add []newcomer, to *Mailbox) *intents.Held {
	if len(list) == 0 {
		return nil
	}
	target, err := filepath.Rel(m.store.cfg.Root, to.where())
	if err != nil || !filepath.IsLocal(target) {
		return nil
	}
	i := intents.Intent{Kind: intents.Move, Target: target}
	for k, src := range list {
		i.Steps = append(i.Steps, intents.Step{From: src.name, To: add[k].base})
	}
	return m.intend(i)
}

// redo finishes or undoes what processes that are gone have begun here. What
// cannot be done is left for the next time: it keeps nobody from his mail. The
// lock, m.mu and a disk slot are held.
func (m *Mailbox) redo() {
	m.unfinished = false
	if m.moving != nil && m.moving.Alone() {
		return // our own, which may be long
	}
	held, err := intents.Claim(m.control, func(k intents.Kind) bool { return k == intents.Move || k == intents.Place })
	if held == nil {
		m.sayUndone(err)
		return
	}
	defer held.Close()
	m.clean = stamp{}
	m.track.unsound()
	for _, i := range held.Intents {
		n, err := 0, error(nil)
		if i.Kind == intents.Move {
			n, err = m.redoMove(i)
		} else {
			n, err = m.undoPlacing(i)
		}
		if err != nil {
			m.sayUndone(err)
			return
		}
		m.host.opt.Log.Info("recovered after a crash", "mailbox", m.name, "kind", string(rune(i.Kind)), "messages", len(i.Steps), "removed", n)
	}
	held.Done()
}

// sayUndone logs, once, what keeps redo from its work.
func (m *Mailbox) sayUndone(err error) {
	if err != nil && !m.undone {
		m.host.opt.Log.Warn("cannot finish what a crash left", "mailbox", m.name, "err", err)
	}
	m.undone = err != nil
}

// A spot is where a file is.
type spot struct {
	place place
	name  string
}

// spots returns where the files with the given base names are in a folder whose
// directories are dirs, by place. Of two files of one base name it returns none:
// somebody has to look at them first.
func spots(dirs [2]vfs.Dir, bases map[string]bool) (map[string]spot, error) {
	found := map[string]spot{}
	twice := map[string]bool{}
	for _, p := range []place{inNew, inCur} {
		_, err := scanDir(dirs[p].Fd(), func(name []byte) {
			base := string(name[:baseLen(name)])
			if _, two := found[base]; two {
				twice[base] = true
			}
			if bases[base] {
				found[base] = spot{p, string(name)}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	for base := range twice {
		delete(found, base)
	}
	return found, nil
}

// undoPlacing removes files that were placed, if none of them has a line in the
// UID list. A list that is not whole proves nothing. Only the very files go that were
// noted: another one may have come under the name. Of a message that was copied by a
// second name the only one stays: somebody else has moved it here, perhaps, or expunged
// it where it was.
func (m *Mailbox) undoPlacing(i intents.Intent) (removed int, err error) {
	if err := errors.Join(m.list.read(m.control), m.list.load(m.control)); err != nil {
		return 0, err
	}
	if !m.list.known || m.list.damaged || m.list.head.Validity != i.Validity {
		return 0, nil
	}
	want := map[string]bool{}
	for _, s := range i.Steps {
		if m.list.has(s.To) {
			return 0, nil
		}
		want[s.To] = true
	}
	dirs := [2]vfs.Dir{inCur: m.cur, inNew: m.new}
	at, err := spots(dirs, want)
	if err != nil {
		return 0, err
	}
	var in [2]bool
	for _, s := range i.Steps {
		f, there := at[s.To]
		var st unix.Stat_t
		if !there || unix.Fstatat(dirs[f.place].Fd(), f.name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil ||
			s.Ino != st.Ino || s.Dev != uint64(st.Dev) || s.From != "" && st.Nlink < 2 {
			continue
		}
		if err := dirs[f.place].Unlink(f.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
		in[f.place] = true
		removed++
	}
	return removed, m.syncDirs(in)
}

// redoMove removes the messages of a MOVE that are in its target. What was
// renamed for its flags since the MOVE began is left: the target does not have
// the flags that it has now.
func (m *Mailbox) redoMove(i intents.Intent) (removed int, err error) {
	if !filepath.IsLocal(i.Target) {
		return 0, nil
	}
	target, err := m.openTarget(i.Target)
	if err != nil {
		return 0, err
	}
	defer closeDirs(target[:])
	if target[inCur] == nil || target[inNew] == nil {
		return 0, nil // the folder is gone, or has another name
	}
	from, to := map[string]bool{}, map[string]bool{}
	for _, s := range i.Steps {
		from[s.From[:baseLen(s.From)]], to[s.To] = true, true
	}
	here := [2]vfs.Dir{inCur: m.cur, inNew: m.new}
	sources, err := spots(here, from)
	if err != nil {
		return 0, err
	}
	targets, err := spots(target, to)
	if err != nil {
		return 0, err
	}
	var gone []spot
	var in, there [2]bool
	for _, s := range i.Steps {
		f, ok := sources[s.From[:baseLen(s.From)]]
		t, arrived := targets[s.To]
		if !ok || !arrived || parseFlags(f.name) != parseFlags(s.From) || !sameFile(here[f.place], f.name, target[t.place], t.name) {
			continue
		}
		gone = append(gone, f)
		in[f.place], there[t.place] = true, true
	}
	// Whoever placed them may not have come to make that durable.
	for p, d := range target {
		if there[p] {
			if err := d.Sync(); err != nil {
				return 0, err
			}
		}
	}
	for _, f := range gone {
		if err := here[f.place].Unlink(f.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
		removed++
	}
	return removed, m.syncDirs(in)
}

// openTarget opens the directories of the folder at path below the root, by place;
// those that are not there are nil.
func (m *Mailbox) openTarget(path string) (dirs [2]vfs.Dir, err error) {
	for p, name := range map[place]string{inCur: "cur", inNew: "new"} {
		dirs[p], err = m.host.opt.Open(strings.TrimSuffix(m.store.cfg.Root, "/") + "/" + path + "/" + name)
		if err != nil {
			dirs[p] = nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			closeDirs(dirs[:])
			return dirs, err
		}
	}
	return dirs, nil
}

func closeDirs(dirs []vfs.Dir) {
	for _, d := range slices.DeleteFunc(dirs, func(d vfs.Dir) bool { return d == nil }) {
		d.Close()
	}
}

// sameFile reports whether two names are of one file.
func sameFile(a vfs.Dir, an string, b vfs.Dir, bn string) bool {
	var x, y unix.Stat_t
	return unix.Fstatat(a.Fd(), an, &x, unix.AT_SYMLINK_NOFOLLOW) == nil && unix.Fstatat(b.Fd(), bn, &y, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		x.Dev == y.Dev && x.Ino == y.Ino
}

// syncDirs makes what was done to names durable in the places that are set.
func (m *Mailbox) syncDirs(in [2]bool) error {
	if m.host.opt.Fsync == FsyncNever {
		return nil
	}
	var errs []error
	for p, set := range in {
		if set {
			errs = append(errs, m.dirOf(place(p)).Sync())
		}
	}
	return errors.Join(errs...)
}
