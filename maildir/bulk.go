package maildir

// An edit of many files is not followed: the two events of a rename cost the kernel and
// us more than the rename, and each wakes a thread. So once an edit has made a good
// part of what a scan would have to read, the kernel is to tell no more, and the
// next look scans. That finds what others have done meanwhile as well.

// Of how many own events on an edit is not followed: bulkFrom, or one for each
// bulkShare messages of the mailbox if that is more.
const (
	bulkFrom  = 500
	bulkShare = 20
)

// own notes the event that a change of ours makes. m.mu is held.
func (m *Mailbox) own(op eventOp, p place, name string) {
	t := &m.track
	t.own(op, p, name)
	known := 0
	if s := m.Snapshot(); s != nil {
		known = s.Len()
	}
	if t.run++; t.run > max(bulkFrom, known/bulkShare) && !t.paused.Load() && m.host.hub.has(m) {
		t.paused.Store(true) // first: followEarly holds nothing
		m.host.hub.remove(m)
		t.unsound()
		t.following = false
	}
}

// ownRename is own for what renaming a file makes.
func (m *Mailbox) ownRename(from place, name string, to place, newname string) {
	m.own(moved, from, name)
	m.own(created, to, newname)
}

// resume ends an edit: from here on the mailbox is followed again. Those who watch it
// may have missed something. m.mu and a disk slot are held.
func (m *Mailbox) resume() {
	t := &m.track
	t.run = 0
	if t.paused.Swap(false) {
		m.followLocked()
		m.poke()
	}
}
