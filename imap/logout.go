package imap

// LOGOUT ends the session. See RFC 9051 section 6.1.3.
var _ = register(Extension{
	Name:     "LOGOUT",
	RFC:      9051,
	Commands: []Command{always("LOGOUT", noArgs, (*Session).logout).with(Silent)},
})

func (s *Session) logout(none) error {
	s.quit = true
	s.untagged("BYE Logging out")
	return nil
}
