package maildir

import (
	"slices"
	"sort"

	"imapd/maildir/index"
)

// Expunged are the UIDs First to Last, which went at one moment. UIDs that no
// message had by then may be among them.
type Expunged struct {
	First, Last UID
	ModSeq      ModSeq
}

// Expunged returns the messages that were expunged with a modseq above since, in
// the order in which they went. It may know of more than the snapshot that the
// caller has, never of less. If complete is false the mailbox does not remember
// that far back, or has never been at since: whatever is not there may have gone
// since.
func (m *Mailbox) Expunged(since ModSeq) (gone []Expunged, complete bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := &m.past
	all := h.gone
	n := sort.Search(len(all), func(i int) bool { return all[i].ModSeq > uint64(since) })
	for _, r := range all[n:] {
		gone = append(gone, Expunged{UID(r.From), UID(r.To), ModSeq(r.ModSeq)})
	}
	return gone, h.state.Since != 0 && h.state.Since <= uint64(since) && uint64(since) <= h.state.ModSeq
}

// mostGone bounds the ranges of expunged UIDs that are kept.
const mostGone = 100_000

// removed returns the UIDs that changes remove, as ranges.
func removed(changes []change, mod ModSeq) (gone []index.Range) {
	for _, c := range changes {
		u := uint32(c.uid)
		switch k := len(gone) - 1; {
		case !c.remove:
		case k >= 0 && gone[k].To+1 == u:
			gone[k].To = u
		default:
			gone = append(gone, index.Range{From: u, To: u, ModSeq: uint64(mod)})
		}
	}
	return gone
}

// forgetGone remembers that messages are gone.
func (m *Mailbox) forgetGone(changes []change, mod ModSeq) {
	m.addGone(removed(changes, mod))
}

func (m *Mailbox) addGone(gone []index.Range) {
	h := &m.past
	h.gone = append(h.gone, gone...)
	if drop := len(h.gone) - mostGone; drop > 0 {
		drop += mostGone / 4
		h.state.Since = h.gone[drop-1].ModSeq
		h.gone = slices.Clone(h.gone[drop:])
	}
}

// buried reports whether the message u was expunged with a modseq above since.
func (h *history) buried(u UID, since ModSeq) bool {
	for i := len(h.gone) - 1; i >= 0 && h.gone[i].ModSeq > uint64(since); i-- {
		if UID(h.gone[i].From) <= u && u <= UID(h.gone[i].To) {
			return true
		}
	}
	return false
}
