package body

import (
	"errors"
	"io"
)

// ErrUnknownCTE is returned where a part's Content-Transfer-Encoding is none that is known: RFC 3516 section 4.3, NO
// [UNKNOWN-CTE].
var ErrUnknownCTE = errors.New("unknown content transfer encoding")

// Binary returns BINARY of the part with r's message: its body with the transfer encoding undone. The octets may hold
// NULs (literal8). For the size of an encoded body it is read and decoded once, here. A part that is not a leaf is
// not encoded (RFC 2045 section 6.4). Broken base64 or quoted-printable gives what can be read.
func (p *Part) Binary(r io.ReaderAt) (Content, error) {
	c, err := p.BinarySized(r, 0)
	s, encoded := c.src.(*decodedSource)
	if !encoded {
		return c, err
	}
	err = s.run(Mark{}, func(_ Mark, b []byte) error {
		c.Size += int64(len(b))
		return nil
	})
	return c, err
}

// BinarySized is Binary where the Size is known already, from an earlier Content of the same part. Then nothing is read here.
func (p *Part) BinarySized(r io.ReaderAt, size int64) (Content, error) {
	cte := p.CTE
	if p.Kind != Leaf && cte != UnknownCTE {
		cte = Identity
	}
	switch cte {
	case UnknownCTE:
		return Content{}, ErrUnknownCTE
	case Identity:
		return Content{Size: p.Body.Size, Found: true, src: &fileSource{r: r, span: p.Body, keep: true}}, nil
	}
	return Content{Size: size, Found: true, src: &decodedSource{r: r, span: p.Body, cte: cte}}, nil
}

// A decodedSource is a body with its encoding undone.
type decodedSource struct {
	r    io.ReaderAt
	span Span
	cte  CTE
}

// run decodes from the mark on and hands what comes out to emit, with the mark of its beginning, in pieces that are good during the call only.
func (s *decodedSource) run(at Mark, emit func(Mark, []byte) error) error {
	in := windows.Get().(*[windowSize]byte)
	defer windows.Put(in)
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	d := at.decoder
	if d == nil {
		d = newDecoder(s.cte)
	}
	for at.off < s.span.End-s.span.Off {
		at.decoder = d.clone()
		off := s.span.Off + at.off
		n, err := s.r.ReadAt(in[:min(windowSize, s.span.End-off)], off)
		if n == 0 {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		out := d.decode((*pooled)[:0], in[:n])
		if err := emit(at, out); err != nil {
			return err
		}
		at.off += int64(n)
		at.sent += int64(len(out))
	}
	at.decoder = d.clone()
	return emit(at, d.finish((*pooled)[:0]))
}

func (s *decodedSource) stream(dst []byte, off, n int64, m *Mark, flush func([]byte) ([]byte, error)) ([]byte, error) {
	if m.sent > off || m.decoder == nil {
		*m = Mark{}
	}
	cut := cutter{dst: dst, base: len(dst), at: m.sent, off: off, end: off + n, flush: flush}
	from := *m
	if from.decoder != nil {
		from.decoder = from.decoder.clone()
	}
	err := s.run(from, func(at Mark, b []byte) error {
		*m = at
		return cut.add(b)
	})
	return cut.done(err)
}

// A cutter picks octets [off, end) of what is added, for sources that are made anew from their start.
type cutter struct {
	dst      []byte
	base     int // dst[base:] is not flushed yet
	at       int64
	off, end int64
	flush    func([]byte) ([]byte, error)
}

// errEnough ends a run when everything wanted has been added.
var errEnough = errors.New("enough")

func (c *cutter) add(b []byte) error {
	from, to := max(c.off-c.at, 0), min(c.end-c.at, int64(len(b)))
	c.at += int64(len(b))
	if from < to {
		c.dst = append(c.dst, b[from:to]...)
		if c.flush != nil && len(c.dst)-c.base >= writeSize {
			var err error
			if c.dst, err = c.flush(c.dst); err != nil {
				return err
			}
			c.base = len(c.dst)
		}
	}
	if c.at >= c.end {
		return errEnough
	}
	return nil
}

func (c *cutter) done(err error) ([]byte, error) {
	if err == errEnough {
		return c.dst, nil
	}
	if err == nil && c.at < c.end {
		err = io.ErrUnexpectedEOF
	}
	return c.dst, err
}
