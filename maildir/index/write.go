package index

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// A Source is what Replace writes: the pages of a snapshot, in order.
type Source interface {
	// Pages calls yield for each page, with the octets of its names and a
	// function that returns them, until yield fails. It is called more than
	// once and must do the same each time, but for Facts.
	Pages(yield func(recs []Record, size int, names func() ([]byte, error)) error) error
	// Order returns UIDs in the order in which the directories have the files, as
	// far as it is known. It is called once.
	Order() []uint32
	// Written is called for each page once the index is in its place, with where
	// its names are now: Of makes Names of it.
	Written(page int, names *Names)
}

// Replace writes the whole index anew, durably, and goes on with it. The lock is
// held. Records without a name are left out by the Source.
func (f *File) Replace(folder Folder, state *State, gone []Range, src Source) error {
	d, err := f.draft(folder, state, gone, src)
	if err != nil {
		return err
	}
	d.Write()
	return f.Install(d)
}

// A Draft is an index that is to take the place of the one that was loaded, with what
// that has. To write it takes long where there are many messages, and does not need the
// lock: what is appended meanwhile is appended to it as well.
type Draft struct {
	folder Folder
	state  State
	gone   []Range
	src    Source

	out   vfs.File
	ident ident
	of    *[prefixSize]byte // File.head of what it was made of; nil: it does not matter what is in its place
	from  int64             // the end of that
	base  int64
	table []pageEntry
	err   error
}

// Draft begins one of what Load and Tail have returned. The lock is held, and may be
// given back for Write. The error is ErrLocked if another process is writing one.
func (f *File) Draft(folder Folder, state *State, gone []Range, src Source) (*Draft, error) {
	if other, err := f.Dir.Update(tmpName); err == nil {
		free, err := other.TryLock()
		other.Close()
		if err == nil && !free {
			return nil, fmt.Errorf("%s: %w", f.Dir.Path(), ErrLocked)
		}
	}
	d, err := f.draft(folder, state, gone, src)
	if err != nil {
		return nil, err
	}
	of := f.head
	d.of, d.from = &of, f.end
	if _, err := d.out.TryLock(); err != nil {
		f.Discard(d)
		return nil, err
	}
	return d, nil
}

