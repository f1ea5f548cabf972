package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imapd/maildir/keywords"
	"imapd/maildir/quota"
	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
)

// edit runs fn with everything held that a change of the folder needs. What fn
// renames, links or unlinks in cur/ and new/ spoils the stamp, so that the next
// look scans.
func (m *Mailbox) edit(ctx context.Context, fn func() error) error {
	lock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return m.hold(ctx, lock, fn)
}

// rename is edit for changes that give no UIDs. Where no Dovecot runs beside us
// they need no lock: the name is the compare-and-swap.
func (m *Mailbox) rename(ctx context.Context, fn func() error) error {
	if m.host.opt.Lock == LockAlways {
		return m.edit(ctx, fn)
	}
	return m.hold(ctx, nil, fn)
}

func (m *Mailbox) hold(ctx context.Context, lock *uidlist.Lock, fn func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.slot(ctx); err != nil {
		return err
	}
	defer m.leave()
	defer m.resume()
	if !m.tracked() {
		if !m.inPlace() {
			return openError(m.name, unix.ENOENT)
		}
		before, err := m.stamp()
		if err != nil {
			return err // the folder has been deleted
		}
		if before == m.clean || m.track.sound {
			m.followLocked()
		}
	}
	m.clean, m.locked = stamp{}, lock != nil
	defer func() { m.locked = false }()
	if m.locked {
		m.redo()
	}
	if err := m.heedList(); err != nil {
		return err
	}
	return fn()
}

// heedList looks at the folder again if another process has written its list anew
// since the last look that compared all files with it, whoever has read it meanwhile.
// The lines of messages that are gone are not there any more, and a base name that one
// of them had may be another message's by now: what we know is no ground for touching
// a file before such a look.
func (m *Mailbox) heedList() error {
	if !m.list.again {
		now, err := uidlist.StatFile(m.control)
		if err != nil || m.list.file != nil && now.SameFile(m.list.stat) {
			return nil // whoever needs it will find that it is not there
		}
	}
	m.clean = stamp{}
	_, err := m.look(Look, false) // which writes nothing: the disk may be full
	return err
}

func (m *Mailbox) dirOf(p place) vfs.Dir {
	if p == inNew {
		return m.new
	}
	return m.cur
}

// refresh looks at the folder again in the middle of an edit: a name was not
// what we thought, for the try-th time. What the kernel tells is believed once.
func (m *Mailbox) refresh(try int) error {
	m.clean = stamp{}
	if try > 0 {
		m.track.unsound()
	}
	_, err := m.look(Look, m.locked)
	if m.locked && unwritable(err) {
		_, err = m.look(Look, false) // what cannot be recorded is no matter here
	}
	return err
}

// syncAfterEdit makes renames and unlinks durable where the site asked for it.
func (m *Mailbox) syncAfterEdit() error {
	if m.host.opt.Fsync != FsyncAlways {
		return nil
	}
	return errors.Join(m.cur.Sync(), m.new.Sync())
}

// A FlagOp is how SetFlags changes flags.
type FlagOp uint8

const (
	AddFlags FlagOp = iota
	RemoveFlags
	ReplaceFlags
)

// A FlagSet names flags independently of a mailbox.
type FlagSet struct {
	System   Flags    // of SystemFlags
	Keywords []string // each a flag-keyword; duplicates do no harm
}

// Changed says what SetFlags did.
type Changed struct {
	// ModSeq is that of the messages whose flags did change, 0 if none did.
	ModSeq ModSeq
	// Gone are the messages that were expunged meanwhile, ascending.
	Gone []UID
	// Modified are those that did not meet the condition, ascending.
	Modified []UID
}

// tries bounds how often an edit finds a file again that others rename.
const tries = 10

// errUnlocked says that an edit, or a look, turned out to need the lock.
var errUnlocked = errors.New("needs the lock")

// SetFlags changes the flags of the messages uids, which ascend. It publishes
// the outcome before it returns. A keyword that the mailbox does not have yet is
// made; where there is no room the error is ErrKeywords and nothing is changed.
func (m *Mailbox) SetFlags(ctx context.Context, uids []UID, op FlagOp, set FlagSet) (Changed, error) {
	return m.changeFlags(ctx, uids, nil, op, set)
}

func (m *Mailbox) changeFlags(ctx context.Context, uids []UID, only *Condition, op FlagOp, set FlagSet) (Changed, error) {
	var done Changed
	change := func() error {
		// To add or remove a system flag nobody has to know the others.
		if op == ReplaceFlags || len(set.Keywords) > 0 || only != nil || !m.locked {
			if err := m.readKeywords(); err != nil {
				return err
			}
		}
		if !m.locked && !m.keys.lettersOnly() {
			return errUnlocked
		}
		if only != nil {
			m.hearOthers() // a change that was taken back has a modseq as well
		}
		marks, err := m.keys.marks(m.control, set, op != RemoveFlags && m.takes(uids, only, op, set))
		if err != nil {
			return err
		}
		done, err = m.setFlags(uids, only, op, marks)
		return err
	}
	hold := m.rename
	if op != RemoveFlags && !m.Snapshot().has(set.Keywords) {
		hold = m.edit // a new letter is a change of dovecot-keywords
	}
	err := hold(ctx, change)
	if errors.Is(err, errUnlocked) {
		err = m.edit(ctx, change)
	}
	m.chargeFreed()
	if err == nil || done.ModSeq != 0 {
		// Also where nothing was changed: what this one has found may be on no disk yet.
		err = errors.Join(err, m.syncRenames(ctx))
	}
	return done, err
}

