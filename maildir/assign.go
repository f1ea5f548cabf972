package maildir

import (
	"errors"
	"io/fs"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/uidlist"
)

// settleUnderLock does the part of a look that needs the lock: it gives new
// messages UIDs, moves what waits in new/, puts twins apart and names keyword
// letters. What it did stands in sv afterwards. It reports whether it has
// changed the directories or the list.
func (m *Mailbox) settleUnderLock(snap *Snapshot, sv *survey, access Access) (wrote bool, err error) {
	wrote = !m.list.known || m.list.damaged
	taken, err := m.takeOver()
	if err == nil && taken {
		var before stamp
		begin := fileTime()
		if *sv, err = m.survey(snap, before); err == nil { // the names and UIDs are others now
			err = m.findFiles(snap, sv, &before, &begin, true)
		}
	}
	if err != nil {
		return wrote, err
	}
	if err := m.mend(snap, sv); err != nil {
		return wrote, err
	}
	if snap.Validity == 0 {
		snap.Validity = m.list.head.Validity
	}
	if err := m.keys.adopt(m.control, sv.letters); err != nil {
		return wrote, err
	}
	wrote = m.partTwins(sv, time.Now()) || wrote
	slices.SortFunc(sv.unknown, func(a, b file) int { return arrivalOrder(a.base(), b.base()) })
	next := max(snap.Next, m.list.next())
	if len(sv.unknown) > uidsFrom(next) {
		if err := m.renumber(); err != nil {
			return wrote, err
		}
		return wrote, errRenumbered
	}
	entries := make([]uidlist.Entry, 0, len(sv.unknown))
	for i := range sv.unknown {
		f := &sv.unknown[i]
		f.uid = next
		next++
		entries = append(entries, uidlist.Entry{UID: uint32(f.uid), Base: f.base()})
	}
	if len(sv.returns) > 0 {
		if err := m.forgetBases(sv.returns); err != nil {
			return wrote, err
		}
	}
	if err := m.list.append(m.control, entries); err != nil {
		return wrote, err
	}
	wrote = wrote || len(entries)+len(sv.returns) > 0
	sv.fresh = append(sv.fresh, sv.unknown...)
	sv.unknown = nil
	if access == Serve {
		wrote = m.receive(snap, sv) || wrote
	}
	return wrote, nil
}

// mend makes a list that can be appended to: a first one, or one from what the
// file and we still know.
func (m *Mailbox) mend(snap *Snapshot, sv *survey) error {
	l := &m.list
	if l.known && !l.damaged {
		return nil
	}
	if err := m.setListAside(); err != nil {
		return err
	}
	if !l.known {
		validity, err := m.store.tree.NextValidity()
		if err != nil {
			return err
		}
		l.head, l.known = uidlist.New(validity).Header, true
		l.fresh(0)
		return l.rewrite(m.control, func(uidlist.Entry, func(uidlist.Entry) error) error { return nil })
	}
	m.host.opt.Log.Warn("mending the UID list", "mailbox", m.name)
	if err := l.load(m.control); err != nil {
		return err
	}
	l.head.Next = max(l.head.Next, uint32(snap.Next))
	last := m.lastLine(snap, sv)
	for _, e := range last {
		l.head.Next = max(l.head.Next, e.UID+1)
	}
	published := m.published(snap)
	return l.rewrite(m.control, func(e uidlist.Entry, write func(uidlist.Entry) error) error {
		if e.UID > 0 {
			if err := published(UID(e.UID), write); err != nil {
				return err
			}
			return write(e)
		}
		for _, e := range last {
			if err := published(UID(e.UID), write); err != nil {
				return err
			}
			if err := write(e); err != nil {
				return err
			}
		}
		return published(0, write)
	})
}

// setListAside gives what is in the place of the list, and cannot be one, another name:
// a link, a FIFO, a directory, a device, or a file that nobody could read. It may be
// worth something to whoever put it there.
func (m *Mailbox) setListAside() error {
	_, err := uidlist.StatFile(m.control)
	if !errors.Is(err, uidlist.ErrNoFile) {
		return nil
	}
	name, rerr := uidlist.SetAside(m.control, m.host.freshName())
	switch {
	case rerr != nil:
		return rerr
	case name == "":
		m.host.opt.Log.Warn("what is in the place of the UID list is removed", "mailbox", m.name, "err", err)
	default:
		m.host.opt.Log.Warn("what is in the place of the UID list is set aside", "mailbox", m.name, "as", name, "err", err)
	}
	return nil
}

