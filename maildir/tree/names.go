package tree

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"imapd/imap/wire"
)

// The parts of a mailbox name, in UTF-8, identify it inside this package; INBOX
// has none. They are without prefix; a first part INBOX is in upper case.

// A NameError is an ErrName. Why is for the client, in ASCII: what is wrong with the
// name, and nothing of the disk.
type NameError struct{ Name, Why string }

func (e *NameError) Error() string { return fmt.Sprintf("%q: %v: %s", e.Name, ErrName, e.Why) }
func (e *NameError) Unwrap() error { return ErrName }

func nameError(name, why string) error { return &NameError{name, why} }

// parse returns the parts of a name that a folder may have. Control characters
// are allowed, because other programs may have made such a folder, but for
// those that a line of a file cannot hold. One separator at the end is ignored:
// Thunderbird puts it there.
func (t *Tree) parse(name string) ([]string, error) {
	if len(name) > maxKnown {
		return nil, nameError(name[:32]+"...", "it is too long")
	}
	if !utf8.ValidString(name) {
		return nil, nameError(name, "it is not UTF-8")
	}
	name = strings.TrimSuffix(name, string(t.separator))
	if strings.EqualFold(name, "INBOX") {
		return nil, nil
	}
	rel, ok := t.cutPrefix(name)
	if !ok {
		return nil, nameError(name, "it does not begin with "+wire.EncodeUTF7(t.prefix))
	}
	parts := strings.Split(rel, string(t.separator))
	if strings.EqualFold(parts[0], "INBOX") {
		parts[0] = "INBOX"
	}
	if why := t.faults(parts); why != "" {
		return nil, nameError(name, why)
	}
	return parts, nil
}

// cutPrefix removes the prefix; INBOX in it matches in any case.
func (t *Tree) cutPrefix(name string) (rel string, ok bool) {
	if rel, ok := strings.CutPrefix(name, t.prefix); ok {
		return rel, true
	}
	n := len("INBOX")
	if len(t.prefix) <= n || len(name) < n || !strings.EqualFold(t.prefix[:n], "INBOX") || t.prefix[n] != t.separator ||
		!strings.EqualFold(name[:n], "INBOX") {
		return "", false
	}
	return strings.CutPrefix(name[n:], t.prefix[n:])
}

// faults says why no folder can have these parts, or "".
func (t *Tree) faults(parts []string) string {
	if len(parts) > maxDepth {
		return "it has too many levels"
	}
	if len(parts) == 1 && parts[0] == "INBOX" {
		return "INBOX has no prefix"
	}
	length := 0
	for _, p := range parts {
		if why := t.partFault(p); why != "" {
			return why
		}
		n := len(t.encodePart(p))
		length += n + 1
		if t.layout == FS && n > maxPart {
			return "a part of it is too long"
		}
	}
	switch {
	case t.layout != FS && length > maxPart:
		return "it is too long"
	case t.isInbox(parts):
		return "it is called INBOX"
	}
	return ""
}

func (t *Tree) partFault(p string) string {
	switch {
	case p == "":
		return "a part of it is empty"
	case strings.Contains(p, "/"):
		return "it contains a '/'"
	case strings.ContainsAny(p, "\x00\r\n"):
		return controlFault
	case t.layout != FS && strings.Contains(p, "."):
		return "it contains a '.'"
	case t.layout == FS && (p == "." || strings.HasPrefix(p, "..") || p == "cur" || p == "new" || p == "tmp"):
		return "a part of it is '.', 'cur', 'new' or 'tmp', or begins with '..'"
	case !utf8.ValidString(p):
		return "it is not UTF-8"
	}
	return ""
}

// read calls parse with a slot: how names are written may have to be found out.
func (t *Tree) read(name string, parse func(string) ([]string, error)) ([]string, error) {
	leave, err := t.slot()
	if err != nil {
		return nil, err
	}
	defer leave()
	return parse(name)
}

