package body

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// keep returns b as a string of the tree, or "" when the tree may not grow any more.
func (p *parser) keep(b []byte) string {
	if s, ok := common(b); ok {
		return s
	}
	if len(b) > p.mem {
		return ""
	}
	p.mem -= len(b)
	return string(b)
}

// common returns the words that most messages have, without allocation.
func common(b []byte) (string, bool) {
	switch string(b) {
	case "":
		return "", true
	case "text":
		return "text", true
	case "plain":
		return "plain", true
	case "html":
		return "html", true
	case "multipart":
		return "multipart", true
	case "alternative":
		return "alternative", true
	case "mixed":
		return "mixed", true
	case "related":
		return "related", true
	case "application":
		return "application", true
	case "image":
		return "image", true
	case "charset":
		return "charset", true
	case "boundary":
		return "boundary", true
	case "name":
		return "name", true
	case "filename":
		return "filename", true
	case "utf-8":
		return "utf-8", true
	case "UTF-8":
		return "UTF-8", true
	case "us-ascii":
		return "us-ascii", true
	case "base64":
		return "base64", true
	case "quoted-printable":
		return "quoted-printable", true
	case "7bit":
		return "7bit", true
	case "8bit":
		return "8bit", true
	case "attachment":
		return "attachment", true
	case "inline":
		return "inline", true
	}
	return "", false
}

// keepN keeps a string that is present; it is absent when the tree may not grow any more.
func (p *parser) keepN(b []byte) NString {
	if len(b) > p.mem {
		return NString{}
	}
	return NString{p.keep(b), true}
}

// keepFirst takes the collected field for n unless an earlier field of that name gave it.
func (p *parser) keepFirst(n *NString) {
	if !n.OK {
		*n = p.keepN(oneLine(p.value))
	}
}

// oneLine returns a field's value without its line ends, and with NULs replaced. A line end that no white space
// follows leaves a space. It may change b.
func oneLine(b []byte) []byte {
	if bytes.IndexByte(b, 0) >= 0 {
		b = bytes.ReplaceAll(b, []byte{0}, []byte(replacement))
	}
	if bytes.IndexByte(b, '\n') < 0 && bytes.IndexByte(b, '\r') < 0 {
		return b
	}
	out := b[:0]
	for i, c := range b {
		switch {
		case c != '\r' && c != '\n':
			out = append(out, c)
		case i+1 < len(b) && !isWhite(b[i+1]):
			out = append(out, ' ')
		}
	}
	return out
}

// lexer returns a lexer for the collected field, with the buffers of the one before.
func (p *parser) lexer() *lexer {
	p.lex = lexer{b: p.value, comment: p.lex.comment, name: p.lex.name, value: p.lex.value}
	return &p.lex
}

