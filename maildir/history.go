package maildir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"imapd/maildir/index"
)

// The history of a mailbox is when each message changed last and which have been
// expunged: what CONDSTORE and QRESYNC tell a client that comes back (RFC 7162).
// It stands in imapd.index, and every process that changes the folder writes to
// it (package index).
//
// Files come first: a change is made there, then recorded, then published. What
// another process recorded is taken over, so that one change has one modseq
// whoever saw it first. A record that is lost costs nothing but a fresh look:
//
//   - Modseqs are given below a ceiling that is on disk before they are. After a
//     loss the next one is above the ceiling. A limit above the ceiling, raised
//     rarely, stands in imapd.index.lock, for the case that the index is lost.
//   - After a crash of the machine flags may be older than what was told. So an
//     index that was not closed in this boot has a floor: every message counts
//     as changed now, and what is not there may have gone since: a message may
//     have come, been told and gone again of which nothing was recorded on disk. The
//     same for an index that came with a copy of the folder.
//   - An expunge is on disk before a client hears of it.
//   - Where the index cannot be written, word is left of that before anybody is told a
//     modseq that it does not have: the limit is raised, so that whoever uses the index
//     next has everything count as changed; else the index is removed. Where nothing of
//     that can be done, no modseqs are told any more.
type history struct {
	file   index.File
	state  index.State
	line   uint64        // of the index; see index.Folder
	gone   []index.Range // expunges after state.Since, ascending by modseq
	on     bool          // there is an index, and it holds all that was published
	locked bool          // its lock has been taken once, so it can be
	lost   bool          // it could not be written; modseqs hold for this process only
	told   bool          // to clients, by this process
	owed   uint64        // below this modseqs may be told without it; see confess
	retry  time.Time     // when that is tried again
	others bool          // it held what we did not know: look again
	skipTo uint32        // next UID of a folder from a backup whose list could not say it; 0: none
	// skipped says that the log has been told that the folder comes from a backup.
	skipped bool
	saved   index.Stamp // as in the file; zero once more has been recorded
}

// ahead is how far above the last modseq the ceiling is put: two minutes.
const ahead = 120 << 20

// farAhead is how far ahead of the clock the limit in imapd.index.lock is put, and
// how far above the ceiling the copy in imapd-keywords is: an hour.
const farAhead = 3600 << 20

// wayAhead is how far ahead of the clock a history begins that cannot know what was
// told: the lock file has been lost too, or may have come back with an old index. It is
// above all that follows from the clock and the constants above.
const wayAhead = 2 * farAhead

// bootID tells this run of the machine from others.
var bootID = sync.OnceValue(func() (id [16]byte) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil {
		copy(id[:], strings.ReplaceAll(string(b), "-", ""))
	}
	return id
})

// tick returns the modseq of a change that is made now: above all before, and
// above what a lost history can have reached (seconds << 20).
func (m *Mailbox) tick() ModSeq {
	mod := ModSeq(m.now())
	if s := m.snap.Load(); s != nil {
		mod = max(mod, s.ModSeq+1)
	}
	if !m.past.on {
		mod = max(mod, ModSeq(m.keys.over.Ceiling()))
	}
	return max(mod, ModSeq(m.past.state.ModSeq)+1)
}

// now is the time as a modseq.
func (m *Mailbox) now() uint64 { return uint64(m.host.clock().Unix()) << 20 }

// record gives modseqs to what has been found or done, writes it to the index and
// publishes it. changes and added are what differs from snap; an entry of
// changes whose flags are those of snap keeps its modseq. m.mu is held.
func (m *Mailbox) record(snap *Snapshot, changes []change, added []entry, next UID) (ModSeq, error) {
	h := &m.past
	w := work{snap, changes, added, next, 0}
	if h.lost {
		old := m.Snapshot()
		if m.recover(); m.Snapshot() != old { // what the others have recorded is published
			m.reconcile(&w, m.Snapshot())
		}
	}
	if !h.on {
		mod := m.stampChanges(&w)
		m.confess(mod)
		m.forgetGone(w.changes, mod)
		m.publish(m.outcome(&w))
		return max(mod, w.done), nil
	}
	defer m.compact(false)
	if err := h.file.Lock(context.Background()); err != nil {
		return m.unrecorded(err, &w)
	}
	defer h.file.Unlock()
	for again := true; ; again = false {
		base, err := m.takeTail(w.snap)
		if base != w.snap {
			m.reconcile(&w, base)
		}
		if err != nil {
			return m.unrecorded(err, &w)
		}
		mod := m.stampChanges(&w)
		s := m.outcome(&w)
		err = m.append(&w, mod)
		if again && (errors.Is(err, index.ErrReplaced) || errors.Is(err, fs.ErrNotExist)) {
			continue // it was taken away since we have read it
		}
		if errors.Is(err, index.ErrLong) {
			m.forgetGone(w.changes, mod)
			err = m.writeIndex(s)
		}
		if err != nil {
			m.lose(err)
			m.confess(mod)
		}
		m.publish(s)
		return max(mod, w.done), nil
	}
}

// work is what has been found or done and is to be recorded.
type work struct {
	snap    *Snapshot // that it differs from
	changes []change
	added   []entry
	next    UID
	done    ModSeq // of what another process has recorded already
}

