package maildir

import (
	"bytes"
	"cmp"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imapd/maildir/uidlist"
)

// A folder that no server has served yet gets its list before it is looked at: then
// it is one whose list is known (fill.go), and a million names need not be held as
// messages that have no UID.

// enlistAtOnce is how many lines are appended at once.
const enlistAtOnce = 1 << 16

// enlist writes the first list of a large folder that has none. What it leaves out
// the look finds that follows. The lock is held.
func (m *Mailbox) enlist() error {
	var st unix.Stat_t
	if unix.Fstat(m.cur.Fd(), &st) != nil || st.Size < largeDir {
		return nil
	}
	if taken, err := m.takeOver(); taken || err != nil {
		return err
	}
	all, err := m.arrivals()
	if err != nil || len(all) < fillFrom || len(all) > uidlist.MaxUID {
		return err
	}
	if err := m.mend(nil, nil); err != nil {
		return err
	}
	if err := m.enter(all); err != nil {
		return err
	}
	if len(all) >= forgetFrom {
		clear(all) // and with it the names
		debug.FreeOSMemory()
	}
	return m.list.load(m.control)
}

// enter appends lines for all to the list, durably.
func (m *Mailbox) enter(all []arrival) error {
	m.list.lines = nil // read when it is complete
	entries := make([]uidlist.Entry, 0, enlistAtOnce)
	for part := range slices.Chunk(all, enlistAtOnce) {
		entries = entries[:0]
		next := m.list.next()
		for _, a := range part {
			entries = append(entries, uidlist.Entry{UID: uint32(next), Base: a.base})
			next++
		}
		if err := m.list.append(m.control, entries); err != nil {
			return err
		}
	}
	return nil
}

// An arrival is a base name, and when it says that it came: seconds and microseconds,
// as far as they fit.
type arrival struct {
	when uint64
	base string
}

// A basePiece holds base names, each behind the one before.
type basePiece struct {
	text strings.Builder
	ends []uint32
}

// arrivals returns the base names of the folder, each once, in the order in which
// they came. Nobody knows how many there are before they have been read, so they are
// held in pieces: to copy what there is to a larger place would take twice the memory.
func (m *Mailbox) arrivals() ([]arrival, error) {
	var pieces []*basePiece
	var last *basePiece
	n := 0
	for _, p := range []place{inNew, inCur} {
		m.host.scans.Add(1)
		_, err := scanDir(m.dirOf(p).Fd(), func(name []byte) {
			base := name
			if i := bytes.IndexByte(name, ':'); i >= 0 {
				base = name[:i]
			}
			if len(base) == 0 {
				return
			}
			if last == nil || last.text.Len()+len(base) > namesPiece {
				last = &basePiece{}
				last.text.Grow(namesPiece)
				pieces = append(pieces, last)
			}
			last.text.Write(base)
			last.ends = append(last.ends, uint32(last.text.Len()))
			n++
		})
		if err != nil {
			return nil, err
		}
	}
	all := make([]arrival, 0, n)
	for _, p := range pieces {
		from, text := uint32(0), p.text.String()
		for _, end := range p.ends {
			base := text[from:end]
			secs, usecs := arrivalOf(base)
			all = append(all, arrival{uint64(min(secs, 1<<43))<<20 | uint64(min(usecs, 1<<20-1)), base})
			from = end
		}
	}
	slices.SortFunc(all, func(a, b arrival) int {
		if c := cmp.Compare(a.when, b.when); c != 0 {
			return c
		}
		return arrivalOrder(a.base, b.base)
	})
	return slices.CompactFunc(all, func(a, b arrival) bool { return a.base == b.base }), nil
}
