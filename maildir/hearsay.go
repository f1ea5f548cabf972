package maildir

// hearsay is what another process has recorded of a message, which it may have
// seen before we did: the events that say otherwise may be settled already.
type hearsay struct {
	uid   UID
	gone  bool
	place place // of the file that is gone
	name  string
}

// mostHeard bounds what is checked file by file.
const mostHeard = 1000

// hear notes what is to be checked of changes and added, which other processes
// have made of snap. m.mu is held.
func (m *Mailbox) hear(snap *Snapshot, changes map[UID]change, added map[UID]entry) {
	t := &m.track
	if !t.sound {
		return
	}
	if len(t.heard)+len(changes)+len(added) > mostHeard {
		t.unsound()
		return
	}
	for u, c := range changes {
		x := hearsay{uid: u, gone: c.remove}
		if old, ok := snap.lookup(u); ok && c.remove {
			x.place, x.name = old.place(), string(old.name())
		}
		t.heard = append(t.heard, x)
	}
	for u := range added {
		t.heard = append(t.heard, hearsay{uid: u})
	}
}

// borneOut reports whether what was heard is so, as far as the events that are to
// be settled say nothing of it.
func (m *Mailbox) borneOut(snap *Snapshot) bool {
	t := &m.track
	for _, x := range t.heard {
		msg, ok := snap.lookup(x.uid)
		switch {
		case x.gone && t.todo[x.name[:baseLen(x.name)]] == nil && m.isThere(x.place, x.name):
			return false
		case ok && t.todo[string(msg.base())] == nil && !m.isThere(msg.place(), string(msg.name())):
			return false
		}
	}
	t.heard = nil
	return true
}
