package maildir

// A modseq means something only in one history. Two servers that each keep an index
// of their own give the same modseq to different changes, and a client that goes
// from one to the other misses what it asks for by modseq, for ever. So modseqs are
// told only where all who serve the mailbox write to one index, in turns:
//
//   - it is in the folder, which is what they share, and its lock, which other hosts
//     see too, can be taken;
//   - or the administrator promises that there is one host (IndexSingleHost), and
//     the lock can be taken.
//
// Elsewhere the index is kept all the same, for what it saves.

// oneHistory reports whether that is so. There is an index.
func (m *Mailbox) oneHistory() bool {
	h := &m.past
	if !m.host.opt.IndexSingleHost && (!m.store.tree.IndexInFolder() || m.host.localLocks(m.indexDir.Fd())) {
		return false
	}
	if !h.locked {
		if err := h.file.TryLocks(); err != nil {
			m.lose(err)
			return false
		}
		h.locked = true
	}
	return true
}
