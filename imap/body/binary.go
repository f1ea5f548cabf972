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
	s := &decodedSource{r: r, span: p.Body, cte: cte}
	c := Content{Found: true, src: s}
	err := s.run(func(b []byte) error {
		c.Size += int64(len(b))
		return nil
	})
	return c, err
}

// A decodedSource is a body with its encoding undone.
type decodedSource struct {
	r    io.ReaderAt
	span Span
	cte  CTE
}

// run hands the decoded octets to emit in pieces, which are good during the call only.
func (s *decodedSource) run(emit func([]byte) error) error {
	in := windows.Get().(*[windowSize]byte)
	defer windows.Put(in)
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	d := newDecoder(s.cte)
	for off := s.span.Off; off < s.span.End; {
		n, err := s.r.ReadAt(in[:min(windowSize, s.span.End-off)], off)
		if n == 0 {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		off += int64(n)
		if err := emit(d.decode((*pooled)[:0], in[:n])); err != nil {
			return err
		}
	}
	return emit(d.finish((*pooled)[:0]))
}

func (s *decodedSource) stream(dst []byte, off, n int64, _ *Mark, flush func([]byte) ([]byte, error)) ([]byte, error) {
	cut := cutter{dst: dst, base: len(dst), off: off, end: off + n, flush: flush}
	err := s.run(cut.add)
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
