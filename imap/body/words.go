package body

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// DecodeHeader returns the text of a header field's raw value: unfolded, its encoded words (RFC 2047, and RFC 2231
// section 5) decoded, in UTF-8. White space between encoded words is dropped. Nothing fails: a word that cannot be
// read stays as it is, text in an unknown charset keeps its ASCII, and octets that are not UTF-8 become U+FFFD.
func DecodeHeader(raw []byte) string {
	raw = unfold(raw)
	if !bytes.Contains(raw, []byte("=?")) {
		return strings.ToValidUTF8(string(raw), replacement)
	}
	w := words{}
	for len(raw) > 0 {
		i := bytes.Index(raw, []byte("=?"))
		if i < 0 {
			break
		}
		word, n := parseWord(raw[i:])
		if n == 0 {
			w.plain(raw[:i+2])
			raw = raw[i+2:]
			continue
		}
		if !w.inWord || len(bytes.Trim(raw[:i], " \t")) > 0 {
			w.plain(raw[:i])
		}
		w.add(word)
		raw = raw[i+n:]
	}
	w.plain(raw)
	w.flush()
	return w.out.String()
}

// unfold drops the line ends of a folded value; what remains of a fold is its white space (RFC 5322 section 2.2.3), of which a
// tab in front becomes a space: the words are found, and shown, as if they had been written in one line.
func unfold(b []byte) []byte {
	if bytes.IndexByte(b, '\n') < 0 {
		return b
	}
	return oneLine(bytes.ReplaceAll(b, []byte("\n\t"), []byte("\n ")))
}

// An encodedWord is =?charset?B?text?= with the text decoded to octets.
type encodedWord struct {
	charset string
	text    []byte
}

// maxWord is the longest text of a Q word that is read; RFC 2047 section 2 allows 75 octets.
const maxWord = 2000

// parseWord reads the encoded word at the start of b, and returns how long it is; 0: there is none.
func parseWord(b []byte) (encodedWord, int) {
	rest := b[2:]
	q1 := bytes.IndexByte(rest, '?')
	if q1 <= 0 || q1 > 64 || len(rest) < q1+3 || rest[q1+2] != '?' {
		return encodedWord{}, 0
	}
	coding, text := lower(rest[q1+1]), rest[q1+3:]
	n := bytes.IndexByte(text, '?')
	if coding == 'q' {
		// Some write question marks as they are. The limit keeps unfinished words from costing more than they are
		// long.
		n = bytes.Index(text[:min(len(text), maxWord)], []byte("?="))
	}
	if n < 0 || n+1 >= len(text) || text[n+1] != '=' {
		return encodedWord{}, 0
	}
	charset, _, _ := strings.Cut(string(rest[:q1]), "*")
	w := encodedWord{charset: charset}
	switch coding {
	case 'b':
		d := base64Decoder{}
		w.text = d.finish(d.decode(nil, text[:n]))
	case 'q':
		w.text = decodeQ(text[:n])
	default:
		return encodedWord{}, 0
	}
	return w, 2 + q1 + 3 + n + 2
}

// decodeQ decodes the Q encoding of RFC 2047 section 4.2.
func decodeQ(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '_':
			out = append(out, ' ')
		case c == '=' && i+2 < len(b) && isHex(b[i+1]) && isHex(b[i+2]):
			out = append(out, unhex(b[i+1])<<4|unhex(b[i+2]))
			i += 2
		default:
			out = append(out, c)
		}
	}
	return out
}

// words puts a decoded header together. Neighbouring words of one charset are converted together, as some programs
// split characters between them.
type words struct {
	out    strings.Builder
	inWord bool // the last piece was an encoded word; it is in held
	held   encodedWord
}

func (w *words) plain(b []byte) {
	if len(b) == 0 {
		return
	}
	w.flush()
	w.out.WriteString(strings.ToValidUTF8(string(b), replacement))
}

func (w *words) add(word encodedWord) {
	if w.inWord && strings.EqualFold(w.held.charset, word.charset) {
		w.held.text = append(w.held.text, word.text...)
		return
	}
	w.flush()
	w.held, w.inWord = word, true
}

func (w *words) flush() {
	if w.inWord {
		w.out.Write(toUTF8(w.held.charset, w.held.text))
		w.inWord = false
	}
}

// toUTF8 converts a whole text.
func toUTF8(charset string, b []byte) []byte {
	c := newConversion(charset)
	return c.finish(c.convert(nil, b))
}

// A conversion makes UTF-8 of text in some charset, piece by piece.
type conversion struct {
	t    transformer // nil: the text is UTF-8, or taken for it
	tail []byte      // an unfinished character
	buf  []byte
}

// convert appends what src gives to dst.
func (c *conversion) convert(dst, src []byte) []byte { return c.run(dst, src, false) }

// finish appends what an unfinished character at the end becomes.
func (c *conversion) finish(dst []byte) []byte { return c.run(dst, nil, true) }

func (c *conversion) run(dst, src []byte, last bool) []byte {
	if len(c.tail) > 0 {
		src = append(c.tail, src...)
		c.tail = nil
	}
	if c.t == nil {
		n := len(src)
		if !last {
			n = completeUTF8(src)
		}
		dst = appendValid(dst, src[:n])
		c.tail = append(c.tail, src[n:]...)
		return dst
	}
	if c.buf == nil {
		c.buf = make([]byte, 4096)
	}
	for {
		nd, ns, err := c.t.Transform(c.buf, src, last)
		dst = append(dst, c.buf[:nd]...)
		src = src[ns:]
		switch {
		case err == errShortDst && (nd > 0 || ns > 0):
		case err == errShortSrc && !last && len(src) < 64:
			c.tail = append(c.tail, src...)
			return dst
		case err == nil && len(src) == 0 || len(src) == 0:
			return dst
		default:
			// Decoders do not fail, they write U+FFFD; but never loop.
			dst = append(dst, replacement...)
			src = src[1:]
		}
	}
}

// completeUTF8 returns the length of b without an unfinished character at its end.
func completeUTF8(b []byte) int {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if utf8.FullRune(b[len(b)-i:]) {
				break
			}
			return len(b) - i
		}
	}
	return len(b)
}

// appendValid appends b with a U+FFFD for each octet that is not UTF-8.
func appendValid(dst, b []byte) []byte {
	if utf8.Valid(b) {
		return append(dst, b...)
	}
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		dst = utf8.AppendRune(dst, r)
		b = b[n:]
	}
	return dst
}
