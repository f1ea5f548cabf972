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
// together, so that a file is read once for all of them, and what it says is
// decoded and folded once.
type stringKeys struct {
	date   bool // the Date field is wanted
	fields []fieldKeys
	number int // of keys in fields
	texts  []body.Key
}

// fieldKeys are strings looked for in the header fields of one name, in one form.
type fieldKeys struct {
	name []byte
	kind fieldKind
	keys []fieldKey
}

// A fieldKey is one of them.
type fieldKey struct {
	index int    // among all keys for fields
	text  []byte // folded; empty: the field is there
}

// of returns where the keys for the fields of that name and form are.
func (k *stringKeys) of(name string, kind fieldKind) *fieldKeys {
	for i := range k.fields {
		if f := &k.fields[i]; f.kind == kind && isField(f.name, []byte(name)) {
			return f
		}
	}
	k.fields = append(k.fields, fieldKeys{name: []byte(name), kind: kind})
	return &k.fields[len(k.fields)-1]
}

// fieldKind says in which form a field is compared.
type fieldKind uint8

const (
	plainField   fieldKind = iota // HEADER: as it is
	phraseField                   // SUBJECT: each run of white space is one space
	addressField                  // FROM, TO, CC, BCC: see addressText
)

// text returns the value of a field in that form.
func (k fieldKind) text(value []byte) string {
	switch k {
	case phraseField:
		value = oneSpace(value)
	case addressField:
		value = addressText(value)
	}
	return body.DecodeHeader(value)
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
	i := p.strings.number
	p.strings.number++
	k := p.strings.of(name, kind)
	k.keys = append(k.keys, fieldKey{i, p.folded(p.Text())})
	return SearchTest{Cost: CostHeader, Match: func(x *Searching) (bool, error) { return x.field(i) }}
}

// textKey is the parser of BODY and of TEXT, which looks at headers too. An
// empty string is in every message.
func textKey(headers bool) func(*SearchParser) SearchTest {
	return func(p *SearchParser) SearchTest {
		p.SP()
		key := p.folded(p.Text())
		if len(key) == 0 {
			return SearchTest{}
		}
		i := len(p.strings.texts)
		p.strings.texts = append(p.strings.texts, body.Key{Text: key, SkipHeaders: !headers})
		return SearchTest{Cost: CostFile, Match: func(x *Searching) (bool, error) { return x.text(i) }}
	}
}

// messageStrings is what has been read of one message for a search.
type messageStrings struct {
	keys *stringKeys

	matched    []bool // which of the keys for fields have been found
	left       int    // how many have not
	fieldsRead bool   // all fields that have to be have been looked at
	folded     []byte // the field that is being looked at

	texts     *body.Matcher
	textsRead bool // all texts that have to be have been looked at

	file     *maildir.File // nil until opened
	head     []byte        // the beginning of the file, once its text is read
	headRead bool          // head is that of this message

	date  time.Time // of the Date field; 1970 if there is none, or none that can be read
	dated bool      // a Date field has been seen
}

// begin makes m ready for the first message.
func (m *messageStrings) begin(k *stringKeys) {
	m.keys = k
	m.matched = make([]bool, k.number)
	m.texts = body.NewMatcher(k.texts)
	m.end()
}

// end forgets the message and closes its file.
func (m *messageStrings) end() {
	if m.file != nil {
		m.file.Close()
	}
	m.file, m.headRead = nil, false
	m.date, m.dated = time.Unix(0, 0).UTC(), false
	clear(m.matched)
	m.left, m.fieldsRead, m.textsRead = len(m.matched), false, false
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
	return x.matched[i], err
}

// sent returns the time in the Date field, see messageStrings.date.
func (x *Searching) sent() (time.Time, error) {
	err := x.readFields()
	return x.date, err
}

// text reports whether text key i matches.
func (x *Searching) text(i int) (bool, error) {
	err := x.readText()
	return err == nil && x.texts.Found(i), err
}

// readFields looks at the header's fields, for all keys, until there is nothing
// more to know.
func (x *Searching) readFields() error {
	if x.fieldsRead {
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
		return x.left > 0 || x.keys.date && !x.dated
	})
	x.fieldsRead = err == nil
	return err
}

var dateField = []byte("Date")

// isField compares names in any case.
func isField(a, b []byte) bool { return len(a) == len(b) && bytes.EqualFold(a, b) }

// lookAt looks for the keys that have not been found in a field.
func (x *Searching) lookAt(f body.Field) {
	for i := range x.keys.fields {
		if k := &x.keys.fields[i]; isField(f.Name, k.name) {
			x.lookFor(k, f.Value)
		}
	}
}

// lookFor looks for keys in the value of a field, which is made ready once for all.
func (x *Searching) lookFor(k *fieldKeys, value []byte) {
	ready := false
	for _, key := range k.keys {
		if x.matched[key.index] {
			continue
		}
		if !ready {
			x.folded = body.Fold(x.folded[:0], []byte(k.kind.text(value)))
			ready = true
		}
		if bytes.Contains(x.folded, key.text) {
			x.matched[key.index] = true
			x.left--
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
	if x.textsRead {
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
	err = root.Search(x, x.texts)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // another program has cut the file short meanwhile: then that is the message
	}
	x.textsRead = err == nil
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

// ReadAt reads the message's file, unless the search is over: whatever is done with a
// message ends with the piece that it is at.
func (x *Searching) ReadAt(p []byte, off int64) (int, error) {
	if err := x.ctx.Err(); err != nil {
		return 0, err
	}
	if x.headRead && off+int64(len(p)) <= int64(len(x.head)) {
		return copy(p, x.head[off:]), nil
	}
	return x.file.ReadAt(p, off)
}
