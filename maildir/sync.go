package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/uidlist"
)

// patience is how long a look at a mailbox that is known already waits for the
// lock before it goes on with what it has.
const patience = time.Second

// Sync looks at the folder and publishes what has changed. Where nothing has it
// costs three stats. New messages get UIDs, unless the list cannot be written.
func (m *Mailbox) Sync(ctx context.Context, access Access) error {
	news := m.hasNews()
	if !news {
		locking, err := m.glance(ctx, access)
		if err != nil || !locking {
			return err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, min(patience, m.host.opt.LockWait))
	if !m.Snapshot().settledDown() {
		cancel()
		waiting, cancel = context.WithTimeout(ctx, m.host.opt.LockWait)
	}
	defer cancel()
	lock, err := m.host.locks.Acquire(waiting, m.control, uidlist.LockName)
	if err != nil {
		if news && ctx.Err() == nil { // what needs no lock has not been looked at yet
			if _, gerr := m.glance(ctx, access); gerr != nil {
				return gerr
			}
		}
		return m.withoutLock(ctx, err)
	}
	defer lock.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.slot(ctx); err != nil {
		return err
	}
	defer m.leave()
	_, err = m.look(access, true)
	if unwritable(err) {
		return m.noteUnwritable(err)
	}
	return err
}

// hasNews reports whether something has come to new/, or left it: mail, most
// likely, that needs UIDs. Then a look without the lock would be one scan for
// nothing.
func (m *Mailbox) hasNews() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.clean
	if last == (stamp{}) {
		last = m.trust.stamp
	}
	now, err := m.stamp()
	return err == nil && last != (stamp{}) && last.new != now.new && !m.unlistable && m.Snapshot().settledDown()
}

// glance is the look without the lock.
func (m *Mailbox) glance(ctx context.Context, access Access) (locking bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.slot(ctx); err != nil {
		return false, err
	}
	defer m.leave()
	return m.look(access, false)
}

// settledDown reports whether s came from a list; the first look may have to
// make one.
func (s *Snapshot) settledDown() bool { return s != nil && s.Validity != 0 }

// unwritable reports whether err keeps us from recording UIDs, but not from
// serving what has one.
func unwritable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// withoutLock is the end of Sync where the lock cannot be had for the reason err:
// what has a UID is served.
func (m *Mailbox) withoutLock(ctx context.Context, err error) error {
	switch {
	case unwritable(err):
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.noteUnwritable(err)
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		if m.Snapshot().settledDown() {
			return nil
		}
		return fmt.Errorf("%s: %w", m.name, ErrBusy)
	}
	return openError(m.name, err)
}

func (m *Mailbox) noteUnwritable(err error) error {
	if !m.unlistable {
		m.unlistable = true
		m.host.opt.Log.Warn("cannot record UIDs, new messages are not shown", "mailbox", m.name, "err", err)
	}
	if m.Snapshot().settledDown() {
		return nil
	}
	if m.host.opt.ReadOnly {
		return m.pretend()
	}
	return fmt.Errorf("%s: %w: %w", m.name, ErrNoUIDs, err)
}

// A file is one that a scan found and no message of the snapshot has.
type file struct {
	name  string
	place place
	uid   UID // from the list; 0: none yet
}

func (f file) base() string { return f.name[:baseLen(f.name)] }

// A survey is what one look found.
type survey struct {
	changes []change // of flags, names and places
	fresh   []file   // listed above all that was published
	unknown []file   // need a UID
	twins   []file   // a second file of a base name that the scan has had
	returns []string // bases of unknown that have an old line
	moves   []UID    // messages in new/
	letters Flags    // all keyword letters in use
	atomic  bool
}

