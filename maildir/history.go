package maildir

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
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
//     loss the next one is above the ceiling.
//   - After a crash of the machine flags may be older than what was told. So an
//     index that was not closed in this boot has a floor: every message counts
//     as changed now, and what is not there may have gone since: a message may
//     have come, been told and gone again of which nothing was recorded on disk. The
//     same for an index that came with a copy of the folder.
//   - An expunge is on disk before a client hears of it.
type history struct {
	file   index.File
	state  index.State
	line   uint64        // of the index; see index.Folder
	gone   []index.Range // expunges after state.Since, ascending by modseq
	on     bool          // there is an index, and it holds all that was published
	lost   bool          // it could not be written; modseqs hold for this process only
	retry  time.Time     // when that is tried again
	others bool          // it held what we did not know: look again
	saved  index.Stamp   // as in the file; zero once more has been recorded
}

// retryAfter is how long a process goes on without an index that it could not
// write: each try may cost the wait for a lock.
const retryAfter = 10 * time.Second

// ahead is how far above the last modseq the ceiling is put: two minutes.
const ahead = 120 << 20

// farAhead is how far above it the copy in imapd-keywords is: an hour.
const farAhead = 3600 << 20

// mostGone bounds the ranges of expunged UIDs that are kept.
const mostGone = 100_000

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
	mod := ModSeq(m.host.clock().Unix()) << 20
	if s := m.snap.Load(); s != nil {
		mod = max(mod, s.ModSeq+1)
	}
	if !m.past.on {
		mod = max(mod, ModSeq(m.keys.over.Ceiling()))
	}
	return max(mod, ModSeq(m.past.state.ModSeq)+1)
}

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
		m.forgetGone(w.changes, mod)
		m.publish(m.outcome(&w))
		return max(mod, w.done), nil
	}
	if err := h.file.Lock(context.Background()); err != nil {
		return m.unrecorded(err, &w)
	}
	defer h.file.Unlock()
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
	if errors.Is(err, index.ErrLong) || errors.Is(err, index.ErrReplaced) || errors.Is(err, fs.ErrNotExist) {
		// No room, or taken away since we have read it: nobody but us writes now.
		m.forgetGone(w.changes, mod)
		err = m.writeIndex(s)
	}
	if err != nil {
		m.lose(err)
	}
	m.publish(s)
	m.compact()
	return max(mod, w.done), nil
}

// work is what has been found or done and is to be recorded.
type work struct {
	snap    *Snapshot // that it differs from
	changes []change
	added   []entry
	next    UID
	done    ModSeq // of what another process has recorded already
}

// compact writes the index anew if its journal has grown long. Its lock is held.
func (m *Mailbox) compact() {
	h := &m.past
	if h.on && h.file.JournalIsLong() {
		m.rewrite()
	}
}

