package maildir

import (
	"iter"
	"math/bits"
	"slices"

	"imapd/maildir/index"
	"imapd/maildir/vfs"
)

// A process that has opened a folder by its index knows the hashes of the names in
// the order in which the directories gave them last (index.Order). It follows that
// order with one finger: nearly every file is the one that comes next. Files that are
// not are compared with those that were passed over, all at once, and what is left
// then has another name than any message had.
//
// A hash counts for a record only if that has still the name that it had in the base
// of the index (index.Placed). Records that were changed since are compared by the
// names that they have now.

// foretold is the order of the index that a snapshot was made from. It is guarded by
// Mailbox.mu.
type foretold struct {
	order *index.Order // nil: none any more
}

func (s *Snapshot) order() *index.Order {
	if s.foretold == nil {
		return nil
	}
	return s.foretold.order
}

// glimpse is how many messages are passed over to find the next file.
const glimpse = 8

// fewLost is how many files of a directory are looked up one by one.
const fewLost = 1000

// A foresight is a comparison of directories with what was foretold. What is known
// has numbers: first the places in the order, then the records that were changed.
type foresight struct {
	sc      *scanner
	order   *index.Order
	skip    [2]bool
	hashes  []uint64 // by number; 0: of a message that is called otherwise now
	placed  int      // how many of them are from the order
	uids    []uint32 // of those
	changed []int    // indexes in the snapshot of the others
	hit     []bool   // by number
	next    int      // number of the file that is expected
	lost    []mark   // files of this piece that were not: where they are, and next
	few     map[uint64]file
	late    []mark // found out of their order: the number as hash, where, and next
	others  []file
}

// foresee is compare for a snapshot whose order is foretold. It reports false if that
// cannot be.
func (sc *scanner) foresee(o *index.Order, skip [2]bool) (bool, error) {
	if sc.snap.blind() {
		return false, nil // a scan gives them names
	}
	hashes, uids, free, err := o.Read()
	if err != nil {
		sc.m.rotten("order", err)
		return false, nil
	}
	defer free()
	f := foresight{sc: sc, order: o, skip: skip, hashes: hashes, placed: len(hashes), uids: uids, few: map[uint64]file{}}
	f.prepare()
	if err := sc.read(skip, f.piece); err != nil {
		return true, err
	}
	f.lookUp()
	f.see()
	f.remember()
	return true, sc.rest(f.others)
}

// prepare takes out of the order what is not so any more, and adds what is so now.
func (f *foresight) prepare() {
	snap, n := f.sc.snap, 0
	for _, d := range snap.dirs {
		for _, p := range d.pages {
			if p.placed {
				n += len(p.recs)
			}
		}
	}
	if n < f.placed || n < snap.Len() {
		f.amend()
	}
	f.hit = make([]bool, len(f.hashes))
	vfs.Prefault(f.hit)
}

func (f *foresight) amend() {
	snap := f.sc.snap
	var changed []uint64
	for at, p := range snap.amended() {
		for i := range p.recs {
			r := &p.recs[i]
			if r.Mod&index.Placed != 0 || f.skip[placeOf(r)] {
				continue
			}
			if name := p.name(r); len(name) > 0 {
				changed = append(changed, f.order.Hash(name, placeOf(r) == inNew))
				f.changed = append(f.changed, at+i)
			}
		}
	}
	doubtful := snap.doubtful()
	for k, u := range f.uids {
		if doubtful(UID(u)) && !snap.placed(UID(u)) {
			f.hashes[k] = 0
		}
	}
	if len(changed) > 0 {
		f.hashes = append(slices.Clip(f.hashes), changed...)
	}
}

// amended yields the pages that are not as they were loaded, with the index of their
// first message.
func (s *Snapshot) amended() iter.Seq2[int, *page] {
	return func(yield func(int, *page) bool) {
		for di, d := range s.dirs {
			for pi, p := range d.pages {
				if !p.placed && !yield(s.start[di]+d.start[pi], p) {
					return
				}
			}
		}
	}
}

// blind reports whether the names of a page could not be read.
func (s *Snapshot) blind() bool {
	for _, d := range s.dirs {
		for _, p := range d.pages {
			if p.blind.Load() {
				return true
			}
		}
	}
	return false
}

// placed reports whether there is a message u that is called as the order says.
func (s *Snapshot) placed(u UID) bool {
	msg, ok := s.lookup(u)
	return ok && msg.rec.Mod&index.Placed != 0
}

// doubtful returns a function that is true at least of each UID that no page has
// which is as it was loaded.
func (s *Snapshot) doubtful() func(UID) bool {
	const buckets = 1 << 16
	shift := max(6, bits.Len32(uint32(s.sum.last))-16)
	marked := make([]bool, buckets+1)
	mark := func(from, to UID) { // up to but not including to
		for b := from >> shift; from < to && b <= (to-1)>>shift; b++ {
			marked[b] = true
		}
	}
	from := UID(0)
	for _, d := range s.dirs {
		for _, p := range d.pages {
			if p.placed {
				mark(from, UID(p.recs[0].UID))
				from = p.sum.last + 1
			}
		}
	}
	mark(from, s.sum.last+1)
	return func(u UID) bool { return u > s.sum.last || marked[u>>shift] }
}

