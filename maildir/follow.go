package maildir

import (
	"time"

	"golang.org/x/sys/unix"
)

// When a mailbox begins to be followed. It is not free: a process needs an inotify
// instance, of which a user has 128, and to begin with a directory of which the
// kernel has 100,000 names in memory takes it 10 ms, for it marks each of them. So
// edits and IDLE follow a mailbox, and the second scan of a large one does: a
// process for one client scans once.
//
// A process that serves many clients has one instance for all of them, and time: it
// follows a large mailbox soon after it was selected, when the client has its answer
// (Options.FollowEarly). The first delivery after that costs no more than the others.

// What makes a mailbox worth following when it is scanned: how many messages it
// has, or how large its directory is, if nothing is known yet. Edits and IDLE
// follow every mailbox.
const (
	followFrom = 500
	largeDir   = 16 << 10
)

func (m *Mailbox) large(snap *Snapshot) bool {
	var st unix.Stat_t
	return snap.Len() >= followFrom || unix.Fstat(m.cur.Fd(), &st) == nil && st.Size >= largeDir
}

// follow has the kernel tell of changes from now on.
func (m *Mailbox) follow() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.await()
	defer m.leave()
	m.followLocked()
}

// followLocked is follow with m.mu and a disk slot held. A folder that is as the last look left it
// is tracked at once.
func (m *Mailbox) followLocked() {
	t := &m.track
	if t.following && m.host.hub.has(m) {
		return
	}
	t.take()
	t.unsound()
	if t.following = m.host.hub.add(m); t.following {
		m.trustEvents()
	}
}

// trustEvents has a mailbox that is followed tracked, if it is as the last look left
// it.
func (m *Mailbox) trustEvents() {
	t := &m.track
	if m.clean != (stamp{}) && m.local {
		now, err := m.stamp()
		t.sound, t.last = err == nil && now == m.clean, now
	}
}

// followAfter is how long after a look followEarly begins: the client that has
// waited for the look shall have its answer first.
const followAfter = 50 * time.Millisecond

// followSoon has followEarly run, once for as long as the mailbox is open, if this
// is a process for many clients and the mailbox is large.
func (m *Mailbox) followSoon() {
	if m.host.opt.FollowEarly && !m.host.opt.NoNotify && !m.early.Load() && m.large(m.Snapshot()) && m.early.CompareAndSwap(false, true) {
		time.AfterFunc(followAfter, m.followEarly)
	}
}

// followEarly is follow off every client's way: the kernel takes its time with
// nothing of the mailbox held. What it tells from then on is noted, and counts if
// the folder is still as the last look left it; else the next look scans.
func (m *Mailbox) followEarly() {
	if !m.host.hold(m) {
		m.early.Store(false) // whoever selects it next
		return
	}
	defer m.host.early.Done()
	defer m.Release()
	m.await()
	told := m.host.hub.has(m) || !m.track.paused.Load() && m.host.hub.add(m)
	m.leave()
	m.mu.Lock()
	defer m.mu.Unlock()
	if told && !m.track.following {
		m.track.following = true
		m.trustEvents()
	}
	if l := m.list.lines; l != nil {
		l.index() // events will ask it
	}
}

// hold takes one more reference to m, which somebody uses, for a goroutine of
// Host.early. It reports false if nobody does.
func (h *Host) hold(m *Mailbox) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || m.refs == 0 || h.boxes[m.id] != m {
		return false
	}
	m.refs++
	h.early.Add(1)
	return true
}