// rewrite writes the index anew, if it can. Its lock is held.
func (m *Mailbox) rewrite() {
	h := &m.past
	if err := m.writeIndex(m.Snapshot()); err != nil {
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
		case !ok || !old.Marks().Equal(c.entry.marks):
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
		h.unstamp()
	}
	if mod != 0 && m.raise(mod) {
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

// raise reports whether the state must be written before mod is told: the ceiling
// is below it, or the index says that all is durable.
func (m *Mailbox) raise(mod ModSeq) bool {
	s := &m.past.state
	if uint64(mod) < s.Ceiling && !s.Clean && s.Boot == m.host.boot {
		return false
	}
	s.Ceiling, s.Clean, s.Boot = max(s.Ceiling, uint64(mod)+ahead), false, m.host.boot
	if m.locked && m.keys.over.Lines() > 0 && m.keys.over.Ceiling() < s.Ceiling {
		// Where there is the other durable file it knows the ceiling too, should
		// the index be lost; roughly, for the clock is above it anyway.
		if err := m.keys.over.RaiseCeiling(m.control, s.Ceiling+farAhead); err != nil {
			m.host.opt.Log.Warn("cannot write the ceiling of modseqs", "mailbox", m.name, "err", err)
		}
	}
	return true
}

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

// record returns e as the index has it.
func (e *entry) record() record {
	var b pageBuilder
	b.add(e)
	return b.recs[0]
}

// takeTail returns the snapshot that follows from snap with what other processes
// have recorded. The index is locked.
func (m *Mailbox) takeTail(snap *Snapshot) (*Snapshot, error) {
	h := &m.past
	events, err := h.file.Tail(true)
	if h.file.Torn {
		// What was given there is not known.
		h.state.ModSeq = max(h.state.ModSeq, h.state.Ceiling)
	}
	switch {
	case errors.Is(err, index.ErrReplaced):
		h.others = true
		return m.reload(snap)
	case err != nil:
		return snap, err
	case len(events) == 0:
		return snap, nil
	}
	for i := range events {
		if events[i].Kind == index.Floored {
			h.others = true
			return m.reload(snap)
		}
	}
	h.others = true
	return m.replay(snap, events), nil
}

// errStranger says that the index is about another mailbox, with another
// UIDVALIDITY. A look at the UID list will tell who is right.
var errStranger = errors.New("the index is of another UIDVALIDITY")

// reload reads the whole index again. Where there is none any more, or one that
// is older than what we have read of it, from a backup perhaps, it is written
// anew. One that was begun anew, by a process that may not have read all that we
// have, is joined. The index is locked.
func (m *Mailbox) reload(snap *Snapshot) (*Snapshot, error) {
	h := &m.past
	rest := h.file.Rest()
	img, err := h.file.Load()
	mine, gone := h.state, h.gone
	switch {
	case err == nil && img.Validity != snap.Validity:
		return snap, errStranger
	case err == nil && img.Line != h.line:
		snap = m.replay(snap, rest)
		s, err := m.join(img, h.state, snap, true)
		return s, err
	case err == nil:
		s := m.fromImage(img)
		if h.state.ModSeq >= mine.ModSeq {
			s.Next = max(s.Next, snap.Next)
			return s, nil
		}
		mine.Ceiling = max(mine.Ceiling, h.state.Ceiling)
		h.state, h.gone = mine, gone
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, index.ErrDamaged):
		return m.replay(snap, rest), err
	}
	snap = m.replay(snap, rest)
	h.unstamp()
	h.state.ModSeq = max(h.state.ModSeq, h.state.Ceiling)
	h.line = rand.Uint64()
	return snap, m.writeIndex(snap)
}

// reconcile has w follow from base, which has followed w.snap by what other
// processes have recorded. What they have done already is left out. Where they
// say something else of a message, one of us has looked too early: then the file
// decides.
func (m *Mailbox) reconcile(w *work, base *Snapshot) {
	left := w.changes[:0]
	for _, c := range w.changes {
		now, ok := base.lookup(c.uid)
		if !ok {
			continue
		}
		if !c.remove && now.is(&c.entry) {
			w.done = max(w.done, now.ModSeq)
			continue
		}
		if old, ok := w.snap.lookup(c.uid); !ok || !old.same(now) {
			if c.remove && m.isThere(now.place(), string(now.name())) || !c.remove && !m.isThere(c.entry.place, c.entry.name) {
				m.past.others = true
				continue
			}
		}
		left = append(left, c)
	}
	more := w.added[:0]
	for _, e := range w.added {
		now, ok := base.lookup(e.uid)
		switch {
		case ok && now.is(&e):
			w.done = max(w.done, now.ModSeq)
		case ok && m.isThere(e.place, e.name):
			left = append(left, change{uid: e.uid, entry: e})
		case !ok && e.uid > base.sum.last && !m.past.buried(e.uid, w.snap.ModSeq):
			more = append(more, e)
		default:
			m.past.others = true
		}
	}
	slices.SortFunc(left, func(a, b change) int { return int(int64(a.uid) - int64(b.uid)) })
	w.snap, w.changes, w.added = base, left, more
}

// is reports whether e says of the file what m does.
func (m Message) is(e *entry) bool {
	return m.Marks().Equal(e.marks) && m.place() == e.place && string(m.name()) == e.name
}

// same reports whether the files of m and n are called the same.
func (m Message) same(n Message) bool {
	return m.page == n.page && m.rec == n.rec || m.Marks().Equal(n.Marks()) && m.place() == n.place() && string(m.name()) == string(n.name())
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
			h.unstamp()
			h.state.ModSeq = max(h.state.ModSeq, uint64(x.modseq))
			if _, ok := s.Find(x.uid); ok {
				changes[x.uid] = change{uid: x.uid, entry: x}
			} else if x.uid > s.sum.last {
				added[x.uid] = x
			}
		case index.Gone:
			h.unstamp()
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

// unrecorded publishes what could not be recorded, for the reason err: the files
// say so, and nobody must be told otherwise.
func (m *Mailbox) unrecorded(err error, w *work) (ModSeq, error) {
	m.lose(err)
	mod := m.stampChanges(w)
	m.forgetGone(w.changes, mod)
	m.publish(m.outcome(w))
	return max(mod, w.done), nil
}

// lose goes on without the index.
func (m *Mailbox) lose(err error) {
	h := &m.past
	if !h.lost {
		m.host.opt.Log.Warn("cannot write the index, changes are not recorded", "mailbox", m.name, "err", err)
	}
	h.on, h.lost, h.gone = false, true, nil
	h.state.Since = h.state.ModSeq
	h.retry = time.Now().Add(retryAfter)
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
		h.lost = false
	}
}

// reset begins a new history.
func (h *history) reset() {
	h.on, h.lost = false, false
	h.gone, h.saved = nil, index.Stamp{}
	h.state = index.State{ModSeq: max(h.state.ModSeq, h.state.Ceiling)}
}

// hearOthers takes over what other processes have recorded since the last look,
// before the folder is looked at: what a look finds then has not been told yet.
func (m *Mailbox) hearOthers() {
	h := &m.past
	if !h.on || !h.file.Changed() {
		return
	}
	if err := h.file.Lock(context.Background()); err != nil {
		m.lose(err)
		return
	}
	defer h.file.Unlock()
	m.takeOthers()
	h.others = false // a look follows
}

// takeOthers publishes what other processes have recorded. The index is locked.
func (m *Mailbox) takeOthers() {
	s := m.Snapshot()
	base, err := m.takeTail(s)
	if err != nil {
		m.lose(err)
	}
	if base != s {
		m.clean = stamp{}
		m.publish(m.outcome(&work{snap: base}))
	}
}

// claimWithOthers brings recentFrom up to what other processes have claimed, and
// records that all below next is claimed now.
func (m *Mailbox) claimWithOthers(next UID) {
	h := &m.past
	if err := h.file.Lock(context.Background()); err != nil {
		m.lose(err)
		return
	}
	defer h.file.Unlock()
	if m.takeOthers(); !h.on || m.recentFrom >= next {
		return
	}
	h.state.Recent = uint32(next)
	h.state.Next = max(h.state.Next, uint32(m.Snapshot().Next))
	var b index.Batch
	b.State(&h.state)
	if err := h.file.Append(&b, false); err != nil && !errors.Is(err, index.ErrLong) {
		m.lose(err)
	}
}
