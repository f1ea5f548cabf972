package wire

import (
	"strings"
	"unicode/utf8"
)

// eightBit says what a quoted string may hold besides 7-bit octets.
type eightBit uint8

const (
	eightBitNone eightBit = iota // nothing: RFC 3501, and RFC 9051 before ENABLE
	eightBitUTF8                 // valid UTF-8
	eightBitAny                  // anything: judged by the caller
)

// quotable is what the client may send in quoted strings at this time.
func (d *Decoder) quotable() eightBit {
	if d.utf8 {
		return eightBitUTF8
	}
	return eightBitNone
}

// AString reads an atom, in which "]" is allowed too, a quoted string or a literal.
func (d *Decoder) AString() string { return d.astring(d.quotable()) }

// LenientAString is AString that takes UTF-8 in a quoted string from a client
// that has not enabled it. Real clients send such user names, passwords and search
// strings; Dovecot takes them.
func (d *Decoder) LenientAString() string { return d.astring(eightBitUTF8) }

func (d *Decoder) astring(allow eightBit) string {
	switch d.Peek() {
	case '"':
		return d.quoted(allow)
	case '{':
		return d.held()
	}
	return d.span(isAString, d.lim.Word, "string")
}

// String reads a quoted string or a literal.
func (d *Decoder) String() string {
	switch d.Peek() {
	case '"':
		return d.quoted(d.quotable())
	case '{':
		return d.held()
	}
	d.Fail("string")
	return ""
}

// NString reads a string or NIL, which is not ok.
func (d *Decoder) NString() (s string, ok bool) {
	if c := d.Peek(); c == '"' || c == '{' {
		s = d.String()
		return s, d.err == nil
	}
	if atom := d.span(isAtom, d.lim.Word, "string or NIL"); d.err == nil && !strings.EqualFold(atom, "NIL") {
		d.FailText("", "expected string or NIL, got an atom")
	}
	return "", false
}

// quoted reads a quoted string. The only escapes are \" and \\.
func (d *Decoder) quoted(allow eightBit) string {
	d.Expect('"')
	var held []byte // what came in earlier windows, or before an escape
	for {
		w := d.window()
		if w == nil {
			return ""
		}
		n := quotedRun(w, allow)
		if room := min(d.lim.Quoted, d.lim.Args-d.args) - int64(len(held)); int64(n) > room {
			n = int(max(room, 0))
			d.consume(n)
			return d.badQuoted(append(held, w[:n]...), d.longQuoted())
		}
		if n < len(w) && w[n] == '"' {
			return d.closeQuoted(held, w[:n], allow)
		}
		held = append(held, w[:n]...)
		d.consume(n)
		if n == len(w) {
			continue
		}
		if w[n] != '\\' {
			return d.badQuoted(held, &SyntaxError{Want: "end of quoted string", Got: w[n]})
		}
		d.consume(1)
		c := d.Peek()
		if c != '"' && c != '\\' {
			return d.badQuoted(append(held, '\\'), &SyntaxError{Want: "quote or backslash", Got: c})
		}
		d.consume(1)
		held = append(held, c)
	}
}

// quotedRun returns how many octets at the start of w stand for themselves in a
// quoted string.
func quotedRun(w []byte, allow eightBit) int {
	for i, c := range w {
		if class[c]&isText == 0 && (c < 0x80 || allow == eightBitNone) {
			return i
		}
	}
	return len(w)
}

// closeQuoted takes the last part of a quoted string, and its closing quote.
func (d *Decoder) closeQuoted(held, last []byte, allow eightBit) string {
	var s string
	if held == nil {
		s = string(last)
	} else {
		s = string(append(held, last...))
	}
	d.consume(len(last) + 1)
	d.args += int64(len(s))
	if allow == eightBitUTF8 && !utf8.ValidString(s) {
		d.FailText("", "quoted string is not valid UTF-8")
		return ""
	}
	return s
}

// longQuoted is the error of a quoted string that there is no room for.
func (d *Decoder) longQuoted() error {
	if d.lim.Quoted <= d.lim.Args-d.args {
		return &TooBigError{Size: d.lim.Quoted + 1, Max: d.lim.Quoted}
	}
	return tooManyArgs()
}

// badQuoted gives up inside a quoted string. If the line happens to end as a literal's
// header does, its client may think that a literal follows: Skip must think so too.
func (d *Decoder) badQuoted(read []byte, err error) string {
	if d.err == nil {
		d.err = err
		d.tail.steps(read)
	}
	return ""
}
