package maildir

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"runtime/debug"

	"imapd/maildir/index"
)

// From when on modseqs may be told, and the index that this needs.

// ModSeqs reports whether the mailbox remembers when messages change, and makes
// it do so if it can: from now on modseqs may be told to a client, until Forgetful. It
// is false where there is no place for an index, or not the same one for all who serve
// the mailbox (NOMODSEQ, RFC 7162 section 3.1.2.2).
func (m *Mailbox) ModSeqs() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.await()
	defer m.leave()
	h := &m.past
	can := m.modSeqs()
	h.told = h.told || can
	return can
}

func (m *Mailbox) modSeqs() bool {
	h := &m.past
	if len(m.importing) > 0 {
		return false // an index would say that all has been taken over
	}
	if h.lost {
		m.recover()
	}
	if m.Snapshot() == nil || h.lost {
		return false
	}
	if !h.on {
		if err := m.makeIndex(); err != nil {
			m.lose(err)
			return false
		}
	}
	if !m.oneHistory() {
		return false
	}
	if uint64(m.Snapshot().ModSeq) < h.state.Ceiling && h.state.Boot == m.host.boot() && !h.state.Clean {
		if h.file.ReadLimit(); !h.behind() {
			return true
		}
	}
	return m.declare() == nil
}

// declare makes the ceiling durable that modseqs may be told below.
func (m *Mailbox) declare() error {
	h := &m.past
	if err := h.file.Lock(context.Background()); err != nil {
		return err
	}
	defer h.file.Unlock()
	if m.takeOthers(); !h.on {
		return index.ErrReplaced
	}
	if raised, err := m.raise(m.Snapshot().ModSeq); err != nil || !raised {
		return err
	}
	var b index.Batch
	b.State(&h.state)
	return h.file.Append(&b, m.host.opt.Fsync != FsyncNever)
}

// makeIndex writes the first index of a folder, or goes on with the one that
// another process has made meanwhile.
func (m *Mailbox) makeIndex() error {
	h := &m.past
	if m.indexDir == nil {
		return m.noIndex
	}
	if err := h.file.Lock(context.Background()); err != nil {
		return err
	}
	defer h.file.Unlock()
	ours, mine := m.Snapshot(), h.state
	img, err := m.loadAside()
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, index.ErrDamaged):
		return err // it may be good: another process goes on with it
	case err == nil && img.Validity == ours.Validity:
		h.state.ModSeq = max(h.state.ModSeq, img.State.Ceiling)
	}
	// Clients may have been told what neither of us knows.
	unsure := h.lost || h.behind() || err == nil && img.Validity == ours.Validity
	if err != nil || img.Validity != ours.Validity || img.GUID != m.list.head.GUID || m.copied(img) || !h.file.Loaded() {
		if ours.Len() >= forgetFrom {
			// That of a large folder is where its opening takes most memory. Its
			// list may not be asked again: then it is read when it is needed.
			m.list.unload()
			debug.FreeOSMemory()
		}
		if unsure {
			s, err := m.begun(ours, m.above(h.file.Limit()))
			if err == nil {
				m.publish(s)
			}
			return err
		}
		if h.state.Since == 0 {
			h.gone, h.state.Since = nil, max(uint64(ours.ModSeq), h.state.ModSeq)
		}
		h.line = rand.Uint64()
		return m.writeIndex(ours)
	}
	h.state.ModSeq = mine.ModSeq
	s, err := m.join(img, mine, ours, h.lost)
	if err == nil {
		m.publish(s)
	}
	return err
}

// join goes on with the index img, which another process has made while we, whose
// state is mine, had none or another one, and returns the snapshot that follows
// from ours and it. With floor modseqs have been told that it knows nothing of.
// Its lock is held.
func (m *Mailbox) join(img *index.Image, mine index.State, ours *Snapshot, floor bool) (*Snapshot, error) {
	h := &m.past
	theirs := m.fromImage(img)
	// What we gave on our own may have been given by them too, for other changes.
	h.state.ModSeq = max(h.state.ModSeq, mine.ModSeq, mine.Ceiling)
	if floor || h.behind() {
		// And a client that we told what we gave may have missed what they did:
		// everything counts as changed now, once.
		var err error
		if theirs, err = m.lift(theirs, m.above(0)); err != nil {
			return ours, err
		}
	}
	w := m.difference(theirs, ours)
	mod := m.stampChanges(&w)
	if err := m.append(&w, mod); err != nil {
		return ours, err
	}
	m.clean, h.on = stamp{}, true
	m.track.unsound()
	return m.outcome(&w), nil
}

// difference returns what theirs lacks of what we know. Of what they know and we
// do not, or otherwise, the files say whether it is still so: those of the messages,
// and of keywords that no name of theirs can say imapd-keywords.
func (m *Mailbox) difference(theirs, ours *Snapshot) work {
	w := work{snap: theirs, next: ours.Next}
	m.rereadKeywords()
	for _, old := range theirs.Range(0, theirs.Len()) {
		msg, ok := ours.lookup(old.UID)
		if ok && msg.same(old) || !ok && old.UID >= ours.Next {
			continue
		}
		if m.isThere(old.place(), string(old.name())) {
			e := entryOf(old)
			if e.marks = m.marksOf(old.name()); !e.marks.Equal(old.Marks()) {
				w.changes = append(w.changes, change{uid: old.UID, entry: e})
			}
			continue
		}
		if !ok {
			w.changes = append(w.changes, change{uid: old.UID, remove: true})
		} else if m.isThere(msg.place(), string(msg.name())) {
			w.changes = append(w.changes, change{uid: old.UID, entry: entryOf(msg)})
		}
	}
	lo, ok := ours.Find(theirs.sum.last)
	if ok {
		lo++
	}
	for _, msg := range ours.Range(lo, ours.Len()) {
		if !m.past.buried(msg.UID, 0) {
			w.added = append(w.added, entryOf(msg))
		}
	}
	return w
}
