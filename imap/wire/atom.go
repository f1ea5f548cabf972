package wire

import (
	"math"
	"strings"
)

// Classes of octets, RFC 9051 section 9.
const (
	isAtom    = 1 << iota // ATOM-CHAR
	isAString             // ASTRING-CHAR
	isTag                 // ASTRING-CHAR but "+"
	isPattern             // list-char
	isKeyword             // ATOM-CHAR but "[" and "<"
	isText                // QUOTED-CHAR of 7 bits, unescaped
)

// class holds the classes of each octet.
var class = classify()

func classify() (t [256]uint8) {
	for c := 1; c < 0x80; c++ {
		if c != '\r' && c != '\n' && c != '"' && c != '\\' {
			t[c] |= isText
		}
		if c <= ' ' || c == 0x7f || strings.IndexByte(`(){"\`, byte(c)) >= 0 {
			continue
		}
		t[c] |= isPattern
		if c == '%' || c == '*' {
			continue
		}
		t[c] |= isAString
		if c != '+' {
			t[c] |= isTag
		}
		if c == ']' {
			continue
		}
		t[c] |= isAtom
		if c != '[' && c != '<' {
			t[c] |= isKeyword
		}
	}
	return t
}

// run returns how many octets at the start of w are of the class.
func run(w []byte, of uint8) int {
	for i, c := range w {
		if class[c]&of == 0 {
			return i
		}
	}
	return len(w)
}

// Longest tag, and longest flag or keyword, in octets.
const (
	maxTag  = 255
	maxFlag = 255
)

// span reads 1 to limit octets of a class. The rest of the command begins at the
// first octet that does not fit, however the input is cut. A word beyond
// Limits.Word is a *TooBigError.
func (d *Decoder) span(of uint8, limit int64, want string) string {
	limit = min(limit, max(d.lim.Args-d.args, 0))
	var held []byte // what came in earlier windows
	for {
		w := d.window()
		if w == nil {
			return ""
		}
		n := run(w, of)
		if room := limit - int64(len(held)); int64(n) > room {
			d.consume(int(room))
			if limit == d.lim.Word && d.err == nil {
				d.err = &TooBigError{Size: limit + 1, Max: limit}
			}
			d.FailText("TOOBIG", want+" too long")
			return ""
		}
		if n < len(w) && held == nil {
			return d.atom(w[:n], want)
		}
		held = append(held, w[:n]...)
		if n < len(w) {
			d.consume(n)
			d.args += int64(len(held))
			return string(held)
		}
		d.consume(n)
	}
}

// atom takes a span that lies whole in the window.
func (d *Decoder) atom(w []byte, want string) string {
	if len(w) == 0 {
		d.Fail(want)
		return ""
	}
	s := string(w)
	d.consume(len(w))
	d.args += int64(len(w))
	return s
}

// Tag reads a tag of 1 to 255 octets, as sent.
func (d *Decoder) Tag() string { return d.span(isTag, maxTag, "tag") }

// Atom reads an atom, case as sent.
func (d *Decoder) Atom() string { return d.span(isAtom, d.lim.Word, "atom") }

// Keyword reads an atom and returns it in upper case. It stops also at "[" and
// "<", so that the parts of "BODY.PEEK[1.MIME]<0.10>" can be read one by one.
func (d *Decoder) Keyword() string {
	return strings.ToUpper(d.span(isKeyword, d.lim.Word, "keyword"))
}

// number reads 1*DIGIT up to max. Leading zeros are accepted.
func (d *Decoder) number(max uint64, want string) uint64 {
	var n uint64
	for first := true; ; first = false {
		c := d.Peek()
		if c < '0' || c > '9' {
			if first {
				d.Fail(want)
			}
			if d.err != nil {
				return 0
			}
			return n
		}
		digit := uint64(c - '0')
		if n > (max-digit)/10 {
			d.Fail(want)
			return 0
		}
		n = n*10 + digit
		d.consume(1)
	}
}

// Number reads an unsigned 32-bit number.
func (d *Decoder) Number() uint32 {
	return uint32(d.number(math.MaxUint32, "32-bit number"))
}

// NZNumber reads an unsigned 32-bit number that is not zero.
func (d *Decoder) NZNumber() uint32 {
	n := d.number(math.MaxUint32, "32-bit number")
	if n == 0 {
		d.Fail("number above zero")
	}
	return uint32(n)
}

// Number64 reads an unsigned 63-bit number (modification sequences, sizes).
func (d *Decoder) Number64() int64 {
	return int64(d.number(math.MaxInt64, "63-bit number"))
}
