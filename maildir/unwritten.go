package maildir

import (
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/index"
)

// What becomes of changes that the index could not be told.

// retryAfter is how far apart attempts are to have an index again that could not be
// written: each may cost the wait for a lock, or the writing of all of it. The first is
// made at once, for a fault that was for a moment.
const retryAfter = 10 * time.Second

// unrecorded publishes what could not be recorded, for the reason err: the files
// say so, and nobody must be told otherwise.
func (m *Mailbox) unrecorded(err error, w *work) (ModSeq, error) {
	m.lose(err)
	mod := m.stampChanges(w)
	m.confess(mod)
	m.forgetGone(w.changes, mod)
	m.publish(m.outcome(w))
	return max(mod, w.done), nil
}

// confess leaves word that mod, which is to be published, and some modseqs above it,
// are not in the index: should this process be killed, clients would be told that
// nothing has happened since.
func (m *Mailbox) confess(mod ModSeq) {
	h := &m.past
	if !h.told || uint64(mod) < max(h.owed, 1) {
		return
	}
	err := h.file.Exceed(uint64(mod) + ahead)
	if err == nil {
		h.owed = h.file.Limit()
		return
	}
	if h.file.Forsake() == nil {
		h.owed = uint64(mod) + ahead
		return
	}
	if !m.forgetful.Swap(true) {
		m.host.opt.Log.Warn("no modification sequences are told any more", "mailbox", m.name, "err", err)
	}
}

// Forgetful reports whether modseqs that are told from now on will not be remembered:
// sessions that have told some go on without (NOMODSEQ).
func (m *Mailbox) Forgetful() bool { return m.forgetful.Load() }

// lose goes on without the index.
func (m *Mailbox) lose(err error) {
	h := &m.past
	switch {
	case h.lost:
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS):
		m.blame("cannot write the index", err)
	default:
		m.host.opt.Log.Warn("cannot write the index, changes are not recorded", "mailbox", m.name, "err", err)
	}
	h.on, h.lost, h.gone = false, true, nil
	h.state.Since = h.state.ModSeq
	if errors.Is(err, index.ErrLocked) {
		h.retry = time.Now().Add(retryAfter)
	}
}

// recover tries to have an index again after lose: above the ceiling, so that no
// modseq that was given without it is given again.
func (m *Mailbox) recover() {
	h := &m.past
	if time.Now().Before(h.retry) || m.Snapshot() == nil {
		return
	}
	h.retry = time.Now().Add(retryAfter)
	h.state.ModSeq = max(h.state.ModSeq, h.state.Ceiling)
	h.state.Since, h.gone = h.state.ModSeq, nil
	if err := m.makeIndex(); err == nil {
		h.lost, h.owed = false, 0
		m.forgetful.Store(false)
	}
}

// reset begins a new history.
func (h *history) reset() {
	h.on, h.lost, h.skipTo = false, false, 0
	h.gone, h.saved = nil, index.Stamp{}
	h.state = index.State{ModSeq: max(h.state.ModSeq, h.state.Ceiling), Limit: h.state.Limit}
}
