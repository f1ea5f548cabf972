package maildir

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// Reading a directory of 100,000 files costs 50 ms; what changed since the last
// look is most often one file. So a mailbox that is in use is followed: the
// kernel tells of every rename, link and unlink in cur/ and new/, and a look
// makes of these events what a scan would have found.
//
// Events are proof only if none is missing. A mailbox is tracked from the first
// look that began when it was followed already and left no doubt, until an event
// may have been lost: the kernel's queue or ours ran over, a directory was moved
// away, or the file system is one whose other writers the kernel does not see.
// Then the next look scans, and tracking begins anew.
//
// A look that finds another stamp than the last clean one rings a fence first
// (package vfs): then all that happened before has been noted. What it was is
// judged by what is there in the end. Of each base name the last event counts:
// where a file was made or moved to, it is; a file that was unlinked under the
// name that we knew is gone, if lstat(2) finds it neither. Whatever is not as
// plain as that (a file that was moved out of the folder, two files of one base
// name) is scanned for. Our own renames come back as events too, and are known
// by their names.

// mostNotes bounds what is noted between two looks.
const mostNotes = 50_000

// A tracker notes what the kernel tells of one mailbox.
type tracker struct {
	following bool // the hub has the mailbox; guarded by Mailbox.mu
	sound     bool // all changes since the last look are in notes; guarded by Mailbox.mu

	mu    sync.Mutex    // innermost; the hub's goroutine takes it
	notes []note        // since the last look
	count int           // events since then, also of files that are no messages
	lost  bool          // and some are missing
	more  chan struct{} // closed when something is noted; nil: nobody awaits it

	todo   map[string]*touched // by base name: what looks have not settled yet; guarded by Mailbox.mu
	ours   map[note]int        // events that our own changes will make; guarded by Mailbox.mu
	last   stamp               // of the end of the last look; guarded by Mailbox.mu
	told   int                 // events that were taken since then; guarded by Mailbox.mu
	fenced time.Time           // when all that had happened was known; guarded by Mailbox.mu
	mute   bool                // we have changed since then what makes no event; guarded by Mailbox.mu
	run    int                 // events of our own in this edit; guarded by Mailbox.mu
	paused atomic.Bool         // not followed for the rest of this edit; set under Mailbox.mu
	heard  []hearsay           // what to check at the next look; guarded by Mailbox.mu
}

// A note is one event.
type note struct {
	place place
	op    eventOp
	name  string
}

type eventOp uint8

const (
	created eventOp = iota // or moved here
	moved                  // away
	unlinked
)

// note takes in an event. It is called by the hub.
func (t *tracker) note(p place, op fsnotify.Op, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	if !messageName([]byte(name)) {
		return
	}
	n := note{place: p, name: name}
	switch {
	case op.Has(fsnotify.Create):
		n.op = created
	case op.Has(fsnotify.Rename):
		n.op = moved
	case op.Has(fsnotify.Remove):
		n.op = unlinked
	default:
		return
	}
	t.stir()
	if t.lost || len(t.notes) >= mostNotes {
		t.notes, t.lost = nil, true
		return
	}
	t.notes = append(t.notes, n)
}

// lose says that events are missing.
func (t *tracker) lose() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stir()
	t.notes, t.lost = nil, true
}

// quiet reports whether nothing has been noted that a look has not settled.
// Mailbox.mu is held.
func (t *tracker) quiet() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.notes) == 0 && !t.lost && len(t.todo) == 0
}

// take returns what has been noted since the last call, and how many events there
// were; ok is false if some are missing.
func (t *tracker) take() (notes []note, events int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	notes, events, ok = t.notes, t.count, !t.lost
	t.notes, t.count, t.lost = nil, 0, false
	return notes, events, ok
}

// own notes an event that a change of ours will make.
func (t *tracker) own(op eventOp, p place, name string) {
	if !t.sound {
		return
	}
	if t.ours == nil {
		t.ours = map[note]int{}
	}
	t.ours[note{p, op, name}]++
}

// unsound forgets everything: the next look scans.
func (t *tracker) unsound() {
	t.sound, t.todo, t.ours, t.heard, t.mute, t.fenced = false, nil, nil, nil, false, time.Time{}
}

// startTracking follows a scan that began with nothing noted, and ended with
// everything known.
func (m *Mailbox) startTracking() {
	t := &m.track
	t.sound = t.following && m.local && m.host.hub.has(m)
}

// touched is what became of the files with one base name.
type touched struct {
	name    string // where a file was made or moved to last
	place   place
	there   bool    // it has not gone from there since
	last    eventOp // of name, or of old where name is empty
	old     string  // a name that a file had before and has left
	oldGone eventOp // how
	oldAt   place
	twin    bool // two names at the same time
	foreign bool // not only ours
}

func (x *touched) event(n note) {
	switch {
	case n.op == created:
		x.twin = x.twin || x.there && (x.name != n.name || x.place != n.place)
		x.name, x.place, x.there, x.last = n.name, n.place, true, created
	case x.there && n.name == x.name && n.place == x.place:
		x.there, x.last = false, n.op
	default:
		x.old, x.oldAt, x.oldGone = n.name, n.place, n.op
		if x.name == "" {
			x.last = n.op
		}
	}
}

