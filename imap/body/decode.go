package body

import "slices"

// A decoder undoes a content transfer encoding, piece by piece. It never refuses anything: RFC 2045 section 6.7 and
// 6.8 want strange octets ignored (base64) or kept (quoted-printable).
type decoder interface {
	// decode appends what src gives to dst.
	decode(dst, src []byte) []byte
	// finish appends what was held back at the end.
	finish(dst []byte) []byte
	// clone returns a decoder that goes on as this one does.
	clone() decoder
}

// newDecoder returns the decoder of an encoding, or nil for Identity and UnknownCTE.
func newDecoder(cte CTE) decoder {
	switch cte {
	case Base64:
		return new(base64Decoder)
	case QuotedPrintable:
		return new(qpDecoder)
	}
	return nil
}

// A base64Decoder skips everything outside the alphabet. Padding where it may stand ends the text, whatever follows:
// a mailing list's footer, say.
type base64Decoder struct {
	acc   uint32 // the digits of an unfinished group
	n     int    // how many
	ended bool
}

const (
	pad = 0xfe
	xxx = 0xff // outside the alphabet
)

// base64Digits holds the value of each ASCII character.
var base64Digits = [128]byte{
	xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx,
	xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx,
	xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, xxx, 62, xxx, xxx, xxx, 63,
	52, 53, 54, 55, 56, 57, 58, 59, 60, 61, xxx, xxx, xxx, pad, xxx, xxx,
	xxx, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
	15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, xxx, xxx, xxx, xxx, xxx,
	xxx, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
	41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, xxx, xxx, xxx, xxx, xxx,
}

func base64Digit(c byte) byte {
	if c < 128 {
		return base64Digits[c]
	}
	return xxx
}

// decodeGroups decodes whole groups of four digits as long as nothing else comes, and returns the rest of src.
func decodeGroups(dst, src []byte) ([]byte, []byte) {
	for len(src) >= 4 {
		a, b, c, d := base64Digit(src[0]), base64Digit(src[1]), base64Digit(src[2]), base64Digit(src[3])
		if a|b|c|d >= 64 {
			break
		}
		v := uint32(a)<<18 | uint32(b)<<12 | uint32(c)<<6 | uint32(d)
		dst = append(dst, byte(v>>16), byte(v>>8), byte(v))
		src = src[4:]
	}
	return dst, src
}

func (d *base64Decoder) decode(dst, src []byte) []byte {
	for len(src) > 0 && !d.ended {
		if d.n == 0 {
			dst, src = decodeGroups(dst, src)
		}
		for len(src) > 0 {
			c := base64Digit(src[0])
			src = src[1:]
			if c == pad && d.n >= 2 {
				d.ended = true
				return d.finish(dst)
			}
			if c >= 64 {
				continue
			}
			d.acc = d.acc<<6 | uint32(c)
			if d.n++; d.n == 4 {
				dst = append(dst, byte(d.acc>>16), byte(d.acc>>8), byte(d.acc))
				d.acc, d.n = 0, 0
				break
			}
		}
	}
	return dst
}

func (d *base64Decoder) finish(dst []byte) []byte {
	switch d.n {
	case 2:
		dst = append(dst, byte(d.acc>>4))
	case 3:
		dst = append(dst, byte(d.acc>>10), byte(d.acc>>2))
	}
	d.acc, d.n = 0, 0
	return dst
}

func (d *base64Decoder) clone() decoder {
	c := *d
	return &c
}

// A qpDecoder reads quoted-printable text: a line end is sent as CR LF, white space before it is dropped, `=` at the
// end of a line joins it to the next, and `=` before anything but two hex digits stays as it is.
type qpDecoder struct {
	held []byte // what could go either way: white space, or the beginning of an escape
}

// maxHeldWhite bounds the white space that is kept back in case a line end follows. Lines have 76 characters.
const maxHeldWhite = 1000

func (d *qpDecoder) decode(dst, src []byte) []byte {
	for len(src) > 0 {
		if len(d.held) > 0 {
			dst, src = d.pending(dst, src)
			continue
		}
		i := plainQP(src)
		dst = append(dst, src[:i]...)
		if i == len(src) {
			return dst
		}
		c := src[i]
		src = src[i+1:]
		switch {
		case c == '\n':
			dst = append(dst, '\r', '\n')
		case c == '=' && len(src) > 1 && isHex(src[0]) && isHex(src[1]):
			dst = append(dst, unhex(src[0])<<4|unhex(src[1]))
			src = src[2:]
		default:
			d.held = append(d.held, c)
		}
	}
	return dst
}

// plainQP returns how many octets stand for themselves; white space does if something else follows.
func plainQP(b []byte) int {
	for i, c := range b {
		switch {
		case c > '=':
		case c == '=' || c == '\r' || c == '\n':
			return i
		case c == ' ' || c == '\t':
			if i+1 == len(b) || isWhite(b[i+1]) {
				return i
			}
		}
	}
	return len(b)
}

// pending looks at the next octet where something is held, and returns what is left of src.
func (d *qpDecoder) pending(dst, src []byte) ([]byte, []byte) {
	c, n := src[0], len(d.held)
	last := d.held[n-1]
	escape := d.held[0] == '='
	bare := escape && n == 1
	hex := escape && n == 2 && isHex(last)
	switch {
	case hex && isHex(c):
		dst = append(dst, unhex(last)<<4|unhex(c))
		d.held = d.held[:0]
		return dst, src[1:]
	case hex:
	case c == '\n':
		if !escape {
			dst = append(dst, '\r', '\n')
		}
		d.held = d.held[:0]
		return dst, src[1:]
	case c == '\r' && last != '\r',
		bare && isHex(c),
		(c == ' ' || c == '\t') && (last == ' ' || last == '\t' || bare) && n < maxHeldWhite:
		d.held = append(d.held, c)
		return dst, src[1:]
	}
	dst = append(dst, d.held...)
	d.held = d.held[:0]
	return dst, src
}

// finish takes the end for a line end, as the one in front of a boundary belongs to the boundary.
func (d *qpDecoder) finish(dst []byte) []byte {
	if held := d.held; len(held) > 1 && held[0] == '=' && isHex(held[1]) {
		dst = append(dst, held...)
	}
	d.held = d.held[:0]
	return dst
}

func (d *qpDecoder) clone() decoder { return &qpDecoder{held: slices.Clone(d.held)} }

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' || 'a' <= c && c <= 'f'
}

// unhex returns the value of a hex digit.
func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&0xf + 9
}
