package index

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// PageLen is how many records a page has at most.
const PageLen = 256

// An Image is a whole index: the base, and what the journal has behind it.
type Image struct {
	Folder
	State State
	Pages []Page
	Order *Order // nil: the index is of a version that had none
	Gone  []Range
	Tail  []Event // to be applied in their order; State is from before them

	Copied  bool // the file is not the one that was written: it comes from a backup, perhaps
	Touched bool // it is that one, and something else has written to it since, or set its times
	Torn    bool // the journal does not end where a batch ends
}

// Folder is which folder an index is about.
type Folder struct {
	Validity uint32 // UIDVALIDITY
	GUID     string // of dovecot-uidlist, at most 32 octets
	Ino      uint64 // of cur/: a folder that was copied or restored has another
	Line     uint64 // the same in all files of which each was written from the whole one before
}

// A Page is up to PageLen messages, ascending by UID.
type Page struct {
	Recs  []Record
	Names *Names
}

const (
	magic      = "imapd ix"
	version    = 2
	plain      = 1 // the version without Order
	prefixSize = 88
	guidSize   = 32
	pageSize   = 12 // of an entry of the page table
	tailFixed  = stateSize + 12
	tailOrder  = 4 + 4 + seedSize // of version 2, behind them
)

// Bounds of what is read into memory. The journal is written anew long before.
const (
	maxFile    = 1 << 32
	maxRecords = 1 << 24
	maxGone    = 1 << 20
	maxJournal = 1 << 28
)

// maxUID is the highest UID that a message can have, and maxSane is above every
// modseq that is ever given: a time in seconds << 20, for a million years.
const (
	maxUID  = 1<<32 - 2
	maxSane = 1 << 55
)

// Load reads the index of the folder, and finds out whether it can be written.
// It fails with fs.ErrNotExist where there is none, and with ErrDamaged where it
// is not worth anything, at least not to this version. With the lock held, a torn batch
// is cut off.
func (f *File) Load() (*Image, error) {
	img, err := f.Peek()
	if err == nil && img.Torn && f.lock != nil {
		err = f.cut()
	}
	return img, err
}

// Peek is Load for somebody who leaves the index as it is.
func (f *File) Peek() (*Image, error) {
	f.ours, f.fd = false, nil
	fd, st, err := vfs.OpenRegular(f.Dir, Name)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%s: no file: %w", f.path(), ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	r := os.NewFile(uintptr(fd), f.path())
	img, base, err := readBase(r, st.Size)
	if err == nil {
		err = f.use(r, st)
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("%s: %w", f.path(), err)
	}
	if st.Size-base > maxJournal {
		r.Close()
		return nil, fmt.Errorf("%s: %w", f.path(), ErrDamaged)
	}
	journal := make([]byte, st.Size-base)
	n, err := vfs.ReadFullAt(fd, journal, base)
	if err != nil && err != io.EOF {
		r.Close()
		return nil, &fs.PathError{Op: "read", Path: f.path(), Err: err}
	}
	j := parseJournal(journal[:n])
	img.Tail = j.events
	f.base, f.end = base, base+j.size
	img.Copied = order.Uint64(f.head[64:]) != st.Ino
	img.Touched = !j.written.IsZero() && wasTouched(&st, j.written)
	img.Torn = j.size < int64(n)
	return img, nil
}

// use goes on with the file that is open for reading.
func (f *File) use(r *os.File, st unix.Stat_t) error {
	if n, err := vfs.ReadFullAt(int(r.Fd()), f.head[:], 0); err != nil || n < prefixSize {
		return readError(err)
	}
	f.fd, f.ident, f.wait = r, ident{uint64(st.Dev), st.Ino}, 0
	f.ours = unix.Faccessat(f.Dir.Fd(), Name, unix.W_OK, unix.AT_EACCESS) == nil
	return nil
}

// readBase reads all but the journal, and returns where that begins.
func readBase(r *os.File, size int64) (*Image, int64, error) {
	fd := int(r.Fd())
	var prefix [prefixSize]byte
	if n, err := vfs.ReadFullAt(fd, prefix[:], 0); err != nil || n < prefixSize {
		return nil, 0, readError(err)
	}
	if v := order.Uint32(prefix[8:]); string(prefix[:8]) == magic && v > version {
		return nil, 0, newer(v)
	}
	if string(prefix[:8]) != magic || order.Uint32(prefix[8:]) != version && order.Uint32(prefix[8:]) != plain || order.Uint32(prefix[80:]) != checksum(prefix[:80]) {
		return nil, 0, ErrDamaged
	}
	img := &Image{Folder: Folder{
		Validity: order.Uint32(prefix[12:]), GUID: strings.TrimRight(string(prefix[16:16+guidSize]), "\x00"),
		Ino: order.Uint64(prefix[48:]), Line: order.Uint64(prefix[72:]),
	}}
	at := order.Uint64(prefix[56:])
	if at < prefixSize || at > uint64(size) || size > maxFile {
		return nil, 0, ErrDamaged
	}
	t, err := readTrailer(fd, int64(at), size, order.Uint32(prefix[8:]))
	if err != nil {
		return nil, 0, err
	}
	if img.State = t.state; !img.State.sane() {
		return nil, 0, ErrDamaged
	}
	if img.Pages, err = t.readPages(r, int64(at)); err != nil {
		return nil, 0, err
	}
	if img.Gone, err = t.readGone(fd, int64(at)); err != nil {
		return nil, 0, err
	}
	if img.Order = t.order; img.Order != nil {
		img.Order.fd, img.Order.off = r, int64(at)-int64(t.gone)*rangeSize-int64(t.order.n)*orderSize
	}
	return img, int64(at) + t.size, nil
}

