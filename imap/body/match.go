package body

import (
	"bytes"
	"encoding/binary"
	"io"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// A Matcher finds a string in text as SEARCH wants it: a substring, in any case, in Unicode. It compares by
// i;unicode-casemap (RFC 5051): characters in title case, decomposed, so that é is found however it was written. The
// text is fed in pieces; it may be large, the key should not be. A Matcher is used by one goroutine at a time.
type Matcher struct {
	SkipHeaders bool // Search: not in headers

	key  []byte // folded
	buf  []byte // folded text that may be the beginning of the key, and room for more
	tail []byte // an unfinished character
	hit  bool
}

// NewMatcher returns a Matcher for a key in UTF-8. An empty key is in every text.
func NewMatcher(key string) *Matcher {
	return &Matcher{key: fold(nil, []byte(key))}
}

// Reset begins a new text.
func (m *Matcher) Reset() {
	m.buf = m.buf[:0]
	m.tail = m.tail[:0]
	m.hit = len(m.key) == 0
}

// Write takes the next piece of the text, in UTF-8. It never fails.
func (m *Matcher) Write(b []byte) (int, error) {
	m.feed(b)
	return len(b), nil
}

// Found reports whether the key has been in the text since Reset.
func (m *Matcher) Found() bool {
	m.search()
	return m.hit
}

// Match reports whether the key is in s.
func (m *Matcher) Match(s string) bool {
	m.Reset()
	m.feed([]byte(s))
	return m.Found()
}

// MatchReader reports whether the key is in what r gives, and reads no more of it than that takes.
func (m *Matcher) MatchReader(r io.Reader) (bool, error) {
	m.Reset()
	in := windows.Get().(*[windowSize]byte)
	defer windows.Put(in)
	for !m.hit {
		n, err := r.Read(in[:])
		m.feed(in[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return m.Found(), err
		}
	}
	return m.Found(), nil
}

// foldPiece is how much is folded at a time.
const foldPiece = 16 << 10

func (m *Matcher) feed(b []byte) {
	for len(b) > 0 && !m.hit {
		n := min(len(b), foldPiece)
		piece := b[:n]
		b = b[n:]
		if len(m.tail) > 0 {
			piece = append(m.tail, piece...)
			m.tail = nil
		}
		n = completeUTF8(piece)
		m.tail = append(m.tail, piece[n:]...)
		m.buf = fold(m.buf, piece[:n])
		if len(m.key) < shortKey || len(m.buf) > 2*len(m.key) {
			m.search()
		}
	}
}

// shortKey is the length from which on a search waits until there is as much new text as the key is long: else small
// pieces of text would each cost as much as the key.
const shortKey = 256

// search looks for the key in what has been fed, and keeps what may be its beginning.
func (m *Matcher) search() {
	if m.hit || bytes.Contains(m.buf, m.key) {
		m.hit = true
		return
	}
	keep := min(len(m.key)-1, len(m.buf))
	m.buf = append(m.buf[:0], m.buf[len(m.buf)-keep:]...)
}

// fold appends b in upper case, decomposed.
func fold(dst, b []byte) []byte {
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