// compact writes the index anew if its journal has grown long, for one who is leaving or
// stays. Its lock is not held.
func (m *Mailbox) compact(leaving bool) {
	h := &m.past
	if h.on && h.file.JournalIsLong(leaving) {
		m.rewrite()
	}
}

// rewrite writes the index anew, if it can. Its lock is not held.
func (m *Mailbox) rewrite() {
	h := &m.past
	if err := m.writeAside(); err != nil {
		h.file.Defer()
		m.disorder = false
		m.host.opt.Log.Warn("cannot write the index anew", "mailbox", m.name, "err", err)
		if !h.file.Loaded() {
			m.lose(err)
		}
	}
}

// outcome returns the snapshot that follows from w.
func (m *Mailbox) outcome(w *work) *Snapshot {
	s := w.snap.apply(w.changes, w.added)
	s.Next, s.keywords = max(w.next, w.snap.Next), m.keys.names()
	s.ModSeq = max(s.ModSeq, ModSeq(m.past.state.ModSeq))
	if s.Validity == 0 {
		s.Validity = m.list.head.Validity
	}
	return s
}

// stampChanges gives a new modseq to what a client can see, and returns it, 0 if
// there is no such change.
func (m *Mailbox) stampChanges(w *work) ModSeq {
	mod := m.tick()
	visible := len(w.added) > 0
	for i := range w.changes {
		c := &w.changes[i]
		old, ok := w.snap.lookup(c.uid)
		switch {
		case c.remove:
			visible = true
		case !ok || c.shows || !old.Marks().Equal(c.entry.marks):
			c.entry.modseq = mod
			visible = true
		default:
			c.entry.modseq = old.ModSeq
		}
	}
	for i := range w.added {
		w.added[i].modseq = mod
	}
	if !visible {
		return 0
	}
	m.past.state.ModSeq = max(m.past.state.ModSeq, uint64(mod))
	return mod
}

// append writes w to the index. Its lock is held.
func (m *Mailbox) append(w *work, mod ModSeq) error {
	h := &m.past
	var b index.Batch
	durable := false
	for i := range w.changes {
		if c := &w.changes[i]; !c.remove {
			r := c.entry.record()
			b.Put(&r, []byte(c.entry.name))
		}
	}
	for _, r := range removed(w.changes, mod) {
		b.Gone(r)
		durable = true
	}
	for i := range w.added {
		r := w.added[i].record()
		b.Put(&r, []byte(w.added[i].name))
	}
	if !b.Empty() {
		h.unclean()
	}
	// A list that is lost is restored from there, and goes on restoredGap above it.
	state := uint64(w.next) >= uint64(h.state.Next)+restoredGap
	if mod != 0 {
		raised, err := m.raise(mod)
		if err != nil {
			return err
		}
		state = state || raised
	}
	if state {
		h.state.Next = uint32(max(w.next, UID(h.state.Next)))
		b.State(&h.state)
		durable = true
	}
	if err := h.file.Append(&b, durable && m.host.opt.Fsync != FsyncNever); err != nil {
		return err
	}
	m.forgetGone(w.changes, mod)
	return nil
}

// unstamp says that more is recorded than was so when the folder looked as the
// stamp in the index says. What is recorded may be stale by then: only a look
// that comes after it can say that it is not.
func (h *history) unstamp() { h.saved, h.state.Stamp = index.Stamp{}, index.Stamp{} }

// unclean says so of the directories only: how far the list was read is still so.
func (h *history) unclean() {
	h.state.Stamp = listOnly(h.state.Stamp)
	h.saved = h.state.Stamp
}

// raise reports whether the state must be written before mod is told: the ceiling
// is below it, or the index says that all is durable. The index is locked.
func (m *Mailbox) raise(mod ModSeq) (bool, error) {
	s := &m.past.state
	if uint64(mod) < s.Ceiling && !s.Clean && s.Boot == m.host.boot() {
		return false, nil
	}
	return true, m.ceil(max(s.Ceiling, uint64(mod)+ahead))
}

// ceil makes c the ceiling of the state, which is to be written before a modseq is
// given that was not below it before. The index is locked.
func (m *Mailbox) ceil(c uint64) error {
	s := &m.past.state
	if c > s.Limit || m.past.file.Limit() < s.Limit { // or it is another lock file
		limit := max(c, s.Limit, m.now()+farAhead)
		if err := m.past.file.RaiseLimit(limit, m.host.opt.Fsync != FsyncNever); err != nil {
			return err
		}
		s.Limit = limit
	}
	s.Ceiling, s.Clean, s.Boot = c, false, m.host.boot()
	if m.locked && m.keys.over.Lines() > 0 && m.keys.over.Ceiling() < s.Ceiling {
		// Where there is the other durable file it knows the ceiling too, should
		// the index be lost with its lock file; roughly, for the clock is above it anyway.
		if err := m.keys.over.RaiseCeiling(m.control, s.Ceiling+farAhead); err != nil {
			m.host.opt.Log.Warn("cannot write the ceiling of modseqs", "mailbox", m.name, "err", err)
		}
	}
	return nil
}

// behind reports whether modseqs may have been told that the index does not know of:
// the limit that was read last is not the one that belongs to it.
func (h *history) behind() bool { return h.file.Limit() > h.state.Limit }

// record returns e as the index has it.
func (e *entry) record() record {
	var b pageBuilder
	b.add(e)
	return b.recs[0]
}
