package maildir

import "sort"

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
