package imap

import (
	"bytes"
	"errors"
	"io"
	"time"

	"imapd/imap/body"
	"imapd/maildir"
)

// stringKeys are the keys of a search for which files are read. They are kept
// together, so that a file is read once for all of them.
type stringKeys struct {
	date   bool // the Date field is wanted
	fields []fieldKey
	texts  []wholeKey
}

// A fieldKey is a string looked for in the header fields of one name.
type fieldKey struct {
	name []byte
	kind fieldKind
	key  string // "": the field is there
}

// fieldKind says in which form a field is compared.
type fieldKind uint8

const (
	plainField   fieldKind = iota // HEADER: as it is
	phraseField                   // SUBJECT: each run of white space is one space
	addressField                  // FROM, TO, CC, BCC: see addressText
)

// A wholeKey is a string looked for in a whole message.
type wholeKey struct {
	key     string
	headers bool // TEXT: in the headers as well
}

// headerKey is the parser of a key with a string for one header field.
func headerKey(name string, kind fieldKind) func(*SearchParser) SearchTest {
	return func(p *SearchParser) SearchTest {
		p.SP()
		return p.fieldTest(name, kind)
	}
}

func parseHeaderKey(p *SearchParser) SearchTest {
	p.SP()
	name := p.Text()
	p.SP()
	return p.fieldTest(name, plainField)
}

func (p *SearchParser) fieldTest(name string, kind fieldKind) SearchTest {
	i := len(p.strings.fields)
	p.strings.fields = append(p.strings.fields, fieldKey{[]byte(name), kind, p.Text()})
	return SearchTest{Cost: CostHeader, Match: func(x *Searching) (bool, error) { return x.field(i) }}
}

// textKey is the parser of BODY and of TEXT, which looks at headers too. An
// empty string is in every message.
func textKey(headers bool) func(*SearchParser) SearchTest {
	return func(p *SearchParser) SearchTest {
		p.SP()
		key := p.Text()
		if key == "" {
			return SearchTest{}
		}
		i := len(p.strings.texts)
		p.strings.texts = append(p.strings.texts, wholeKey{key, headers})
		return SearchTest{Cost: CostFile, Match: func(x *Searching) (bool, error) { return x.text(i) }}
	}
}

// messageStrings is what has been read of one message for a search.
type messageStrings struct {
	keys   *stringKeys
	fields matches
	texts  matches
	scope  body.Scope // where to look for texts

	file     *maildir.File // nil until opened
	head     []byte        // the beginning of the file, once its text is read
	headRead bool          // head is that of this message

	date  time.Time // of the Date field; 1970 if there is none, or none that can be read
	dated bool      // a Date field has been seen
}

// matches are the answers for the keys of one kind.
type matches struct {
	matchers []*body.Matcher
	found    []bool
	left     int  // keys not found yet
	done     bool // all that there is has been looked at
}

func newMatches(n int, key func(i int) string) matches {
	m := matches{matchers: make([]*body.Matcher, n), found: make([]bool, n), left: n}
	for i := range m.matchers {
		m.matchers[i] = body.NewMatcher(key(i))
	}
	return m
}

func (m *matches) reset() {
	clear(m.found)
	m.left, m.done = len(m.found), false
}

// note notes whether key i, which had not been found before, is found now.
func (m *matches) note(i int, found bool) {
	if found {
		m.found[i] = true
		m.left--
	}
}

// begin makes m ready for the first message.
func (m *messageStrings) begin(k *stringKeys) {
	m.keys = k
	m.date = time.Unix(0, 0).UTC()
	m.fields = newMatches(len(k.fields), func(i int) string { return k.fields[i].key })
	m.texts = newMatches(len(k.texts), func(i int) string { return k.texts[i].key })
	m.scope = body.ScopeBody
	for i, t := range k.texts {
		m.texts.matchers[i].SkipHeaders = !t.headers
		if t.headers {
			m.scope = body.ScopeText
		}
	}
}

// end forgets the message and closes its file.
func (m *messageStrings) end() {
	if m.file != nil {
		m.file.Close()
	}
	m.file, m.headRead = nil, false
	m.date, m.dated = time.Unix(0, 0).UTC(), false
	m.fields.reset()
	m.texts.reset()
}

