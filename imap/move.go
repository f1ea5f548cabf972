package imap

// MOVE moves messages to another mailbox. See RFC 6851, or RFC 9051 section
// 6.4.8. It may renumber messages although it is given their numbers: the
// EXPUNGE responses belong to it (RFC 6851 section 3.3).
var _ = register(Extension{
	Name: "MOVE",
	RFC:  6851,
	Caps: when(loggedIn, "MOVE"),
	Commands: []Command{
		selected("MOVE", parseCopy(seqSet), (*Session).move),
		selected("UID MOVE", parseCopy(uidSet), (*Session).move),
	},
})

func (s *Session) move(b *Box, a copyArgs) error {
	if err := b.writable(); err != nil {
		return err
	}
	c, err := s.transfer(b, a, b.mailbox.Move)
	if len(c.To) > 0 {
		s.marks |= markExpunged
		s.untagged("OK [", copyUID(c), "] Moved")
	}
	return err
}
