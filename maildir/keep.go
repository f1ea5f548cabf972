package maildir

import (
	"errors"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A mailbox that nobody has open any more is kept for a while as it is: most
// clients come back to what they have just left, and ask for STATUS of the same
// folders every few minutes. Opening it again then costs three stats instead of
// reading the UID list and both directories. It is a cache and nothing else: the
// first look finds what has changed meanwhile, as in a mailbox that is open.
const (
	keepFor    = 10 * time.Minute
	keepOctets = 250_000 * messageOctets // of all kept mailboxes
	keepBoxes  = 1000
	// What a mailbox holds most of, roughly: messages with their names, ranges of
	// expunges, lines of the UID list.
	messageOctets = 150
	rangeOctets   = 16
	lineOctets    = 20
	// Descriptors of one mailbox, and how much of what the process may have
	// all kept mailboxes may take: one in keepShare.
	boxFiles  = 8 // six directories, the UID list, the index
	keepShare = 8
)

// mostKept returns how many mailboxes may be kept.
func mostKept() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return int(min(keepBoxes, l.Cur/(boxFiles*keepShare)))
}

// giveBack takes a reference back. After the last one m, whose last user has gone at
// now, is kept if it is worth that.
func (h *Host) giveBack(m *Mailbox, now time.Time, worth bool) {
	octets := m.octets()
	var unused []*Mailbox
	h.mu.Lock()
	if m.refs--; m.refs == 0 && worth {
		m.weight = octets
		unused = h.keep(m, now)
	} else if m.refs == 0 {
		h.forget(m)
		unused = []*Mailbox{m}
	}
	h.mu.Unlock()
	h.closeSoon(unused)
}

// octets returns what m takes in memory, roughly.
func (m *Mailbox) octets() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.past.gone) * rangeOctets
	if s := m.Snapshot(); s != nil {
		n += s.Len() * messageOctets
	}
	if l := m.list.lines; l != nil {
		n += len(l.uids) * lineOctets
	}
	return n
}

// keep keeps m, and returns the mailboxes to close for it. h.mu is held.
func (h *Host) keep(m *Mailbox, now time.Time) (dropped []*Mailbox) {
	m.released = now
	h.kept = append(h.kept, m)
	h.keptOctets += m.weight
	if h.closed {
		return h.drop(len(h.kept))
	}
	n := 0
	for left := h.keptOctets; len(h.kept)-n > h.mostKept || n < len(h.kept) && left > keepOctets; n++ {
		left -= h.kept[n].weight
	}
	if h.keptTimer == nil {
		h.keptTimer = time.AfterFunc(keepFor, h.expire)
	}
	return h.drop(n)
}

// drop takes the first n kept mailboxes out of the Host. The caller closes them
// without h.mu, which is held.
func (h *Host) drop(n int) []*Mailbox {
	dropped := slices.Clone(h.kept[:n])
	h.kept = slices.Delete(h.kept, 0, n)
	for _, m := range dropped {
		h.keptOctets -= m.weight
		h.forget(m)
	}
	return dropped
}

// forget takes a mailbox that nobody uses out of the Host. h.mu is held.
func (h *Host) forget(m *Mailbox) {
	if h.boxes[m.id] != m {
		return // it has been replaced
	}
	delete(h.boxes, m.id)
	if s := m.Snapshot(); s != nil && m.recentFrom != 0 && m.recentFrom < s.Next {
		remember(h.unclaimed, m.id, unclaimed{s.Validity, m.recentFrom})
	}
}

// expire closes what has been kept for long enough.
func (h *Host) expire() {
	h.mu.Lock()
	n, now := 0, time.Now()
	for n < len(h.kept) && now.Sub(h.kept[n].released) >= keepFor {
		n++
	}
	old := h.drop(n)
	h.keptTimer = nil
	if len(h.kept) > 0 && !h.closed {
		h.keptTimer = time.AfterFunc(h.kept[0].released.Add(keepFor).Sub(now), h.expire)
	}
	h.mu.Unlock()
	h.closeSoon(old)
}

// dropKept closes all that is kept, for good, and waits for that.
func (h *Host) dropKept() {
	h.mu.Lock()
	for _, m := range h.drop(len(h.kept)) {
		h.dismiss(m)
	}
	h.closed = true
	if h.keptTimer != nil {
		h.keptTimer.Stop()
	}
	h.mu.Unlock()
	h.early.Wait()
}

// A site is what a mailbox was opened by. One that was kept is good only for the
// same site: its folder may have been renamed, and the watch goes by paths, or
// somebody has put another cur/ in place, from a backup perhaps.
type site struct {
	path, control string
	cur, new      folderID
}

// siteOf returns the site at path. What cannot be looked at is left zero.
func siteOf(path, control string) site {
	s := site{path: path, control: control}
	for name, to := range map[string]*folderID{"cur": &s.cur, "new": &s.new} {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(path, name), &st) == nil {
			*to = folderID{uint64(st.Dev), st.Ino}
		}
	}
	return s
}

// inPlace reports whether the directories of m are still those that its folder has.
// Once they are not the mailbox counts as deleted: what is added to it nobody would
// find.
func (m *Mailbox) inPlace() bool {
	is := func(name string, was folderID) bool {
		var st unix.Stat_t
		return was == folderID{} || unix.Fstatat(m.dir.Fd(), name, &st, 0) == nil && was == folderID{uint64(st.Dev), st.Ino}
	}
	if !is("cur", m.site.cur) || !is("new", m.site.new) {
		m.uprooted.Store(true)
	}
	return !m.uprooted.Load()
}