// lastLine returns the last line of the list, which has no end, if there is a file
// of its name that has no other UID: then the line was complete, and the UID may
// have been told. The file gets that UID in sv. It is below the header's next UID, so
// that only a mailbox which no session has seen can have it (begin comes later).
func (m *Mailbox) lastLine(snap *Snapshot, sv *survey) []uidlist.Entry {
	cut := m.list.cut
	i := slices.IndexFunc(sv.unknown, func(f file) bool { return f.base() == cut.Base })
	if i < 0 || cut.Base == "" || UID(cut.UID) < snap.Next && m.recentFrom != 0 || slices.Contains(sv.returns, cut.Base) {
		return nil
	}
	f := sv.unknown[i]
	f.uid = UID(cut.UID)
	sv.fresh = append(sv.fresh, f)
	sv.unknown = slices.Delete(sv.unknown, i, i+1)
	return []uidlist.Entry{cut}
}

// errRenumbered says that a look must begin again.
var errRenumbered = errors.New("UIDs have been renumbered")

// uidsFrom returns how many UIDs there are from next on.
func uidsFrom(next UID) int { return uidlist.MaxUID + 1 - int(next) }

// renumber gives the folder a new UIDVALIDITY, because no UID is left for mail that
// others have put there, and its messages UIDs from 1 on in their order (RFC 9051
// section 2.3.1.1). There is no other way to show it. What a client wants to add is
// refused instead (admit): its mailbox must not become another one under its hands.
// Lines of messages that are gone keep their place. The lock is held.
func (m *Mailbox) renumber() error {
	validity, err := m.store.tree.NextValidity()
	if err != nil {
		return err
	}
	l := &m.list
	if err := l.load(m.control); err != nil {
		return err
	}
	if old := l.head.Validity; validity <= old && old < math.MaxUint32 {
		validity = old + 1 // the counter is younger than the list
	}
	m.host.opt.Log.Warn("all UIDs have been used, the mailbox gets a new UIDVALIDITY", "mailbox", m.name, "old", l.head.Validity, "new", validity)
	l.head.Validity, l.head.Next = validity, 1
	err = l.each(func(uidlist.Entry) error {
		l.head.Next++
		return nil
	})
	if err != nil {
		return err
	}
	uid := uint32(0)
	return l.rewrite(m.control, func(e uidlist.Entry, write func(uidlist.Entry) error) error {
		if e.UID == 0 {
			return nil
		}
		uid++
		return write(uidlist.Entry{UID: uid, Base: e.Base, Extra: e.Extra})
	})
}

