package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/index"
	"imapd/maildir/intents"
	"imapd/maildir/keywords"
	"imapd/maildir/uidlist"
)

// patience is how long a look at a mailbox that is known already waits for the
// lock before it goes on with what it has.
const patience = time.Second

// Sync looks at the folder and publishes what has changed. Where nothing has it
// costs three stats. New messages get UIDs, unless the list cannot be written.
func (m *Mailbox) Sync(ctx context.Context, access Access) error {
	err := m.sync(ctx, access)
	if err == nil && access == Serve {
		m.followSoon()
	}
	return err
}

func (m *Mailbox) sync(ctx context.Context, access Access) error {
	news := m.hasNews(ctx)
	if !news {
		locking, err := m.glance(ctx, access)
		if news = errors.Is(err, errUnlocked); !news && (err != nil || !locking) {
			return err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, min(patience, m.host.opt.LockWait))
	if !m.Snapshot().settledDown() {
		cancel()
		waiting, cancel = context.WithTimeout(ctx, m.host.opt.LockWait)
	}
	defer cancel()
	unlock, foreign, err := m.lockForeign(waiting)
	if err != nil {
		return m.withoutLock(ctx, err)
	}
	defer unlock()
	lock, err := m.host.locks.AcquireWith(waiting, m.control, uidlist.LockName, &m.spare)
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
	defer m.resume()
	m.foreignLocked = foreign
	m.redo()
	_, err = m.look(access, true)
	if unwritable(err) {
		return m.noteUnwritable(err)
	}
	if err == nil && !m.list.damaged {
		m.unlistable = false
	}
	return err
}

// hasNews reports whether something has come to new/, or left it: mail, most
// likely, that needs UIDs. Then a look without the lock would be one scan for
// nothing.
func (m *Mailbox) hasNews(ctx context.Context) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.slot(ctx) != nil {
		return false
	}
	defer m.leave()
	now, err := m.stamp()
	return err == nil && m.clean != (stamp{}) && m.clean.new != now.new && !m.unlistable && m.Snapshot().settledDown()
}

// anyNew reports whether there is mail in new/, as far as the beginning of the directory
// tells.
func (m *Mailbox) anyNew() (found bool) {
	var b [minScan / 16]byte
	if _, err := unix.Seek(m.new.Fd(), 0, 0); err != nil {
		return false
	}
	n, err := getdents(m.new.Fd(), b[:])
	if err != nil {
		return false
	}
	eachFile(b[:n], func(_ int, name []byte) { found = found || messageName(name) })
	return found
}

// glance is the look without the lock. It fails with errUnlocked where it would be for
// nothing.
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
	return !errors.Is(err, errUnread) &&
		(errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT))
}

// withoutLock is the end of Sync where the lock cannot be had for the reason err:
// what has a UID is served.
func (m *Mailbox) withoutLock(ctx context.Context, err error) error {
	switch {
	case unwritable(err):
		m.mu.Lock()
		defer m.mu.Unlock()
		if serr := m.slot(ctx); serr != nil {
			return serr
		}
		defer m.leave()
		return m.noteUnwritable(err)
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		if m.Snapshot().settledDown() {
			return nil
		}
		return fmt.Errorf("%s: %w", m.name, ErrBusy)
	}
	return openError(m.name, err)
}

// mendable reports whether the list must be written anew, and that may be tried.
func (m *Mailbox) mendable() bool {
	return (m.list.file == nil || m.list.damaged) && (!m.unlistable || !time.Now().Before(m.mendFrom))
}

