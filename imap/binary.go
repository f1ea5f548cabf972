package imap

import (
	"bytes"
	"errors"

	"imapd/imap/body"
	"imapd/imap/wire"
)

// BINARY returns parts with their transfer encoding undone. See RFC 3516, or
// RFC 9051 section 6.4.5.
var _ = register(Extension{
	Name: "BINARY",
	RFC:  3516,
	Caps: when(loggedIn, "BINARY"),
	Fetch: []FetchItem{
		{"BINARY", func(d *wire.Decoder) FetchPart { return parseBinary(d, true) }},
		{"BINARY.PEEK", func(d *wire.Decoder) FetchPart { return parseBinary(d, false) }},
		{"BINARY.SIZE", parseBinarySize},
	},
})

func parseBinary(d *wire.Decoder, seen bool) FetchPart {
	var s section
	name := s.parseBinary(d, "BINARY")
	s.parsePartial(d, name)
	return FetchPart{Key: s.key(), Cost: CostFile, Seen: seen, Tree: true, Write: s.writeBinary}
}

func parseBinarySize(d *wire.Decoder) FetchPart {
	var s section
	name := s.parseBinary(d, "BINARY.SIZE")
	s.label = name + " "
	return FetchPart{Key: s.key(), Cost: CostFile, Tree: true, Write: s.writeBinarySize}
}

// parseBinary reads "[" [section-part] "]" and returns it behind item.
func (s *section) parseBinary(d *wire.Decoder, item string) string {
	name, more := s.parsePath(d, append([]byte(item), '['))
	if more {
		d.Fail("part number")
	}
	d.Expect(']')
	return string(append(name, ']'))
}

// binary returns the part with its encoding undone, and whether there was one.
// The message itself has none.
func (s *section) binary(f *Fetching) (c body.Content, decoded bool, err error) {
	root, err := f.tree()
	if err != nil {
		return c, false, err
	}
	if len(s.Path) == 0 {
		c, err = root.Section(f, s.Section)
		return c, false, err
	}
	p := root.Find(s.Path)
	if p == nil {
		return c, false, nil
	}
	c, err = f.decoded(p, s.name)
	if errors.Is(err, body.ErrUnknownCTE) {
		err = no("UNKNOWN-CTE", "The encoding of the part is not known")
	}
	return c, p.Kind == body.Leaf && p.CTE != body.Identity, err
}

// decoded returns BINARY of a part, the section called label. To know how long it is
// the part must be decoded, which is done once.
func (f *Fetching) decoded(p *body.Part, label string) (body.Content, error) {
	n, known := f.lengths[p]
	if !known {
		n, known = f.Box.place.length(f, label)
	}
	if known {
		return p.BinarySized(f, n)
	}
	c, err := p.Binary(f)
	if err == nil {
		if f.lengths == nil {
			f.lengths = map[*body.Part]int64{}
		}
		f.lengths[p] = c.Size
	}
	return c, err
}

func (s *section) writeBinarySize(f *Fetching) error {
	c, _, err := s.binary(f)
	if err != nil {
		return err
	}
	f.out = append(f.out, s.label...)
	f.out = wire.AppendNumber(f.out, c.Size)
	return nil
}

// writeBinary sends a literal8 where there may be NULs: a client can then tell
// text from data by the kind of literal (RFC 3516 section 4.3).
func (s *section) writeBinary(f *Fetching) error {
	c, decoded, err := s.binary(f)
	if err != nil {
		return err
	}
	if !decoded {
		f.Box.place.resume(f, s.name, &c)
		if decoded, err = s.hasNUL(&c); err != nil {
			return err
		}
	}
	prefix := ""
	if decoded {
		prefix = "~"
	}
	return s.send(f, &c, prefix)
}

var errNUL = errors.New("NUL")

// hasNUL reports whether what is wanted of c holds a NUL, which only a literal8 may.
func (s *section) hasNUL(c *body.Content) (bool, error) {
	err := c.WriteRange(nulFinder{}, s.off, s.n)
	if errors.Is(err, errNUL) {
		return true, nil
	}
	return false, err
}

// nulFinder is a Writer that fails at the first NUL.
type nulFinder struct{}

func (nulFinder) Write(b []byte) (int, error) {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return i, errNUL
	}
	return len(b), nil
}
