package maildir

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"imapd/maildir/index"
)

// What other processes have recorded in the index since it was read.

// takeTail returns the snapshot that follows from snap with what other processes
// have recorded. The index is locked.
func (m *Mailbox) takeTail(snap *Snapshot) (*Snapshot, error) {
	h := &m.past
	events, err := h.file.Tail(true)
	if h.file.Torn {
		// What was given there is not known.
		h.state.ModSeq = max(h.state.ModSeq, h.state.Ceiling)
		m.host.opt.Log.Warn("the end of the index is damaged, what another process has recorded there is lost", "mailbox", m.name)
	}
	switch {
	case errors.Is(err, index.ErrReplaced):
		h.others = true
		return m.reload(snap)
	case err != nil:
		return snap, err
	}
	if len(events) > 0 {
		h.others = true
	}
	for i := range events {
		if events[i].Kind == index.Floored {
			return m.reload(snap)
		}
	}
	snap = m.replay(snap, events)
	if h.behind() {
		h.others = true
		return m.reload(snap)
	}
	return snap, nil
}

// errStranger says that the index is about another mailbox, with another
// UIDVALIDITY. A look at the UID list will tell who is right.
var errStranger = errors.New("the index is of another UIDVALIDITY")

// reload reads the whole index again. One that was begun anew, by a process that may
// not have read all that we have, is joined. Where there is none any more, or one that
// is older than what we have read of it, from a backup perhaps, it is written anew; and
// as it may have held more than we have read, everything counts as changed then. The
// index is locked.
func (m *Mailbox) reload(snap *Snapshot) (*Snapshot, error) {
	h := &m.past
	rest := h.file.Rest()
	img, err := m.loadAside()
	mine, gone := h.state, h.gone
	switch {
	case err == nil && img.Validity != snap.Validity:
		return snap, errStranger
	case err == nil && img.Line != h.line:
		snap = m.replay(snap, rest)
		s, err := m.join(img, h.state, snap, true)
		return s, err
	case err == nil:
		s := m.fromImage(img)
		if h.state.ModSeq >= mine.ModSeq {
			s.Next = max(s.Next, snap.Next)
			if h.behind() {
				return m.lift(s, m.above(0))
			}
			return s, nil
		}
		mine.Ceiling = max(mine.Ceiling, h.state.Ceiling)
		h.state, h.gone = mine, gone
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, index.ErrDamaged):
		return m.replay(snap, rest), err
	}
	snap = m.replay(snap, rest)
	if errors.Is(err, index.ErrDamaged) {
		return m.startAnew(snap)
	}
	h.unstamp()
	return m.begun(snap, m.above(h.file.Limit()))
}

// reconcile has w follow from base, which has followed w.snap by what other
// processes have recorded. What they have done already is left out. Where they
// say something else of a message, one of us has looked too early: then the file
// decides.
func (m *Mailbox) reconcile(w *work, base *Snapshot) {
	left := w.changes[:0]
	for _, c := range w.changes {
		now, ok := base.lookup(c.uid)
		if !ok {
			continue
		}
		old, had := w.snap.lookup(c.uid)
		if !c.remove && now.is(&c.entry) && !(c.shows && had && old.ModSeq == now.ModSeq) {
			w.done = max(w.done, now.ModSeq)
			continue
		}
		if !had || !old.same(now) {
			if c.remove && m.isThere(now.place(), string(now.name())) || !c.remove && !m.isThere(c.entry.place, c.entry.name) {
				m.past.others = true
				continue
			}
		}
		left = append(left, c)
	}
	more := w.added[:0]
	for _, e := range w.added {
		now, ok := base.lookup(e.uid)
		switch {
		case ok && now.is(&e):
			w.done = max(w.done, now.ModSeq)
		case ok && m.isThere(e.place, e.name):
			left = append(left, change{uid: e.uid, entry: e})
		case !ok && e.uid > base.sum.last && !m.past.buried(e.uid, w.snap.ModSeq):
			more = append(more, e)
		default:
			m.past.others = true
		}
	}
	slices.SortFunc(left, func(a, b change) int { return int(int64(a.uid) - int64(b.uid)) })
	w.snap, w.changes, w.added = base, left, more
}

// is reports whether e says of the file what m does.
func (m Message) is(e *entry) bool {
	return m.Marks().Equal(e.marks) && m.place() == e.place && string(m.name()) == e.name
}

// same reports whether the files of m and n are called the same.
func (m Message) same(n Message) bool {
	return m.page == n.page && m.rec == n.rec || m.Marks().Equal(n.Marks()) && m.place() == n.place() && string(m.name()) == string(n.name())
}

// hearOthers takes over what other processes have recorded since the last look,
// before the folder is looked at: what a look finds then has not been told yet.
func (m *Mailbox) hearOthers() {
	h := &m.past
	if !h.on || !h.file.Changed() {
		return
	}
	if err := h.file.Lock(context.Background()); err != nil {
		m.lose(err)
		return
	}
	defer h.file.Unlock()
	m.takeOthers()
	h.others = false // a look follows
}

// takeOthers publishes what other processes have recorded. The index is locked.
func (m *Mailbox) takeOthers() {
	s := m.Snapshot()
	base, err := m.takeTail(s)
	if err != nil {
		m.lose(err)
	}
	if base != s {
		m.clean = stamp{}
		m.publish(m.outcome(&work{snap: base}))
	}
}

// claimWithOthers brings recentFrom up to what other processes have claimed, and
// records that all below next is claimed now.
func (m *Mailbox) claimWithOthers(next UID) {
	h := &m.past
	if err := h.file.Lock(context.Background()); err != nil {
		m.lose(err)
		return
	}
	defer h.file.Unlock()
	if m.takeOthers(); !h.on || m.recentFrom >= next {
		return
	}
	h.state.Recent = uint32(next)
	h.state.Next = max(h.state.Next, uint32(m.Snapshot().Next))
	var b index.Batch
	b.State(&h.state)
	if err := h.file.Append(&b, false); err != nil && !errors.Is(err, index.ErrLong) {
		m.lose(err)
	}
}
