package maildir

import "hash/maphash"

// A nameTable finds a message by the whole name that its file had when it was seen
// last. Nearly every file that a scan finds has that name still, and then nothing
// else has to be looked at: not the UID list, not the record, which lies somewhere
// else in memory for each name that the kernel returns.
//
// It holds hashes of 64 bits with a seed of its own, not names. That two of a
// million names have the same is one in 40 million scans, and nobody can choose
// names that do: the seed is new in each scan.
type nameTable struct {
	seed  maphash.Seed
	slots []nameSlot // open addressing, at most two thirds full
}

type nameSlot struct {
	hash uint64
	at   uint32 // index of the message + 1; 0: free
}

// newNameTable returns the table of the messages of snap whose directory is not
// skipped. Those without a known name are not in it.
func newNameTable(snap *Snapshot, skip [2]bool) *nameTable {
	n := snap.Len()
	if skip[inCur] {
		n = snap.sum.waiting
	}
	size := 16
	for size < n+n/2 {
		size *= 2
	}
	t := &nameTable{maphash.MakeSeed(), make([]nameSlot, size)}
	messages := snap.Range(0, snap.Len())
	if skip[inCur] {
		messages = snap.waiting()
	}
	for i, msg := range messages {
		name := msg.name()
		if skip[msg.place()] || len(name) == 0 {
			continue
		}
		h := t.hash(name, msg.place())
		s := h & uint64(size-1)
		for t.slots[s].at != 0 {
			s = (s + 1) & uint64(size-1)
		}
		t.slots[s] = nameSlot{h, uint32(i) + 1}
	}
	return t
}

func (t *nameTable) hash(name []byte, p place) uint64 {
	return maphash.Bytes(t.seed, name) + uint64(p)
}

// find returns the index of the message whose file has the name.
func (t *nameTable) find(name []byte, p place) (int, bool) {
	h := t.hash(name, p)
	for s := h & uint64(len(t.slots)-1); t.slots[s].at != 0; s = (s + 1) & uint64(len(t.slots)-1) {
		if t.slots[s].hash == h {
			return int(t.slots[s].at) - 1, true
		}
	}
	return 0, false
}