// published returns a function that writes the lines that the file has lost, of messages
// that were published, in their order: those with UIDs below next that it has not written
// yet, or with 0 all. What has the UID next has a line.
func (m *Mailbox) published(snap *Snapshot) func(next UID, write func(uidlist.Entry) error) error {
	i := 0
	return func(next UID, write func(uidlist.Entry) error) error {
		for ; i < snap.Len(); i++ {
			msg := snap.At(i)
			if next != 0 && msg.UID >= next {
				if msg.UID == next {
					i++
				}
				return nil
			}
			if uid, listed := m.list.uid(msg.base()); !listed || uid == msg.UID {
				if err := write(uidlist.Entry{UID: uint32(msg.UID), Base: string(msg.base())}); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// forgetBases drops the lines of bases that have come back after they were
// expunged: they get a new UID, and no line may say otherwise.
func (m *Mailbox) forgetBases(bases []string) error {
	back := make(map[string]bool, len(bases))
	for _, b := range bases {
		back[b] = true
	}
	if err := m.list.load(m.control); err != nil {
		return err
	}
	return m.list.rewrite(m.control, func(e uidlist.Entry, write func(uidlist.Entry) error) error {
		if back[e.Base] {
			return nil
		}
		return keepAll(e, write)
	})
}

// receive moves messages from new/ to cur/. Where that is refused they are
// served from new/.
func (m *Mailbox) receive(snap *Snapshot, sv *survey) (wrote bool) {
	for i := range sv.fresh {
		if f := &sv.fresh[i]; f.place == inNew {
			name, ok := m.receiveFile(f.name)
			if !ok {
				return wrote
			}
			f.name, f.place, wrote = name, inCur, true
		}
	}
	changed := make(map[UID]int, len(sv.changes))
	for i, c := range sv.changes {
		changed[c.uid] = i
	}
	for _, uid := range sv.moves {
		i, ok := changed[uid]
		if !ok {
			msg, ok := snap.lookup(uid)
			if !ok {
				continue
			}
			i = len(sv.changes)
			sv.changes = append(sv.changes, change{uid: uid, entry: entryOf(msg)})
		}
		e := &sv.changes[i].entry
		name, ok := m.receiveFile(e.name)
		if !ok {
			return wrote
		}
		e.name, e.place, wrote = name, inCur, true
	}
	return wrote
}

// receiveKnown moves what we know to be in new/ to cur/, in a folder that need not
// be looked at otherwise.
func (m *Mailbox) receiveKnown() error {
	snap := m.Snapshot()
	var sv survey
	for _, msg := range snap.waiting() {
		sv.moves = append(sv.moves, msg.UID)
	}
	m.followLocked() // cheaper than the scan that the moves would cost
	m.clean = stamp{}
	m.receive(snap, &sv)
	return m.commit(snap, &sv)
}

func (m *Mailbox) receiveFile(name string) (string, bool) {
	to := name
	if !hasInfo(name) {
		to += ":2,"
	}
	err := m.shift(inNew, name, to)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.stuck = true
			m.host.opt.Log.Warn("new mail stays in new/", "mailbox", m.name, "err", err)
		}
		return "", false
	}
	m.ownRename(inNew, name, inCur, to)
	return to, true
}

// linkAge is how old a second name must be to be nobody's: a program that links
// and unlinks, instead of renaming, may be between the two. As Dovecot's.
const linkAge = 30 * time.Second

// partTwins looks at files whose base name the scan had met before. One that is
// still there and is another file gets a name of its own and so becomes a
// message. A second name of the same file means nothing, but would come back
// as a message once the first is expunged: so it goes when it is old.
func (m *Mailbox) partTwins(sv *survey, now time.Time) (wrote bool) {
	for _, f := range sv.twins {
		first, ok := m.twinOf(sv, f)
		var a, b unix.Stat_t
		if f.base() != "" {
			if !ok || !m.lstat(first.place, first.name, &a) || !m.lstat(f.place, f.name, &b) {
				continue
			}
			if a.Ino == b.Ino && a.Dev == b.Dev {
				// What is in new/ waits to be moved onto the other name.
				old := now.Sub(time.Unix(b.Ctim.Unix())) > linkAge
				if old && first.place == inCur && (f.place == inNew || !strings.EqualFold(first.name, f.name)) {
					wrote = m.dirOf(f.place).Unlink(f.name) == nil || wrote
				} else {
					sv.double = true
				}
				continue
			}
		}
		to := m.host.freshBase(m) + f.name[baseLen(f.name):]
		if err := m.dirOf(f.place).RenameNoReplace(f.name, m.dirOf(f.place), to); err != nil {
			m.host.opt.Log.Warn("two messages with one name", "mailbox", m.name, "err", err)
			continue
		}
		wrote = true
		sv.unknown = append(sv.unknown, file{name: to, place: f.place, flags: parseFlags(to)})
	}
	sv.twins = nil
	return wrote
}

// twinOf returns the file that the scan met first under the base name of f.
func (m *Mailbox) twinOf(sv *survey, f file) (file, bool) {
	for _, l := range [][]file{sv.fresh, sv.unknown} {
		for _, g := range l {
			if g.base() == f.base() {
				return g, true
			}
		}
	}
	for _, c := range sv.changes {
		if c.uid == f.uid {
			return file{name: c.entry.name, place: c.entry.place}, true
		}
	}
	if s := m.Snapshot(); s != nil && f.uid != 0 {
		if msg, ok := s.lookup(f.uid); ok {
			return file{name: string(msg.name()), place: msg.place()}, true
		}
	}
	return file{}, false
}

func (m *Mailbox) lstat(p place, name string, st *unix.Stat_t) bool {
	return unix.Fstatat(m.dirOf(p).Fd(), name, st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// pretend publishes the messages of a folder whose UIDs cannot be recorded,
// with UIDs that hold for this process only.
func (m *Mailbox) pretend() error {
	if m.list.known {
		return nil
	}
	m.list.head = uidlist.New(uint32(m.tick() >> 20)).Header
	snap := newSnapshot(m.list.head.Validity, 1, m.tick(), m.keys.names())
	sv, err := m.survey(snap, stamp{})
	if err != nil {
		return err
	}
	slices.SortFunc(sv.unknown, func(a, b file) int { return arrivalOrder(a.base(), b.base()) })
	for i := range sv.unknown {
		sv.unknown[i].uid = UID(i + 1)
		m.list.lines.set(sv.unknown[i].base(), UID(i+1))
	}
	m.list.known = true
	m.list.head.Next = uint32(len(sv.unknown) + 1)
	sv.fresh = sv.unknown
	return m.commit(snap, &sv)
}

// relist reads the list again under the lock. Lines of others above all that we
// published are looked up and published first: what is added now gets higher
// UIDs, and a view can only grow at its end.
func (m *Mailbox) relist() error {
	if err := m.list.read(m.control); err != nil {
		return err
	}
	s := m.Snapshot()
	if !m.list.damaged && m.list.known && s.Validity == m.list.head.Validity && m.list.next() <= s.Next {
		return nil
	}
	m.clean = stamp{}
	_, err := m.look(Look, true)
	return err
}
