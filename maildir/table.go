package maildir

import (
	"hash/maphash"
	"math/bits"

	"imapd/maildir/index"
	"imapd/maildir/vfs"
)

// A hashTable finds the number of a name. It holds hashes of 64 bits with a seed of
// its own, not names: 100,000 strings would cost the garbage collector what the
// pages save it. That two of a million names have the same is one in 40 million
// tables, and nobody can choose names that do: the seed is new in each table.
//
// Most tables are filled and never asked, so that it is built at the first question.
type hashTable struct {
	seed   maphash.Seed
	hashes []uint64 // by number
	slots  []uint32 // number of a hash + 1; 0: free. Open addressing, at most two thirds full; nil: not built
}

func (t *hashTable) hash(name []byte) uint64 { return maphash.Bytes(t.seed, name) }

// find returns the number of the name with the hash h, the last if there are more,
// and -1 if there is none. The table is built.
func (t *hashTable) find(h uint64) int {
	mask := uint64(len(t.slots) - 1)
	for s := h & mask; t.slots[s] != 0; s = (s + 1) & mask {
		if i := t.slots[s] - 1; t.hashes[i] == h {
			return int(i)
		}
	}
	return -1
}

// add gives the name with the hash h the next number, and returns the one that it
// had before, -1 if none. The table is built.
func (t *hashTable) add(h uint64) (old int) {
	if len(t.hashes) >= len(t.slots)/3*2 {
		t.build(func(int, int) {})
	}
	t.hashes = append(t.hashes, h)
	return t.put(len(t.hashes) - 1)
}

// build makes the slots, and calls again for each name that comes again, with the
// number that it had before.
func (t *hashTable) build(again func(i, old int)) {
	size := 16
	for size < 2*(len(t.hashes)+1) {
		size *= 2
	}
	t.slots = make([]uint32, size)
	vfs.Prefault(t.slots)
	for i := range t.hashes {
		if old := t.put(i); old >= 0 {
			again(i, old)
		}
	}
}

func (t *hashTable) put(i int) (old int) {
	h, mask := t.hashes[i], uint64(len(t.slots)-1)
	s, old := h&mask, -1
	for ; t.slots[s] != 0; s = (s + 1) & mask {
		if k := t.slots[s] - 1; t.hashes[k] == h {
			old = int(k)
			break
		}
	}
	t.slots[s] = uint32(i + 1)
	return old
}

// A nameJoin says of two lists of names which are in both. What it costs to find
// 100,000 names in a table is the memory that they are found in, for each name another
// place: so both lists are cut into parts by their hashes first, which stay in the
// processor's cache, and then part is compared with part.
type nameJoin struct {
	shift uint
	known [][]mark
	found [][]mark
	slots []uint16
	free  func() // gives the parts back, after the last question
}

// mark is a name that is known or was found.
type mark struct {
	hash uint64
	at   uint32 // which it is
	tag  uint32 // what else is to be known of it
}

// partLen is how many names a part has, about.
const partLen = 512

// newNameJoin returns a nameJoin of n known names with about as many to be found.
func newNameJoin(n, found int) *nameJoin {
	log := min(12, bits.Len(uint(max(n, found)/partLen)))
	j := &nameJoin{shift: uint(64 - log)}
	room := func(n int) int { return n>>log + n>>(log+2) + 32 }
	all, free := vfs.Buffer[mark]((room(n) + room(found)) << log)
	j.known, all = partsOf(log, room(n), all)
	j.found, _ = partsOf(log, room(found), all)
	j.free = free
	return j
}

// partsOf returns 1<<log empty parts of all with room for each marks, and what is
// left.
func partsOf(log, each int, all []mark) (parts [][]mark, rest []mark) {
	parts = make([][]mark, 1<<log)
	for i := range parts {
		parts[i], all = all[:0:each], all[each:]
	}
	return parts, all
}

func (j *nameJoin) know(h uint64, at int) {
	p := &j.known[h>>j.shift]
	*p = append(*p, mark{hash: h, at: uint32(at)})
}

func (j *nameJoin) find(h uint64, at int, tag uint32) {
	p := &j.found[h>>j.shift]
	*p = append(*p, mark{h, uint32(at), tag})
}

// join calls match for each name that was found with which known one it is, -1 if
// none, and forgets those found. It reports false where a name is known twice.
func (j *nameJoin) join(match func(found mark, known int)) bool {
	single := true
	for i, known := range j.known {
		found := j.found[i]
		if len(found) == 0 {
			continue
		}
		size := 16
		for size < 2*len(known) {
			size *= 2
		}
		if len(j.slots) < size {
			j.slots = make([]uint16, size)
		}
		slots, mask := j.slots[:size], uint64(size-1)
		clear(slots)
		for k := range known {
			s := known[k].hash & mask
			for ; slots[s] != 0; s = (s + 1) & mask {
				single = single && known[slots[s]-1].hash != known[k].hash
			}
			slots[s] = uint16(k + 1)
		}
		for _, f := range found {
			s := f.hash & mask
			for slots[s] != 0 && known[slots[s]-1].hash != f.hash {
				s = (s + 1) & mask
			}
			if slots[s] == 0 {
				match(f, -1)
			} else {
				match(f, int(known[slots[s]-1].at))
			}
		}
		j.found[i] = found[:0]
	}
	return single
}

// knowNames makes known the messages of snap whose directory is not skipped, under
// the whole names that their files had when they were seen last, but for those
// without a known name.
func (j *nameJoin) knowNames(seed maphash.Seed, snap *Snapshot, skip [2]bool) {
	var r index.Reader
	for di, d := range snap.dirs {
		for pi, p := range d.pages {
			if skip[inCur] && p.sum.waiting == 0 {
				continue
			}
			names, at := p.namesOnce(&r), snap.start[di]+d.start[pi]
			if names == nil {
				continue
			}
			for i := range p.recs {
				r := &p.recs[i]
				if r.NameLen > 0 && !skip[placeOf(r)] {
					j.know(placeHash(seed, names[r.NameOff:int(r.NameOff)+int(r.NameLen)], placeOf(r)), at+i)
				}
			}
		}
	}
}

func placeHash(seed maphash.Seed, name []byte, p place) uint64 {
	return maphash.Bytes(seed, name) + uint64(p)<<32
}
