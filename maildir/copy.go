package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/intents"
	"imapd/maildir/quota"
	"imapd/maildir/vfs"
)

// Copied says what Copy and Move did: the message From[i] is now also, or only,
// To[i]. See RFC 4315 section 3.
type Copied struct {
	Validity uint32 // UIDVALIDITY of the target
	From, To []UID
}

// A source is a message that is being copied: what its mailbox knew of it before
// the target was locked, for two mailboxes are never held at once.
type source struct {
	uid   UID
	place place
	name  string
	guid  string // where it is not the base name
	flags FlagSet
	marks Marks // of flags, as the source mailbox numbers them
}

// sources returns the messages uids, without those that do not exist.
func (m *Mailbox) sources(ctx context.Context, uids []UID) ([]source, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.slot(ctx); err != nil {
		return nil, err
	}
	defer m.leave()
	if err := m.list.load(m.control); err != nil {
		m.host.opt.Log.Warn("messages lose their GUIDs", "mailbox", m.name, "err", err)
	}
	before := m.Snapshot()
	if err := errors.Join(m.heedList(), m.readKeywords()); err != nil {
		return nil, err
	}
	snap := m.Snapshot()
	list := make([]source, 0, len(uids))
	for _, u := range uids {
		msg, ok := snap.lookup(u)
		if !ok {
			if _, was := before.Find(u); was {
				return nil, fmt.Errorf("%s: UID %d: %w", m.name, u, ErrGone)
			}
			continue
		}
		list = append(list, source{u, msg.place(), string(msg.name()), m.list.guid(u), snap.flagSet(msg.Marks()), msg.Marks()})
	}
	return list, nil
}

// flagSet returns f by names.
func (s *Snapshot) flagSet(f Marks) FlagSet {
	set := FlagSet{System: f.Flags & SystemFlags}
	f.Flags &^= SystemFlags
	set.Keywords = s.AppendFlagNames(nil, f)
	return set
}

// Copy adds the messages uids (ascending) to the mailbox to, with their flags
// and dates; those that do not exist are left out. All are copied or none, and
// they are durable when Copy returns. A message that goes meanwhile is ErrGone.
func (m *Mailbox) Copy(ctx context.Context, uids []UID, to *Mailbox) (Copied, error) {
	list, err := m.sources(ctx, uids)
	if err != nil {
		return Copied{}, err
	}
	var held *intents.Held
	defer func() { held.Close() }()
	done, err := m.copy(ctx, list, to, func(list []source, add []newcomer) (placed func()) {
		held = to.intendPlacing(add)
		return nil
	})
	held.Done()
	return done, err
}

// copy adds the messages of list to the mailbox to. It calls intend when their
// names there are known, before the first one is placed, and what that returns, unless
// it is nil, when all are, before anything is synced.
func (m *Mailbox) copy(ctx context.Context, list []source, to *Mailbox, intend func([]source, []newcomer) (placed func())) (Copied, error) {
	var sum quota.Usage
	a := &adding{copies: true}
	tmp, err := m.duplicates(ctx, list, to)
	if err != nil {
		return Copied{}, err
	}
	a.prepare = func(taken map[string]bool) ([]newcomer, error) {
		rule, trash := to.store.quotaRule(), to.isTrash()
		add := make([]newcomer, len(list))
		for i, src := range list {
			marks, err := to.keys.marks(to.control, src.flags, true)
			if err != nil {
				return nil, err
			}
			n := newcomer{base: src.name[:baseLen(src.name)], marks: marks, from: m.dirOf(src.place), name: src.name}
			if tmp != nil {
				n.from, n.name = to.tmp, tmp[i]
			}
			n.put = func(name string) (err error) {
				if tmp != nil {
					err = to.tmp.RenameNoReplace(tmp[i], to.cur, name)
				} else {
					err = m.putInto(src, to, name)
				}
				if err == nil && rule != quota.None {
					sum = sum.Add(usageOf(rule, trash, to.cur, name))
				}
				return err
			}
			to.rebase(&n, src, taken)
			taken[n.base] = true
			add[i] = n
		}
		a.placed = intend(list, add)
		return add, nil
	}
	if err := to.arrive(ctx, len(list), a); err != nil {
		to.removeTmp(tmp)
		return Copied{}, err
	}
	to.store.charge(sum)
	done := Copied{Validity: a.validity, To: a.uids}
	for _, src := range list {
		done.From = append(done.From, src.uid)
	}
	return done, nil
}