func (f *File) draft(folder Folder, state *State, gone []Range, src Source) (*Draft, error) {
	if err := f.Dir.Unlink(tmpName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out, err := vfs.CreateLike(f.Dir, tmpName)
	if err != nil {
		return nil, err
	}
	d := &Draft{folder: folder, state: *state, gone: gone, src: src, out: out}
	var st unix.Stat_t
	if err := unix.Fstat(out.Fd(), &st); err != nil {
		out.Close()
		return nil, os.NewSyscallError("fstat", err)
	}
	d.ident = identOf(&st)
	return d, nil
}

// Write writes the draft, durably. Install says how it went.
func (d *Draft) Write() {
	w := writer{out: d.out}
	if d.base, d.table, d.err = w.index(d.folder, &d.state, d.gone, d.src); d.err == nil {
		d.err = d.out.Datasync()
	}
}

// Install puts d in its place, and goes on with it. The lock is held, and Tail has
// returned all there was. The error is ErrReplaced if another process has written the
// index anew meanwhile.
func (f *File) Install(d *Draft) error {
	end, err := f.carry(d)
	if err != nil {
		f.Discard(d)
		return err
	}
	if err := d.out.Close(); err != nil {
		f.Dir.Unlink(tmpName)
		return err
	}
	if err := f.install(d.base, end); err != nil {
		return err
	}
	at := int64(prefixSize)
	for _, e := range d.table {
		at += int64(e.n) * recordSize
	}
	for i, e := range d.table {
		d.src.Written(i, &Names{fd: f.fd, off: at, size: e.names, sum: e.namesSum})
		at += int64(e.names)
	}
	return nil
}

// carry appends to d what was appended to the index that it was made of, and returns
// where it ends.
func (f *File) carry(d *Draft) (end int64, err error) {
	if d.err != nil || d.of == nil {
		return d.base, d.err
	}
	if *d.of != f.head || d.from > f.end || !f.isThere(d) {
		return 0, ErrReplaced
	}
	b := make([]byte, f.end-d.from)
	if len(b) == 0 {
		return d.base, nil
	}
	if _, err := vfs.ReadFullAt(int(f.fd.Fd()), b, d.from); err != nil {
		return 0, &fs.PathError{Op: "read", Path: f.path(), Err: err}
	}
	if _, err := d.out.Write(b); err != nil {
		return 0, err
	}
	return d.base + int64(len(b)), d.out.Datasync()
}

// isThere reports whether d has still its name: who must write the index anew at once
// takes that away.
func (f *File) isThere(d *Draft) bool {
	var st unix.Stat_t
	return unix.Fstatat(f.Dir.Fd(), tmpName, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && identOf(&st) == d.ident
}

// Discard gives d up. Without the lock its file is left to the next Draft.
func (f *File) Discard(d *Draft) {
	if f.lock != nil && f.isThere(d) {
		f.Dir.Unlink(tmpName)
	}
	d.out.Close()
}

// install puts the new file in the place of the old one. It is opened before: it
// may be gone a moment later.
func (f *File) install(base, end int64) error {
	fd, st, err := vfs.OpenRegular(f.Dir, tmpName)
	if err != nil {
		f.Dir.Unlink(tmpName)
		return err
	}
	r := os.NewFile(uintptr(fd), f.path())
	if err := f.Dir.Rename(tmpName, f.Dir, Name); err != nil {
		r.Close()
		f.Dir.Unlink(tmpName)
		return err
	}
	f.base, f.end = base, end
	if err := f.use(r, st); err != nil {
		return err
	}
	if err := f.Dir.Sync(); err != nil {
		return err
	}
	f.date() // the rename was a change
	return nil
}

// writer buffers, and counts what it writes.
type writer struct {
	out vfs.File
	buf []byte
	n   int64
	err error
}

const writeBuffer = 256 << 10

func (w *writer) put(b []byte) {
	w.n += int64(len(b))
	if len(b) >= writeBuffer { // it is not worth a copy
		w.flush()
		w.write(b)
		return
	}
	w.buf = append(w.buf, b...)
	if len(w.buf) >= writeBuffer {
		w.flush()
	}
}

func (w *writer) flush() {
	w.write(w.buf)
	w.buf = w.buf[:0]
}

func (w *writer) write(b []byte) {
	if w.err == nil && len(b) > 0 {
		_, w.err = w.out.Write(b)
	}
}

// index writes the file and returns its length, and what its pages have.
func (w *writer) index(folder Folder, state *State, gone []Range, src Source) (int64, []pageEntry, error) {
	table, at, err := plan(src)
	if err != nil {
		return 0, nil, err
	}
	n := 0
	for _, e := range table {
		n += e.n
	}
	at += int64(n)*orderSize + int64(len(gone))*rangeSize
	var st unix.Stat_t
	if err := unix.Fstat(w.out.Fd(), &st); err != nil {
		return 0, nil, err
	}
	w.put(prefix(folder, at, st.Ino))
	b, i := []byte(nil), 0
	uids := make([]uint32, 0, n)
	err = src.Pages(func(recs []Record, _ int, _ func() ([]byte, error)) error {
		b = b[:0]
		for k := range recs {
			b = recs[k].append(b)
			uids = append(uids, recs[k].UID)
		}
		table[i].recSum = checksum(b)
		i++
		w.put(b)
		return w.err
	})
	if err != nil {
		return 0, nil, err
	}
	places := newOrder(uids, src.Order())
	defer places.free()
	i = 0
	err = src.Pages(func(recs []Record, _ int, names func() ([]byte, error)) error {
		b, err := names()
		if err != nil {
			return err
		}
		places.take(recs, b)
		table[i].namesSum = checksum(b)
		i++
		w.put(b)
		return w.err
	})
	if err != nil {
		return 0, nil, err
	}
	w.put(places.data)
	b = b[:0]
	for i := range gone {
		b = gone[i].append(b)
	}
	w.put(b)
	w.put(encodeTrailer(state, table, len(gone), checksum(b), &Order{n: n, sum: checksum(places.data), seed: places.seed}))
	w.flush()
	return w.n, table, w.err
}

// plan counts the pages, and returns where the names end.
func plan(src Source) (table []pageEntry, at int64, err error) {
	at = prefixSize
	err = src.Pages(func(recs []Record, size int, _ func() ([]byte, error)) error {
		table = append(table, pageEntry{n: len(recs), names: size})
		at += int64(len(recs))*recordSize + int64(size)
		return nil
	})
	return table, at, err
}

func prefix(f Folder, trailer int64, self uint64) []byte {
	b := make([]byte, 0, prefixSize)
	b = append(b, magic...)
	b = order.AppendUint32(b, version)
	b = order.AppendUint32(b, f.Validity)
	var guid [guidSize]byte
	copy(guid[:], f.GUID)
	b = append(b, guid[:]...)
	b = order.AppendUint64(b, f.Ino)
	b = order.AppendUint64(b, uint64(trailer))
	b = order.AppendUint64(b, self)
	b = order.AppendUint64(b, f.Line)
	b = order.AppendUint32(b, checksum(b))
	return order.AppendUint32(b, rand.Uint32()) // no two files begin alike
}

func encodeTrailer(s *State, table []pageEntry, gone int, goneSum uint32, o *Order) []byte {
	b := make([]byte, 0, tailFixed+tailOrder+len(table)*pageSize+4)
	b = s.append(b)
	b = order.AppendUint32(b, uint32(len(table)))
	b = order.AppendUint32(b, uint32(gone))
	b = order.AppendUint32(b, goneSum)
	b = order.AppendUint32(b, uint32(o.n))
	b = order.AppendUint32(b, o.sum)
	b = order.AppendUint64(order.AppendUint64(b, o.seed[0]), o.seed[1])
	for _, e := range table {
		b = order.AppendUint16(b, uint16(e.n))
		b = order.AppendUint16(b, uint16(e.names))
		b = order.AppendUint32(b, e.recSum)
		b = order.AppendUint32(b, e.namesSum)
	}
	return order.AppendUint32(b, checksum(b))
}
