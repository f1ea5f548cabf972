package body

import (
	"bytes"
	"strings"
)

// A header is what the fields of one header have said so far.
type header struct {
	typed bool   // there was a Content-Type
	multi bool   // it was multipart/something
	mime  bool   // there was a MIME-Version or Content-Type
	delim []byte // the multipart's boundary; nil: none
}

// header reads the header of the innermost open part and fills in the part's fields. It returns the open boundary in
// front of which the part ends at once, or none. The boundary of a multipart is open from here on.
func (p *parser) header() (hit int) {
	n := &p.stack[len(p.stack)-1]
	if len(p.stack) == 1 || p.stack[len(p.stack)-2].part.Kind == Message {
		n.part.Envelope = new(Envelope)
	}
	h := header{}
	blank := p.fields(n.part, &h)
	p.classify(n, &h)
	if blank && n.part.Kind == Multipart && h.delim != nil {
		p.bounds = append(p.bounds, boundary{h.delim, len(p.stack) - 1})
	}
	// A blank line in front of a boundary belongs to the boundary; the part has no body (RFC 2046 section 5.1.1).
	hit = p.boundaryHere()
	if hit != none && p.bounds[hit].depth == len(p.stack)-1 {
		hit = none // the multipart's own first boundary
	}
	m := p.at
	if hit != none {
		p.cut = p.at
		if p.at.off > n.start.off {
			p.cut = p.eol
		}
		m = p.cut
	}
	n.part.Header = n.start.to(m)
	n.start = m
	return hit
}

// boundaryHere returns the open boundary of the line that begins here, or none.
func (p *parser) boundaryHere() int {
	if len(p.bounds) == 0 {
		return none
	}
	if w := p.win[p.i:p.n]; len(w) > 0 && w[0] != '-' {
		return none
	}
	return p.match(p.fill(lookahead))
}

// fields reads the fields of a header up to the blank line, which it consumes, or a boundary or the end of the
// message. It reports whether there was a blank line.
func (p *parser) fields(part *Part, h *header) (blank bool) {
	f := fieldNone
	begun := false
	mid := false // inside a line longer than the window
	for !blank && (mid || p.boundaryHere() == none) {
		line, whole := p.line()
		if line == nil {
			break
		}
		text, cr := chomp(line, whole)
		switch {
		case mid:
			p.collect(f, text)
		case whole && len(text) == 0:
			blank = true
		case begun && isLWSP(text):
			p.collect(f, newline)
			p.collect(f, text)
		default:
			p.endField(part, h, f)
			var value []byte
			f, value = splitField(text)
			p.value = p.value[:0]
			p.collect(f, value)
		}
		begun = true
		if mid = !whole; whole {
			p.lineEnded(cr)
		}
	}
	p.endField(part, h, f)
	return blank
}

// chomp returns the line without its line end, and whether that was CR LF.
func chomp(line []byte, whole bool) (text []byte, cr bool) {
	if !whole {
		return line, false
	}
	text = line[:len(line)-1]
	if n := len(text); n > 0 && text[n-1] == '\r' {
		return text[:n-1], true
	}
	return text, false
}

func isLWSP(line []byte) bool { return len(line) > 0 && (line[0] == ' ' || line[0] == '\t') }

// collect appends to the value of a field that is wanted.
func (p *parser) collect(f fieldID, b []byte) {
	if f == fieldNone {
		return
	}
	if room := p.lim.Value - len(p.value); len(b) > room {
		b = b[:max(room, 0)]
	}
	p.value = append(p.value, b...)
}

// splitField splits the first line of a field. White space before the colon does not count, nor does that
// before the value. A line without a colon is a field without a name.
func splitField(line []byte) (fieldID, []byte) {
	name, value, ok := cutField(line)
	if !ok {
		return fieldNone, nil
	}
	return fieldByName(name), value
}

// maxFieldName is what RFC 5322 section 2.1.1 leaves for a name; a longer one is no name.
const maxFieldName = 1000

func cutField(line []byte) (name, value []byte, ok bool) {
	name, value, ok = bytes.Cut(line, colon)
	name = bytes.TrimRight(name, " \t")
	if !ok || len(name) > maxFieldName {
		return nil, line, false
	}
	if v := bytes.TrimLeft(value, " \t"); len(v) > 0 {
		value = v
	} else if len(value) > 0 {
		value = value[1:]
	}
	return name, value, true
}

var colon = []byte{':'}

// A fieldID is a header field that the tree takes something from.
type fieldID uint8

