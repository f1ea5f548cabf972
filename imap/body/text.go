package body

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// Scope says which text of a message is searched.
type Scope uint8

const (
	ScopeText Scope = iota // SEARCH TEXT: the headers of all parts, and the text parts
	ScopeBody              // SEARCH BODY: the text parts
)

// A Text is one continuous text of a message, in UTF-8: a header, or a text part.
type Text struct {
	Part     *Part
	IsHeader bool
	source   pieces
	rest     []byte // of the piece that Read is in
}

// pieces gives a text piece by piece; each is good until the next call. After the last the error is io.EOF.
type pieces interface {
	next() ([]byte, error)
}

// Read implements io.Reader.
func (t *Text) Read(b []byte) (int, error) {
	for len(t.rest) == 0 {
		var err error
		if t.rest, err = t.source.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// Texts calls visit for each text of the message with root p, in the order of the message, until it returns false.
// The texts read from r only what is asked of them and must not be used after visit has returned. A header is given
// field by field, as `Name: value` and a line end, decoded as by DecodeHeader; a text part without its transfer
// encoding and converted from its charset. Parts that are not text/* or message/*, and those in an unknown transfer
// encoding, give no text.
func (p *Part) Texts(r io.ReaderAt, scope Scope, visit func(*Text) bool) {
	// The tree may be as deep as Limits.Depth says.
	stack := []*Part{p}
	for len(stack) > 0 {
		part := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for i := len(part.Parts) - 1; i >= 0; i-- {
			stack = append(stack, part.Parts[i])
		}
		if scope == ScopeText && part.Header.End > part.Header.Off {
			h := newHeaderPieces(r, part.Header)
			more := visit(&Text{Part: part, IsHeader: true, source: h})
			h.s.release()
			if !more {
				return
			}
		}
		if part.searchable() {
			b := bodies.Get().(*bodyPieces)
			b.start(r, part)
			more := visit(&Text{Part: part, source: b})
			b.r = nil
			bodies.Put(b)
			if !more {
				return
			}
		}
	}
}

func (p *Part) searchable() bool {
	return p.Kind == Leaf && p.CTE != UnknownCTE && p.Body.End > p.Body.Off &&
		(strings.EqualFold(p.Type, "text") || strings.EqualFold(p.Type, "message"))
}

// Search looks for the keys of m in the message with root p; m.Found tells which of them occur. It reads the message at
// most once, and no further than it must.
func (p *Part) Search(r io.ReaderAt, m *Matcher) (err error) {
	m.reset()
	p.Texts(r, m.scope, func(t *Text) bool {
		m.begin(t.IsHeader)
		for m.left > 0 && err == nil {
			var b []byte
			b, err = t.source.next()
			m.feed(b)
		}
		m.look()
		if err == io.EOF {
			err = nil
		}
		return m.left > 0 && err == nil
	})
	return err
}

// bodyPieces reads the body of a text part as UTF-8.
type bodyPieces struct {
	r        io.ReaderAt
	off, end int64
	dec      decoder // nil: not encoded
	conv     *conversion
	raw      [32 << 10]byte
	decoded  []byte
	out      []byte
}

var bodies = sync.Pool{New: func() any { return new(bodyPieces) }}

func (t *bodyPieces) start(r io.ReaderAt, p *Part) {
	charset, _ := p.Param("charset")
	t.r, t.off, t.end = r, p.Body.Off, p.Body.End
	t.dec, t.conv = newDecoder(p.CTE), newConversion(charset)
}

func (t *bodyPieces) next() ([]byte, error) {
	if t.off >= t.end {
		return nil, io.EOF
	}
	src := t.raw[:min(int64(len(t.raw)), t.end-t.off)]
	n, err := t.r.ReadAt(src, t.off)
	if n < len(src) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	t.off += int64(n)
	last := t.off >= t.end
	if t.dec != nil {
		t.decoded = t.dec.decode(t.decoded[:0], src)
		if last {
			t.decoded = t.dec.finish(t.decoded)
		}
		src = t.decoded
	}
	t.out = t.conv.convert(t.out[:0], src)
	if last {
		t.out = t.conv.finish(t.out)
	}
	return t.out, nil
}

// headerPieces reads a header field by field, decoded.
type headerPieces struct {
	s    scanner
	raw  []byte // the field being collected
	out  []byte
	done bool
	mid  bool // in a line longer than the window
}

func newHeaderPieces(r io.ReaderAt, header Span) *headerPieces {
	h := new(headerPieces)
	h.s.start(r, header.Off, header.End, 4<<10)
	return h
}

// next returns a field. One of more than 64 KB is decoded in pieces.
func (h *headerPieces) next() ([]byte, error) {
	h.out = h.out[:0]
	for !h.done && len(h.out) == 0 {
		line, whole := h.s.line()
		text, _ := chomp(line, whole)
		if line == nil || whole && !h.mid && len(text) == 0 {
			h.flush()
			h.done = true
			break
		}
		if !h.mid && !isLWSP(text) || len(h.raw) > windowSize {
			h.flush()
		}
		h.raw = append(h.raw, text...)
		if h.mid = !whole; whole {
			h.raw = append(h.raw, '\n')
		}
	}
	if len(h.out) > 0 {
		return h.out, nil
	}
	if h.s.err != nil {
		return nil, h.s.err
	}
	return nil, io.EOF
}

// flush decodes what has been collected.
func (h *headerPieces) flush() {
	if len(h.raw) == 0 {
		return
	}
	h.out = append(h.out, DecodeHeader(bytes.TrimSuffix(h.raw, newline))...)
	h.out = append(h.out, '\n')
	h.raw = h.raw[:0]
}