// File opens the message's file, and returns the same one until the message is
// decided. The caller must not close it.
func (x *Searching) File() (*maildir.File, error) {
	if x.file == nil {
		f, err := x.Box.mailbox.OpenMessage(x.ctx, x.Msg)
		if err != nil {
			return nil, err
		}
		x.file = f
	}
	return x.file, nil
}

// field reports whether field key i matches.
func (x *Searching) field(i int) (bool, error) {
	err := x.readFields()
	return x.fields.found[i], err
}

// sent returns the time in the Date field, see messageStrings.date.
func (x *Searching) sent() (time.Time, error) {
	err := x.readFields()
	return x.date, err
}

// text reports whether text key i matches.
func (x *Searching) text(i int) (bool, error) {
	err := x.readText()
	return x.texts.found[i], err
}

// readFields looks at the header's fields, for all keys, until there is nothing
// more to know.
func (x *Searching) readFields() error {
	if x.fields.done {
		return nil
	}
	f, err := x.File()
	if err != nil {
		return err
	}
	err = body.Fields(x, body.Span{End: f.Size()}, func(f body.Field) bool {
		if x.keys.date && !x.dated && isField(f.Name, dateField) {
			x.dated = true
			if date, ok := body.ParseDate(f.Value); ok {
				x.date = date
			}
		}
		x.lookAt(f)
		return x.fields.left > 0 || x.keys.date && !x.dated
	})
	x.fields.done = err == nil
	return err
}

var dateField = []byte("Date")

// isField compares names in any case.
func isField(a, b []byte) bool { return len(a) == len(b) && bytes.EqualFold(a, b) }

// lookAt tries the keys that have not been found on a field.
func (x *Searching) lookAt(f body.Field) {
	for i := range x.keys.fields {
		k := &x.keys.fields[i]
		if x.fields.found[i] || !isField(f.Name, k.name) {
			continue
		}
		m := x.fields.matchers[i]
		switch {
		case k.key == "":
			x.fields.note(i, true)
		case k.kind == phraseField:
			x.fields.note(i, m.Match(body.DecodeHeader(oneSpace(f.Value))))
		case k.kind == addressField:
			x.fields.note(i, m.Match(body.DecodeHeader(addressText(f.Value))))
		default:
			x.fields.note(i, m.Match(body.DecodeHeader(f.Value)))
		}
	}
}

// oneSpace makes each run of white space one space, and drops that in front.
func oneSpace(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for _, c := range b {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			out = append(out, c)
		} else if len(out) > 0 && out[len(out)-1] != ' ' {
			out = append(out, ' ')
		}
	}
	return out
}

// readText looks at the message's texts, for all keys, until there is nothing
// more to know.
func (x *Searching) readText() error {
	if x.texts.done {
		return nil
	}
	f, err := x.File()
	if err != nil {
		return err
	}
	limits := body.Limits{Depth: x.conf.Limits.MIMEDepth, Parts: x.conf.Limits.MIMEParts}
	if err := x.readHead(f); err != nil {
		return err
	}
	root, err := body.Parse(x, f.Size(), limits)
	if err != nil {
		return err
	}
	found, err := root.Search(x, x.scope, x.texts.matchers)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // another program has cut the file short meanwhile: then that is the message
	}
	if err == nil {
		x.texts.found, x.texts.done = found, true
	}
	return err
}

// headSize is how much of a file is read ahead: most messages are smaller, and
// are read by one system call instead of one for each of their parts.
const headSize = 64 << 10

// readHead reads the beginning of the file.
func (x *Searching) readHead(f *maildir.File) error {
	if cap(x.head) == 0 {
		x.head = make([]byte, headSize)
	}
	x.head = x.head[:min(f.Size(), headSize)]
	n, err := f.ReadAt(x.head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	x.head, x.headRead = x.head[:n], true
	return nil
}

// ReadAt reads the message's file.
func (x *Searching) ReadAt(p []byte, off int64) (int, error) {
	if x.headRead && off+int64(len(p)) <= int64(len(x.head)) {
		return copy(p, x.head[off:]), nil
	}
	return x.file.ReadAt(p, off)
}
