package maildir

import (
	"slices"
	"sort"

	"imapd/maildir/index"
)

// An entry is a message outside a snapshot: what a builder takes in.
type entry struct {
	uid    UID
	place  place
	ghost  bool
	marks  Marks
	modseq ModSeq
	name   string
	base   int // length of the base name
	facts  index.Facts
}

// A change says what becomes of one message of a snapshot.
type change struct {
	uid    UID
	remove bool
	entry  entry // where remove is false
	shows  bool  // clients see another message, though its marks are as they were
}

// apply returns the snapshot in which changes (ascending by UID, each of a
// message that exists) have been made and added (ascending, above every UID of
// s) has been appended. Only pages that differ are copied.
func (s *Snapshot) apply(changes []change, added []entry) *Snapshot {
	var dirs []*dir
	for _, d := range s.dirs {
		n := countThrough(changes, d.sum.last)
		if n == 0 {
			dirs = append(dirs, d)
			continue
		}
		if d = d.apply(changes[:n]); d != nil {
			dirs = append(dirs, d)
		}
		changes = changes[n:]
	}
	dirs = appendEntries(dirs, added)
	return s.with(mergeDirs(dirs))
}

// countThrough returns how many of changes are of UIDs up to last.
func countThrough(changes []change, last UID) int {
	n, _ := slices.BinarySearchFunc(changes, last, func(c change, last UID) int {
		if c.uid <= last {
			return -1
		}
		return 1
	})
	return n
}

func (d *dir) apply(changes []change) *dir {
	pages := make([]*page, 0, len(d.pages))
	for _, p := range d.pages {
		if n := countThrough(changes, p.sum.last); n > 0 {
			p = p.apply(changes[:n])
			changes = changes[n:]
			if p == nil {
				continue
			}
			if k := len(pages) - 1; k >= 0 && len(pages[k].recs)+len(p.recs) <= pageLen/2 {
				pages[k] = join(pages[k], p)
				continue
			}
		}
		pages = append(pages, p)
	}
	if len(pages) == 0 {
		return nil
	}
	return newDir(pages)
}

// apply returns nil where no message is left.
func (p *page) apply(changes []change) *page {
	b := newPageBuilder(len(p.recs), p.namesLen()+64)
	from := 0
	for _, c := range changes {
		n := sort.Search(len(p.recs)-from, func(i int) bool { return UID(p.recs[from+i].UID) >= c.uid })
		b.copy(p, from, from+n)
		if from += n; from == len(p.recs) || UID(p.recs[from].UID) != c.uid {
			continue
		}
		if !c.remove {
			b.add(&c.entry)
		}
		from++
	}
	b.copy(p, from, len(p.recs))
	return b.page()
}

func join(p, q *page) *page {
	b := newPageBuilder(len(p.recs)+len(q.recs), p.namesLen()+q.namesLen())
	for _, p := range [...]*page{p, q} {
		b.copy(p, 0, len(p.recs))
	}
	return b.page()
}

// appendEntries returns dirs with entries behind them. It does not write to
// what dirs holds.
func appendEntries(dirs []*dir, entries []entry) []*dir {
	if len(entries) == 0 {
		return dirs
	}
	var pages []*page
	if k := len(dirs) - 1; k >= 0 && (len(dirs[k].pages) < dirLen || dirs[k].pages[dirLen-1].sum.n < pageLen) {
		pages = slices.Clone(dirs[k].pages)
		dirs = dirs[:k:k]
	}
	for len(entries) > 0 {
		b := newPageBuilder(min(pageLen, len(entries)+16), 0)
		if k := len(pages) - 1; k >= 0 && pages[k].sum.n < pageLen {
			b.copy(pages[k], 0, len(pages[k].recs))
			pages = pages[:k]
		}
		for len(entries) > 0 && len(b.recs) < pageLen {
			b.add(&entries[0])
			entries = entries[1:]
		}
		if pages = append(pages, b.page()); len(pages) == dirLen && len(entries) > 0 && pages[dirLen-1].sum.n == pageLen {
			dirs, pages = append(dirs, newDir(pages)), nil
		}
	}
	return append(dirs, newDir(pages))
}

