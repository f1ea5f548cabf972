package body

import "strings"

// A Span is a piece of the message.
type Span struct {
	Off, End int64 // file offsets: the octets [Off, End)
	Size     int64 // octets in the CRLF view
	Lines    int64 // line ends in it, as BODYSTRUCTURE counts lines
}

// An NString is a string that may be absent: NIL on the wire. An empty string that is present is not NIL.
type NString struct {
	S  string
	OK bool // false: absent
}

// A Param is one parameter of Content-Type or Content-Disposition, with RFC 2231 continuations joined; the value is
// as it stands in the message: `filename*` has `utf-8”na%C3%AFve`.
type Param struct {
	Name, Value string
}

// A Disposition is a Content-Disposition header (RFC 2183).
type Disposition struct {
	Type   string
	Params []Param
}

// Kind says what a Part's children are.
type Kind uint8

const (
	Leaf      Kind = iota // no children
	Multipart             // children are the parts between boundaries; there may be none
	Message               // message/rfc822: exactly one child, the embedded message
)

// CTE is a content transfer encoding (RFC 2045 section 6), as far as decoding goes.
type CTE uint8

const (
	Identity CTE = iota // 7bit, 8bit, binary, or none given
	Base64
	QuotedPrintable
	UnknownCTE // cannot be decoded: BINARY answers NO [UNKNOWN-CTE]
)

// A Part is a node of the message's tree: the message itself (the root), a part of a multipart, or the message inside
// a message/rfc822 part. The strings are as BODYSTRUCTURE wants them, with the defaults filled in. A Part that Parse
// has returned is not changed any more and may be shared.
type Part struct {
	Header Span // with the blank line that ends it
	Body   Span // of a Message: the whole embedded message

	Kind Kind
	CTE  CTE

	Type, Subtype string // in the case of the message; text/plain where the message says nothing
	Params        []Param
	ID            NString
	Description   NString
	Encoding      string // "7bit" where the message says nothing
	MD5           NString
	Disposition   *Disposition // nil: NIL
	Language      []string     // nil: NIL
	Location      NString

	// Envelope belongs to the part whose Header is a message's header: the root and the only child of a Message.
	// Everywhere else it is nil. So the envelope that BODYSTRUCTURE shows for a message/rfc822 part p is
	// p.Parts[0].Envelope.
	Envelope *Envelope

	Parts []*Part
}

// IsText reports whether BODYSTRUCTURE gives the part a line count because it is text.
func (p *Part) IsText() bool { return p.Kind == Leaf && strings.EqualFold(p.Type, "text") }

// Children returns what BODYSTRUCTURE lists inside the part: its Parts, or, as the grammar wants at least one, an
// empty text/plain for a multipart without any.
func (p *Part) Children() []*Part {
	if p.Kind == Multipart && len(p.Parts) == 0 {
		return []*Part{{
			Type: "text", Subtype: "plain", Encoding: "7bit",
			Params: []Param{{"charset", "us-ascii"}},
		}}
	}
	return p.Parts
}

// Param returns the value of the first Content-Type parameter of that name, in any case.
func (p *Part) Param(name string) (string, bool) {
	for i := range p.Params {
		if strings.EqualFold(p.Params[i].Name, name) {
			return p.Params[i].Value, true
		}
	}
	return "", false
}

// Find returns the part that a section's numbers name, or nil. RFC 9051 section 6.4.5.1: the numbers count the parts
// of a multipart; a part that is none has itself as part 1; numbers that go on behind a message/rfc822 part count in
// the embedded message. An empty path is the part itself.
func (p *Part) Find(path []uint32) *Part {
	for i, n := range path {
		switch {
		case n == 0:
			return nil
		case p.Kind == Multipart:
			if int64(n) > int64(len(p.Parts)) {
				return nil
			}
			p = p.Parts[n-1]
		case n != 1:
			return nil
		case p.Kind == Leaf && i < len(path)-1:
			return nil
		}
		if p.Kind == Message && i < len(path)-1 {
			p = p.Parts[0]
		}
	}
	return p
}

// Limits bound what a tree may hold. A zero field means the default.
type Limits struct {
	Depth     int // parts inside each other; 100
	Parts     int // parts in all; 10,000
	Params    int // parameters of one header; 128
	Addresses int // addresses of one ENVELOPE field; 1,000
	Boundary  int // octets of a boundary that count; 1,000, which is also the most
	Value     int // octets kept of one header field; 64 KB
	Memory    int // octets of header values kept in one tree; 4 MB

	// Global: message/global is a message too (RFC 9051 section 7.5.2). RFC 3501 does not know it, and Dovecot shows a leaf.
	Global bool
}

func or(n, def int) int {
	if n <= 0 {
		return def
	}
	return n
}

// filled returns the limits with their defaults.
func (l Limits) filled() Limits {
	return Limits{
		Depth:     or(l.Depth, 100),
		Parts:     or(l.Parts, 10_000),
		Params:    or(l.Params, 128),
		Addresses: or(l.Addresses, 1_000),
		Boundary:  min(or(l.Boundary, maxBoundary), maxBoundary),
		Value:     or(l.Value, 64<<10),
		Memory:    or(l.Memory, 4<<20),
		Global:    l.Global,
	}
}
