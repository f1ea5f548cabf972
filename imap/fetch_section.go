package imap

import (
	"strconv"

	"imapd/imap/body"
	"imapd/imap/wire"
)

// A section is BODY[...], BINARY[...] or what RFC822 items stand for, with the
// part of it that is wanted.
type section struct {
	body.Section
	name    string // as answered, without the partial: "BODY[1.MIME]"
	partial bool   // with <off.n>
	off, n  int64  // octets wanted
	label   string // name, partial and a space
}

func parseBody(d *wire.Decoder) FetchPart {
	if d.Peek() != '[' {
		return FetchPart{Cost: CostFile, Tree: true, Write: writeBody}
	}
	return bodySection(d, true)
}

func parseBodyPeek(d *wire.Decoder) FetchPart { return bodySection(d, false) }

func bodySection(d *wire.Decoder, seen bool) FetchPart {
	var s section
	name := s.parse(d, "BODY")
	s.parsePartial(d, name)
	p := FetchPart{Key: s.key(), Cost: CostFile, Seen: seen, Tree: s.NeedsTree(), Write: s.write}
	if !p.Tree && s.Kind != body.SectionAll {
		p.Cost = CostHeader
	}
	return p
}

// The sections that RFC822 items stand for (RFC 3501 section 6.4.5).
var (
	wholeMessage    = body.Section{}
	headerOfMessage = body.Section{Kind: body.SectionHeader}
	textOfMessage   = body.Section{Kind: body.SectionText}
)

func rfc822(name string, what body.Section, seen bool) FetchPart {
	s := section{Section: what, name: name, n: wholeSection, label: name + " "}
	p := FetchPart{Cost: CostFile, Seen: seen, Tree: what.NeedsTree(), Write: s.write}
	if what.Kind == body.SectionHeader {
		p.Cost = CostHeader
	}
	return p
}

// wholeSection is more octets than a section can have.
const wholeSection = 1<<63 - 1

var sectionKinds = map[string]body.SectionKind{
	"HEADER": body.SectionHeader, "HEADER.FIELDS": body.SectionFields,
	"HEADER.FIELDS.NOT": body.SectionFieldsNot, "TEXT": body.SectionText, "MIME": body.SectionMIME,
}

// parse reads "[" section-spec "]" and returns it behind item, as it is answered:
// words and names of fields in capitals, as Dovecot does.
func (s *section) parse(d *wire.Decoder, item string) string {
	name := append([]byte(item), '[')
	name, more := s.parsePath(d, name)
	if more {
		word := d.Keyword()
		kind, ok := sectionKinds[word]
		if !ok || kind == body.SectionMIME && len(s.Path) == 0 {
			d.FailText("", "Unknown section")
			return ""
		}
		s.Kind = kind
		name = append(name, word...)
	}
	if s.Kind == body.SectionFields || s.Kind == body.SectionFieldsNot {
		name = s.parseFields(d, name)
	}
	d.Expect(']')
	return string(append(name, ']'))
}

// parsePath reads the part numbers, and reports whether a word must follow. What
// it reads it appends to name.
func (s *section) parsePath(d *wire.Decoder, name []byte) ([]byte, bool) {
	d.Expect('[')
	for first := true; ; first = false {
		c := d.Peek()
		switch {
		case c >= '0' && c <= '9':
		case first && c == ']':
			return name, false
		default:
			return name, true
		}
		n := d.NZNumber()
		s.Path = append(s.Path, n)
		name = wire.AppendNumber(name, n)
		if !d.Accept('.') {
			return name, false
		}
		name = append(name, '.')
	}
}

// parseFields reads SP "(" names ")".
func (s *section) parseFields(d *wire.Decoder, name []byte) []byte {
	d.SP()
	name = append(name, " ("...)
	var fields []string
	d.List(func() {
		if len(fields) > 0 {
			name = append(name, ' ')
		}
		field := upper(d.AString())
		fields = append(fields, field)
		name = wire.AppendAString(name, field)
	})
	if len(fields) == 0 {
		d.FailText("", "No header fields")
	}
	s.Fields = body.NewFieldNames(fields...)
	return append(name, ')')
}

// upper returns s with ASCII letters in upper case and all else as it is.
func upper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// parsePartial reads "<" offset "." count ">", if it is there.
func (s *section) parsePartial(d *wire.Decoder, name string) {
	s.name, s.n, s.label = name, wholeSection, name+" "
	if !d.Accept('<') {
		return
	}
	s.partial = true
	s.off = d.Number64()
	d.Expect('.')
	s.n = d.Number64()
	d.Expect('>')
	label := append([]byte(name), '<')
	label = wire.AppendNumber(label, s.off)
	s.label = string(append(label, "> "...))
}

// key is the same for the same octets of the same section.
func (s *section) key() string { return s.label + strconv.FormatInt(s.n, 10) }

func (s *section) write(f *Fetching) error {
	c, err := f.content(&s.Section)
	if err != nil {
		return err
	}
	return s.send(f, &c, "")
}

// send sends what is wanted of c. With the prefix "~" it is a literal8.
func (s *section) send(f *Fetching, c *body.Content, prefix string) error {
	f.out = append(f.out, s.label...)
	if s.partial {
		f.Box.place.resume(f, s.name, c)
		defer f.Box.place.keep(f, s.name, c)
	}
	return f.literal(c, s.off, s.n, prefix)
}

// directSize is the size in octets from which a literal is not copied into
// Session.out.
const directSize = 32 << 10

// literal sends octets [off, off+n) of c, cut at its end, as a literal. An empty
// string is never a literal: iOS Mail waits forever for more after {0}.
func (s *Session) literal(c *body.Content, off, n int64, prefix string) error {
	n = c.Clip(off, n)
	if n == 0 {
		s.out = append(s.out, `""`...)
		return nil
	}
	s.out = append(s.out, prefix...)
	s.out = wire.AppendLiteralHeader(s.out, n)
	if n >= directSize {
		return c.WriteRange(s, off, n)
	}
	out, err := c.AppendRange(s.out, off, n)
	s.out = out
	return err
}
