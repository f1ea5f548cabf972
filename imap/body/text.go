package body

import (
	"bytes"
	"io"
	"strings"
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
	io.Reader
}

// Texts calls visit for each text of the message with root p, in the order of the message, until it returns false. The readers read from r only what is asked of them and must not be used after visit has returned.
// A header is given field by field, as `Name: value` and a line end, decoded as by DecodeHeader; a text part without its transfer encoding and converted from
// its charset. Parts that are not text/* or message/*, and those in an unknown transfer encoding, give no text.
func (p *Part) Texts(r io.ReaderAt, scope Scope, visit func(Text) bool) {
	// The tree may be as deep as Limits.Depth says.
	stack := []*Part{p}
	for len(stack) > 0 {
		part := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for i := len(part.Parts) - 1; i >= 0; i-- {
			stack = append(stack, part.Parts[i])
		}
		if scope == ScopeText && part.Header.End > part.Header.Off {
			h := newHeaderReader(r, part.Header)
			more := visit(Text{part, true, h})
			h.s.release()
			if !more {
				return
			}
		}
		if part.searchable() && !visit(Text{part, false, newTextReader(r, part)}) {
			return
		}
	}
}

func (p *Part) searchable() bool {
	return p.Kind == Leaf && p.CTE != UnknownCTE && p.Body.End > p.Body.Off &&
		(strings.EqualFold(p.Type, "text") || strings.EqualFold(p.Type, "message"))
}

// Search tells which of the keys occur in the message with root p: found[i] for keys[i]. It reads the message at most once.
func (p *Part) Search(r io.ReaderAt, scope Scope, keys []*Matcher) (found []bool, err error) {
	found = make([]bool, len(keys))
	left := 0
	for i, m := range keys {
		if m.Reset(); m.Found() {
			found[i] = true
		} else {
			left++
		}
	}
	in := windows.Get().(*[windowSize]byte)
	defer windows.Put(in)
	p.Texts(r, scope, func(t Text) bool {
		for i, m := range keys {
			if !found[i] {
				m.Reset()
			}
		}
		for left > 0 && err == nil {
			var n int
			n, err = t.Read(in[:])
			for i, m := range keys {
				if found[i] {
					continue
				}
				if m.feed(in[:n]); m.Found() {
					found[i] = true
					left--
				}
			}
		}
		if err == io.EOF {
			err = nil
		}
		return left > 0 && err == nil
	})
	return found, err
}

// A textReader reads the body of a text part as UTF-8.
type textReader struct {
	r        io.ReaderAt
	off, end int64
	dec      decoder // nil: not encoded
	conv     *conversion
	raw      []byte
	decoded  []byte
	out      []byte // UTF-8 not yet read: out[pos:]
	pos      int
	err      error
}

func newTextReader(r io.ReaderAt, p *Part) *textReader {
	charset, _ := p.Param("charset")
	return &textReader{r: r, off: p.Body.Off, end: p.Body.End, dec: newDecoder(p.CTE), conv: newConversion(charset)}
}

func (t *textReader) Read(b []byte) (int, error) {
	for t.pos == len(t.out) {
		if t.err != nil {
			return 0, t.err
		}
		t.fill()
	}
	n := copy(b, t.out[t.pos:])
	t.pos += n
	return n, nil
}

// fill makes out from the next piece of the file.
func (t *textReader) fill() {
	if t.raw == nil {
		t.raw = make([]byte, min(32<<10, t.end-t.off))
	}
	t.out, t.pos = t.out[:0], 0
	src := t.raw[:min(int64(len(t.raw)), t.end-t.off)]
	n, err := t.r.ReadAt(src, t.off)
	t.off += int64(n)
	src = src[:n]
	last := t.off >= t.end
	if last {
		t.err = io.EOF
	} else if n == 0 || err != nil {
		if t.err = err; err == nil || err == io.EOF {
			t.err = io.ErrUnexpectedEOF
		}
		last = true
	}
	if t.dec != nil {
		t.decoded = t.dec.decode(t.decoded[:0], src)
		if last {
			t.decoded = t.dec.finish(t.decoded)
		}
		src = t.decoded
	}
	t.out = t.conv.convert(t.out, src)
	if last {
		t.out = t.conv.finish(t.out)
	}
}

// A headerReader reads a header field by field, decoded.
type headerReader struct {
	s   scanner
	raw []byte // the field being read
	out []byte
	pos int
	eof bool
	mid bool // in a line longer than the window
}

func newHeaderReader(r io.ReaderAt, header Span) *headerReader {
	h := new(headerReader)
	h.s.start(r, header.Off, header.End, 4<<10)
	return h
}

func (h *headerReader) Read(b []byte) (int, error) {
	for h.pos == len(h.out) {
		if h.eof {
			if h.s.err != nil {
				return 0, h.s.err
			}
			return 0, io.EOF
		}
		h.out, h.pos = h.out[:0], 0
		h.fill()
	}
	n := copy(b, h.out[h.pos:])
	h.pos += n
	return n, nil
}

// fill collects the lines of one field. One of more than 64 KB is decoded in pieces.
func (h *headerReader) fill() {
	for {
		line, whole := h.s.line()
		text, _ := chomp(line, whole)
		if line == nil || whole && !h.mid && len(text) == 0 {
			h.flush()
			h.eof = true
			return
		}
		if !h.mid && !isLWSP(text) || len(h.raw) > windowSize {
			h.flush()
		}
		h.raw = append(h.raw, text...)
		if h.mid = !whole; whole {
			h.raw = append(h.raw, '\n')
		}
		if len(h.out) > 0 {
			return
		}
	}
}

// flush decodes what has been collected.
func (h *headerReader) flush() {
	if len(h.raw) == 0 {
		return
	}
	h.out = append(h.out, DecodeHeader(bytes.TrimSuffix(h.raw, newline))...)
	h.out = append(h.out, '\n')
	h.raw = h.raw[:0]
}