func (m *Mailbox) noteUnwritable(err error) error {
	// The first attempt to mend a list is made again at once, as that of an index.
	m.mendFrom = time.Time{}
	if m.unlistable {
		m.mendFrom = time.Now().Add(retryAfter)
	} else {
		m.unlistable = true
		m.host.opt.Log.Warn("cannot record UIDs, new messages are not shown", "mailbox", m.name, "err", err)
	}
	if m.Snapshot() == nil { // a look would not begin without the lock
		if _, err := m.look(Look, false); err != nil {
			return err
		}
	}
	if m.Snapshot().settledDown() {
		return nil
	}
	if m.host.opt.ReadOnly {
		return m.pretend()
	}
	return fmt.Errorf("%s: %w: %w", m.name, ErrNoUIDs, err)
}

// A survey is what one look found.
type survey struct {
	changes []change // of flags, names and places
	fresh   []file   // listed above all that was published
	unknown []file   // need a UID
	twins   []file   // a second file of a base name that the scan has had, or one without a base name
	double  bool     // a second name of one file stays for now: look again
	returns []string // bases of unknown that have an old line
	moves   []UID    // messages in new/
	gone    []UID    // expunged for certain
	filled  []*dir   // what the messages of a folder are of which nothing was known; see fill.go
	held    UID      // nothing from here on may be published yet; 0: all may. See unfound.go
	told    bool     // it comes from events: what is not in it has not changed
	letters Flags    // all keyword letters in use
	atomic  bool
}

// look brings the snapshot up to the folder. Without the lock it gives no UIDs
// and moves nothing; it reports whether there is such work. m.mu is held.
func (m *Mailbox) look(access Access, locked bool) (locking bool, err error) {
	if !m.restored {
		m.restored, m.unfinished = true, intents.Waiting(m.control)
		if err := m.restore(locked); errors.Is(err, errUnlocked) {
			return true, nil
		} else if err != nil {
			return false, err
		}
		if !locked && m.clean == (stamp{}) && m.Snapshot().settledDown() && m.anyNew() {
			return false, errUnlocked // this scan would be for nothing, as in hasNews
		}
	}
	begin := fileTime()
	before, err := m.stamp()
	if err != nil {
		return false, err
	}
	moving := access == Serve && m.waiting() > 0 && !m.stuck
	if mend := m.mendable(); before == m.clean && m.track.quiet() && !(mend && locked) {
		if moving && locked {
			err = m.receiveKnown()
		}
		return (moving || m.unfinished || mend) && !locked, err
	}
	if before.new != m.clean.new {
		m.stuck = false
	}
	if err := m.readNotes(&before, locked); errors.Is(err, errUnlisted) {
		return true, nil
	} else if err != nil {
		return false, err
	}
	snap := m.base()
	sv, err := m.survey(snap, before)
	if err == nil {
		err = m.findFiles(snap, &sv, &before, &begin, locked)
	}
	if err != nil {
		return false, err
	}
	after, err := m.stamp()
	if err != nil {
		return false, err
	}
	if sv.held != 0 && m.Snapshot() == nil {
		return true, nil // half a mailbox must not be shown: the others would count as expunged
	}
	wrote := false
	if locked {
		if wrote, err = m.settleUnderLock(snap, &sv, access); errors.Is(err, errRenumbered) {
			m.clean = stamp{}
			return m.look(access, true)
		} else if err != nil {
			return false, err
		}
	}
	// Old enough before the scan: in a tick that has passed since then something
	// may have happened behind it.
	calm := before == after && m.settled(after, begin)
	m.departed(snap, &sv, calm, locked)
	m.showNames(snap, &sv)

	if err := m.commit(snap, &sv); err != nil {
		return false, err
	}
	if locked {
		m.compactKeywords(sv.atomic || sv.told)
	}
	locking = !locked && (!m.list.known || m.mendable() || len(m.importing) > 0 || m.unfinished || len(sv.unknown) > 0 || len(sv.twins) > 0 || m.keys.nameless(sv.letters) != 0 ||
		sv.held != 0 || m.overdue() || access == Serve && m.waiting() > 0 && !m.stuck)
	if wrote { // the list only, perhaps
		now, err := m.stamp()
		calm = calm && err == nil && now.cur == after.cur && now.new == after.new && now.list == m.listStamp()
		after = now
	}
	m.settleLook(after, calm, !locking && len(sv.unknown) == 0 && !sv.double)
	return locking, nil
}

