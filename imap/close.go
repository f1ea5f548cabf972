package imap

// CLOSE and UNSELECT close the mailbox. CLOSE expunges it first and says
// nothing of that, unless it fails: the mailbox is closed all the same, and there is
// no NO for it. UNSELECT expunges nothing. See RFC 9051 sections 6.4.1 and 6.4.2, and
// RFC 3691.
var _ = register(Extension{
	Name: "UNSELECT",
	RFC:  3691,
	Caps: when(loggedIn, "UNSELECT"),
	Commands: []Command{
		selected("CLOSE", noArgs, (*Session).closeBox).with(Silent),
		selected("UNSELECT", noArgs, func(s *Session, _ *Box, _ none) error {
			s.unselect()
			s.present("")
			return nil
		}).with(Silent),
	},
})

func (s *Session) closeBox(b *Box, _ none) error {
	defer s.present("")
	defer s.unselect()
	if b.readOnly {
		return nil
	}
	_, err := b.mailbox.Expunge(s.ctx, nil)
	return s.warn(err)
}
