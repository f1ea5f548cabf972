package imap

import (
	"bytes"
	"strings"

	"imapd/imap/body"
)

// addressText returns the text that FROM, TO, CC and BCC look at, given the raw
// value of such a field: its addresses, written in one way (as `"Jane Doe"
// <jane@example.org>, <bob@example.org>`) however they were written before.
// Encoded words are left as they are.
func addressText(value []byte) []byte {
	var w addressWriter
	const max = 1 << 16 // a field has no more octets
	for _, a := range body.ParseAddresses(value, max) {
		w.add(&a)
	}
	return w.out
}

// An addressWriter writes addresses in a list.
type addressWriter struct {
	out  []byte
	next bool // a comma is due
}

func (w *addressWriter) add(a *body.Address) {
	if a.IsGroupEnd() {
		w.out = append(bytes.TrimSuffix(w.out, []byte{' '}), ';')
		w.next = true
		return
	}
	if w.next {
		w.out = append(w.out, ", "...)
	}
	if a.IsGroupStart() {
		w.phrase(a.Mailbox.S, true)
		w.out = append(w.out, ": "...)
		w.next = false
		return
	}
	w.next = true
	if a.Name.S != "" {
		w.phrase(a.Name.S, true)
		w.out = append(w.out, ' ')
	}
	w.out = append(w.out, '<')
	if a.Route.OK {
		w.out = append(append(w.out, a.Route.S...), ':')
	}
	w.phrase(a.Mailbox.S, false)
	if a.Host.S != "" {
		w.out = append(append(w.out, '@'), a.Host.S...)
	}
	w.out = append(w.out, '>')
}

// phrase writes a word or words, quoted where that is needed, but never what
// may hold encoded words (RFC 2047 section 5).
func (w *addressWriter) phrase(s string, name bool) {
	plain := s != ""
	for i := range len(s) {
		plain = plain && (isAtext(s[i]) || s[i] == '.' && !name)
	}
	if plain || name && strings.Contains(s, "=?") {
		w.out = append(w.out, s...)
		return
	}
	w.out = append(w.out, '"')
	for i := range len(s) {
		if strings.IndexByte(`"\'`, s[i]) >= 0 {
			w.out = append(w.out, '\\')
		}
		w.out = append(w.out, s[i])
	}
	w.out = append(w.out, '"')
}

// isAtext reports whether c may stand in an atom of RFC 5322 section 3.2.3, or
// is not ASCII.
func isAtext(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c >= 0x80 ||
		strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}