func readError(err error) error {
	if err == nil || err == io.EOF {
		return ErrDamaged
	}
	return err
}

// trailer is what stands behind the names.
type trailer struct {
	state   State
	pages   []pageEntry
	gone    int // ranges
	goneSum uint32
	order   *Order // nil: none
	size    int64
}

type pageEntry struct {
	n, names         int
	recSum, namesSum uint32
}

// readTrailer reads the trailer at offset at: State, the counts of pages and of
// ranges, the checksum of the ranges, the count, checksum and seed of Order, the page
// table, and the checksum of it all.
func readTrailer(fd int, at, size int64, of uint32) (*trailer, error) {
	head := tailFixed
	if of != plain {
		head += tailOrder
	}
	fixed := make([]byte, head)
	if n, err := vfs.ReadFullAt(fd, fixed, at); err != nil || n < head {
		return nil, readError(err)
	}
	t := &trailer{gone: int(order.Uint32(fixed[stateSize+4:])), goneSum: order.Uint32(fixed[stateSize+8:])}
	t.state.read(fixed)
	if of != plain {
		b := fixed[tailFixed:]
		t.order = &Order{n: int(order.Uint32(b)), sum: order.Uint32(b[4:]), seed: seed{order.Uint64(b[8:]), order.Uint64(b[16:])}}
	}
	pages := int64(order.Uint32(fixed[stateSize:]))
	t.size = int64(head) + pages*pageSize + 4
	if t.size > size-at {
		return nil, ErrDamaged
	}
	b := make([]byte, t.size)
	if n, err := vfs.ReadFullAt(fd, b, at); err != nil || int64(n) < t.size {
		return nil, readError(err)
	}
	if checksum(b[:t.size-4]) != order.Uint32(b[t.size-4:]) {
		return nil, ErrDamaged
	}
	t.pages = make([]pageEntry, pages)
	for i := range t.pages {
		e := b[head+i*pageSize:]
		t.pages[i] = pageEntry{int(order.Uint16(e)), int(order.Uint16(e[2:])), order.Uint32(e[4:]), order.Uint32(e[8:])}
	}
	return t, nil
}

// readChunk is how much is read at once: pages share one buffer of records no
// longer than that, so that pages that are dropped give memory back.
const readChunk = 4 << 20

// readPages reads the records of all pages, and notes where their names are.
func (t *trailer) readPages(r *os.File, at int64) ([]Page, error) {
	var records, names int64
	for _, e := range t.pages {
		if e.n == 0 || e.n > PageLen {
			return nil, ErrDamaged
		}
		records += int64(e.n)
		names += int64(e.names)
	}
	var placed uint64
	rest := at - (prefixSize + records*recordSize + names + int64(t.gone)*rangeSize)
	if t.order != nil && int64(t.order.n) == records {
		placed = Placed
		rest -= records * orderSize
	}
	if records > maxRecords || t.gone > maxGone || rest != 0 {
		return nil, ErrDamaged
	}
	pages := make([]Page, 0, len(t.pages))
	off, namesAt := int64(prefixSize), prefixSize+records*recordSize
	var last uint32
	for todo := t.pages; len(todo) > 0; {
		n, k := 0, 0 // records and pages of this chunk
		for k < len(todo) && (n+todo[k].n)*recordSize <= readChunk {
			n += todo[k].n
			k++
		}
		recs := vfs.Large[Record](n)
		b := octets(recs)
		if m, err := vfs.ReadFullAt(int(r.Fd()), b, off); err != nil || m < len(b) {
			return nil, readError(err)
		}
		off += int64(len(b))
		for _, e := range todo[:k] {
			if checksum(b[:e.n*recordSize]) != e.recSum || !e.decode(recs[:e.n], placed, &last) {
				return nil, ErrDamaged
			}
			pages = append(pages, Page{recs[:e.n:e.n], &Names{recs[:e.n:e.n], r, namesAt, e.names, e.namesSum}})
			recs, b, namesAt = recs[e.n:], b[e.n*recordSize:], namesAt+int64(e.names)
		}
		todo = todo[k:]
	}
	return pages, nil
}

// decode makes records of what was read into recs, each with the bit placed, and
// checks them. last is the UID before them.
func (e *pageEntry) decode(recs []Record, placed uint64, last *uint32) bool {
	for i := range recs {
		r := &recs[i]
		if !asWritten {
			r.read(slices.Clone(octets(recs[i : i+1])))
		}
		r.Mod = r.Mod&^(Ghost|Placed) | placed
		if r.UID <= *last || r.UID > maxUID || r.ModSeq() == 0 || r.ModSeq() > maxSane || int(r.NameOff)+int(r.NameLen) > e.names || r.BaseLen > r.NameLen {
			return false
		}
		*last = r.UID
	}
	return true
}

func (t *trailer) readGone(fd int, at int64) ([]Range, error) {
	size := int64(t.gone) * rangeSize
	b := make([]byte, size)
	if _, err := vfs.ReadFullAt(fd, b, at-size); err != nil {
		return nil, readError(err)
	}
	if checksum(b) != t.goneSum {
		return nil, ErrDamaged
	}
	gone := make([]Range, t.gone)
	for i := range gone {
		gone[i].read(b[i*rangeSize:])
		if !gone[i].sane() {
			return nil, ErrDamaged
		}
	}
	return gone, nil
}