func isWhite(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// contentType reads Content-Type. A broken one leaves what could be read of the type and no parameters.
func (p *parser) contentType(part *Part, h *header) {
	h.typed = true
	l := p.lexer()
	typ, sub, ok := l.mediaType()
	part.Type, part.Subtype = p.keep(typ), p.keep(sub)
	if part.Type == "" && len(typ) > 0 || part.Subtype == "" && len(sub) > 0 {
		part.Type, part.Subtype = "application", "octet-stream"
	}
	h.multi = strings.EqualFold(part.Type, "multipart") && len(sub) > 0
	if !ok {
		return
	}
	part.Params = p.params(l)
	if !h.multi {
		return
	}
	if b, ok := part.Param("boundary"); ok {
		h.delim = []byte(b[:min(len(b), p.lim.Boundary)])
	}
}

// mediaType reads type/subtype. ok is false if it is broken; then typ may still hold a word. The slices are good
// until the next token.
func (l *lexer) mediaType() (typ, sub []byte, ok bool) {
	if l.skip() != more {
		return nil, nil, false
	}
	typ, v := l.token(l.name[:0])
	l.name = typ
	if v != more || len(typ) == 0 {
		return typ, nil, false
	}
	if !l.is('/') {
		return nil, nil, false
	}
	l.i++
	if l.skip() != more {
		return nil, nil, false
	}
	sub, v = l.token(l.value[:0])
	l.value = sub
	if v == bad || len(sub) == 0 || !l.done() && !l.is(';') {
		return nil, nil, false
	}
	return typ, sub, true
}

// contentEncoding reads Content-Transfer-Encoding: what BODYSTRUCTURE shows is the first that is one plain word; what
// decodes is the last, and there words behind a semicolon are forgiven.
func (p *parser) contentEncoding(part *Part) {
	l := p.lexer()
	v := l.skip()
	var word []byte
	if v != bad {
		word, v = l.token(l.name[:0])
	}
	if v == end && len(word) > 0 && part.Encoding == "" {
		part.Encoding = p.keep(word)
	}
	part.CTE = UnknownCTE
	if v != end && !l.is(';') {
		return
	}
	switch {
	case isWord(word, "7bit"), isWord(word, "8bit"), isWord(word, "binary"):
		part.CTE = Identity
	case isWord(word, "base64"):
		part.CTE = Base64
	case isWord(word, "quoted-printable"):
		part.CTE = QuotedPrintable
	}
}

func (p *parser) contentDisposition(part *Part) {
	if d := part.Disposition; d != nil && len(d.Params) > 0 {
		return
	}
	l := p.lexer()
	l.skip()
	word, v := l.token(l.name[:0])
	if v == bad {
		return
	}
	part.Disposition = &Disposition{Type: p.keep(word), Params: p.params(l)}
}

func (p *parser) contentLanguage(part *Part) {
	if part.Language != nil {
		return
	}
	l := p.lexer()
	l.skip()
	for len(part.Language) < p.lim.Params {
		tag, v := l.atom(l.name[:0])
		if v == bad {
			return
		}
		part.Language = append(part.Language, p.keep(tag))
		if !l.is(',') {
			return
		}
		l.i++
		l.skip()
	}
}

// params reads the parameters of a Content-Type or Content-Disposition, up to the limit, and joins those that RFC
// 2231 section 3 has split. Broken ones are skipped.
func (p *parser) params(l *lexer) []Param {
	plain := make([]Param, 0, 2)
	var split []piece
	for n := 0; n < p.lim.Params; {
		name, value, v := l.param()
		if v == end {
			break
		}
		if v == bad {
			if l.done() {
				break
			}
			l.i++
			continue
		}
		n++
		if pc, ok := splitName(name); ok {
			pc.value = bytes.Clone(value)
			split = append(split, pc)
			continue
		}
		plain = append(plain, Param{p.keep(name), p.keep(value)})
	}
	if plain = p.join(plain, split); len(plain) == 0 {
		return nil
	}
	return plain
}

// param reads one `; name=value`. It is bad if there is none here, or if it is broken. The slices are good until the
// next token.
func (l *lexer) param() (name, value []byte, v verdict) {
	if l.done() {
		return nil, nil, end
	}
	if !l.is(';') {
		return nil, nil, bad
	}
	l.i++
	if l.skip() != more {
		return nil, nil, bad
	}
	name, v = l.token(l.name[:0])
	l.name = name
	if v != more || !l.is('=') {
		return nil, nil, bad
	}
	l.i++
	value = l.value[:0]
	switch v = l.skip(); {
	case v != more:
	case l.is('"'):
		value, v = l.quoted(value)
	case l.is('='):
		// name==?utf-8?b?...?=, unquoted.
		for !l.done() && !l.is(';') && !isWhite(l.b[l.i]) {
			value = append(value, l.b[l.i])
			l.i++
		}
	default:
		value, v = l.token(value)
	}
	l.value = value
	if v == bad {
		return nil, nil, bad
	}
	return name, value, more
}

// A piece is a parameter `name*3*`.
type piece struct {
	name  string
	index int
	ext   bool // the value has a charset or percent signs
	value []byte
}

// splitName reads the stars of a parameter's name.
func splitName(name []byte) (piece, bool) {
	i := bytes.IndexByte(name, '*')
	if i < 0 {
		return piece{}, false
	}
	pc := piece{name: string(name[:i])}
	rest := name[i:]
	if len(rest) > 1 {
		for rest = rest[1:]; len(rest) > 0 && '0' <= rest[0] && rest[0] <= '9'; rest = rest[1:] {
			pc.index = min(pc.index*10+int(rest[0]-'0'), 1<<30)
		}
	}
	if len(rest) > 0 && rest[0] == '*' {
		pc.ext = true
		rest = rest[1:]
	}
	return pc, len(rest) == 0
}

// join appends the joined pieces, sorted by name, to the plain parameters. If some piece of a name is missing, all of
// that name stay as they are.
func (p *parser) join(params []Param, split []piece) []Param {
	slices.SortStableFunc(split, func(a, b piece) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return a.index - b.index
	})
	for len(split) > 0 {
		n, whole, ext := 0, true, false
		for n < len(split) && strings.EqualFold(split[n].name, split[0].name) {
			whole = whole && split[n].index == n
			ext = ext || split[n].ext
			n++
		}
		if whole {
			params = append(params, p.joined(split[:n], ext))
		} else {
			for _, pc := range split[:n] {
				params = append(params, Param{p.keep(pc.label()), p.keep(pc.value)})
			}
		}
		split = split[n:]
	}
	return params
}

func (p *parser) joined(pieces []piece, ext bool) Param {
	name := []byte(pieces[0].name)
	var value []byte
	if ext {
		name = append(name, '*')
		if !pieces[0].ext {
			value = append(value, "''"...)
		}
	}
	for _, pc := range pieces {
		if ext && !pc.ext {
			value = append(value, bytes.ReplaceAll(pc.value, []byte("%"), []byte("%25"))...)
		} else {
			value = append(value, pc.value...)
		}
	}
	return Param{p.keep(name), p.keep(value)}
}

// label is the name of a piece as it stood in the message.
func (pc piece) label() []byte {
	b := append([]byte(pc.name), '*')
	b = strconv.AppendInt(b, int64(pc.index), 10)
	if pc.ext {
		b = append(b, '*')
	}
	return b
}
