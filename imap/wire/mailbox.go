package wire

import (
	"errors"
	"strings"
	"unicode/utf8"
)

var (
	errNotUTF8 = errors.New("not valid UTF-8")
	errNUL     = errors.New("contains NUL")
)

// Mailbox reads a mailbox name and returns it in UTF-8; INBOX in any case becomes
// "INBOX". A name that is well-formed as a string but not as a name, because of bad
// modified UTF-7 (or bad UTF-8 after SetUTF8), is no syntax error: it is returned
// as sent, NameErr tells at once, and End returns the *NameError if the command
// has no other fault. Valid UTF-8 in a quoted name or a literal is taken for
// what it is without SetUTF8 too, see decodeName.
func (d *Decoder) Mailbox() string {
	name, _ := d.MailboxAsSent()
	return name
}

// MailboxAsSent is Mailbox, and returns also how the client spelled the name,
// in UTF-8: an "inbox" that is to be answered with its OLDNAME (RFC 9051 section
// 6.3.9.7).
func (d *Decoder) MailboxAsSent() (name, sent string) {
	raw := d.astring(eightBitAny)
	if d.err != nil {
		return "", ""
	}
	defer func() { d.noteName(name) }()
	if strings.EqualFold(raw, "INBOX") {
		return "INBOX", raw
	}
	name, err := raw, error(nil)
	if d.utf8 {
		if !utf8.ValidString(raw) {
			err = errNotUTF8
		}
	} else {
		name, err = decodeName(raw)
	}
	if err != nil {
		if d.nameErr == nil {
			d.nameErr = &NameError{Name: raw, Err: err}
		}
		return raw, raw
	}
	return name, name
}

func (d *Decoder) noteName(name string) {
	if d.names[0] == "" {
		d.names[0] = name
	} else if d.names[1] == "" {
		d.names[1] = name
	}
}

// Named returns the first two mailboxes that the arguments of this command have named
// so far, empty where there is none: for the log.
func (d *Decoder) Named() (first, second string) { return d.names[0], d.names[1] }

// decodeName decodes a name of a client that has not enabled UTF-8. Some clients
// (go-imap's) send UTF-8 as soon as they see that the server knows IMAP4rev2, with
// "&" as "&-" all the same. Modified UTF-7 has no octets above 0x7F, so there is
// no doubt about what they mean; between them its rules hold.
func decodeName(raw string) (string, error) {
	name, err := DecodeUTF7(raw)
	if err == nil || !utf8.ValidString(raw) {
		return name, err
	}
	var b strings.Builder
	for rest := raw; rest != ""; {
		n := strings.IndexFunc(rest, func(r rune) bool { return r >= utf8.RuneSelf })
		if n == 0 {
			_, size := utf8.DecodeRuneInString(rest)
			b.WriteString(rest[:size])
			rest = rest[size:]
			continue
		}
		if n < 0 {
			n = len(rest)
		}
		part, err := DecodeUTF7(rest[:n])
		if err != nil {
			return "", err
		}
		b.WriteString(part)
		rest = rest[n:]
	}
	return b.String(), nil
}

// NameErr returns the fault of the first bad mailbox name of this command. A
// command that asks for a literal, as APPEND does, should look before it asks.
func (d *Decoder) NameErr() error {
	if d.nameErr == nil {
		return nil
	}
	return d.nameErr
}

// ListMailbox reads a LIST pattern, in which % and * are allowed, and returns it in
// UTF-8. What is valid modified UTF-7 between the wildcards is decoded, anything
// else stays as sent: a bad pattern matches nothing, and is no error. INBOX keeps
// its case, which the matcher must ignore (RFC 9051 section 5.1).
func (d *Decoder) ListMailbox() string {
	var raw string
	switch d.Peek() {
	case '"':
		raw = d.quoted(eightBitAny)
	case '{':
		raw = d.held()
	default:
		raw = d.span(isPattern, d.lim.Word, "mailbox pattern")
	}
	if d.utf8 || d.err != nil || strings.IndexByte(raw, '&') < 0 {
		return raw
	}
	var b strings.Builder
	for rest := raw; rest != ""; {
		n := strings.IndexAny(rest, "%*")
		if n < 0 {
			n = len(rest)
		}
		part := rest[:n]
		if name, err := decodeName(part); err == nil {
			part = name
		}
		b.WriteString(part)
		if rest = rest[n:]; rest != "" {
			b.WriteByte(rest[0])
			rest = rest[1:]
		}
	}
	return b.String()
}
