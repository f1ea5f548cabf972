package body

import (
	"io"
	"slices"
)

// SectionKind is the word of a section specifier.
type SectionKind uint8

const (
	SectionAll       SectionKind = iota // none: the whole message, or a part's body
	SectionHeader                       // HEADER
	SectionFields                       // HEADER.FIELDS
	SectionFieldsNot                    // HEADER.FIELDS.NOT
	SectionText                         // TEXT
	SectionMIME                         // MIME
)

// A Section is what stands in the brackets of BODY[...]: RFC 9051 section 6.4.5.1.
type Section struct {
	Path   []uint32 // part numbers; empty: the message
	Kind   SectionKind
	Fields FieldNames // of SectionFields and SectionFieldsNot
}

// FieldNames is a set of names of header fields, which are compared in any case. What it costs to look one up hardly
// depends on how many there are: a header has many lines.
type FieldNames struct {
	sorted []string // by length, and then by their octets in lower case
}

// NewFieldNames returns the set of names.
func NewFieldNames(names ...string) FieldNames {
	return FieldNames{slices.SortedFunc(slices.Values(names), compareNames[string])}
}

// has reports whether name is in the set.
func (n FieldNames) has(name []byte) bool {
	lo, hi := 0, len(n.sorted)
	for lo < hi {
		mid := (lo + hi) / 2
		switch c := compareNames(name, n.sorted[mid]); {
		case c == 0:
			return true
		case c < 0:
			hi = mid
		default:
			lo = mid + 1
		}
	}
	return false
}

// compareNames orders names of fields: first by length, which alone tells most of them apart.
func compareNames[T string | []byte](a T, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	for i := range len(a) {
		if x, y := lower(a[i]), lower(b[i]); x != y {
			return int(x) - int(y)
		}
	}
	return 0
}

// NeedsTree reports whether the section can only be found in a tree that Parse made. Otherwise the message's sizes do
// (Whole, for BODY[]), or ParseHeader and SelectFields.
func (s *Section) NeedsTree() bool {
	return len(s.Path) > 0 || s.Kind == SectionText
}

// Section returns a section of the message whose root p is and whose file r reads. A section that the message does
// not have is empty and not Found. Only selecting fields reads now, and only that can fail.
func (p *Part) Section(r io.ReaderAt, s Section) (Content, error) {
	part := p.Find(s.Path)
	if part == nil {
		return Content{}, nil
	}
	switch {
	case s.Kind == SectionMIME:
		if len(s.Path) == 0 {
			return Content{}, nil
		}
		return NewContent(r, part.Header), nil
	case s.Kind == SectionAll && len(s.Path) == 0:
		return NewContent(r, Span{End: part.Body.End, Size: part.Header.Size + part.Body.Size}), nil
	case s.Kind == SectionAll:
		return NewContent(r, part.Body), nil
	}
	if len(s.Path) > 0 {
		if part.Kind != Message {
			return Content{}, nil
		}
		part = part.Parts[0]
	}
	switch s.Kind {
	case SectionHeader:
		return NewContent(r, part.Header), nil
	case SectionText:
		return NewContent(r, part.Body), nil
	default:
		f := &filter{r: r, header: part.Header, names: s.Fields, not: s.Kind == SectionFieldsNot}
		f.complete = len(s.Path) == 0 && !f.not
		return f.content()
	}
}

// SelectFields returns the fields of a message's header (ParseHeader) whose names are, or with not are none of, the
// given ones, in the order of the header, and the blank line. A selection beyond 128 KB is not held: it is read again
// when it is written.
func SelectFields(r io.ReaderAt, header Span, names FieldNames, not bool) (Content, error) {
	f := &filter{r: r, header: header, names: names, not: not, complete: !not}
	return f.content()
}