const (
	fieldNone fieldID = iota
	fieldMIMEVersion
	fieldContentType
	fieldContentTransferEncoding
	fieldContentID
	fieldContentDescription
	fieldContentDisposition
	fieldContentMD5
	fieldContentLanguage
	fieldContentLocation
	fieldDate
	fieldSubject
	fieldFrom
	fieldSender
	fieldReplyTo
	fieldTo
	fieldCc
	fieldBcc
	fieldInReplyTo
	fieldMessageID
)

func fieldByName(name []byte) fieldID {
	var lower [len("content-transfer-encoding")]byte
	if len(name) < 2 || len(name) > len(lower) {
		return fieldNone
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		lower[i] = c
	}
	switch string(lower[:len(name)]) {
	case "mime-version":
		return fieldMIMEVersion
	case "content-type":
		return fieldContentType
	case "content-transfer-encoding":
		return fieldContentTransferEncoding
	case "content-id":
		return fieldContentID
	case "content-description":
		return fieldContentDescription
	case "content-disposition":
		return fieldContentDisposition
	case "content-md5":
		return fieldContentMD5
	case "content-language":
		return fieldContentLanguage
	case "content-location":
		return fieldContentLocation
	case "date":
		return fieldDate
	case "subject":
		return fieldSubject
	case "from":
		return fieldFrom
	case "sender":
		return fieldSender
	case "reply-to":
		return fieldReplyTo
	case "to":
		return fieldTo
	case "cc":
		return fieldCc
	case "bcc":
		return fieldBcc
	case "in-reply-to":
		return fieldInReplyTo
	case "message-id":
		return fieldMessageID
	}
	return fieldNone
}

// endField takes what the tree wants from the field that has been collected.
func (p *parser) endField(part *Part, h *header, f fieldID) {
	switch f {
	case fieldNone:
	case fieldMIMEVersion:
		h.mime = true
	case fieldContentType:
		h.mime = true
		if !h.typed {
			p.contentType(part, h)
		}
	case fieldContentTransferEncoding:
		p.contentEncoding(part)
	case fieldContentID:
		p.keepFirst(&part.ID)
	case fieldContentDescription:
		p.keepFirst(&part.Description)
	case fieldContentMD5:
		p.keepFirst(&part.MD5)
	case fieldContentLocation:
		p.keepFirst(&part.Location)
	case fieldContentDisposition:
		p.contentDisposition(part)
	case fieldContentLanguage:
		p.contentLanguage(part)
	default:
		if part.Envelope != nil {
			p.envelopeField(part.Envelope, f)
		}
	}
}

// classify says what the part is once its header is read, and fills in the defaults: RFC 2045 section 5.2, and RFC
// 2046 section 5.1.5 for digests.
func (p *parser) classify(n *node, h *header) {
	part := n.part
	if part.Envelope != nil {
		part.Envelope.fill()
	}
	if !h.mime && !n.isMIME {
		// Without MIME-Version and Content-Type the other Content-* fields are not shown.
		*part = Part{Envelope: part.Envelope, CTE: part.CTE}
	}
	digest := n.digest
	n.digest = false
	switch {
	case !h.typed && digest:
		part.Kind, part.Type, part.Subtype = Message, "message", "rfc822"
	case !h.typed:
		part.Type, part.Subtype = "text", "plain"
	case strings.EqualFold(part.Type, "message") && strings.EqualFold(part.Subtype, "rfc822"):
		part.Kind = Message
		part.Type, part.Subtype = "message", "rfc822"
	case p.lim.Global && strings.EqualFold(part.Type, "message") && strings.EqualFold(part.Subtype, "global"):
		part.Kind = Message
	case h.multi:
		part.Kind = Multipart
		n.digest = strings.EqualFold(part.Subtype, "digest")
	}
	p.limit(part, h)
	if part.IsText() {
		if _, ok := part.Param("charset"); !ok {
			part.Params = append(part.Params, Param{"charset", "us-ascii"})
		}
	}
	if part.Encoding == "" {
		part.Encoding = "7bit"
	}
}

// limit makes an opaque leaf of a part whose children would be too deep or too many, and of one that calls itself a
// multipart but names no subtype.
func (p *parser) limit(part *Part, h *header) {
	deep := len(p.stack) >= p.lim.Depth
	switch {
	case part.Kind == Message && (deep || p.parts >= p.lim.Parts):
	case part.Kind == Multipart && deep && h.delim != nil:
	case part.Kind == Leaf && strings.EqualFold(part.Type, "multipart"):
	default:
		return
	}
	part.Kind, part.Type, part.Subtype = Leaf, "application", "octet-stream"
	h.delim = nil
}