// look brings the snapshot up to the folder. Without the lock it gives no UIDs
// and moves nothing; it reports whether there is such work. m.mu is held.
func (m *Mailbox) look(access Access, locked bool) (locking bool, err error) {
	before, err := m.stamp()
	if err != nil {
		return false, err
	}
	moving := access == Serve && m.waiting() > 0 && !m.stuck
	if m.unchanged(before) {
		if moving && locked {
			err = m.receiveKnown(before)
		}
		return moving && !locked, err
	}
	if before.new != m.clean.new {
		m.stuck = false
	}
	if err := m.list.read(m.control); err != nil {
		return false, err
	}
	if err := m.keys.read(m.control); err != nil {
		return false, err
	}
	snap := m.base()
	sv, err := m.survey(snap)
	if err != nil {
		return false, err
	}
	after, err := m.stamp()
	if err != nil {
		return false, err
	}
	wrote := false
	if locked {
		if wrote, err = m.settleUnderLock(snap, &sv, access); err != nil {
			return false, err
		}
	}
	calm := before == after && m.settled(after, time.Now())
	gone := m.departed(snap, &sv, calm, locked)
	if err := m.commit(snap, &sv, gone); err != nil {
		return false, err
	}
	locking = !locked && (!m.list.known || len(sv.unknown) > 0 || len(sv.twins) > 0 || m.keys.nameless(sv.letters) != 0 ||
		access == Serve && m.waiting() > 0 && !m.stuck)
	m.spoil()
	switch {
	case before != after || locking || len(m.missing) > 0:
	case wrote:
		m.leftAs(func(stamp) bool { return true })
	case calm:
		m.clean = after
	default:
		m.trust.stamp = after
	}
	return locking, nil
}

// base returns the snapshot to work from: the published one, unless the list
// has got another UIDVALIDITY.
func (m *Mailbox) base() *Snapshot {
	s := m.Snapshot()
	if s != nil && (!m.list.known || s.Validity == m.list.head.Validity) {
		return s
	}
	return newSnapshot(m.list.head.Validity, 1, m.tick(), m.keys.names())
}

// survey scans the folder and compares it with snap. Where messages seem to be
// missing while the folder changes it scans again: a file may have been moved
// between the two directories, against the order of the scans.
func (m *Mailbox) survey(snap *Snapshot) (survey, error) {
	for try := 0; ; try++ {
		start, err := m.stamp()
		if err != nil {
			return survey{}, err
		}
		begin := time.Now()
		sv, err := m.scan(snap)
		if err != nil {
			return sv, err
		}
		m.trust.scanned = time.Now()
		m.trust.cost = m.trust.scanned.Sub(begin)
		end, err := m.stamp()
		if err != nil {
			return sv, err
		}
		if start.new == end.new || try == 3 || !slices.Contains(m.seen, false) {
			return sv, nil
		}
	}
}

func (m *Mailbox) scan(snap *Snapshot) (survey, error) {
	m.seen = slices.Grow(m.seen[:0], snap.Len())[:snap.Len()]
	clear(m.seen)
	sc := scanner{m: m, snap: snap, fresh: map[UID]bool{}, strange: map[string]bool{}}
	sc.place = inNew
	newAtomic, err := scanDir(m.new.Fd(), m.waiting(), sc.file)
	if err != nil {
		return sc.survey, err
	}
	sc.place = inCur
	curAtomic, err := scanDir(m.cur.Fd(), max(snap.Len(), len(m.list.uids)), sc.file)
	sc.atomic = m.atomic && newAtomic && curAtomic
	return sc.survey, err
}

// A scanner sorts the names of a scan.
type scanner struct {
	survey
	m       *Mailbox
	snap    *Snapshot
	place   place
	fresh   map[UID]bool    // UIDs of survey.fresh
	strange map[string]bool // bases of survey.unknown
}

func (sc *scanner) file(name []byte) {
	if len(name) > 255 {
		return
	}
	base := name[:baseLen(name)]
	uid, listed := sc.m.list.uid(base)
	if listed && uid < sc.snap.Next {
		if i, live := sc.snap.Find(uid); live {
			if msg := sc.snap.At(i); bytes.Equal(msg.base(), base) {
				sc.known(i, msg, name)
				return
			}
		}
		if !sc.strange[string(base)] {
			sc.returns = append(sc.returns, string(base))
		}
		listed = false
	}
	f := file{name: string(name), place: sc.place}
	switch {
	case listed && sc.fresh[uid], !listed && sc.strange[f.base()]:
		sc.twins = append(sc.twins, f)
	case listed:
		f.uid = uid
		sc.fresh[uid] = true
		sc.survey.fresh = append(sc.survey.fresh, f)
		sc.letters |= parseFlags(name)
	default:
		sc.strange[f.base()] = true
		sc.unknown = append(sc.unknown, f)
		sc.letters |= parseFlags(name)
	}
}

