package body

import (
	"bytes"
	"encoding/binary"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// A Key is a string that is looked for as SEARCH wants it: a substring, in any case, in Unicode.
type Key struct {
	Text        []byte // folded (Fold); an empty one is in every message
	SkipHeaders bool   // BODY, not TEXT: not in headers
}

// A Matcher looks for keys in the texts of one message after the other. A text is fed in pieces and folded once for all
// keys, so that what a Matcher holds is bounded by a piece and the longest key, whatever the size of the text and the
// number of the keys. It is used by one goroutine at a time; the keys are not changed and may be shared.
type Matcher struct {
	keys  []Key
	scope Scope // where to look for them
	keep  int   // octets at the end of a text that may be the beginning of a key

	found []bool // by key, since reset
	left  int    // keys that have not been found

	header bool   // the text is a header
	text   []byte // what is held of the text, folded
	seen   int    // text[:seen] has been looked at, and is here for what may begin in it
	tail   []byte // an unfinished character
}

// NewMatcher returns a Matcher for keys.
func NewMatcher(keys []Key) *Matcher {
	m := &Matcher{keys: keys, scope: ScopeBody, found: make([]bool, len(keys))}
	for i := range keys {
		m.keep = max(m.keep, len(keys[i].Text)-1)
		if !keys[i].SkipHeaders {
			m.scope = ScopeText
		}
	}
	return m
}

// Found reports whether the key of that index is in the message that was searched last.
func (m *Matcher) Found(i int) bool { return m.found[i] }

// reset begins a message.
func (m *Matcher) reset() {
	m.left = len(m.keys)
	for i := range m.keys {
		m.found[i] = len(m.keys[i].Text) == 0
		if m.found[i] {
			m.left--
		}
	}
}

// begin begins a text.
func (m *Matcher) begin(header bool) {
	m.header = header
	m.text, m.seen, m.tail = m.text[:0], 0, m.tail[:0]
}

// foldPiece is how much is folded at a time, and how much is looked at.
const foldPiece = 16 << 10

// feed takes the next piece of the text, in UTF-8. There must be as much new text as the longest key is long before it
// is looked at: else small pieces would each cost as much as the key.
func (m *Matcher) feed(b []byte) {
	for len(b) > 0 && m.left > 0 {
		n := min(len(b), foldPiece)
		piece := b[:n]
		b = b[n:]
		if len(m.tail) > 0 {
			piece = append(m.tail, piece...)
			m.tail = nil
		}
		n = completeUTF8(piece)
		m.tail = append(m.tail, piece[n:]...)
		m.text = Fold(m.text, piece[:n])
		if len(m.text)-m.seen >= max(foldPiece, m.keep) {
			m.look()
		}
	}
}

// look looks for the keys in what has been fed since it last did, which ends a text too, and keeps what may be the
// beginning of one.
func (m *Matcher) look() {
	for i := range m.keys {
		k := &m.keys[i]
		if m.found[i] || m.header && k.SkipHeaders {
			continue
		}
		if bytes.Contains(m.text[max(m.seen-len(k.Text)+1, 0):], k.Text) {
			m.found[i] = true
			m.left--
		}
	}
	keep := min(m.keep, len(m.text))
	m.text = append(m.text[:0], m.text[len(m.text)-keep:]...)
	m.seen = keep
}

// Fold appends a text in UTF-8 as strings are compared, by i;unicode-casemap (RFC 5051): in title case, decomposed, so
// that é is found however it was written.
func Fold(dst, b []byte) []byte {
	for len(b) > 0 {
		if n := asciiLen(b); n > 0 {
			dst = appendUpper(dst, b[:n])
			b = b[n:]
			continue
		}
		r, n := utf8.DecodeRune(b)
		b = b[n:]
		dst = foldRune(dst, r)
	}
	return dst
}

// foldRune appends a character that is not ASCII.
func foldRune(dst []byte, r rune) []byte {
	switch {
	case r < foldedLow:
		f := &lowFolds()[r]
		return append(dst, f.b[:f.n]...)
	case '\u4e00' <= r && r <= '\u9fff': // Han: neither case nor parts
		return utf8.AppendRune(dst, r)
	}
	return appendFolded(dst, r)
}

// foldedLow is where the table of foldings ends: behind the Latin, Greek, Cyrillic, Armenian and Hebrew letters. A
// look-up in it is ten times as fast as appendFolded.
const foldedLow = 0x600

// A folding is what a character becomes.
type folding struct {
	n uint8
	b [15]byte
}

// lowFolds makes the table when it is first needed; that takes 30 us.
var lowFolds = sync.OnceValue(func() *[foldedLow]folding {
	t := new([foldedLow]folding)
	for r := range t {
		t[r].n = uint8(copy(t[r].b[:], appendFolded(nil, rune(r))))
	}
	return t
})

// appendFolded appends a character in title case and decomposed.
func appendFolded(dst []byte, r rune) []byte {
	var u [utf8.UTFMax]byte
	n := utf8.EncodeRune(u[:], unicode.ToTitle(r))
	d := norm.NFKD.Properties(u[:n]).Decomposition()
	if d == nil {
		d = u[:n]
	}
	for _, c := range d { // a ligature's letters are small
		if 'a' <= c && c <= 'z' {
			c -= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}

const highBits = 0x8080808080808080

// asciiLen returns how many octets of b are ASCII before the first that is not.
func asciiLen(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		if binary.LittleEndian.Uint64(b[i:])&highBits != 0 {
			break
		}
	}
	for i < len(b) && b[i] < utf8.RuneSelf {
		i++
	}
	return i
}

// appendUpper appends ASCII letters in upper case, eight octets at a time: for each octet, adding 0x1f sets the high
// bit from 'a' on, and adding 5 from behind 'z' on.
func appendUpper(dst, b []byte) []byte {
	n := len(dst)
	dst = append(dst, b...)
	out := dst[n:]
	if len(out) == 1 && (out[0] < 'a' || out[0] > 'z') {
		return dst
	}
	i := 0
	for ; i+8 <= len(out); i += 8 {
		w := binary.LittleEndian.Uint64(out[i:])
		isLower := (w + 0x1f1f1f1f1f1f1f1f) &^ (w + 0x0505050505050505) & highBits
		binary.LittleEndian.PutUint64(out[i:], w-isLower>>2)
	}
	for ; i < len(out); i++ {
		if c := out[i]; 'a' <= c && c <= 'z' {
			out[i] = c - 0x20
		}
	}
	return dst
}
