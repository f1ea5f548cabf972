package uidlist

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// A list is what a user can put in its place: as large as maxSize, and of that what he
// likes, for nothing if it is a hole. So no more of it is in memory than a buffer; a line
// that this does not hold is no entry, and the rest of it is passed over, a hole at once.
// UIDs may have been told that only a line behind all that has, so that the file is read
// to its end, but of what is behind maxLines only the UIDs that end each piece count.
const streamBuffer = 256 << 10

// Each reads the whole file as Read does, but keeps nothing of it: yield gets the
// entries, in the order of the file. Their strings are valid during the call only.
// Of two entries with one base name both are yielded: the last counts. So
// Damage.Renumber may hold names that have been yielded as well.
func (f *File) Each(yield func(Entry)) (List, Stat, error) {
	st, err := f.readable()
	if err != nil {
		return List{}, st, err
	}
	s := f.stream(0, st, streamBuffer)
	s.each = yield
	l, err := s.list()
	if err != nil && err != ErrHeader {
		return List{}, st, &os.PathError{Op: "read", Path: f.path, Err: err}
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", f.path, err)
	}
	return l, st, err
}

// ReadTail reads the lines that were appended behind size octets of a list of version
// 3, which were read before, and yields their entries as Each does. Lines with a UID up
// to after are skipped. A base name that the list has already belongs to the new UID
// from now on. A file that has shrunk is not the one that was read: it fails with
// ErrTorn.
func (f *File) ReadTail(size int64, after uint32, yield func(Entry)) (Tail, Stat, error) {
	st, err := f.readable()
	if err != nil {
		return Tail{}, st, err
	}
	if st.Size < size {
		return Tail{}, st, fmt.Errorf("%s: %w", f.path, ErrTorn)
	}
	s := f.stream(size, st, streamBuffer)
	s.each = yield
	t, err := s.tail(after)
	if err != nil {
		return Tail{}, st, &os.PathError{Op: "read", Path: f.path, Err: err}
	}
	return t, st, nil
}

// About returns about how many lines the file has, rather more than less where it is
// long: those at its end have the longest UIDs. It is 0 if that cannot be read.
func (f *File) About() int {
	st, err := f.readable()
	if err != nil || st.Size == 0 {
		return 0
	}
	var end [4096]byte
	n := min(int64(len(end)), st.Size)
	k, err := vfs.ReadFullAt(f.fd, end[:n], st.Size-n)
	if err != nil {
		return 0
	}
	lines := int64(1 + bytes.Count(end[:k], []byte("\n")))
	return int((st.Size + st.Size/16) / max(1, n/lines))
}

// readable returns the state of a file that is not too large to be read.
func (f *File) readable() (Stat, error) {
	st, err := f.Stat()
	if err == nil && st.Size > maxSize {
		err = &os.PathError{Op: "read", Path: f.path, Err: unix.EFBIG}
	}
	return st, err
}

// A stream is a file that is read piece by piece.
type stream struct {
	parser
	f    *File
	buf  []byte
	have int   // octets in buf, from the beginning of a line on
	off  int64 // in the file of what follows them
	end  int64 // of what is read of the file
	long int64 // octets that were left out of a line longer than buf; 0: in no such line
}

// stream returns the file from off on, as it was when st was taken. buffer is how much
// of it is in memory.
func (f *File) stream(off int64, st Stat, buffer int64) stream {
	s := stream{f: f, off: off, end: st.Size, buf: make([]byte, min(buffer, st.Size-off))}
	vfs.Prefault(s.buf)
	return s
}

// list reads the header and then all lines.
func (s *stream) list() (List, error) {
	var l List
	if err := s.fill(); err != nil {
		return l, err
	}
	first, rest, ok := cutLine(s.buf[:s.have])
	if !ok {
		l.Damage.Torn = int(s.end)
		return l, ErrHeader
	}
	err := l.parseHeader(string(first))
	s.v1, s.opaque, s.next = l.Version == 1, l.Version == 2, max(l.Next, 1)
	l.Size = int64(s.have - len(rest))
	s.have = copy(s.buf, rest)
	if rerr := s.pieces(); rerr != nil {
		return l, rerr
	}
	if last := s.ending(); s.long == 0 {
		l.Damage.Cut = s.cut(last)
	}
	l.Lines, l.Next = s.count, s.next
	l.Size += s.size
	l.Damage.Torn, l.Damage.Bad, l.Damage.Renumber, l.Damage.More = int(s.end-l.Size), s.damage.Bad, s.damage.Renumber, s.damage.More
	return l, err
}

// tail reads all lines of what was appended.
func (s *stream) tail(after uint32) (Tail, error) {
	after = min(after, MaxUID)
	s.skip, s.last, s.next = after, after, after+1
	from := s.off
	if err := s.pieces(); err != nil {
		return Tail{}, err
	}
	s.ending()
	s.damage.Torn = int(s.end - from - s.size)
	return Tail{Size: s.size, Lines: s.count, Next: s.next, Damage: s.damage}, nil
}

// ending returns the beginning of the line without end, whose UID is burnt.
func (s *stream) ending() string {
	last := string(s.buf[:min(s.have, 2048)])
	if s.long == 0 {
		s.mention(leadingUID(last[:min(16, len(last))]))
	}
	return last
}

// fill reads on until buf is full or the file ends.
func (s *stream) fill() error {
	n := min(int64(len(s.buf)-s.have), s.end-s.off)
	k, err := vfs.ReadFullAt(s.f.fd, s.buf[s.have:s.have+int(n)], s.off)
	s.have, s.off = s.have+k, s.off+int64(k)
	if err == io.EOF { // it has been cut meanwhile
		s.end, err = s.off, nil
	}
	return err
}

// pieces reads all lines that have an end.
func (s *stream) pieces() error {
	for {
		if err := s.fill(); err != nil {
			return err
		}
		if i := bytes.IndexByte(s.buf[:s.have], '\n'); s.long > 0 && i >= 0 {
			s.count++
			s.damage.Bad++
			s.size += s.long + int64(i+1)
			s.long = 0
			s.have = copy(s.buf, s.buf[i+1:s.have])
			continue
		}
		if n := bytes.LastIndexByte(s.buf[:s.have], '\n') + 1; n > 0 {
			s.whole(s.buf[:n])
			s.size += int64(n)
			s.have = copy(s.buf, s.buf[n:s.have])
		} else if s.have == len(s.buf) && s.off < s.end {
			if s.long == 0 {
				s.mention(leadingUID(string(s.buf[:16])))
			}
			s.long += int64(s.have)
			s.have = 0
			s.overHole()
		}
		if s.off >= s.end {
			return nil
		}
	}
}

// whole reads lines of which each has its end.
func (s *stream) whole(text []byte) {
	if s.count < maxLines {
		// The text is not changed before the last use of its strings.
		s.text(unsafe.String(&text[0], len(text)))
		return
	}
	n := bytes.Count(text, []byte("\n"))
	s.count += n
	s.damage.Bad += n
	last := text[bytes.LastIndexByte(text[:len(text)-1], '\n')+1:]
	s.mention(leadingUID(string(last[:min(16, len(last))])))
}

// overHole passes over a hole of the file that begins where the next piece does. It has
// no LF. A file system that knows of none says that there is none.
func (s *stream) overHole() {
	data, err := unix.Seek(s.f.fd, s.off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		data, err = s.end, nil
	}
	if skip := min(data, s.end) - s.off; err == nil && skip > 0 {
		s.long += skip
		s.off += skip
	}
}
