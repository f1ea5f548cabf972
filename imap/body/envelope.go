package body

// An Envelope is what ENVELOPE shows of a message's header. A field that the message has more than once: of addresses
// all count, of the others the last.
type Envelope struct {
	Date      NString // as it stands in the header, unfolded
	Subject   NString // raw (RFC 2047 words not decoded), runs of white space made one space
	From      []Address
	Sender    []Address // From, if the message names none
	ReplyTo   []Address // From, if the message names none
	To        []Address
	Cc        []Address
	Bcc       []Address
	InReplyTo NString
	MessageID NString
}

// envelopeField takes the collected field.
func (p *parser) envelopeField(e *Envelope, f fieldID) {
	switch f {
	case fieldDate:
		e.Date = p.keepN(oneLine(p.value))
	case fieldSubject:
		e.Subject = p.keepN(collapse(p.value))
	case fieldInReplyTo:
		e.InReplyTo = p.keepN(oneLine(p.value))
	case fieldMessageID:
		e.MessageID = p.keepN(oneLine(p.value))
	case fieldFrom:
		e.From = p.addresses(e.From)
	case fieldSender:
		e.Sender = p.addresses(e.Sender)
	case fieldReplyTo:
		e.ReplyTo = p.addresses(e.ReplyTo)
	case fieldTo:
		e.To = p.addresses(e.To)
	case fieldCc:
		e.Cc = p.addresses(e.Cc)
	case fieldBcc:
		e.Bcc = p.addresses(e.Bcc)
	}
}

// fill sets what RFC 9051 section 7.5.2 takes from elsewhere.
func (e *Envelope) fill() {
	if e.Sender == nil {
		e.Sender = e.From
	}
	if e.ReplyTo == nil {
		e.ReplyTo = e.From
	}
}

// collapse makes each run of white space one space, drops it at the ends, and replaces NULs. It may change b.
func collapse(b []byte) []byte {
	b = oneLine(b)
	out := b[:0]
	for _, c := range b {
		if isWhite(c) {
			if n := len(out); n == 0 || out[n-1] == ' ' {
				continue
			}
			c = ' '
		}
		out = append(out, c)
	}
	if n := len(out); n > 0 && out[n-1] == ' ' {
		out = out[:n-1]
	}
	return out
}
