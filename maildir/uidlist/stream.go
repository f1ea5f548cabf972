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

// streamBuffer is how much of a list is in memory at a time. A line that it does
// not hold is no entry.
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
	s := stream{f: f, end: st.Size, buf: make([]byte, min(streamBuffer, st.Size))}
	vfs.Prefault(s.buf)
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
	last := string(s.buf[:min(s.have, 2048)])
	if s.long == 0 {
		s.mention(leadingUID(last[:min(16, len(last))]))
		l.Damage.Cut = s.cut(last)
	}
	l.Lines, l.Next = s.count, s.next
	l.Size += s.size
	l.Damage.Torn, l.Damage.Bad, l.Damage.Renumber, l.Damage.More = int(s.end-l.Size), s.damage.Bad, s.damage.Renumber, s.damage.More
	return l, err
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
			// The text is not changed before the last use of its strings.
			s.text(unsafe.String(&s.buf[0], n))
			s.size += int64(n)
			s.have = copy(s.buf, s.buf[n:s.have])
		} else if s.have == len(s.buf) && s.off < s.end {
			if s.long == 0 {
				s.mention(leadingUID(string(s.buf[:16])))
			}
			s.long += int64(s.have)
			s.have = 0
		}
		if s.off >= s.end {
			return nil
		}
	}
}