// gather sorts what has been noted into todo. It reports false if something is
// missing. fenced says that all our own events have come.
func (t *tracker) gather(fenced bool) bool {
	notes, events, ok := t.take()
	t.told += events
	if !ok {
		t.lose() // until a look has seen to it
		return false
	}
	for _, n := range notes {
		base := n.name[:baseLen(n.name)]
		x := t.todo[base]
		if x == nil {
			if t.todo == nil {
				t.todo = map[string]*touched{}
			}
			x = &touched{}
			t.todo[base] = x
		}
		x.event(n)
		if k := t.ours[n]; k > 0 {
			if k == 1 {
				delete(t.ours, n)
			} else {
				t.ours[n] = k - 1
			}
		} else {
			x.foreign = true
		}
	}
	if fenced {
		t.ours = nil
	}
	for base, x := range t.todo {
		if !x.foreign {
			delete(t.todo, base)
		}
	}
	return len(t.todo) <= mostNotes
}

// fromEvents returns what a scan would find now, in a mailbox that is tracked and
// has the stamp now. It reports false where only a scan can tell.
func (m *Mailbox) fromEvents(snap *Snapshot, now stamp) (survey, bool) {
	t := &m.track
	sv := survey{told: true}
	for try := 0; ; try++ {
		if !m.host.hub.catchUp() || !t.gather(true) {
			return sv, false
		}
		// The two events of a rename are not noted at once.
		if try == 1 || !t.halfway() {
			break
		}
	}
	if t.told == 0 && (now.cur != t.last.cur || now.new != t.last.new) {
		return sv, false // the kernel does not tell us, whatever the reason
	}
	if m.list.again || m.keys.news.All || !m.borneOut(snap) {
		return sv, false
	}
	if len(t.todo) == 0 && !m.keys.news.Any() {
		return sv, true
	}
	bases := slices.Concat(slices.Collect(maps.Keys(t.todo)), m.keys.news.Bases)
	if err := m.list.find(m.control, bases); err != nil || m.list.again {
		return sv, false
	}
	m.list.remember(snap)
	m.seen = slices.Grow(m.seen[:0], snap.Len())[:snap.Len()]
	clear(m.seen)
	sc := m.newScanner(snap)
	sc.survey = sv
	for base, x := range t.todo {
		if x.twin || !m.settleTouched(sc, base, x) {
			return sv, false
		}
	}
	for _, u := range m.uidsOf(m.keys.news.Bases) {
		if msg, ok := snap.lookup(u); ok && t.todo[string(msg.base())] == nil {
			sc.place = msg.place()
			sc.file(msg.name())
		}
	}
	return sc.survey, true
}

// halfway reports whether a file has left a name for one that is not known yet.
func (t *tracker) halfway() bool {
	for _, x := range t.todo {
		if !x.there && x.last == moved {
			return true
		}
	}
	return false
}

// settleTouched adds to sc what became of the files with one base name. It reports
// false where only a scan can tell.
func (m *Mailbox) settleTouched(sc *scanner, base string, x *touched) bool {
	msg, known := m.byBase(sc.snap, base)
	switch {
	case x.there:
		if known && (string(msg.name()) != x.name || msg.place() != x.place) && (x.old != string(msg.name()) || x.oldAt != msg.place()) && m.isThere(msg.place(), string(msg.name())) {
			return false // another file of this base name
		}
		var st unix.Stat_t
		switch there := m.lstat(x.place, x.name, &st); {
		case there && st.Mode&unix.S_IFMT == unix.S_IFREG:
			sc.place = x.place
			sc.file([]byte(x.name))
			return true
		case there:
			return !known // what was a message is none any more, or it never was one
		}
		// It has gone again, and an event is to come. But if its line in the list
		// is there already, it must be found now: to be published without it is
		// to say that it is gone.
		return !m.awaited(sc.snap, base)
	case x.last == moved:
		return false // out of the folder, or we do not know yet
	case !known:
		return !m.nameless(sc.snap, base) // came and went
	case m.isThere(msg.place(), string(msg.name())):
		return true
	case !x.was(msg):
		return false // another name of its file has gone, and it has been renamed since
	}
	sc.gone = append(sc.gone, msg.UID)
	return true
}

// was reports whether the name that msg had is one of those that went.
func (x *touched) was(msg Message) bool {
	name, at := string(msg.name()), msg.place()
	return x.old == name && x.oldAt == at || x.name == name && x.place == at
}

// awaited reports whether the list has a line of base that is above all that snap
// knows.
func (m *Mailbox) awaited(snap *Snapshot, base string) bool {
	uid, listed := m.list.uid([]byte(base))
	return listed && uid >= snap.Next
}

// byBase returns the message of snap with the base name base.
func (m *Mailbox) byBase(snap *Snapshot, base string) (Message, bool) {
	uid, ok := m.list.uid([]byte(base))
	if !ok {
		return Message{}, false
	}
	msg, ok := snap.lookup(uid)
	return msg, ok && string(msg.base()) == base
}

// nameless reports whether base is of a message whose name could not be read.
func (m *Mailbox) nameless(snap *Snapshot, base string) bool {
	uid, ok := m.list.uid([]byte(base))
	if !ok {
		return false
	}
	msg, ok := snap.lookup(uid)
	return ok && len(msg.name()) == 0
}

func (m *Mailbox) isThere(p place, name string) bool {
	var st unix.Stat_t
	return m.lstat(p, name, &st)
}
