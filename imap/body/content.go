package body

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
)

// A Content is something that FETCH sends: exactly Size octets, as a literal. The zero Content is empty. It reads
// from the message's file when it is written, so the file must stay open as long.
type Content struct {
	// Size is the number of octets.
	Size int64
	// Found is false if the message has no such part or section; Size is 0 then.
	Found bool
	// Mark may be set from that of an earlier Content of the same section, to spare WriteRange the search for an
	// offset; it is updated by WriteRange and AppendRange.
	Mark Mark

	src source
}

// A Mark remembers where in the file an octet of a Content is. A client that fetches a part in pieces costs
// no more than one that fetches it whole if the Mark is kept between its commands. The zero Mark is always valid.
type Mark struct {
	sent, off int64
	last      byte
	decoder   decoder // as it stood there, never changed; nil where nothing is decoded
}

// A source produces the octets of a Content: it appends octets [off, off+n) to dst, calling flush whenever dst
// is worth writing. flush returns the buffer to go on with.
type source interface {
	stream(dst []byte, off, n int64, m *Mark, flush func([]byte) ([]byte, error)) ([]byte, error)
}

// writeSize is what makes a buffer worth writing; a step adds at most two windows.
const writeSize = 64 << 10

var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, writeSize+2*windowSize)
	return &b
}}

// WriteRange writes octets [off, off+n), cut at Size, in pieces of 64 to 192 KB. It writes all of them or returns an
// error: io.ErrUnexpectedEOF if the file has become shorter since it was parsed. Then the literal cannot be completed
// and the connection is lost.
func (c *Content) WriteRange(w io.Writer, off, n int64) error {
	off, n = c.clip(off, n)
	if n == 0 {
		return nil
	}
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	flush := func(b []byte) ([]byte, error) {
		_, err := w.Write(b)
		return b[:0], err
	}
	b, err := c.src.stream((*pooled)[:0], off, n, &c.Mark, flush)
	if err != nil {
		return err
	}
	if len(b) > 0 {
		_, err = w.Write(b)
	}
	return err
}

// AppendRange appends octets [off, off+n), cut at Size, to dst: for what is small enough to go into the session's own
// buffer. On an error dst is returned as it was.
func (c *Content) AppendRange(dst []byte, off, n int64) ([]byte, error) {
	off, n = c.clip(off, n)
	if n == 0 {
		return dst, nil
	}
	b, err := c.src.stream(slices.Grow(dst, int(n)), off, n, &c.Mark, nil)
	if err != nil {
		return dst, err
	}
	return b, nil
}

// Bytes returns the whole content.
func (c *Content) Bytes() ([]byte, error) { return c.AppendRange(nil, 0, c.Size) }

// Clip returns the number of octets that a partial fetch <off.n> gets.
func (c *Content) Clip(off, n int64) int64 {
	_, n = c.clip(off, n)
	return n
}

func (c *Content) clip(off, n int64) (int64, int64) {
	if off < 0 || n <= 0 || off >= c.Size {
		return 0, 0
	}
	return off, min(n, c.Size-off)
}

// NewContent returns the CRLF view of a span of the message.
func NewContent(r io.ReaderAt, s Span) Content {
	return Content{Size: s.Size, Found: true, src: &fileSource{r: r, span: s}}
}

// Whole returns BODY[] of a message of which the size and the size of its CRLF view (VirtualSize) are known: it needs
// no parsing.
func Whole(r io.ReaderAt, size, virtual int64) Content {
	return NewContent(r, Span{End: size, Size: virtual})
}

// NewText returns a content that is in memory, and belongs to it from now on.
func NewText(b []byte) Content {
	return Content{Size: int64(len(b)), Found: true, src: textSource(b)}
}

type textSource []byte

func (s textSource) stream(dst []byte, off, n int64, _ *Mark, flush func([]byte) ([]byte, error)) ([]byte, error) {
	if flush == nil || n <= writeSize {
		return append(dst, s[off:off+n]...), nil
	}
	return flush(s[off : off+n])
}

// A fileSource is the CRLF view of a span.
type fileSource struct {
	r    io.ReaderAt
	span Span
	keep bool // NULs stay
}

