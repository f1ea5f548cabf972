package wire

import (
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Modified UTF-7, the encoding of mailbox names before IMAP4rev2: RFC 3501 section
// 5.1.3. Printable ASCII stands for itself, "&" is "&-", anything else is UTF-16
// in base64 (with "," for "/", without padding) between "&" and "-".
//
// There is one encoding of each name and DecodeUTF7 accepts no other: a folder could
// otherwise be reached under several names, and checks on a name be passed by.

var (
	errUTF7Octet     = errors.New("not modified UTF-7: octet outside of printable ASCII")
	errUTF7Open      = errors.New("not modified UTF-7: nothing ends what '&' begins")
	errUTF7Base64    = errors.New("not modified UTF-7: bad base64 in a shift sequence")
	errUTF7Canonical = errors.New("not modified UTF-7: there is another way to write it")
	errUTF7Surrogate = errors.New("not modified UTF-7: unpaired surrogate")
)

const utf7Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,"

// utf7Direct reports whether c stands for itself ("&" does not quite).
func utf7Direct(c rune) bool { return c >= ' ' && c <= '~' }

// EncodeUTF7 returns the modified UTF-7 of a name in UTF-8. Octets that are not
// UTF-8 become U+FFFD.
func EncodeUTF7(name string) string { return string(AppendUTF7(nil, name)) }

// AppendUTF7 appends what EncodeUTF7 returns.
func AppendUTF7(b []byte, name string) []byte {
	for i := 0; i < len(name); {
		c := name[i]
		switch {
		case c == '&':
			b = append(b, '&', '-')
			i++
		case utf7Direct(rune(c)):
			b = append(b, c)
			i++
		default:
			n := i + shifted(name[i:])
			b = appendShift(b, name[i:n])
			i = n
		}
	}
	return b
}

// shifted returns the length of the start of s that must be encoded.
func shifted(s string) int {
	for i, c := range s {
		if utf7Direct(c) {
			return i
		}
	}
	return len(s)
}

// appendShift appends one shift sequence: s in UTF-16 and base64.
func appendShift(b []byte, s string) []byte {
	b = append(b, '&')
	var bits uint64 // the lowest n bits are not written yet
	n := 0
	unit := func(u rune) {
		bits = bits<<16 | uint64(u)
		for n += 16; n >= 6; n -= 6 {
			b = append(b, utf7Alphabet[bits>>(n-6)&63])
		}
	}
	for _, c := range s {
		if hi, lo := utf16.EncodeRune(c); hi != utf8.RuneError {
			unit(hi)
			unit(lo)
		} else {
			unit(c)
		}
	}
	if n > 0 {
		b = append(b, utf7Alphabet[bits<<(6-n)&63])
	}
	return append(b, '-')
}

// DecodeUTF7 returns the UTF-8 of a name in modified UTF-7. Anything that
// EncodeUTF7 would not write, and NUL, is an error.
func DecodeUTF7(s string) (string, error) {
	if plainUTF7(s) {
		return s, nil
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		c := s[i]
		if !utf7Direct(rune(c)) {
			return "", errUTF7Octet
		}
		i++
		if c != '&' {
			b.WriteByte(c)
			continue
		}
		n := strings.IndexByte(s[i:], '-')
		if n < 0 {
			return "", errUTF7Open
		}
		if n == 0 {
			b.WriteByte('&')
		} else if err := decodeShift(&b, s[i:i+n]); err != nil {
			return "", err
		}
		i += n + 1
		if n > 0 && i+1 < len(s) && s[i] == '&' && s[i+1] != '-' {
			return "", errUTF7Canonical // two shift sequences that should be one
		}
	}
	return b.String(), nil
}

// plainUTF7 reports whether s stands for itself.
func plainUTF7(s string) bool {
	for i := range len(s) {
		if s[i] == '&' || !utf7Direct(rune(s[i])) {
			return false
		}
	}
	return true
}

// decodeShift decodes what stands between "&" and "-".
func decodeShift(b *strings.Builder, s string) error {
	var bits uint32
	var high rune // a surrogate that waits for its other half
	n := 0
	for i := range len(s) {
		v := strings.IndexByte(utf7Alphabet, s[i])
		if v < 0 {
			return errUTF7Base64
		}
		bits = bits<<6 | uint32(v)
		if n += 6; n < 16 {
			continue
		}
		n -= 16
		var err error
		if high, err = decodeUnit(b, rune(bits>>n&0xffff), high); err != nil {
			return err
		}
	}
	switch {
	case high != 0:
		return errUTF7Surrogate
	case n >= 6 || bits&(1<<n-1) != 0:
		return errUTF7Canonical // octets or bits that say nothing
	}
	return nil
}

// decodeUnit takes one UTF-16 unit. high is the surrogate before it, or 0; so is
// the result for the next unit.
func decodeUnit(b *strings.Builder, u, high rune) (rune, error) {
	switch {
	case high != 0:
		c := utf16.DecodeRune(high, u)
		if c == utf8.RuneError {
			return 0, errUTF7Surrogate
		}
		b.WriteRune(c)
	case u >= 0xd800 && u < 0xdc00:
		return u, nil
	case u >= 0xdc00 && u < 0xe000:
		return 0, errUTF7Surrogate
	case u == 0:
		return 0, errNUL
	case utf7Direct(u):
		return 0, errUTF7Canonical
	default:
		b.WriteRune(u)
	}
	return 0, nil
}