// inTree fails with ErrNotFound where the folder is not at its path any more. Who deletes
// it moves it into the trash with all that we have open; should that not be emptied for
// now, nothing else tells, and what is added would be lost with it.
func (m *Mailbox) inTree() error {
	var st unix.Stat_t
	err := unix.Stat(filepath.Join(m.where(), "cur"), &st)
	if err == nil && idOf(m.cur) != (folderID{uint64(st.Dev), st.Ino}) {
		err = unix.ENOENT
	}
	return openError(m.name, err)
}

// take returns the mailbox with id, open or kept, with one more reference, nil if
// there is none. The caller closes stale without h.mu, which is held.
func (h *Host) take(id folderID, at site) (m *Mailbox, stale []*Mailbox) {
	m = h.boxes[id]
	if m == nil {
		return nil, nil
	}
	if m.refs == 0 {
		i := slices.Index(h.kept, m)
		h.kept = slices.Delete(h.kept, i, i+1)
		h.keptOctets -= m.weight
		if m.site != at {
			h.forget(m)
			return nil, []*Mailbox{m}
		}
	} else if m.site.cur != at.cur || m.site.new != at.new {
		m.uprooted.Store(true) // who has it open hears that it is gone
		delete(h.boxes, id)
		return nil, nil
	}
	m.refs++
	m.path = at.path
	return m, nil
}

// where returns the path of the folder, as far as it is known: that by which it was
// opened last. While somebody has it open it may be renamed.
func (m *Mailbox) where() string {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	return m.path
}

// release takes a reference to m back, unless it is the last one, which is left to
// the caller. Once too often does nothing.
func (h *Host) release(m *Mailbox) (last bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.refs > 1 {
		m.refs--
		return false
	}
	return m.refs == 1
}

// tidyAfter is how long after its last user has gone a mailbox is tidied up: who
// saves mail in it message by message opens it for each.
const tidyAfter = time.Second

// tidySoon has a mailbox written down and its lock file removed, if nobody comes
// back. A process that ends does it sooner.
func (m *Mailbox) tidySoon() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tidying == nil {
		m.tidying = time.AfterFunc(tidyAfter, m.tidy)
	}
}

// tidy has the mailbox to itself meanwhile, as its user.
func (m *Mailbox) tidy() {
	h := m.host
	m.mu.Lock()
	m.tidying = nil
	m.mu.Unlock()
	if !h.borrow(m) {
		return
	}
	defer h.early.Done()
	m.writeDown(false)
	h.giveBack(m, m.released, true)
}

// writeDown leaves on disk what is worth it. last says that the mailbox is closed then.
func (m *Mailbox) writeDown(last bool) {
	m.compactList()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.await()
	defer m.leave()
	if _, err := m.stamp(); err == nil {
		m.lookBack()
		m.save(last)
	}
	m.spare.Drop()
}

// errEventsOnly says that a look would have to read directories.
var errEventsOnly = errors.New("the events do not tell")

// lookBack has the folder known as it is after the last changes of our own, if the events
// tell that there were no others: else the next process would read all of it. It reads
// no directory itself, which would cost as much, and waits for as long as a stamp takes
// to count. m.mu is held.
func (m *Mailbox) lookBack() {
	if m.clean != (stamp{}) || !m.track.sound {
		return
	}
	now, err := m.stamp()
	if err != nil {
		return
	}
	latest := time.Unix(0, max(now.cur.mtime, now.new.mtime))
	for range 4 { // the clock of files ticks more rarely than we wake
		age := fileTime().Sub(latest)
		if age < -localSettle || age >= localSettle {
			break
		}
		time.Sleep(max(localSettle-age, localTick))
	}
	m.eventsOnly = true
	_, _ = m.look(Look, false) // what it does not find out the next process will
	m.eventsOnly = false
}

// borrow takes a reference to m, if it is kept, for a goroutine of Host.early.
func (h *Host) borrow(m *Mailbox) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(h.kept, m)
	if h.closed || i < 0 {
		return false
	}
	h.kept = slices.Delete(h.kept, i, i+1)
	h.keptOctets -= m.weight
	m.refs++
	h.early.Add(1)
	return true
}

// closeSoon closes mailboxes that nobody can open any more. It is done beside whoever
// has caused it: they are most often another user's, and on a disk that may hang.
func (h *Host) closeSoon(boxes []*Mailbox) {
	for _, m := range boxes {
		h.mu.Lock()
		soon := !h.closed
		if soon {
			h.dismiss(m)
		}
		h.mu.Unlock()
		if !soon {
			m.close()
		}
	}
}

// dismiss has m closed by the goroutine that there is for each user of whom mailboxes
// are to be closed, one after the other: it belongs to Host.early. h.mu is held, and
// the Host not closed.
func (h *Host) dismiss(m *Mailbox) {
	g := m.gate
	if g.closing = append(g.closing, m); len(g.closing) == 1 {
		h.early.Go(func() { h.closeDismissed(g) })
	}
}

// closeDismissed closes the mailboxes of one user until there are no more.
func (h *Host) closeDismissed(g *gate) {
	for next := g.dismissed(h, 0); next != nil; next = g.dismissed(h, 1) {
		next.close()
	}
}

// dismissed returns the first mailbox of closing after the first done ones, which are
// taken out.
func (g *gate) dismissed(h *Host, done int) *Mailbox {
	h.mu.Lock()
	defer h.mu.Unlock()
	g.closing = slices.Delete(g.closing, 0, done)
	if len(g.closing) == 0 {
		return nil
	}
	return g.closing[0]
}

// close closes a mailbox that nobody can open any more.
func (m *Mailbox) close() {
	m.mu.Lock()
	if m.tidying != nil {
		m.tidying.Stop()
		m.tidying = nil
	}
	m.mu.Unlock()
	m.writeDown(true)
	m.await()
	m.closeDirs()
	m.leave()
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	m.host.ungate(m.gate, m.disk)
}
