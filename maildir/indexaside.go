package maildir

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"

	"imapd/maildir/index"
)

// An index that cannot be used is set aside by the first process that may do so, and
// made anew. It may be of a newer server that runs beside us: then each of us finds
// the index replaced, and goes on with that of the other if it can. Whatever was told
// to clients from what we cannot read, they are told again.

// loadAside loads the index, which is locked. One that is of no use is set aside; the
// error is index.ErrDamaged all the same.
func (m *Mailbox) loadAside() (*index.Image, error) {
	img, err := m.past.file.Load()
	if !errors.Is(err, index.ErrDamaged) {
		return img, err
	}
	if failed := m.past.file.SetAside(); failed != nil {
		m.blame("the index cannot be used", errors.Join(err, failed))
		return nil, err
	}
	m.host.opt.Log.Warn("the index cannot be used, it is kept as "+index.BrokenName+" and changes are counted anew", "mailbox", m.name, "err", err)
	return nil, err
}

// loadAgain is loadAside after Load has failed for the reason err: another process
// may be about to do the same.
func (m *Mailbox) loadAgain(err error) (*index.Image, error) {
	f := &m.past.file
	if failed := f.Lock(context.Background()); failed != nil {
		m.blame("the index cannot be used", errors.Join(err, failed))
		return nil, err
	}
	defer f.Unlock()
	return m.loadAside()
}

// blame logs what is wrong with the index for as long as the administrator does not
// change it: once for each folder, however often this process opens it.
func (m *Mailbox) blame(what string, err error) {
	m.host.mu.Lock()
	_, said := m.host.blamed[m.id]
	remember(m.host.blamed, m.id, struct{}{})
	m.host.mu.Unlock()
	if !said {
		m.host.opt.Log.Warn(what+", changes are not recorded", "mailbox", m.name, "err", err)
	}
}

// rotten logs, once for each folder, that a part of the index is damaged of which all is
// found out from the files as well, and has the index written anew.
func (m *Mailbox) rotten(part string, err error) {
	m.disorder = true
	m.host.mu.Lock()
	_, said := m.host.rotten[m.id]
	remember(m.host.rotten, m.id, struct{}{})
	m.host.mu.Unlock()
	if !said {
		m.host.opt.Log.Warn("the index is damaged, the directories are read instead", "mailbox", m.name, "part", part, "err", err)
	}
}

// startAnew writes the index of snap in the place of one in which others have recorded
// nobody knows what, and returns the snapshot in which everything has changed now. The
// index is locked.
func (m *Mailbox) startAnew(snap *Snapshot) (*Snapshot, error) {
	h := &m.past
	h.unstamp()
	h.state.ModSeq = max(h.state.ModSeq, h.state.Ceiling)
	mod := m.tick()
	h.gone, h.state.ModSeq, h.state.Since, h.line = nil, uint64(mod), uint64(mod), rand.Uint64()
	s := snap.copied().lifted(mod)
	return s, m.writeIndex(s)
}

// copied returns a snapshot like s whose records are nobody else's.
func (s *Snapshot) copied() *Snapshot {
	dirs := make([]*dir, len(s.dirs))
	for i, d := range s.dirs {
		pages := make([]*page, len(d.pages))
		for k, p := range d.pages {
			p.mu.Lock()
			c := &page{recs: slices.Clone(p.recs), more: p.more, newer: p.newer}
			p.mu.Unlock()
			c.names.Store(p.names.Load())
			c.lazy.Store(p.lazy.Load())
			c.blind.Store(p.blind.Load())
			pages[k] = c.finish()
		}
		dirs[i] = newDir(pages)
	}
	return s.with(dirs)
}