// piece compares a piece of a directory.
func (f *foresight) piece(piece []byte) error {
	f.lost = f.lost[:0]
	inNew := f.sc.place == inNew
	order := f.hashes[:f.placed]
	err := eachFile(piece, func(at int, name []byte) {
		h := f.order.Hash(name, inNew)
		for k := f.next; k < len(order) && k < f.next+glimpse; k++ {
			if order[k] == h {
				f.hits(k)
				f.next = k + 1
				return
			}
		}
		f.lost = append(f.lost, mark{hash: h, at: uint32(at), tag: uint32(f.next)})
	})
	if err != nil {
		return err
	}
	if len(f.lost) > fewLost {
		f.join(piece)
		return nil
	}
	for _, l := range f.lost {
		o := file{name: string(nameAt(piece, int(l.at))), place: f.sc.place}
		if _, twice := f.few[l.hash]; twice {
			f.other(o)
			continue
		}
		f.few[l.hash] = o
	}
	return nil
}

// hits notes that the file with the number k is there.
func (f *foresight) hits(k int) {
	f.hit[k] = true
	if f.sc.place == inNew {
		f.sc.moves = append(f.sc.moves, f.uid(k))
	}
}

func (f *foresight) uid(k int) UID {
	if k < f.placed {
		return UID(f.uids[k])
	}
	return f.sc.snap.At(f.changed[k-f.placed]).UID
}

func (f *foresight) other(o file) {
	if messageName([]byte(o.name)) {
		f.others = append(f.others, o)
	}
}

// join compares many files of a piece with all that was not found yet.
func (f *foresight) join(piece []byte) {
	j := newNameJoin(len(f.hashes), len(f.lost))
	defer j.free()
	for k, h := range f.hashes {
		if h != 0 && !f.hit[k] {
			j.know(h, k)
		}
	}
	for _, l := range f.lost {
		j.find(l.hash, int(l.at), l.tag)
	}
	j.join(func(found mark, k int) {
		if k < 0 || f.hit[k] {
			f.other(file{name: string(nameAt(piece, int(found.at))), place: f.sc.place})
			return
		}
		f.hits(k)
		if f.sc.place == inCur {
			f.late = append(f.late, mark{hash: uint64(k), at: found.at, tag: found.tag})
		}
	})
}

// lookUp finds the few files that were not expected.
func (f *foresight) lookUp() {
	for k := 0; k < len(f.hashes) && len(f.few) > 0; k++ {
		if f.hit[k] {
			continue
		}
		if o, ok := f.few[f.hashes[k]]; ok {
			delete(f.few, f.hashes[k])
			f.sc.place = o.place
			f.hits(k)
		}
	}
	for _, o := range f.few {
		f.other(o)
	}
}

// see notes which messages have been seen.
func (f *foresight) see() {
	m, snap := f.sc.m, f.sc.snap
	for i := range m.seen {
		m.seen[i] = true
	}
	unseen := func(i int) {
		if !f.skip[snap.At(i).place()] {
			m.seen[i] = false
		}
	}
	for k, hit := range f.hit[:f.placed] {
		if hit || f.hashes[k] == 0 {
			continue
		}
		if i, ok := snap.Find(UID(f.uids[k])); ok {
			unseen(i)
		}
	}
	for c, i := range f.changed {
		if !f.hit[f.placed+c] {
			unseen(i)
		}
	}
	for at, p := range snap.amended() { // records whose name is not to be had
		for i := range p.recs {
			if r := &p.recs[i]; r.Mod&index.Placed == 0 && len(p.name(r)) == 0 {
				unseen(at + i)
			}
		}
	}
}

// remember notes the order in which the files were found, if it is so much another
// than was foretold that it is worth writing down.
func (f *foresight) remember() {
	if len(f.late) <= len(f.hashes)/8 {
		return
	}
	m := f.sc.m
	slices.SortFunc(f.late, func(a, b mark) int {
		if a.tag != b.tag {
			return int(a.tag) - int(b.tag)
		}
		return int(a.at) - int(b.at)
	})
	m.found, m.disorder = make([]uint32, 0, len(f.hashes)), true
	late := f.late
	for k := range f.placed + 1 {
		for ; len(late) > 0 && int(late[0].tag) <= k; late = late[1:] {
			m.found = append(m.found, uint32(f.uid(int(late[0].hash))))
		}
		if k < f.placed && f.hit[k] {
			m.found = append(m.found, f.uids[k])
		}
	}
}