// content reads the selection.
func (f *filter) content() (Content, error) {
	c := Content{Found: true}
	var held []byte
	err := f.run(func(b []byte) error {
		c.Size += int64(len(b))
		if c.Size <= maxHeld {
			held = append(held, b...)
		}
		return nil
	})
	if err != nil {
		return Content{}, err
	}
	c.src = f
	if c.Size <= maxHeld {
		c.src = textSource(held)
	}
	return c, nil
}

const maxHeld = 128 << 10

// A filter is a header without some of its fields.
type filter struct {
	r      io.ReaderAt
	header Span
	names  FieldNames
	not    bool
	// complete: a header without blank line gets one; if the last line has no end, then that end. RFC 9051 section
	// 6.4.5.1 leaves out the blank line of a message that has none; Dovecot does so too, but not for HEADER.FIELDS of
	// the message itself.
	complete bool
}

// run hands the selected lines to emit, in the CRLF view, and then the blank line.
func (f *filter) run(emit func([]byte) error) error {
	var s scanner
	s.start(f.r, f.header.Off, f.header.End, 4<<10)
	defer s.release()
	chosen, begun, mid, blank := false, false, false, false
	for {
		line, whole := s.line()
		if line == nil {
			break
		}
		text, _ := chomp(line, whole)
		if !mid {
			if whole && len(text) == 0 {
				blank = true
				break
			}
			if !begun || !isLWSP(text) {
				chosen = f.selects(text)
			}
			begun = true
		}
		mid = !whole
		if !chosen {
			continue
		}
		noNULs(text)
		err := emit(text)
		if whole && err == nil {
			err = emit(crlf)
		}
		if err != nil {
			return err
		}
	}
	if s.err != nil {
		return s.err
	}
	if blank || f.complete {
		return emit(crlf)
	}
	return nil
}

var crlf = []byte("\r\n")

// selects reports whether the field that begins with this line is wanted.
func (f *filter) selects(line []byte) bool {
	name, _, ok := cutField(line)
	return (ok && f.names.has(name)) != f.not
}

// isWord compares ASCII in any case.
func isWord(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		if lower(b[i]) != lower(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c |= 0x20
	}
	return c
}

func (f *filter) stream(dst []byte, off, n int64, _ *Mark, flush func([]byte) ([]byte, error)) ([]byte, error) {
	cut := cutter{dst: dst, base: len(dst), off: off, end: off + n, flush: flush}
	err := f.run(cut.add)
	return cut.done(err)
}

// Field is one header field.
type Field struct {
	Name  []byte // without the colon
	Value []byte // unfolded but for its line ends, which are LF; at most Limits.Value octets
}

// Fields calls visit for each field of a header that has a name, until it returns false. The slices are good during
// the call only.
func Fields(r io.ReaderAt, header Span, visit func(Field) bool) error {
	limit := Limits{}.filled().Value
	var s scanner
	s.start(r, header.Off, header.End, 4<<10)
	defer s.release()
	var name, value []byte
	open, begun, mid := false, false, false
	add := func(b []byte) {
		if open {
			value = append(value, b[:min(len(b), limit-len(value))]...)
		}
	}
	for {
		line, whole := s.line()
		text, _ := chomp(line, whole)
		last := line == nil || !mid && whole && len(text) == 0
		switch {
		case mid && !last:
			add(text)
		case begun && !last && isLWSP(text):
			add(newline)
			add(text)
		default:
			if open && !visit(Field{name, value}) || last {
				return s.err
			}
			n, v, ok := cutField(text)
			open, begun = ok, true
			name = append(name[:0], n...)
			value = value[:0]
			add(v)
		}
		mid = !whole
	}
}

// HeaderField returns the values of a header's fields of that name, unfolded and decoded (DecodeHeader), at most
// 1,000.
func HeaderField(r io.ReaderAt, header Span, name string) ([]string, error) {
	var values []string
	err := Fields(r, header, func(f Field) bool {
		if isWord(f.Name, name) {
			values = append(values, DecodeHeader(f.Value))
		}
		return len(values) < 1000
	})
	return values, err
}
