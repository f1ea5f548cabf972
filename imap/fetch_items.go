package imap

import (
	"imapd/imap/body"
	"imapd/imap/wire"
)

// plainItem is the Parse of an item that takes no arguments.
func plainItem(p FetchPart) func(*wire.Decoder) FetchPart {
	return func(*wire.Decoder) FetchPart { return p }
}

func writeUID(f *Fetching) error {
	f.out = append(f.out, "UID "...)
	f.out = wire.AppendNumber(f.out, f.Msg.UID)
	return nil
}

func writeFlags(f *Fetching) error {
	f.out = append(f.out, "FLAGS ("...)
	f.appendFlags(f.Msg)
	f.out = append(f.out, ')')
	return nil
}

// writeNewFlags is FLAGS if this command has changed them.
func writeNewFlags(f *Fetching) error {
	if !f.newSeen {
		return nil
	}
	return writeFlags(f)
}

func writeDate(f *Fetching) error {
	date, err := f.Box.mailbox.Date(f.Msg)
	if err != nil {
		return err
	}
	f.out = append(f.out, "INTERNALDATE "...)
	f.out = wire.AppendDateTime(f.out, date)
	return nil
}

// writeSize believes what the name of the file says, unless the file is read anyway.
func writeSize(f *Fetching) error {
	var n int64
	var err error
	if f.file != nil && f.wantAll {
		n, err = f.virtual()
	} else {
		n, err = f.Box.mailbox.Size(f.Msg)
	}
	if err != nil {
		return err
	}
	f.out = append(f.out, "RFC822.SIZE "...)
	f.out = wire.AppendNumber(f.out, n)
	return nil
}

func writeEnvelope(f *Fetching) error {
	_, envelope, err := f.header()
	if err != nil {
		return err
	}
	f.out = append(f.out, "ENVELOPE "...)
	f.appendEnvelope(envelope)
	return f.spill()
}

// appendEnvelope appends an ENVELOPE. See RFC 9051 section 7.5.2.
func (s *Session) appendEnvelope(e *body.Envelope) {
	s.out = append(s.out, '(')
	s.appendNString(e.Date)
	s.out = append(s.out, ' ')
	s.appendNString(e.Subject)
	for _, list := range [...][]body.Address{e.From, e.Sender, e.ReplyTo, e.To, e.Cc, e.Bcc} {
		s.out = append(s.out, ' ')
		s.appendAddresses(list)
	}
	s.out = append(s.out, ' ')
	s.appendNString(e.InReplyTo)
	s.out = append(s.out, ' ')
	s.appendNString(e.MessageID)
	s.out = append(s.out, ')')
}

func (s *Session) appendAddresses(list []body.Address) {
	if len(list) == 0 {
		s.out = append(s.out, "NIL"...)
		return
	}
	s.out = append(s.out, '(')
	for i := range list {
		a := &list[i]
		s.out = append(s.out, '(')
		s.appendNString(a.Name)
		s.out = append(s.out, ' ')
		s.appendNString(a.Route)
		s.out = append(s.out, ' ')
		s.appendNString(a.Mailbox)
		s.out = append(s.out, ' ')
		s.appendNString(a.Host)
		s.out = append(s.out, ')')
	}
	s.out = append(s.out, ')')
}

// appendNString appends what stands in a message. UTF-8 goes into quoted strings
// for clients that have enabled it; for others what is not ASCII is a literal,
// octet by octet as it is in the message.
func (s *Session) appendNString(n body.NString) {
	if !n.OK {
		s.out = append(s.out, "NIL"...)
		return
	}
	s.appendString(n.S)
}

func (s *Session) appendString(v string) {
	if s.UTF8() {
		s.out = wire.AppendUTF8String(s.out, v)
	} else {
		s.out = wire.AppendString(s.out, v)
	}
}
