package imap

// DELETE removes a mailbox and its messages; mailboxes below it stay, and so
// do subscriptions. See RFC 9051 section 6.3.5.
var _ = register(Extension{
	Name:     "DELETE",
	RFC:      9051,
	Commands: []Command{authed("DELETE", parseName, (*Session).delete)},
})

// delete unselects the mailbox if it is the session's own: its client knows. Other
// sessions that have it selected end with BYE when they look at it next.
func (s *Session) delete(u *User, a nameArg) error {
	own := s.hasSelected(u, a.name)
	if err := u.Store.Delete(s.ctx, a.name); err != nil {
		return err
	}
	if own {
		s.unselect()
		s.present("")
		s.untagged("OK [CLOSED] Mailbox closed, for it was deleted.")
	}
	s.sendOldName(`\NonExistent`, a.name, a.sent)
	return nil
}

// hasSelected reports whether name, however it is spelled, is the mailbox that
// the session has selected.
func (s *Session) hasSelected(u *User, name string) bool {
	if s.box == nil {
		return false
	}
	m, err := u.Store.Mailbox(s.ctx, name)
	if err != nil {
		return false
	}
	defer m.Release()
	return m == s.box.mailbox
}
