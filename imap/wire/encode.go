package wire

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxQuoted is the longest string that is sent quoted, in octets.
const maxQuoted = 1024

// AppendString appends s as a string: quoted if it is short, of 7 bits and without CR, LF
// and NUL, else as a literal. The empty string is always "", never {0}, on which iOS
// Mail hangs. A NUL, which no string may hold, is sent as octet 0x80, as other servers do.
func AppendString(b []byte, s string) []byte {
	n, ok := quotedLen(s, false)
	if !ok {
		return appendLiteral(b, s)
	}
	return appendQuoted(b, s, n)
}

// AppendUTF8String is AppendString for clients that have enabled UTF8=ACCEPT or
// IMAP4rev2: what is valid UTF-8 goes into quoted strings too.
func AppendUTF8String(b []byte, s string) []byte {
	n, ok := quotedLen(s, true)
	if !ok {
		return appendLiteral(b, s)
	}
	return appendQuoted(b, s, n)
}

// AppendNString appends NIL if s is not ok, else s as AppendString does.
func AppendNString(b []byte, s string, ok bool) []byte {
	if !ok {
		return append(b, "NIL"...)
	}
	return AppendString(b, s)
}

// AppendAString appends s as an atom if it can be one (and is not NIL), else as
// AppendString does. The grammar allows "]" in it, where a client may take it for the
// end of a section: such a string is quoted.
func AppendAString(b []byte, s string) []byte {
	if atomic(s) {
		return append(b, s...)
	}
	return AppendString(b, s)
}

// atomic reports whether s can be sent as an atom of an astring.
func atomic(s string) bool {
	if s == "" || len(s) > maxQuoted || strings.EqualFold(s, "NIL") {
		return false
	}
	for i := range len(s) {
		if class[s[i]]&isAtom == 0 {
			return false
		}
	}
	return true
}

// AppendMailbox appends a mailbox name, given in UTF-8, in modified UTF-7, or with
// utf8 (after ENABLE) as it is.
func AppendMailbox(b []byte, name string, utf8 bool) []byte {
	if utf8 {
		if atomic(name) {
			return append(b, name...)
		}
		return AppendUTF8String(b, name)
	}
	return AppendAString(b, EncodeUTF7(name))
}

// quotedLen returns the length of s between quotes, and whether it may be quoted.
func quotedLen(s string, utf8OK bool) (int, bool) {
	if len(s) > maxQuoted {
		return 0, false
	}
	n := len(s)
	eight := false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			n++
		case c >= 0x80:
			eight = true
		case class[c]&isText == 0:
			return 0, false
		}
	}
	return n, !eight || utf8OK && utf8.ValidString(s)
}

// appendQuoted appends s, whose length between quotes is n.
func appendQuoted(b []byte, s string, n int) []byte {
	b = append(b, '"')
	if n == len(s) {
		b = append(b, s...)
		return append(b, '"')
	}
	for i := range len(s) {
		if c := s[i]; c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// appendLiteral appends s as a literal.
func appendLiteral(b []byte, s string) []byte {
	b = AppendLiteralHeader(b, int64(len(s)))
	start := len(b)
	b = append(b, s...)
	if strings.IndexByte(s, 0) >= 0 {
		for i, c := range b[start:] {
			if c == 0 {
				b[start+i] = 0x80
			}
		}
	}
	return b
}

// AppendLiteralHeader appends "{size}" and the line end; size octets must follow.
// Use AppendString for what may be empty.
func AppendLiteralHeader(b []byte, size int64) []byte {
	b = append(b, '{')
	b = strconv.AppendInt(b, size, 10)
	return append(b, "}\r\n"...)
}

// AppendNumber appends a number.
func AppendNumber[N ~uint32 | ~uint64 | ~int64 | ~int](b []byte, n N) []byte {
	if n < 0 {
		return strconv.AppendInt(b, int64(n), 10)
	}
	return strconv.AppendUint(b, uint64(n), 10)
}

// AppendFlags appends a parenthesised list of flags, which are sent as they are.
func AppendFlags(b []byte, flags []string) []byte {
	b = append(b, '(')
	for i, f := range flags {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, f...)
	}
	return append(b, ')')
}