// parseNew is parse for a name that is to be given to a folder: nothing in it
// may surprise a person, a shell or the files that lie beside folders.
func (t *Tree) parseNew(name string) ([]string, error) {
	parts, err := t.parse(name)
	if err != nil {
		return nil, err
	}
	if len(t.name(parts)) > t.maxName {
		return nil, nameError(name, "it is too long")
	}
	if strings.IndexFunc(name, control) >= 0 {
		return nil, nameError(name, controlFault)
	}
	for i, p := range parts {
		if i == 0 && p[0] == '~' {
			return nil, nameError(name, "it begins with '~'")
		}
		if t.layout == FS && isFile(p) {
			return nil, nameError(name, "a part of it is the name of a file of the server")
		}
	}
	return parts, nil
}

const controlFault = "it contains a control character"

// control reports whether r is a control character or ends a line or a
// paragraph: none may be in a name (RFC 5198 section 2).
func control(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }

// isFile reports whether name is one that servers use for files in a folder.
func isFile(name string) bool {
	switch name {
	case "subscriptions", "mailboxes.lock", "maildirsize", "maildirfolder":
		return true
	}
	for _, prefix := range []string{"dovecot-", "dovecot.", "imapd-", "imapd.", "courierimap", "subscriptions."} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// name is the name that clients see.
func (t *Tree) name(parts []string) string {
	if len(parts) == 0 {
		return "INBOX"
	}
	return t.prefix + strings.Join(parts, string(t.separator))
}

// same reports whether a part of a name is the same in both encodings.
func same(p string) bool {
	for i := range len(p) {
		if p[i] < ' ' || p[i] > '~' || p[i] == '&' {
			return false
		}
	}
	return true
}

// A vote counts the names on disk that speak for either encoding. One that is
// possible in neither speaks for none.
type vote struct {
	for7, for8 int
	bare       int // ASCII that is no UTF-7, such as "R&D"
}

func (v *vote) count(parts []string) {
	for _, part := range parts {
		if same(part) {
			continue
		}
		switch _, err := wire.DecodeUTF7(part); {
		case err == nil && strings.IndexByte(part, '&') >= 0:
			v.for7++
		case err == nil || !utf8.ValidString(part):
		case strings.IndexFunc(part, func(r rune) bool { return r > '~' }) >= 0:
			v.for8++
		default:
			v.bare++
		}
	}
}

// encoding returns UTF-8 only for a clear majority: a wrong guess renames the
// folders that clients know, and a directory that somebody made by hand must not do
// that.
func (v *vote) encoding() Encoding {
	if v.for8 > 2*v.for7 || v.for7 == 0 && v.bare > 0 {
		return UTF8
	}
	return UTF7
}

func (t *Tree) encodePart(p string) string {
	if same(p) || t.Names() == UTF8 {
		return p
	}
	return wire.EncodeUTF7(p)
}

func (t *Tree) encode(parts []string) []string {
	raw := make([]string, len(parts))
	for i, p := range parts {
		raw[i] = t.encodePart(p)
	}
	return raw
}

// decode returns the parts of a folder from how they are written on disk, and
// false where clients cannot be told of it.
func (t *Tree) decode(raw []string) ([]string, bool) {
	if len(raw) == 0 {
		return nil, true // INBOX
	}
	parts := make([]string, len(raw))
	for i, r := range raw {
		p, ok := t.decodePart(r)
		if !ok || strings.IndexByte(p, t.separator) >= 0 {
			return nil, false
		}
		parts[i] = p
	}
	if t.faults(parts) != "" || parts[0] != "INBOX" && strings.EqualFold(parts[0], "INBOX") {
		return nil, false
	}
	return parts, len(t.name(parts)) <= maxKnown
}

func (t *Tree) decodePart(raw string) (string, bool) {
	if same(raw) {
		return raw, true
	}
	if t.Names() == UTF8 {
		return raw, utf8.ValidString(raw)
	}
	p, err := wire.DecodeUTF7(raw)
	return p, err == nil
}
