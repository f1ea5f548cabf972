package imap

import "imapd/imap/wire"

// spelling returns how the server spells the name of a mailbox. The client may
// have sent "inbox/x", or a separator at the end.
func (s *Session) spelling(name string) string {
	if f, err := s.user.Store.Look(name); err == nil {
		return f.Name
	}
	return name
}

// sendOldName tells a client of IMAP4rev2 what the mailbox is called that it called
// sent, unless it is just that (RFC 9051 section 6.3.9.7). attr is an attribute, or empty.
func (s *Session) sendOldName(attr, name, sent string) {
	if !s.Rev2() {
		return
	}
	if name = s.spelling(name); name != sent {
		s.sendName(attr, name, sent)
	}
}

// sendName sends a LIST response for one mailbox, with the extended data item
// OLDNAME if the client spelled it in another way.
func (s *Session) sendName(attr, name, sent string) {
	s.out = append(append(append(s.out, "* LIST ("...), attr...), ") "...)
	s.listName(name)
	if sent != name {
		s.out = append(s.out, ` ("OLDNAME" (`...)
		s.out = wire.AppendUTF8String(s.out, sent)
		s.out = append(s.out, "))"...)
	}
	s.out = append(s.out, "\r\n"...)
}
