package maildir

import (
	"slices"

	"imapd/maildir/index"
)

// What the batches of the index say, one after the other.

// replay returns the snapshot that follows from s with events, and takes over the
// state of the folder that they tell.
func (m *Mailbox) replay(s *Snapshot, events []index.Event) *Snapshot {
	if len(events) == 0 {
		return s
	}
	h := &m.past
	changes := map[UID]change{}
	added := map[UID]entry{}
	learned := map[UID]index.Facts{}
	next, letters, more := s.Next, Flags(0), false
	for i := range events {
		e := &events[i]
		switch e.Kind {
		case index.Put:
			x := putEntry(e)
			next, letters, more = max(next, x.uid+1), letters|x.marks.Flags, more || e.Rec.Mod&index.More != 0
			h.unclean()
			h.state.ModSeq = max(h.state.ModSeq, uint64(x.modseq))
			if _, ok := s.Find(x.uid); ok {
				changes[x.uid] = change{uid: x.uid, entry: x}
			} else if x.uid > s.sum.last {
				added[x.uid] = x
			}
		case index.Gone:
			h.unclean()
			h.state.ModSeq = max(h.state.ModSeq, e.Range.ModSeq)
			m.addGone([]index.Range{e.Range})
			s.each(UID(e.Range.From), UID(e.Range.To), func(msg Message) { changes[msg.UID] = change{uid: msg.UID, remove: true} })
			for u := range added {
				if UID(e.Range.From) <= u && u <= UID(e.Range.To) {
					delete(added, u)
				}
			}
		case index.Learned:
			learned[UID(e.Rec.UID)] = e.Rec.Facts
		case index.Floored:
			h.state.ModSeq = max(h.state.ModSeq, e.Range.ModSeq)
			for u, c := range changes {
				c.entry.modseq = max(c.entry.modseq, ModSeq(e.Range.ModSeq))
				changes[u] = c
			}
			for u, x := range added {
				x.modseq = max(x.modseq, ModSeq(e.Range.ModSeq))
				added[u] = x
			}
		case index.Stated:
			e.State.ModSeq = max(e.State.ModSeq, h.state.ModSeq)
			e.State.Since = max(e.State.Since, h.state.Since)
			e.State.Ceiling = max(e.State.Ceiling, h.state.Ceiling)
			e.State.Limit = max(e.State.Limit, h.state.Limit)
			h.state, h.saved = *e.State, e.State.Stamp
			m.recentFrom = max(m.recentFrom, UID(e.State.Recent))
		}
	}
	if more || m.keys.nameless(letters) != 0 { // else COPY would lose them
		m.rereadKeywords()
	}
	if more {
		m.fillMore(changes, added)
	}
	m.hear(s, changes, added)
	n := s.apply(sorted(changes, func(c change) UID { return c.uid }), sorted(added, func(e entry) UID { return e.uid }))
	n.ModSeq = max(s.ModSeq, ModSeq(h.state.ModSeq))
	n.Next = max(next, UID(h.state.Next), n.sum.last+1)
	for u, f := range learned {
		if msg, ok := n.lookup(u); ok {
			msg.page.mu.Lock()
			msg.rec.Facts = f
			msg.page.mu.Unlock()
		}
	}
	return n
}

func putEntry(e *index.Event) entry {
	x := entry{uid: UID(e.Rec.UID), marks: Marks{Flags: Flags(e.Rec.Flags)}, modseq: ModSeq(e.Rec.ModSeq()), name: string(e.Name), base: int(e.Rec.BaseLen), facts: e.Rec.Facts}
	if e.Rec.Mod&index.InNew != 0 {
		x.place = inNew
	}
	return x
}

// sorted returns the values of m, ascending by UID.
func sorted[V any](m map[UID]V, uid func(V) UID) []V {
	list := make([]V, 0, len(m))
	for _, v := range m {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b V) int { return int(int64(uid(a)) - int64(uid(b))) })
	return list
}

// each calls f for the messages with UIDs from to to.
func (s *Snapshot) each(from, to UID, f func(Message)) {
	lo, _ := s.Find(from)
	hi, ok := s.Find(to)
	if ok {
		hi++
	}
	for _, msg := range s.Range(lo, hi) {
		f(msg)
	}
}
