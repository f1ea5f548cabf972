package maildir

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"time"

	"imapd/maildir/index"
)

// How the index is written.

// writeIndex writes the index of s anew. Its lock is held.
func (m *Mailbox) writeIndex(s *Snapshot) error {
	h := &m.past
	if _, err := m.raise(max(s.ModSeq, ModSeq(h.state.ModSeq))); err != nil {
		return err
	}
	folder, src := m.indexOf(s)
	if err := h.file.Replace(folder, &h.state, h.gone, src); err != nil {
		return err
	}
	m.indexWritten(s)
	return nil
}

// writeAside writes the index anew, with all that it says. Its lock is held at the
// beginning and at the end only: others go on meanwhile, and need not wait. Where one of
// them does the same nothing is done.
func (m *Mailbox) writeAside() error {
	h := &m.past
	if err := h.file.Lock(context.Background()); err != nil {
		return err
	}
	defer h.file.Unlock()
	if m.takeOthers(); !h.on {
		return nil
	}
	s := m.Snapshot()
	folder, src := m.indexOf(s)
	d, err := h.file.Draft(folder, &h.state, h.gone, src)
	if err != nil {
		return unlessOthers(err)
	}
	h.file.Unlock()
	d.Write()
	if err := h.file.Lock(context.Background()); err != nil {
		h.file.Discard(d)
		return err
	}
	if m.takeOthers(); !h.on {
		h.file.Discard(d)
		return nil
	}
	if err := h.file.Install(d); err != nil {
		return unlessOthers(err)
	}
	m.indexWritten(s)
	return nil
}

// unlessOthers returns err if it does not say that another process writes the index
// anew, or has done so.
func unlessOthers(err error) error {
	if errors.Is(err, index.ErrLocked) || errors.Is(err, index.ErrReplaced) {
		return nil
	}
	return err
}

// indexOf returns what the index of s is about, and what it is written from; its state
// is m.past.state. The lock is held.
func (m *Mailbox) indexOf(s *Snapshot) (index.Folder, *pageSource) {
	h := &m.past
	h.state.ModSeq = max(h.state.ModSeq, uint64(s.ModSeq))
	h.state.Next = uint32(s.Next)
	h.state.Recent = uint32(m.recentFrom)
	src := &pageSource{s, m.foundOrder(s)}
	m.found = nil
	return index.Folder{Validity: s.Validity, GUID: m.list.head.GUID, Ino: m.curIno(), Line: h.line}, src
}

// indexWritten notes that the index of s is in its place.
func (m *Mailbox) indexWritten(s *Snapshot) {
	h := &m.past
	m.disorder = false
	if s.foretold != nil {
		s.foretold.order = nil // it keeps the file that was replaced
	}
	h.on, h.saved = true, h.state.Stamp
	if s.Len() >= forgetFrom {
		debug.FreeOSMemory() // of the names, which are in the file now
	}
	for _, d := range s.dirs {
		for _, p := range d.pages {
			p.mu.Lock()
			p.newer = false
			p.mu.Unlock()
		}
	}
}

// forgetFrom is from how many messages on it is worth some milliseconds to give the
// memory of their names back at once.
const forgetFrom = 250_000

// dropFrom is from how many messages on names are not kept in memory: a smaller
// folder that changes all the time would read them again and again.
const dropFrom = 50_000

// pageSource has the index written from a snapshot. What the names of its pages take
// in memory is given back where there are many: they are read again when they are asked for.
type pageSource struct {
	s     *Snapshot
	order []uint32
}

// Order implements index.Source. It is asked for once, and of a large folder it is
// large.
func (x *pageSource) Order() []uint32 {
	o := x.order
	x.order = nil
	return o
}

// foundOrder returns the UIDs in the order in which the files of s were found last,
// nil if nobody knows.
func (m *Mailbox) foundOrder(s *Snapshot) []uint32 {
	if m.found != nil || s.order() == nil {
		return m.found
	}
	_, uids, free, err := s.order().Read()
	if err != nil {
		return nil
	}
	defer free()
	return slices.Clone(uids)
}

// Written implements index.Source.
func (x *pageSource) Written(page int, names *index.Names) {
	for _, d := range x.s.dirs {
		if page >= len(d.pages) {
			page -= len(d.pages)
			continue
		}
		p := d.pages[page]
		p.lazy.Store(names.Of(p.recs))
		if x.s.Len() >= dropFrom {
			p.names.Store(nil)
		}
		return
	}
}

// Pages implements index.Source.
func (x *pageSource) Pages(yield func(recs []index.Record, size int, names func() ([]byte, error)) error) error {
	buf := make([]record, 0, pageLen)
	for _, d := range x.s.dirs {
		for _, p := range d.pages {
			p.mu.Lock()
			buf = append(buf[:0], p.recs...)
			p.mu.Unlock()
			err := yield(buf, p.namesLen(), func() ([]byte, error) {
				if b := p.names.Load(); b != nil {
					return *b, nil
				}
				return p.lazy.Load().Read()
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// save writes down what makes the next opening cheap: how the folder looked when
// all was known, and what has been learned of files. It is not needed for
// anything else. m.mu is held.
func (m *Mailbox) save(closing bool) {
	h := &m.past
	if h.lost && h.told && closing {
		h.retry = time.Time{}
		m.recover()
	}
	s := m.Snapshot()
	if !h.on || s == nil || s.Validity == 0 {
		return
	}
	now := index.Stamp{}
	switch {
	case m.list.damaged:
	case m.clean != (stamp{}):
		now = m.packStamp(m.clean)
	case m.list.searched && !m.list.again && !m.keys.news.Any():
		now = m.packStamp(stamp{list: m.listStamp()})
	}
	b := m.learned(s)
	mark := closing && !h.state.Clean
	if now == h.saved && b.Empty() && !mark && !m.disorder {
		m.compact(closing)
		return
	}
	if mark && m.host.opt.Fsync != FsyncNever {
		mark = m.cur.Sync() == nil && m.new.Sync() == nil
	}
	if err := h.file.Lock(context.Background()); err != nil {
		return
	}
	defer h.file.Unlock()
	if m.takeOthers(); !h.on || m.Snapshot() != s {
		return // others have changed the folder: what we know is not all
	}
	st := h.state
	st.Stamp, st.Boot = now, m.host.boot()
	st.Next = max(st.Next, uint32(s.Next))
	st.Clean = st.Clean || mark
	b.State(&st)
	if err := h.file.Append(b, mark); err == nil {
		h.state, h.saved = st, now
	}
	h.file.Unlock()
	if m.disorder && !s.blind() {
		m.rewrite()
	}
	m.compact(closing)
}

// learned returns a batch of the facts that the index does not have yet.
func (m *Mailbox) learned(s *Snapshot) *index.Batch {
	var b index.Batch
	for _, d := range s.dirs {
		for _, p := range d.pages {
			p.mu.Lock()
			if p.newer {
				p.newer = false
				for i := range p.recs {
					if p.recs[i].Size != index.NoSize {
						b.Learned(p.recs[i].UID, p.recs[i].Facts)
					}
				}
			}
			p.mu.Unlock()
		}
	}
	return &b
}