func (s *fileSource) stream(dst []byte, off, n int64, m *Mark, flush func([]byte) ([]byte, error)) ([]byte, error) {
	in := windows.Get().(*[windowSize]byte)
	defer windows.Put(in)
	c := converter{Mark: *m, off: off, n: n}
	if s.span.Size == s.span.End-s.span.Off {
		// Every LF has its CR, or there is none.
		c.plain = true
		c.Mark = Mark{sent: off, off: off}
	} else if c.sent > off {
		c.Mark = Mark{}
	}
	base := len(dst)
	for c.n > 0 {
		k := min(windowSize, s.span.End-s.span.Off-c.Mark.off)
		if c.sent == c.off {
			k = min(k, c.n) // each octet of the file gives one at least
		}
		got, err := s.r.ReadAt(in[:k], s.span.Off+c.Mark.off)
		if int64(got) < k || k <= 0 {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return dst, fmt.Errorf("read message at %d: %w", s.span.Off+c.Mark.off, err)
		}
		b := in[:got]
		if !s.keep {
			noNULs(b)
		}
		if dst = c.convert(dst, b); flush != nil && len(dst)-base >= writeSize {
			if dst, err = flush(dst); err != nil {
				return dst, err
			}
			base = len(dst)
		}
	}
	*m = c.Mark
	return dst, nil
}

// noNULs replaces NUL, which no literal may hold, by 0x80.
func noNULs(b []byte) {
	for {
		i := bytes.IndexByte(b, 0)
		if i < 0 {
			return
		}
		for i < len(b) && b[i] == 0 { // they come in runs
			b[i] = 0x80
			i++
		}
		b = b[i:]
	}
}

// A converter makes the CRLF view. Its mark always lies between octets of the file.
type converter struct {
	Mark
	off, n int64 // what is still wanted, in octets of the view; off >= sent
	plain  bool  // the view is the file
}

// convert appends what is wanted of the view of b, the octets of the file from the mark on.
func (c *converter) convert(dst, b []byte) []byte {
	if c.sent < c.off {
		if dst, b = c.skip(dst, b); len(b) == 0 {
			return dst
		}
	}
	for len(b) > 0 && c.n > 0 {
		i := none
		if !c.plain {
			i = bytes.IndexByte(b, '\n')
		}
		text := b
		if i >= 0 {
			text = b[:i]
		}
		text = text[:min(int64(len(text)), c.n)]
		dst = append(dst, text...)
		c.took(text, int64(len(text)))
		if b = b[len(text):]; i < 0 || c.n == 0 {
			continue
		}
		switch {
		case c.last == '\r':
			dst = append(dst, '\n')
			c.took(b[:1], 1)
		case c.n == 1:
			// The mark stays before the LF, the CR of which has gone out.
			c.n = 0
			return append(dst, '\r')
		default:
			dst = append(dst, '\r', '\n')
			c.took(b[:1], 2)
		}
		b = b[1:]
	}
	return dst
}

// took moves the mark and what is wanted over file octets b that gave view octets.
func (c *converter) took(b []byte, view int64) {
	c.pass(b, view)
	c.off += view
	c.n -= view
}

// pass moves the mark over file octets b that are worth view octets.
func (c *converter) pass(b []byte, view int64) {
	if len(b) > 0 {
		c.last = b[len(b)-1]
		c.Mark.off += int64(len(b))
		c.sent += view
	}
}

// skip passes what lies before off and returns the rest of b. If off is between CR and LF of a line end that is
// LF in the file, it appends that LF.
func (c *converter) skip(dst, b []byte) ([]byte, []byte) {
	lf, pairs := countLines(b, c.last)
	if view := int64(len(b) + lf - pairs); c.sent+view <= c.off {
		c.pass(b, view)
		return dst, nil
	}
	for c.sent < c.off {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			i = len(b)
		}
		i = int(min(int64(i), c.off-c.sent))
		c.pass(b[:i], int64(i))
		if b = b[i:]; c.sent == c.off {
			break
		}
		view := int64(2)
		if c.last == '\r' {
			view = 1
		}
		if c.sent+view > c.off {
			c.pass(b[:1], 2)
			c.off++
			c.n--
			return append(dst, '\n'), b[1:]
		}
		c.pass(b[:1], view)
		b = b[1:]
	}
	return dst, b
}

// VirtualSize returns the octets of the CRLF view of a message: RFC822.SIZE.
func VirtualSize(r io.ReaderAt, size int64) (int64, error) {
	in := windows.Get().(*[windowSize]byte)
	defer windows.Put(in)
	last := byte('\n')
	virtual := int64(0)
	for off := int64(0); off < size; {
		n, err := r.ReadAt(in[:min(windowSize, size-off)], off)
		if n > 0 {
			lf, pairs := countLines(in[:n], last)
			virtual += int64(n + lf - pairs)
			last = in[n-1]
			off += int64(n)
		}
		if off < size && (err != nil || n == 0) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, fmt.Errorf("size of message: %w", err)
		}
	}
	return virtual, nil
}
