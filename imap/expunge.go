package imap

import "imapd/maildir"

// EXPUNGE removes the messages with \Deleted; UID EXPUNGE those that it names.
// See RFC 9051 section 6.4.3, and RFC 4315. The report sends the EXPUNGE
// responses: what is gone is gone, whoever removed it.
var _ = register(Extension{
	Name: "UIDPLUS",
	RFC:  4315,
	Caps: when(loggedIn, "UIDPLUS"),
	Commands: []Command{
		selected("EXPUNGE", noArgs, func(s *Session, b *Box, _ none) error {
			return s.expunge(b, nil)
		}),
		selected("UID EXPUNGE", spUIDSet, (*Session).uidExpunge),
	},
})

func (s *Session) uidExpunge(b *Box, set Set) error {
	named := b.uids(set)
	return s.expunge(b, func(uid maildir.UID) bool { return named.Contains(uint32(uid), 0) })
}

func (s *Session) expunge(b *Box, in func(maildir.UID) bool) error {
	if err := b.writable(); err != nil {
		return err
	}
	gone, err := b.mailbox.Expunge(s.ctx, in)
	if len(gone) > 0 {
		s.marks |= markExpunged | markFiles
	}
	return err
}
