package imap

import (
	"io"
	"sync"
	"time"

	"imapd/imap/body"
	"imapd/maildir"
)

// A document is the file of the message that a FETCH is about. It is opened at
// most once, read whole with one call where it is small, and parsed no further
// than the items of the command need. It is read through Fetching.ReadAt.
type document struct {
	file *maildir.File // nil: not open
	size int64         // octets of it
	data []byte        // all of a small file, else nil
	buf  *[]byte       // that data lies in; from smallFiles

	wantTree bool // an item of the command needs the tree
	wantAll  bool // an item of the command needs more than the header

	root     *body.Part // nil: not parsed
	head     body.Span
	envelope *body.Envelope       // nil: header not parsed
	lengths  map[*body.Part]int64 // octets of BINARY of parts of root, as far as known

	read int64 // octets that have been read for the response
}

// smallFile is the size in octets up to which a file is read with one call.
const smallFile = 16 << 10

var smallFiles = sync.Pool{New: func() any { b := make([]byte, smallFile); return &b }}

// open opens the file of f's message. The error is maildir.ErrGone if there is none.
func (d *document) open(f *Fetching) error {
	file, err := f.Box.mailbox.OpenMessage(f.ctx, f.Msg)
	if err != nil {
		return err
	}
	d.file, d.size = file, file.Size()
	if d.size > smallFile {
		return nil
	}
	if d.buf == nil {
		d.buf = smallFiles.Get().(*[]byte)
	}
	n, err := file.ReadAt((*d.buf)[:d.size], 0)
	if err != nil && err != io.EOF {
		d.closeFile()
		return err
	}
	d.data = (*d.buf)[:n]
	d.size = int64(n)
	return nil
}

// close ends the work on one message.
func (d *document) closeFile() {
	if d.file != nil {
		d.file.Close()
	}
	*d = document{buf: d.buf}
}

// release gives everything back at the end of the command.
func (d *document) release() {
	d.closeFile()
	if d.buf != nil {
		smallFiles.Put(d.buf)
		d.buf = nil
	}
}

// ReadAt reads octets as they are on disk, unless the session has to end: whatever
// is done with a large message ends with the piece that it is at.
func (f *Fetching) ReadAt(p []byte, off int64) (int, error) {
	f.read += int64(len(p))
	if f.data == nil {
		if err := f.heed(false); err != nil {
			return 0, err
		}
		return f.file.ReadAt(p, off)
	}
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// heed is Session.heed, asked once a second.
func (f *Fetching) heed(between bool) error {
	now := time.Now()
	if now.Sub(f.heeded) < heedEvery {
		return nil
	}
	f.heeded = now
	return f.Session.heed(between)
}

// The items of one response may read their message maxPasses times over, and maxRead
// octets in any case: far more than what clients ask for takes, and little enough that
// a short command cannot keep a processor busy for minutes.
const (
	maxPasses = 100
	maxRead   = 64 << 20
)

// spent reports whether the items so far have read so much.
func (d *document) spent() bool { return d.read > maxRead && d.read/maxPasses > d.size }

// bodyLimits are the limits for parsing messages.
func (s *Session) bodyLimits() body.Limits {
	return body.Limits{Depth: s.conf.Limits.MIMEDepth, Parts: s.conf.Limits.MIMEParts, Global: s.Rev2()}
}

// tree returns the parts of the message.
func (f *Fetching) tree() (*body.Part, error) {
	if f.root != nil {
		return f.root, nil
	}
	if p := &f.Box.place; p.of(f) && p.root != nil {
		f.root = p.root
		return f.root, nil
	}
	root, err := body.Parse(f, f.size, f.bodyLimits())
	if err != nil {
		return nil, err
	}
	f.root = root
	f.count(root.Header.Size + root.Body.Size)
	return root, nil
}

// header returns where the message's header lies, and the ENVELOPE.
func (f *Fetching) header() (body.Span, *body.Envelope, error) {
	if f.root != nil || f.wantTree {
		root, err := f.tree()
		if err != nil {
			return body.Span{}, nil, err
		}
		return root.Header, root.Envelope, nil
	}
	if f.envelope == nil {
		head, envelope, err := body.ParseHeader(f, f.size, f.bodyLimits())
		if err != nil {
			return body.Span{}, nil, err
		}
		f.head, f.envelope = head, envelope
	}
	return f.head, f.envelope, nil
}

// virtual returns the octets of the message as it is sent, by counting, never
// from the file's name: a literal must be as long as it says.
func (f *Fetching) virtual() (int64, error) {
	if f.root != nil {
		return f.root.Header.Size + f.root.Body.Size, nil
	}
	if n, counted := f.file.Virtual(); counted {
		return n, nil
	}
	n, err := body.VirtualSize(f, f.size)
	if err == nil {
		f.count(n)
	}
	return n, err
}

// count lets the mailbox know the size that was counted.
func (f *Fetching) count(n int64) {
	if _, counted := f.file.Virtual(); !counted && f.size == f.file.Size() {
		f.file.SetVirtual(n)
	}
}

// content returns a section of the message.
func (f *Fetching) content(s *body.Section) (body.Content, error) {
	if f.wantTree || s.NeedsTree() {
		root, err := f.tree()
		if err != nil {
			return body.Content{}, err
		}
		return root.Section(f, *s)
	}
	switch s.Kind {
	case body.SectionHeader:
		head, _, err := f.header()
		return body.NewContent(f, head), err
	case body.SectionFields, body.SectionFieldsNot:
		// The header ends where it ends: nobody has to look for that before.
		whole := body.Span{End: f.size}
		return body.SelectFields(f, whole, s.Fields, s.Kind == body.SectionFieldsNot)
	}
	n, err := f.virtual()
	return body.Whole(f, f.size, n), err
}

// A place is how far a client has got that fetches a section of a large message
// in pieces, as most mail programs for phones do. Without it each piece would
// cost parsing the message, and looking for the offset, again. A Box has one: the last.
type place struct {
	uid   maildir.UID
	size  int64
	date  time.Time
	root  *body.Part // nil: not parsed
	rev2  bool       // as root was parsed
	label string     // of the section
	total int64      // octets of the section
	mark  body.Mark
}

// placeSize is the size from which a message is worth a place, which takes
// memory between commands.
const placeSize = 128 << 10

// of reports whether p is a place in the message of f.
func (p *place) of(f *Fetching) bool {
	return p.uid == f.Msg.UID && p.size == f.size && p.date.Equal(f.file.Date()) && p.rev2 == f.Rev2()
}

// resume sets the mark of c, the section called label, if p is there.
func (p *place) resume(f *Fetching, label string, c *body.Content) {
	if p.label == label && p.of(f) {
		c.Mark = p.mark
	}
}

// length returns the octets of the section called label, if p is there.
func (p *place) length(f *Fetching, label string) (int64, bool) {
	return p.total, p.label == label && p.of(f)
}

// keep remembers where c has got to.
func (p *place) keep(f *Fetching, label string, c *body.Content) {
	if f.size >= placeSize {
		*p = place{f.Msg.UID, f.size, f.file.Date(), f.root, f.Rev2(), label, c.Size, c.Mark}
	}
}
