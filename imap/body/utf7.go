package body

import (
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding"
)

// utf7 is the encoding UTF-7, for reading only.
type utf7 struct{ encoding.Encoding }

func (utf7) NewDecoder() *encoding.Decoder {
	return &encoding.Decoder{Transformer: new(utf7Decoder)}
}

// A utf7Decoder makes UTF-8 of UTF-7 (RFC 2152), which package text does not have and old mail does: ASCII, in which "+"
// begins UTF-16 in base64 without padding, and "-" or anything else that is no base64 ends it. "+-" is a plus.
type utf7Decoder struct {
	shifted bool   // in base64
	empty   bool   // nothing has come behind the "+"
	bits    uint32 // not yet used, the low n
	n       uint8
	high    rune // the first half of a surrogate pair, or 0
}

// Reset implements transform.Transformer.
func (u *utf7Decoder) Reset() { *u = utf7Decoder{} }

// Transform implements transform.Transformer.
func (u *utf7Decoder) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		// An octet gives at most two characters: U+FFFD for half a pair, and its own.
		if len(dst)-nDst < 2*utf8.UTFMax {
			return nDst, nSrc, errShortDst
		}
		nDst += u.octet(dst[nDst:], src[nSrc])
		nSrc++
	}
	if atEOF && u.high != 0 {
		if len(dst)-nDst < utf8.UTFMax {
			return nDst, nSrc, errShortDst
		}
		nDst += u.unpaired(dst[nDst:])
	}
	return nDst, nSrc, nil
}

// octet takes one octet and returns how much it has written.
func (u *utf7Decoder) octet(dst []byte, c byte) int {
	if !u.shifted {
		if c == '+' {
			u.shifted, u.empty, u.bits, u.n = true, true, 0, 0
			return 0
		}
		if c >= utf8.RuneSelf {
			return copy(dst, replacement)
		}
		dst[0] = c
		return 1
	}
	if v := base64Digit(c); v < 64 {
		u.empty = false
		u.bits = u.bits<<6 | uint32(v)
		if u.n += 6; u.n < 16 {
			return 0
		}
		u.n -= 16
		return u.unit(dst, rune(u.bits>>u.n&0xffff))
	}
	n := u.unpaired(dst)
	u.shifted = false
	if c != '-' {
		return n + u.octet(dst[n:], c)
	}
	if u.empty {
		dst[n] = '+'
		n++
	}
	return n
}

// unit writes a character when its last unit of UTF-16 has come.
func (u *utf7Decoder) unit(dst []byte, r rune) int {
	if u.high != 0 {
		if pair := utf16.DecodeRune(u.high, r); pair != utf8.RuneError {
			u.high = 0
			return utf8.EncodeRune(dst, pair)
		}
	}
	n := u.unpaired(dst)
	if 0xd800 <= r && r < 0xdc00 {
		u.high = r
		return n
	}
	return n + utf8.EncodeRune(dst[n:], r) // U+FFFD for the second half of a pair
}

// unpaired writes what half a pair becomes.
func (u *utf7Decoder) unpaired(dst []byte) int {
	if u.high == 0 {
		return 0
	}
	u.high = 0
	return copy(dst, replacement)
}