// rebase gives the newcomer another base name where its own is not free: a dead
// UID must not come back with it. The message's GUID goes along in its line.
func (m *Mailbox) rebase(n *newcomer, src source, taken map[string]bool) {
	guid := src.guid
	if m.list.has(n.base) || taken[n.base] {
		if guid == "" {
			guid = n.base
		}
		size, virtual := sizeField([]byte(n.base), ",S="), sizeField([]byte(n.base), ",W=")
		n.base = m.host.freshBase(m)
		if size >= 0 && virtual >= 0 {
			n.base = withSizes(n.base, size, virtual)
		}
	}
	if guid != "" {
		n.extra = " G" + guid
	}
}

// putInto puts the file of src into the folder to under name: a second name for
// it where that can be, else a copy.
func (m *Mailbox) putInto(src source, to *Mailbox, name string) error {
	err := m.withSource(src, func(dir vfs.Dir, from string) error { return dir.Link(from, to.cur, name) })
	if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EMLINK) && !errors.Is(err, unix.EPERM) {
		return err
	}
	tmp, err := m.duplicate(src, to)
	if err != nil {
		return err
	}
	if err = to.tmp.RenameNoReplace(tmp, to.cur, name); err != nil {
		to.tmp.Unlink(tmp)
	}
	return err
}

// withSource calls fn with the directory and the name of src's file, again where that
// has another name by now.
func (m *Mailbox) withSource(src source, fn func(dir vfs.Dir, name string) error) error {
	for try := 0; ; try++ {
		err := fn(m.dirOf(src.place), src.name)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		var ok bool
		if src.place, src.name, ok = m.find(src.name); !ok || try == tries {
			return fmt.Errorf("%s: UID %d: %w", m.name, src.uid, ErrGone)
		}
	}
}

// links reports whether a file of m may have a second name in to: it is on the same file
// system, and has the mode and group that files there must have.
func (m *Mailbox) links(to *Mailbox) bool {
	var a, b unix.Stat_t
	if unix.Fstat(m.cur.Fd(), &a) != nil || unix.Fstat(to.cur.Fd(), &b) != nil {
		return false
	}
	return a.Dev == b.Dev && a.Mode&0o777 == b.Mode&0o777 && a.Gid == b.Gid
}

// duplicates copies the files of list into tmp/ of the folder to and returns their names
// there, nil where second names for them do. So an intent can say which files are
// ours, and nobody waits for the lock meanwhile.
func (m *Mailbox) duplicates(ctx context.Context, list []source, to *Mailbox) (tmp []string, err error) {
	if m.links(to) {
		return nil, nil
	}
	defer func() {
		if err != nil {
			to.removeTmp(tmp)
		}
	}()
	for _, src := range list {
		if err := to.slot(ctx); err != nil {
			return tmp, err
		}
		name, err := m.duplicate(src, to)
		to.leave()
		if err != nil {
			return tmp, err
		}
		tmp = append(tmp, name)
	}
	return tmp, nil
}

// removeTmp removes those of names that have come no farther than tmp/.
func (m *Mailbox) removeTmp(names []string) {
	if len(names) == 0 {
		return
	}
	m.await()
	defer m.leave()
	for _, name := range names {
		m.tmp.Unlink(name)
	}
}

// duplicate copies the octets and the date of a message into tmp/ of the folder to,
// durably, and returns the name there.
func (m *Mailbox) duplicate(src source, to *Mailbox) (tmp string, err error) {
	var fd int
	var st unix.Stat_t
	err = m.withSource(src, func(dir vfs.Dir, from string) (err error) {
		fd, st, err = vfs.OpenRegular(dir, from)
		return err
	})
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	tmp = m.host.freshName()
	f, err := vfs.CreateLike(to.tmp, tmp)
	if err != nil {
		return "", openError(to.name, err)
	}
	err = fillFile(f, fd, time.Unix(st.Mtim.Unix()), m.host.opt.Fsync)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		to.tmp.Unlink(tmp)
	}
	return tmp, err
}

