package index

import (
	"encoding/binary"
	"io"
	"math/bits"
	"math/rand/v2"
	"os"
	"slices"
	"unsafe"

	"imapd/maildir/vfs"
)

// Whoever reads a directory has to find out which file is of which message, and a
// process that has just begun knows no name yet: to read 100,000 of them, and to make
// a table in which they are found, costs as much as the directory. So the index has a
// hash of each name, in the order in which the directory gave the names when it was
// read last. A directory that nobody changes has the same order each time, nearly
// that after a change: then each name is compared with one hash, and none is looked up.
//
// A hash says only that a file is called as it was. It has 64 bits, with a seed that
// is made anew with each index, so that nobody who cannot read the index can choose
// names with one hash. And should two names have one, nothing is lost: a file that is
// there matches its own hash, so that no message is taken for expunged that is not,
// and no message gets another's UID, for the record keeps its name. What may happen
// is that a file with the hash of one that is gone is not seen until the other is
// asked for.

// An Order is that part of an index. It is read when it is needed.
type Order struct {
	n    int
	sum  uint32
	seed seed
	fd   *os.File
	off  int64
}

// orderSize is what a message has: its hash, and behind all of them its UID.
const orderSize = 8 + 4

// Len returns how many messages it has: all of the base.
func (o *Order) Len() int { return o.n }

// Hash returns the hash of a file name in cur/ or new/, which is never 0.
func (o *Order) Hash(name []byte, inNew bool) uint64 { return o.seed.hash(name, inNew) }

// Read returns the hashes and the UIDs of the messages, until free is called. The
// error is ErrDamaged, or that of the read.
func (o *Order) Read() (hashes []uint64, uids []uint32, free func(), err error) {
	b, free := vfs.Buffer[byte](o.n * orderSize)
	if _, err := vfs.ReadFullAt(int(o.fd.Fd()), b, o.off); err != nil {
		free()
		if err == io.EOF {
			err = ErrDamaged
		}
		return nil, nil, nil, err
	}
	if checksum(b) != o.sum {
		free()
		return nil, nil, nil, ErrDamaged
	}
	if o.n == 0 {
		return nil, nil, free, nil
	}
	// A buffer begins with a page.
	hashes = unsafe.Slice((*uint64)(unsafe.Pointer(&b[0])), o.n)
	uids = unsafe.Slice((*uint32)(unsafe.Pointer(&b[o.n*8])), o.n)
	if !asWritten {
		for i := range hashes {
			hashes[i] = order.Uint64(b[8*i:])
		}
		for i := range uids {
			uids[i] = order.Uint32(b[o.n*8+4*i:])
		}
	}
	return hashes, uids, free, nil
}

// A seed makes hashes that nobody can foresee.
type seed [2]uint64

const seedSize = 16

func newSeed() seed { return seed{rand.Uint64(), rand.Uint64()} }

// hash multiplies 16 octets at a time, as wyhash does: the hashes of package
// hash/maphash are others in each process.
func (s *seed) hash(name []byte, inNew bool) uint64 {
	n := uint64(len(name))
	h := s[0]
	if inNew {
		h = ^h
	}
	for ; len(name) > 16; name = name[16:] {
		h = mix(binary.LittleEndian.Uint64(name)^s[1], binary.LittleEndian.Uint64(name[8:])^h)
	}
	var last [16]byte
	copy(last[:], name)
	h = mix(binary.LittleEndian.Uint64(last[:])^s[1], binary.LittleEndian.Uint64(last[8:])^h)
	return max(1, mix(h^s[0], n^s[1]))
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// An orderWriter makes an Order.
type orderWriter struct {
	seed  seed
	place []uint32 // of each record, by its number, + 1
	next  int      // number of the next record
	data  []byte   // as it stands in the file
	free  func()   // gives the memory back, after which data is not to be used
}

// newOrder has the records with uids, which ascend, stand in the order of found, and
// those that are not in it behind them.
func newOrder(uids, found []uint32) *orderWriter {
	n := len(uids)
	w := &orderWriter{seed: newSeed()}
	var freePlace, freeData func()
	w.place, freePlace = vfs.Buffer[uint32](n)
	w.data, freeData = vfs.Buffer[byte](n * orderSize)
	w.free = func() {
		freePlace()
		freeData()
	}
	last := uint32(0)
	put := func(i int) {
		if w.place[i] == 0 {
			last++
			w.place[i] = last
		}
	}
	at, forget := finder(uids)
	defer forget()
	for _, u := range found {
		if i := at(u); i >= 0 {
			put(i)
		}
	}
	for i := range n {
		put(i)
	}
	return w
}

// take takes in the next page, with its names.
func (w *orderWriter) take(recs []Record, names []byte) {
	n := len(w.place)
	for i := range recs {
		r := &recs[i]
		from, end := int(r.NameOff), int(r.NameOff)+int(r.NameLen)
		if end > len(names) { // whoever loads it will not take it
			from, end = 0, 0
		}
		k := int(w.place[w.next]) - 1
		w.next++
		order.PutUint64(w.data[8*k:], w.seed.hash(names[from:end], r.Mod&InNew != 0))
		order.PutUint32(w.data[8*n+4*k:], r.UID)
	}
}

// finder returns a function that says which of uids, which ascend, one is, -1 if
// none, until forget is called.
func finder(uids []uint32) (at func(uid uint32) int, forget func()) {
	n, nothing := len(uids), func() {}
	if n == 0 {
		return func(uint32) int { return -1 }, nothing
	}
	first, span := uids[0], int64(uids[n-1])-int64(uids[0])+1
	if span == int64(n) {
		return func(uid uint32) int {
			if uid < first || int64(uid-first) >= span {
				return -1
			}
			return int(uid - first)
		}, nothing
	}
	if span > 8*int64(n) {
		return func(uid uint32) int {
			if i, ok := slices.BinarySearch(uids, uid); ok {
				return i
			}
			return -1
		}, nothing
	}
	places, forget := vfs.Buffer[uint32](int(span)) // + 1; 0: none
	for i, u := range uids {
		places[u-first] = uint32(i + 1)
	}
	return func(uid uint32) int {
		if uid < first || int64(uid-first) >= span {
			return -1
		}
		return int(places[uid-first]) - 1
	}, forget
}
