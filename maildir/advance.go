package maildir

import (
	"fmt"
	"slices"
)

// A Delta is what a client whose view is one snapshot must be told to have
// another.
type Delta struct {
	Gone     []int // indexes in the old view, highest first
	GoneUIDs []UID // in the order of Gone
	Changed  []int // indexes in the new view, ascending
	Added    int   // messages at the end of the new view
}

// Advance returns the view that follows old when the mailbox has become cur,
// and the difference. With hold, messages expunged from cur stay in the view as
// ghosts: a client that is using sequence numbers must not see them move. See
// RFC 9051 section 7.5.1.
//
// Views only ever grow at their end. A newcomer with a UID that the view has
// passed is an error, a bug of the writer, and so is another UIDVALIDITY: the
// session must end, for no response can tell the client of it.
func Advance(old, cur *Snapshot, hold bool) (*Snapshot, Delta, error) {
	if old == cur || old.from == cur && (hold || old.sum.ghosts == 0) {
		return old, Delta{}, nil
	}
	if old.Validity != cur.Validity {
		return old, Delta{}, fmt.Errorf("UIDVALIDITY was %d and is %d", old.Validity, cur.Validity)
	}
	a := advance{old: old, hold: hold, last: old.sum.last}
	a.merge(cur)
	if a.err != nil {
		return old, Delta{}, a.err
	}
	slices.Reverse(a.Gone)
	slices.Reverse(a.GoneUIDs)
	if len(a.ghosts) == 0 {
		return cur, a.Delta, nil
	}
	return cur.haunt(a.ghosts), a.Delta, nil
}

type advance struct {
	Delta
	old    *Snapshot
	hold   bool
	last   UID     // highest of the old view
	ghosts []entry // to stay in the new view, ascending
	err    error
}

// cursor walks the pages of a snapshot, ghosts included.
type cursor struct {
	s      *Snapshot
	d, p   int
	r      int
	passed int // messages before the current page
}

func (c *cursor) page() *page {
	if c.d == len(c.s.dirs) {
		return nil
	}
	return c.s.dirs[c.d].pages[c.p]
}

func (c *cursor) nextPage() {
	c.passed += c.s.dirs[c.d].pages[c.p].sum.n
	c.r = 0
	if c.p++; c.p == len(c.s.dirs[c.d].pages) {
		c.d, c.p = c.d+1, 0
	}
}

func (c *cursor) next() {
	if c.r++; c.r == c.page().sum.n {
		c.nextPage()
	}
}

func (c *cursor) index() int { return c.passed + c.r }

// skipDir moves both cursors past a run of pages that the two share.
func skipDir(o, n *cursor) bool {
	if o.r != 0 || n.r != 0 || o.p != 0 || n.p != 0 || o.s.dirs[o.d] != n.s.dirs[n.d] {
		return false
	}
	k := o.s.dirs[o.d].sum.n
	o.passed, n.passed = o.passed+k, n.passed+k
	o.d, n.d = o.d+1, n.d+1
	return true
}

func (a *advance) merge(cur *Snapshot) {
	o, n := cursor{s: a.old}, cursor{s: cur}
	for {
		op, np := o.page(), n.page()
		switch {
		case op == nil && np == nil:
			return
		case op == nil:
			a.added(&n)
			return
		case np == nil:
			a.gone(&o, op)
		case skipDir(&o, &n):
		case op == np && o.r == 0 && n.r == 0 && op.sum.ghosts == 0:
			o.nextPage()
			n.nextPage()
		case op.recs[o.r].UID == np.recs[n.r].UID:
			if np.recs[n.r].ModSeq() != op.recs[o.r].ModSeq() {
				a.Changed = append(a.Changed, n.index()+len(a.ghosts))
			}
			o.next()
			n.next()
		case op.recs[o.r].UID < np.recs[n.r].UID:
			a.gone(&o, op)
		default:
			a.err = fmt.Errorf("UID %d appeared below UID %d, which a client has seen", np.recs[n.r].UID, a.last)
			return
		}
	}
}

func (a *advance) gone(o *cursor, p *page) {
	if a.hold {
		e := entryOf(p.message(o.r))
		e.ghost = true
		a.ghosts = append(a.ghosts, e)
	} else {
		a.Gone = append(a.Gone, o.index())
		a.GoneUIDs = append(a.GoneUIDs, UID(p.recs[o.r].UID))
	}
	o.next()
}

func (a *advance) added(n *cursor) {
	p := n.page()
	if first := UID(p.recs[n.r].UID); first <= a.last {
		a.err = fmt.Errorf("UID %d appeared below UID %d, which a client has seen", first, a.last)
		return
	}
	a.Added = n.s.sum.n - n.index()
}

// haunt returns s with ghosts among its messages.
func (s *Snapshot) haunt(ghosts []entry) *Snapshot {
	var all []*dir
	for _, d := range s.dirs {
		k := 0
		for k < len(ghosts) && ghosts[k].uid < d.sum.last {
			k++
		}
		if k == 0 {
			all = append(all, d)
			continue
		}
		all = append(all, d.haunt(ghosts[:k])...)
		ghosts = ghosts[k:]
	}
	v := s.with(appendEntries(all, ghosts))
	v.stale = s.stale
	v.from = s
	return v
}

// haunt may need more pages than a dir has room for.
func (d *dir) haunt(ghosts []entry) []*dir {
	var pages []*page
	for _, p := range d.pages {
		k := 0
		for k < len(ghosts) && ghosts[k].uid < p.sum.last {
			k++
		}
		if k == 0 {
			pages = append(pages, p)
			continue
		}
		pages = append(pages, p.haunt(ghosts[:k])...)
		ghosts = ghosts[k:]
	}
	var dirs []*dir
	for part := range slices.Chunk(pages, dirLen) {
		dirs = append(dirs, newDir(part))
	}
	return dirs
}

func (p *page) haunt(ghosts []entry) []*page {
	var pages []*page
	b := newPageBuilder(pageLen, p.namesLen())
	full := func() {
		if len(b.recs) == pageLen {
			pages = append(pages, b.page())
			b = newPageBuilder(pageLen, p.namesLen())
		}
	}
	for i := range p.recs {
		for len(ghosts) > 0 && ghosts[0].uid < UID(p.recs[i].UID) {
			full()
			b.add(&ghosts[0])
			ghosts = ghosts[1:]
		}
		full()
		b.copy(p, i, i+1)
	}
	return append(pages, b.page())
}
