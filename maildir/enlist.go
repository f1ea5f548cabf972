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
	all, err := m.arrivals(int(st.Size))
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

// arrivals returns the base names of the folder, each once, in the order in which
// they came. size is about how many octets they have.
func (m *Mailbox) arrivals(size int) ([]arrival, error) {
	var names strings.Builder
	names.Grow(size)
	var ends []uint32
	for _, p := range []place{inNew, inCur} {
		m.host.scans.Add(1)
		_, err := scanDir(m.dirOf(p).Fd(), func(name []byte) {
			base := name
			if i := bytes.IndexByte(name, ':'); i >= 0 {
				base = name[:i]
			}
			if len(base) > 0 {
				names.Write(base)
				ends = append(ends, uint32(names.Len()))
			}
		})
		if err != nil {
			return nil, err
		}
	}
	all, from, text := make([]arrival, 0, len(ends)), uint32(0), names.String()
	for _, end := range ends {
		base := text[from:end]
		secs, usecs := arrivalOf(base)
		all = append(all, arrival{uint64(min(secs, 1<<43))<<20 | uint64(min(usecs, 1<<20-1)), base})
		from = end
	}
	slices.SortFunc(all, func(a, b arrival) int {
		if c := cmp.Compare(a.when, b.when); c != 0 {
			return c
		}
		return arrivalOrder(a.base, b.base)
	})
	return slices.CompactFunc(all, func(a, b arrival) bool { return a.base == b.base }), nil
}