// showNames has messages count as changed whose letters are called otherwise than they
// were: another program may rename the file first and write the name of its letter then,
// and who was told of the one must be told of the other.
func (m *Mailbox) showNames(snap *Snapshot, sv *survey) {
	renamed := snap.keywords.renamed(m.keys.names())
	if renamed == 0 {
		return
	}
	known := map[UID]int{} // in changes; -1: it is gone
	for i, c := range sv.changes {
		known[c.uid] = i
	}
	for _, u := range sv.gone {
		known[u] = -1
	}
	for _, msg := range snap.Range(0, snap.Len()) {
		if msg.Flags&renamed == 0 {
			continue
		}
		if i, ok := known[msg.UID]; !ok {
			sv.changes = append(sv.changes, change{uid: msg.UID, entry: entryOf(msg), shows: true})
		} else if i >= 0 {
			sv.changes[i].shows = true
		}
	}
}

// errUnlisted says that without a list nothing can be said of the folder: the lock
// is needed to make one.
var errUnlisted = errors.New("no list yet")

// readNotes reads what stands beside the messages, and makes a list where there is
// none. before is the folder's stamp, and follows.
func (m *Mailbox) readNotes(before *stamp, locked bool) error {
	// The index before the list: the line of a message comes before its record, so
	// what we have just heard of is listed, and its file is known when it is found.
	m.hearOthers()
	if err := m.list.read(m.control); err != nil {
		return err
	}
	m.list.outdate(m.Snapshot())
	if err := m.keys.read(m.control); err != nil {
		return err
	}
	if !m.list.known && m.Snapshot() == nil {
		if !locked {
			return errUnlisted
		}
		err := m.enlist()
		if err == nil {
			*before, err = m.stamp()
		}
		if err != nil {
			return err
		}
	}
	if locked {
		if err := m.takeKeywords(); err != nil {
			return err
		}
	}
	m.sayUnusable()
	return nil
}

// settleLook notes how far the folder is known after a look: whether all in it has
// been published, and nothing has happened since its stamp was s.
func (m *Mailbox) settleLook(s stamp, calm, whole bool) {
	t := &m.track
	t.last, t.told, t.mute = s, 0, false
	if len(m.missing)+len(m.unfound) > 0 || m.past.others {
		m.clean, m.past.others = stamp{}, false
		return
	}
	if !whole {
		return // what was clean is known still: the next look begins there
	}
	t.todo, m.list.again, m.list.searched, m.clean = nil, false, true, stamp{}
	if calm {
		m.clean = s
	}
	if !t.sound && (calm || m.atomic) {
		m.startTracking()
	}
}

// base returns the snapshot to work from: the published one, unless the list
// has got another UIDVALIDITY.
func (m *Mailbox) base() *Snapshot {
	s := m.Snapshot()
	if s != nil && (!m.list.known || s.Validity == m.list.head.Validity) {
		return s
	}
	if s != nil {
		m.past.reset() // another mailbox now, with a history of its own
	}
	return newSnapshot(m.list.head.Validity, 1, m.tick(), m.keys.names())
}

