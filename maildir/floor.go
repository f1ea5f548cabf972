package maildir

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"

	"imapd/maildir/index"
)

// Where it is not known what clients were told, everything counts as changed.

// lift has records that changed before floor count as changed then.
func lift(recs []record, floor uint64) {
	if floor == 0 {
		return
	}
	for i := range recs {
		if recs[i].ModSeq() < floor {
			recs[i].SetModSeq(floor)
		}
	}
}

// copied reports whether the index came here by other means than our writing it: it
// has another inode, or something was written over it or has set its times, as a
// program does that restores a backup. That may have been no more than a chmod: then
// clients hear of all flags once more for nothing, once, for the index is written
// anew. Where files may get other inode numbers by themselves, or have times that are
// not of our clock, nobody can say; nor in which of two moments a power cut came.
func (m *Mailbox) copied(img *index.Image) bool {
	return img.Ino != m.curIno() || m.local && (img.Copied || img.Touched && !m.unclean())
}

// unclean reports whether the machine has crashed with the index in use.
func (m *Mailbox) unclean() bool {
	s := &m.past.state
	return s.Boot != m.host.boot() && !s.Clean
}

// doubtful reports whether clients may have been told more than img knows of: by
// a process that lost it in a power cut, or before img was brought back.
func (m *Mailbox) doubtful(img *index.Image) bool {
	return m.unclean() || m.copied(img) || img.Torn || m.past.behind()
}

// above returns a modseq above mod, and above all that was told.
func (m *Mailbox) above(mod uint64) ModSeq {
	h := &m.past
	mod = max(mod, h.state.Ceiling)
	if h.behind() {
		mod = max(mod, h.file.Limit())
	}
	h.state.ModSeq = max(h.state.ModSeq, mod)
	return m.tick()
}

// floor has every message count as changed now, durably, and returns the
// snapshot that says so.
func (m *Mailbox) floor(img *index.Image, s *Snapshot) (*Snapshot, error) {
	h := &m.past
	if err := h.file.Lock(context.Background()); err != nil {
		return s, err
	}
	defer h.file.Unlock()
	// What looked torn to whoever loads without the lock may just have been written.
	events, err := h.file.Tail(true)
	torn := h.file.Torn
	if len(events) > 0 || errors.Is(err, index.ErrReplaced) || img.Touched { // another process was first, or has just been writing
		if img, err = h.file.Load(); err != nil {
			return s, err
		}
		torn = torn || img.Torn
		s = m.fromImage(img)
		s.Validity, s.keywords = m.list.head.Validity, m.keys.names()
	}
	if img.Torn = torn; err != nil || !m.doubtful(img) {
		return s, err
	}
	m.tellDoubt(img)
	if m.copied(img) {
		// Only a new index can say that it is this folder's, and this file.
		return m.begun(s, m.above(max(h.file.Limit(), m.now()+wayAhead)))
	}
	if img.Torn { // the ceiling may have been behind what is left
		return m.lift(s, m.above(h.file.Limit()))
	}
	return m.lift(s, m.above(0))
}

// tellDoubt logs why clients are told everything anew, if that is not what a crash of
// the machine, a copy or a backup leaves: the index has been damaged, most likely.
func (m *Mailbox) tellDoubt(img *index.Image) {
	what := ""
	switch {
	case m.unclean() || img.Ino != m.curIno() || m.past.skipped:
	case m.copied(img):
		what = "something else has written to the index"
	case img.Torn:
		what = "the end of the index is damaged"
	}
	if what != "" {
		m.host.mu.Lock()
		remember(m.host.rotten, m.id, struct{}{}) // one line is enough
		m.host.mu.Unlock()
		m.host.opt.Log.Warn(what+", all messages count as changed", "mailbox", m.name)
	}
}

// lift has every message of s count as changed at mod, durably, and returns the
// snapshot that says so. The index is locked.
func (m *Mailbox) lift(s *Snapshot, mod ModSeq) (*Snapshot, error) {
	h := &m.past
	h.state.ModSeq = uint64(mod)
	h.forget(uint64(mod))
	if err := m.ceil(uint64(mod) + ahead); err != nil {
		return s, err
	}
	var b index.Batch
	b.Floor(uint64(mod))
	b.State(&h.state)
	if err := h.file.Append(&b, m.host.opt.Fsync != FsyncNever); err != nil {
		return s, err
	}
	return s.lifted(mod), nil
}

// begun writes the index anew, with every message of s changed at mod, and returns the
// snapshot that says so. The index is locked.
func (m *Mailbox) begun(s *Snapshot, mod ModSeq) (*Snapshot, error) {
	h := &m.past
	h.state.ModSeq, h.line = uint64(mod), rand.Uint64()
	h.forget(uint64(mod))
	if err := m.ceil(uint64(mod) + ahead); err != nil {
		return s, err
	}
	lifted := s.lifted(mod)
	if err := m.writeIndex(lifted); err != nil {
		return s, err
	}
	return lifted, nil
}

// forget begins the history of expunges at mod. Where a floor is needed messages may
// be missing of which the index never knew: one that came last is told when the UID
// list has it, its record is on disk some time later, and its file may be gone sooner.
func (h *history) forget(mod uint64) { h.gone, h.state.Since = nil, mod }

// lifted returns s with every message changed at mod.
func (s *Snapshot) lifted(mod ModSeq) *Snapshot {
	dirs := make([]*dir, len(s.dirs))
	for i, d := range s.dirs {
		pages := make([]*page, len(d.pages))
		for k, p := range d.pages {
			pages[k] = p.lifted(uint64(mod))
		}
		dirs[i] = newDir(pages)
	}
	n := s.with(dirs)
	n.ModSeq = max(n.ModSeq, mod)
	return n
}

func (p *page) lifted(floor uint64) *page {
	p.mu.Lock()
	n := &page{recs: slices.Clone(p.recs), placed: p.placed, more: p.more, newer: p.newer}
	p.mu.Unlock()
	n.names.Store(p.names.Load())
	n.lazy.Store(p.lazy.Load())
	n.blind.Store(p.blind.Load())
	lift(n.recs, floor)
	return n.finish()
}
