package maildir

import (
	"slices"

	"imapd/maildir/index"
)

// An entry is a message outside a snapshot: what a builder takes in.
type entry struct {
	uid    UID
	place  place
	ghost  bool
	flags  Flags
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
	for i := range p.recs {
		r := &p.recs[i]
		if len(changes) == 0 || changes[0].uid != UID(r.UID) {
			b.copy(p, r)
			continue
		}
		if !changes[0].remove {
			b.add(&changes[0].entry)
		}
		changes = changes[1:]
	}
	return b.page()
}

func join(p, q *page) *page {
	b := newPageBuilder(len(p.recs)+len(q.recs), p.namesLen()+q.namesLen())
	for _, p := range [...]*page{p, q} {
		for i := range p.recs {
			b.copy(p, &p.recs[i])
		}
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
			for i := range pages[k].recs {
				b.copy(pages[k], &pages[k].recs[i])
			}
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
	newer bool
}

func newPageBuilder(recs, names int) *pageBuilder {
	return &pageBuilder{recs: make([]record, 0, recs), names: make([]byte, 0, names)}
}

// copy takes over a record of p, with what is known of its file by now.
func (b *pageBuilder) copy(p *page, r *record) {
	name := p.name(r)
	p.mu.Lock()
	n := *r
	b.newer = b.newer || p.newer
	p.mu.Unlock()
	b.put(n, name)
}

func (b *pageBuilder) put(n record, name []byte) {
	n.NameOff, n.NameLen = uint16(len(b.names)), uint8(len(name))
	n.BaseLen = min(n.BaseLen, n.NameLen)
	b.names = append(b.names, name...)
	b.recs = append(b.recs, n)
}

func (b *pageBuilder) add(e *entry) {
	n := record{UID: uint32(e.uid), BaseLen: uint8(e.base), Flags: uint64(e.flags), Mod: uint64(e.modseq), Facts: e.facts}
	if e.place == inNew {
		n.Mod |= index.InNew
	}
	if e.ghost {
		n.Mod |= index.Ghost
	}
	b.put(n, []byte(e.name))
}

// page returns the page that was built, nil if it has no message.
func (b *pageBuilder) page() *page {
	if len(b.recs) == 0 {
		return nil
	}
	p := newPage(b.recs, b.names)
	p.newer = b.newer
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
	return entry{m.UID, m.place(), m.Ghost(), m.Flags, m.ModSeq, string(m.name()), int(m.rec.BaseLen), m.facts()}
}

// newEntry returns a message of which nothing is known but its name and flags. It
// gets its modseq when it is recorded.
func newEntry(u UID, p place, name string, flags Flags) entry {
	return entry{uid: u, place: p, flags: flags, name: name, base: baseLen(name), facts: index.NoFacts}
}