// survey finds out how the folder differs from snap: from what the kernel has
// told, or by scanning what is not as it was. Where messages seem to be missing
// while the folder changes it scans again: a file may have been moved between
// the two directories, against the order of the scans. That new/ has its time still
// says that none was, once that time is old enough.
func (m *Mailbox) survey(snap *Snapshot, before stamp) (survey, error) {
	if m.track.sound {
		if sv, ok := m.fromEvents(snap, before); ok {
			return sv, nil
		}
	}
	if m.eventsOnly {
		m.track.unsound()
		return survey{}, errEventsOnly
	}
	skip, again := m.unchanged(before), m.list.again
	if m.large(snap) && !skip[inCur] {
		// A process for one connection scans once. See follow.go.
		if m.scanned {
			m.followLocked()
		}
		m.scanned = true
	}
	m.track.unsound()
	m.track.take() // what comes from here on is not in the scan for certain
	if m.list.known && snap.Validity != 0 && snap.Validity != m.list.head.Validity {
		return survey{}, fmt.Errorf("%s: the UID list was replaced meanwhile: %w", m.name, ErrBusy)
	}
	for try := 0; ; try++ {
		begin := fileTime()
		start, err := m.stamp()
		if err != nil {
			return survey{}, err
		}
		sv, err := m.scan(snap, skip)
		if snap.blind() {
			m.rotten("names", index.ErrDamaged)
		}
		if err != nil {
			return sv, err
		}
		end, err := m.stamp()
		if err != nil {
			return sv, err
		}
		if skip[inCur] && end.cur != before.cur || skip[inNew] && end.new != before.new {
			skip = [2]bool{}
			continue
		}
		if m.list.again && !again {
			again, skip = true, [2]bool{} // it was another one when it had to be read
			continue
		}
		if start.new == end.new && (!sv.atomic || m.aged(start.new, begin)) || !slices.Contains(m.seen, false) && len(m.unfiled(snap, &sv)) == 0 {
			return sv, nil
		}
		if try >= 3 {
			sv.atomic = false // one scan proves nothing then
			return sv, nil
		}
		if m.settle(start.new) == localSettle {
			time.Sleep(min(localSettle, localSettle-begin.Sub(time.Unix(0, start.new.mtime))) + localTick)
		}
	}
}

// unchanged returns which of the two directories are as the last clean look left
// them, and need not be scanned.
func (m *Mailbox) unchanged(now stamp) (skip [2]bool) {
	if m.clean == (stamp{}) || m.list.again || m.keys.news.Any() || len(m.missing) > 0 {
		return skip
	}
	return [2]bool{inCur: now.cur == m.clean.cur, inNew: now.new == m.clean.new}
}

// commit records and publishes what a look has found.
func (m *Mailbox) commit(snap *Snapshot, sv *survey) error {
	if !m.list.known && m.Snapshot() == nil {
		return nil // the look under the lock will make a list
	}
	if sv.held != 0 {
		sv.fresh = slices.DeleteFunc(sv.fresh, func(f file) bool { return f.uid >= sv.held })
	}
	if len(sv.fresh) > 0 || sv.filled != nil {
		if err := m.list.sync(m.control); err != nil {
			return err
		}
	}
	if sv.filled != nil {
		snap = snap.with(sv.filled)
		snap.Next, snap.ModSeq = max(snap.Next, snap.sum.last+1), max(snap.ModSeq, snap.sum.modseq)
	}
	changes := sv.changes
	for _, u := range sv.gone {
		changes = append(changes, change{uid: u, remove: true})
	}
	slices.SortFunc(changes, func(a, b change) int { return int(int64(a.uid) - int64(b.uid)) })
	slices.SortFunc(sv.fresh, func(a, b file) int { return int(int64(a.uid) - int64(b.uid)) })
	added := make([]entry, 0, len(sv.fresh))
	for _, f := range sv.fresh {
		added = append(added, newEntry(f.uid, f.place, f.name, m.marksOf([]byte(f.name))))
	}
	m.keys.news = keywords.Changes{} // the scan has seen to them
	next := max(snap.Next, m.list.next())
	if sv.held != 0 {
		next = max(snap.Next, min(next, sv.held))
	}
	if snap == m.Snapshot() && len(changes) == 0 && len(added) == 0 && next == snap.Next && m.keys.same(snap) {
		return nil
	}
	_, err := m.record(snap, changes, added, next)
	return err
}

// waiting returns how many messages lie in new/.
func (m *Mailbox) waiting() int {
	if s := m.Snapshot(); s != nil {
		return s.sum.waiting
	}
	return 0
}