// takes reports whether op may be done to one of uids: else its keywords are not
// made.
func (m *Mailbox) takes(uids []UID, only *Condition, op FlagOp, set FlagSet) bool {
	snap := m.Snapshot()
	known := snap.Marks(set) // no message has the others
	return slices.ContainsFunc(uids, func(u UID) bool {
		msg, ok := snap.lookup(u)
		return ok && only.holds(msg, op, known)
	})
}

// has reports whether s knows all of the keywords.
func (s *Snapshot) has(keywords []string) bool {
	for _, k := range keywords {
		if s.Keyword(k) < 0 {
			return false
		}
	}
	return true
}

func (m *Mailbox) setFlags(uids []UID, only *Condition, op FlagOp, marks Marks) (Changed, error) {
	var done Changed
	todo := slices.Clone(uids)
	var lost []UID
	for try := 0; len(todo) > 0; try++ {
		left, err := m.renameForFlags(todo, only, op, marks, &done)
		if err != nil {
			return done, err
		}
		if len(left) == 0 {
			break
		}
		if try == tries && m.lost(left) {
			lost = left
			break
		}
		if try == tries {
			return done, m.unsteady()
		}
		// Another program has renamed them: what it said stays, and our change
		// comes on top of it, unless there is a condition that it broke.
		if err := m.refresh(try); err != nil {
			return done, err
		}
		todo = left
	}
	snap := m.Snapshot()
	for _, u := range uids {
		if _, ok := snap.Find(u); !ok || slices.Contains(lost, u) {
			done.Gone = append(done.Gone, u)
		}
	}
	return done, nil
}

// lost reports whether the files of uids have been looked for in vain: the messages are
// gone, as far as one can say before it is proven (unfound.go).
func (m *Mailbox) lost(uids []UID) bool {
	for _, u := range uids {
		if _, missing := m.missing[u]; !missing {
			return false
		}
	}
	return true
}

// unsteady is the error of an edit that has found no file under the name that it had
// just been told, as often as tries allow.
func (m *Mailbox) unsteady() error {
	return fmt.Errorf("%s: a file is renamed all the time: %w", m.name, ErrBusy)
}

// renameForFlags gives the files of uids names that say what their flags become,
// records what names cannot hold, publishes it, and adds to done. It returns
// those whose file was not there.
func (m *Mailbox) renameForFlags(uids []UID, only *Condition, op FlagOp, marks Marks, done *Changed) (left []UID, err error) {
	snap := m.Snapshot()
	rule := quota.None // asked for where it matters: a STORE is cheap
	if op == ReplaceFlags || marks.Flags&Deleted != 0 {
		rule = m.store.quotaRule()
	}
	var changes []change
	var sets []keywords.Set
	for _, u := range uids {
		msg, ok := snap.lookup(u)
		if !ok {
			continue
		}
		if !only.holds(msg, op, marks) {
			done.Modified = append(done.Modified, u)
			continue
		}
		was := msg.Marks()
		to := op.Apply(was, marks)
		to.Flags |= m.keys.unread(was.Flags)
		if to.Equal(was) {
			continue
		}
		e := entryOf(msg)
		name := withFlags(e.name, to.Flags)
		err = m.renameInto(e, name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
			left, err = append(left, u), nil
			continue
		}
		if err != nil {
			break
		}
		if set, differs := m.keys.overflowSet(msg.base(), &was, to); differs {
			sets = append(sets, set)
		}
		m.ownRename(e.place, e.name, inCur, name)
		m.reflag(rule, name, was.Flags, to.Flags)
		e.name, e.place, e.marks = name, inCur, to
		changes = append(changes, change{uid: u, entry: e})
	}
	if len(sets) > 0 {
		if oerr := m.keys.enter(m.control, nil, sets); oerr != nil {
			err = errors.Join(err, oerr)
			m.reread(changes)
		}
		m.nudge()
		m.track.mute = true
	}
	if len(changes) > 0 || !m.keys.same(snap) {
		mod, rerr := m.record(snap, changes, nil, snap.Next)
		if mod != 0 {
			done.ModSeq = mod
		}
		err = errors.Join(err, rerr)
	}
	return left, err
}

// shift gives a message's file the name to in cur/. Where it has that one as
// well the old name goes: a program that links and unlinks has died between
// the two, or a power cut has undone half of a rename.
func (m *Mailbox) shift(from place, name, to string) error {
	err := m.dirOf(from).RenameNoReplace(name, m.cur, to)
	if !errors.Is(err, fs.ErrExist) || from == inCur && strings.EqualFold(name, to) {
		return err // one name, if the directory does not care for case
	}
	var a, b unix.Stat_t
	if m.lstat(from, name, &a) && m.lstat(inCur, to, &b) && a.Dev == b.Dev && a.Ino == b.Ino {
		return m.dirOf(from).Unlink(name)
	}
	return err
}

// renameInto gives the file of e the name that it gets in cur/. Where it has it
// already, because names cannot hold what changes, it must still have it: its
// name stands for the state that the change was decided on.
func (m *Mailbox) renameInto(e entry, name string) error {
	if e.place == inCur && e.name == name {
		var st unix.Stat_t
		return unix.Fstatat(m.cur.Fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	return m.shift(e.place, e.name, name)
}
