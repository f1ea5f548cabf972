package imap

import "imapd/imap/wire"

// RENAME gives a mailbox and those below it a new name; subscriptions keep the
// old one. INBOX stays, and its messages move. See RFC 9051 section 6.3.6.
var _ = register(Extension{
	Name:     "RENAME",
	RFC:      9051,
	Commands: []Command{authed("RENAME", parseRename, (*Session).rename)},
})

type renameArgs struct{ from, to nameArg }

func parseRename(d *wire.Decoder) (a renameArgs) {
	d.SP()
	a.from = readName(d)
	d.SP()
	a.to = readName(d)
	return a
}

func (s *Session) rename(u *User, a renameArgs) error {
	if err := s.checkNew(a.to.name); err != nil {
		return err
	}
	if err := u.Store.Rename(s.ctx, a.from.name, a.to.name); err != nil {
		return err
	}
	// Told only where either name was not in the server's spelling.
	to := s.spelling(a.to.name)
	if s.Rev2() && (to != a.to.sent || s.spelling(a.from.name) != a.from.sent) {
		s.sendName("", to, a.from.sent)
	}
	return nil
}