func fillFile(f vfs.File, fd int, date time.Time, mode Fsync) error {
	buf := make([]byte, 256<<10)
	for off := int64(0); ; {
		n, err := vfs.ReadFullAt(fd, buf, off)
		if err != nil && err != io.EOF {
			return err
		}
		if n == 0 {
			break
		}
		if _, err := f.Write(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	if err := f.SetTime(date); err != nil || mode == FsyncNever {
		return err
	}
	return f.Sync()
}

// find looks for the file with the base name of name, without the mailbox's lock
// or list. It opens the directories anew: a scan moves the descriptor's position.
func (m *Mailbox) find(name string) (p place, found string, ok bool) {
	base := name[:baseLen(name)]
	for _, p := range []place{inNew, inCur} {
		d, err := m.dir.OpenDir([...]string{inCur: "cur", inNew: "new"}[p])
		if err != nil {
			return 0, "", false
		}
		_, err = scanDir(d.Fd(), func(n []byte) {
			if string(n[:baseLen(n)]) == base {
				found, ok = string(n), true
			}
		})
		d.Close()
		if ok || err != nil {
			return p, found, ok
		}
	}
	return 0, "", false
}

// Move moves the messages uids (ascending) to the mailbox to, as Copy does, and
// then removes them from m: durable in the target before the first one goes
// here. \Deleted plays no part. Where removing fails the copies stay: a
// duplicate is allowed, a loss is not. Where we do not live to remove them whoever
// uses m next does (redo.go).
func (m *Mailbox) Move(ctx context.Context, uids []UID, to *Mailbox) (Copied, error) {
	list, err := m.sources(ctx, uids)
	if err != nil {
		return Copied{}, err
	}
	var held *intents.Held
	defer func() { held.Close() }()
	done, err := m.copy(ctx, list, to, func(list []source, add []newcomer) (placed func()) {
		held = m.intendMove(list, add, to)
		return func() { m.syncIntent(held) }
	})
	if err != nil {
		held.Done()
		return done, err
	}
	// From here on a client that gives up does not stop us halfway.
	ctx = context.WithoutCancel(ctx)
	m.setMoving(nil, held)
	later, err := m.remove(ctx, list)
	m.setMoving(held, nil)
	held.Done() // also if it failed: the client is told what is where
	if err != nil {
		return done, err
	}
	for i, set := range later {
		if _, err := to.SetFlags(ctx, done.To[i:i+1], ReplaceFlags, set); err != nil {
			return done, err
		}
	}
	return done, nil
}

// setMoving notes the intent of the MOVE that goes on, in place of old.
func (m *Mailbox) setMoving(old, held *intents.Held) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.moving == old {
		m.moving = held
	}
}

// remove unlinks the messages of list. It returns the flags of those, by index,
// that have changed since list was made: they must follow the message.
func (m *Mailbox) remove(ctx context.Context, list []source) (map[int]FlagSet, error) {
	later := map[int]FlagSet{}
	uids := make([]UID, len(list))
	for i, src := range list {
		uids[i] = src.uid
	}
	err := m.edit(ctx, func() error {
		// No name says that a keyword has changed which is recorded beside the messages.
		if err := m.readKeywords(); err != nil {
			return err
		}
		var from [2]bool // by place
		for try := 0; ; try++ {
			snap := m.Snapshot()
			for i, src := range list {
				msg, ok := snap.lookup(src.uid)
				if ok && !msg.Marks().Equal(src.marks) {
					later[i] = snap.flagSet(msg.Marks())
				}
				if ok {
					from[msg.place()] = true
				}
			}
			done, left, err := m.unlink(uids, false)
			if err != nil {
				return err
			}
			if left == 0 {
				break
			}
			uids = slices.DeleteFunc(uids, func(u UID) bool {
				_, gone := slices.BinarySearch(done, u)
				return gone
			})
			if try == tries && m.lost(uids) {
				break
			}
			if try == tries {
				return m.unsteady()
			}
			if err := m.refresh(try); err != nil {
				return err
			}
		}
		return m.syncDirs(from)
	})
	m.chargeFreed()
	return later, err
}
