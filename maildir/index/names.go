package index

import (
	"bytes"
	"io"
	"os"

	"imapd/maildir/vfs"
)

// Names are the file names of a page, which are read when they are needed. They
// are safe for use by several goroutines.
type Names struct {
	recs []Record // of the page, for where names begin and end
	fd   *os.File
	off  int64
	size int
	sum  uint32
}

// Of says which records the names are of, as they were written.
func (n *Names) Of(recs []Record) *Names {
	n.recs = recs
	return n
}

// Len returns the octets that the names have together.
func (n *Names) Len() int { return n.size }

// Read returns the names, each of which can be one of a file in the folder. The
// error is ErrDamaged, or that of the read.
func (n *Names) Read() ([]byte, error) {
	b := make([]byte, n.size)
	if _, err := vfs.ReadFullAt(int(n.fd.Fd()), b, n.off); err != nil {
		if err == io.EOF {
			err = ErrDamaged
		}
		return nil, err
	}
	return n.check(b)
}

// check returns b if it is what was written. Files are renamed and removed under
// these names: a forged index must not lead to others.
func (n *Names) check(b []byte) ([]byte, error) {
	if checksum(b) != n.sum {
		return nil, ErrDamaged
	}
	for _, c := range []byte{'/', 0, '\n', '\r'} {
		if bytes.IndexByte(b, c) >= 0 {
			return nil, ErrDamaged
		}
	}
	for i := range n.recs {
		r := &n.recs[i]
		if !baseEnds(b[r.NameOff:int(r.NameOff)+int(r.NameLen)], int(r.BaseLen)) {
			return nil, ErrDamaged
		}
	}
	return b, nil
}

// validName reports whether name is a file name of a message whose first base
// octets are the base name.
func validName(name []byte, base int) bool {
	return baseEnds(name, base) && bytes.IndexByte(name, '/') < 0 && bytes.IndexByte(name, 0) < 0 &&
		bytes.IndexByte(name, '\n') < 0 && bytes.IndexByte(name, '\r') < 0
}

func baseEnds(name []byte, base int) bool {
	colon := bytes.IndexByte(name, ':')
	if colon < 0 {
		colon = len(name)
	}
	return base > 0 && base == colon && name[0] != '.'
}

// A Reader reads the names of many pages, one page after the other: in pieces of
// the file, and into the same memory. The zero value is good.
type Reader struct {
	buf []byte
	fd  *os.File // that buf is of
	off int64    // in it
}

// readAhead is how much a Reader reads at once: more than a page has.
const readAhead = 64 << 10

// Read returns what n.Read does, until the next call.
func (r *Reader) Read(n *Names) ([]byte, error) {
	if n.fd != r.fd || n.off < r.off || n.off+int64(n.size) > r.off+int64(len(r.buf)) {
		if r.buf == nil {
			r.buf = make([]byte, readAhead)
			vfs.Prefault(r.buf)
		}
		r.buf = r.buf[:readAhead]
		k, err := vfs.ReadFullAt(int(n.fd.Fd()), r.buf, n.off)
		if err != nil && err != io.EOF {
			r.fd = nil
			return nil, err
		}
		r.buf, r.fd, r.off = r.buf[:k], n.fd, n.off
		if k < n.size {
			return nil, ErrDamaged
		}
	}
	at := int(n.off - r.off)
	return n.check(r.buf[at : at+n.size])
}