// known takes in a file of the message msg, which has index i.
func (sc *scanner) known(i int, msg Message, name []byte) {
	if sc.m.seen[i] {
		sc.twins = append(sc.twins, file{name: string(name), place: sc.place, uid: msg.UID})
		return
	}
	sc.m.seen[i] = true
	if sc.place == inNew {
		sc.moves = append(sc.moves, msg.UID)
	}
	if sc.place == msg.rec.place && bytes.Equal(msg.name(), name) {
		sc.letters |= msg.Flags
		return
	}
	e := entryOf(msg)
	e.name, e.place, e.flags = string(name), sc.place, parseFlags(name)
	sc.letters |= e.flags
	sc.changes = append(sc.changes, change{uid: msg.UID, entry: e})
}

// absence is how often and since when a message has not been seen.
type absence struct {
	scans int
	calm  int // of them, scans that nothing can have disturbed
	since time.Time
}

// departed returns the messages that are gone for certain: their indexes in
// snap are those that no scan has seen. See doc.go for when it is certain.
func (m *Mailbox) departed(snap *Snapshot, sv *survey, calm, locked bool) []UID {
	var gone []UID
	still := map[UID]absence{}
	for i, seen := range m.seen {
		if seen {
			continue
		}
		msg := snap.At(i)
		if sv.atomic {
			gone = append(gone, msg.UID)
			continue
		}
		a := m.missing[msg.UID]
		if a.scans++; a.scans == 1 {
			a.since = time.Now()
		}
		if calm {
			a.calm++
		}
		sure := a.calm >= 2 || a.scans >= 5 && locked && time.Since(a.since) >= time.Second
		if sure && m.lacks(msg) {
			gone = append(gone, msg.UID)
			continue
		}
		still[msg.UID] = a
	}
	m.missing = still
	return gone
}

// lacks reports whether the file of msg is not there under the name we know.
func (m *Mailbox) lacks(msg Message) bool {
	var st unix.Stat_t
	return unix.Fstatat(m.dirOf(msg.rec.place).Fd(), string(msg.name()), &st, unix.AT_SYMLINK_NOFOLLOW) == unix.ENOENT
}

// commit makes and publishes the snapshot that follows from a look.
func (m *Mailbox) commit(snap *Snapshot, sv *survey, gone []UID) error {
	if !m.list.known && m.Snapshot() == nil {
		return nil // the look under the lock will make a list
	}
	if len(sv.fresh) > 0 {
		if err := m.list.sync(m.control); err != nil {
			return err
		}
	}
	mod := m.tick()
	changes, changed := mergeChanges(snap, sv.changes, gone, mod)
	slices.SortFunc(sv.fresh, func(a, b file) int { return int(int64(a.uid) - int64(b.uid)) })
	added := make([]entry, 0, len(sv.fresh))
	for _, f := range sv.fresh {
		added = append(added, entry{uid: f.uid, place: f.place, flags: parseFlags(f.name), modseq: mod, name: f.name, base: baseLen(f.name)})
	}
	next := max(snap.Next, m.list.next())
	if snap == m.Snapshot() && len(changes) == 0 && len(added) == 0 && next == snap.Next && m.keys.same(snap) {
		return nil
	}
	s := snap.apply(changes, added)
	s.Next, s.keywords = next, m.keys.names()
	if s.Validity == 0 {
		s.Validity = m.list.head.Validity
	}
	if changed || len(added) > 0 {
		s.ModSeq = mod
	}
	m.publish(s)
	m.facts.forget(gone)
	return nil
}

// mergeChanges joins both kinds of changes in the order of UIDs and gives mod to
// those that a client can see.
func mergeChanges(snap *Snapshot, changes []change, gone []UID, mod ModSeq) (all []change, visible bool) {
	visible = len(gone) > 0
	for i := range changes {
		c := &changes[i]
		if old, ok := snap.lookup(c.uid); ok && old.Flags != c.entry.flags {
			c.entry.modseq = mod
			visible = true
		}
	}
	for _, u := range gone {
		changes = append(changes, change{uid: u, remove: true})
	}
	slices.SortFunc(changes, func(a, b change) int { return int(int64(a.uid) - int64(b.uid)) })
	return changes, visible
}

// waiting returns how many messages lie in new/.
func (m *Mailbox) waiting() int {
	if s := m.Snapshot(); s != nil {
		return s.sum.waiting
	}
	return 0
}