// mergeDirs joins neighbours that have become small, so that a mailbox that
// shrinks does not keep the page list of its best days.
func mergeDirs(dirs []*dir) []*dir {
	var out []*dir
	for _, d := range dirs {
		if k := len(out) - 1; k >= 0 && len(out[k].pages)+len(d.pages) <= dirLen/2 {
			out[k] = newDir(slices.Concat(out[k].pages, d.pages))
			continue
		}
		out = append(out, d)
	}
	return out
}

type pageBuilder struct {
	recs  []record
	names []byte
	more  map[UID][]uint16
	newer bool
	blind bool // a record has no name
}

func newPageBuilder(recs, names int) *pageBuilder {
	return &pageBuilder{recs: make([]record, 0, recs), names: make([]byte, 0, names)}
}

// copy takes over the records of p from index i up to but not including j, with
// what is known of their files by now.
func (b *pageBuilder) copy(p *page, i, j int) {
	if i == j {
		return
	}
	run, names := p.recs[i:j], p.allNames()
	start, end, inRow := run[0].NameOff, run[0].NameOff, names != nil
	for k := range run {
		inRow = inRow && run[k].NameOff == end
		end += uint16(run[k].NameLen)
		b.blind = b.blind || run[k].NameLen == 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b.newer = b.newer || p.newer
	if !inRow || p.more != nil {
		for i := range run {
			r := &run[i]
			var name []byte
			if names != nil {
				name = names[r.NameOff : int(r.NameOff)+int(r.NameLen)]
			}
			b.put(*r, name, p.moreOf(r))
		}
		return
	}
	from, shift := len(b.recs), uint16(len(b.names))-start
	b.names = append(b.names, names[start:end]...)
	b.recs = append(b.recs, run...)
	for k := range b.recs[from:] {
		b.recs[from+k].NameOff += shift
	}
}

func (b *pageBuilder) put(n record, name []byte, more []uint16) {
	n.Mod &^= index.More
	if len(more) > 0 {
		n.Mod |= index.More
		if b.more == nil {
			b.more = map[UID][]uint16{}
		}
		b.more[UID(n.UID)] = more
	}
	n.NameOff, n.NameLen = uint16(len(b.names)), uint8(len(name))
	n.BaseLen = min(n.BaseLen, n.NameLen)
	if len(name) == 0 {
		b.blind = true
		n.Mod &^= index.Placed // it must be looked up, not passed over as one that is there
	}
	b.names = append(b.names, name...)
	b.recs = append(b.recs, n)
}

func (b *pageBuilder) add(e *entry) {
	n := record{UID: uint32(e.uid), BaseLen: uint8(e.base), Flags: uint64(e.marks.Flags), Mod: uint64(e.modseq), Facts: e.facts}
	if e.place == inNew {
		n.Mod |= index.InNew
	}
	if e.ghost {
		n.Mod |= index.Ghost
	}
	b.put(n, []byte(e.name), e.marks.more)
}

// page returns the page that was built, nil if it has no message.
func (b *pageBuilder) page() *page {
	if len(b.recs) == 0 {
		return nil
	}
	p := newPage(b.recs, b.names)
	p.more, p.newer = b.more, b.newer
	p.blind.Store(b.blind)
	return p.finish()
}

// namesLen returns the octets of all names of p.
func (p *page) namesLen() int {
	if b := p.names.Load(); b != nil {
		return len(*b)
	}
	return p.lazy.Load().Len()
}

// entryOf returns the message as a builder takes it.
func entryOf(m Message) entry {
	return entry{m.UID, m.place(), m.Ghost(), m.Marks(), m.ModSeq, string(m.name()), int(m.rec.BaseLen), m.facts()}
}

// newEntry returns a message of which nothing is known but its name and flags. It
// gets its modseq when it is recorded.
func newEntry(u UID, p place, name string, marks Marks) entry {
	return entry{uid: u, place: p, marks: marks, name: name, base: baseLen(name), facts: index.NoFacts}
}
