package imap

import "imapd/imap/wire"

// NAMESPACE says where mailboxes live: all of them are the user's own.
// See RFC 2342, or RFC 9051 section 6.3.10.
var _ = register(Extension{
	Name:     "NAMESPACE",
	RFC:      2342,
	Caps:     when(loggedIn, "NAMESPACE"),
	Commands: []Command{authed("NAMESPACE", noArgs, (*Session).namespace)},
})

func (s *Session) namespace(u *User, _ none) error {
	s.out = append(s.out, "* NAMESPACE (("...)
	if prefix := u.Store.Prefix(); s.UTF8() {
		s.out = wire.AppendUTF8String(s.out, prefix)
	} else {
		s.out = wire.AppendString(s.out, wire.EncodeUTF7(prefix)) // a string, never an atom
	}
	s.out = append(s.out, ' ')
	s.out = wire.AppendString(s.out, string(u.Store.Separator()))
	s.out = append(s.out, ")) NIL NIL\r\n"...)
	return nil
}
