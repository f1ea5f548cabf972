package imap

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"imapd/imap/wire"
	"imapd/maildir"
)

// APPEND adds a message to a mailbox. See RFC 9051 section 6.3.12; APPENDUID is
// RFC 4315 section 3.
//
// What can be refused without the message is refused before the client is asked
// for it. The message goes from the connection to the file in pieces.
var _ = register(Extension{
	Name:     "APPEND",
	RFC:      9051,
	Commands: []Command{authedStream("APPEND", (*Session).append)},
})

// MULTIAPPEND adds several messages with one APPEND, all of them or none. See RFC
// 3502.
var _ = register(Extension{
	Name: "MULTIAPPEND",
	RFC:  3502,
	Caps: when(loggedIn, "MULTIAPPEND"),
})

func (s *Session) append(u *User, d *wire.Decoder) error {
	a := appending{Session: s, user: u}
	defer a.abort()
	d.SP()
	a.name = d.Mailbox()
	d.SP()
	for more := true; more; more = another(d) {
		if err := a.message(d); err != nil {
			return err
		}
	}
	if err := d.End(); err != nil {
		return err
	}
	validity, uids, err := a.to.Append(s.ctx, a.messages)
	if err != nil {
		return err
	}
	if b := s.box; b != nil && b.mailbox == a.to {
		s.marks |= markFiles
	}
	var set wire.NumSet
	for _, uid := range uids {
		set.Add(uint32(uid))
	}
	s.ok("APPENDUID "+number(validity)+" "+set.String(), "")
	return nil
}

// another reads the space before a further message, if there is one. A space at
// the end of the line is forgiven.
func another(d *wire.Decoder) bool {
	return d.AcceptSP() && d.Peek() != '\r' && d.Peek() != '\n'
}

// An appending is an APPEND under way.
type appending struct {
	*Session
	user     *User
	name     string
	to       *maildir.Mailbox // nil before the first message
	messages []maildir.Appending
}

// message takes in one message. It is whole in its file when the next one begins.
func (a *appending) message(d *wire.Decoder) error {
	m, err := appendArgs(d)
	if err != nil {
		return err
	}
	l := d.Literal()
	if err := d.Err(); err != nil {
		return err
	}
	if err := a.ready(d); err != nil {
		return a.decline(d, l, err)
	}
	if max := a.conf.Limits.AppendLimit(); l.Size > max {
		d.RefuseLiteral(l, max)
		return d.Err()
	}
	if m.Delivery, err = a.to.NewMessage(a.ctx); err != nil {
		return a.decline(d, l, err)
	}
	a.messages = append(a.messages, m)
	if err := receive(m.Delivery, d, l); err != nil {
		return err
	}
	return m.Finish()
}

// ready returns why no message can be taken, if none can.
func (a *appending) ready(d *wire.Decoder) (err error) {
	if err := d.NameErr(); err != nil {
		return err
	}
	if a.to == nil {
		if a.to, err = a.target(a.user, a.name); err != nil {
			return err
		}
	}
	if len(a.messages) == a.conf.Limits.Messages {
		return no("LIMIT", "Too many messages in one APPEND")
	}
	return nil
}

// decline returns why the message of l is not taken. One that is coming is read away
// as it would be if it could be stored, however much limit_skip lets pass.
func (a *appending) decline(d *wire.Decoder, l *wire.Literal, why error) error {
	if l.NonSync && l.Size <= a.conf.Limits.AppendLimit() {
		if _, err := io.Copy(io.Discard, d.AcceptLiteral(l)); err != nil {
			return err
		}
	}
	return why
}

// abort takes back what has not been added.
func (a *appending) abort() {
	for _, m := range a.messages {
		m.Abort()
	}
	if a.to != nil {
		a.to.Release()
	}
}

// appendArgs parses the flags and the date.
func appendArgs(d *wire.Decoder) (a maildir.Appending, err error) {
	if d.Peek() == '(' {
		if a.Flags, err = flagSet(d.FlagList()); err != nil {
			return a, err
		}
		d.SP()
	}
	if d.Peek() == '"' {
		a.Date = d.DateTime()
		d.SP()
	}
	switch {
	case a.Date.IsZero():
		a.Date = time.Now()
	case a.Date.Before(time.Unix(0, 0)):
		a.Date = time.Unix(0, 0) // a file cannot be older everywhere
	}
	return a, d.Err()
}

// flagSet sorts the names of flags. \Recent is the server's to give; a system
// flag that does not exist is a mistake of the client.
func flagSet(names []string) (f maildir.FlagSet, err error) {
next:
	for _, name := range names {
		for i, system := range systemFlags {
			if strings.EqualFold(name, system) {
				f.System |= 1 << i
				continue next
			}
		}
		if strings.HasPrefix(name, `\`) {
			return f, bad("Unknown flag " + name)
		}
		f.Keywords = append(f.Keywords, name)
	}
	return f, nil
}

// target opens the mailbox that a command puts messages into.
func (s *Session) target(u *User, name string) (*maildir.Mailbox, error) {
	m, err := u.Store.Target(s.ctx, name)
	if errors.Is(err, maildir.ErrNotFound) {
		return nil, no("TRYCREATE", "Mailbox does not exist")
	}
	return m, err
}

var appendBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// receive reads the literal into to. Where the message cannot be stored the rest
// of it is read away, for it is coming: the session stays in step.
func receive(to io.Writer, d *wire.Decoder, l *wire.Literal) error {
	buf := appendBuffers.Get().(*[]byte)
	defer appendBuffers.Put(buf)
	r := d.AcceptLiteral(l)
	check := purity{binary: l.Binary}
	var failed error
	for {
		n, err := r.Read(*buf)
		if n > 0 && failed == nil {
			if failed = check.look((*buf)[:n]); failed == nil {
				_, failed = to.Write((*buf)[:n])
			}
		}
		if err == io.EOF && d.Err() == nil {
			break
		}
		if err != nil {
			return err
		}
	}
	if l.Size == 0 && failed == nil {
		failed = no("CANNOT", "A message of no octets cannot be stored")
	}
	return failed
}

// purity looks for what a Maildir cannot keep. Files have line ends of LF there,
// which are CRLF again for clients: the octets of a literal8 that are no lines
// would not come back as they were (RFC 3516 section 4.4).
type purity struct {
	binary bool
	last   byte
}

func (p *purity) look(b []byte) error {
	if bytes.IndexByte(b, 0) >= 0 {
		if !p.binary {
			return bad("NUL in a literal")
		}
		return errBinary
	}
	if !p.binary {
		return nil
	}
	for _, c := range b {
		if (c == '\n') != (p.last == '\r') {
			return errBinary
		}
		p.last = c
	}
	return nil
}

var errBinary = no("UNKNOWN-CTE", "Binary content cannot be stored, send it in base64")

func number[N ~uint32](n N) string { return strconv.FormatUint(uint64(n), 10) }
