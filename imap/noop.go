package imap

// NOOP does nothing; what has changed in the mailbox comes with its answer, as
// with that of every command. See RFC 9051 section 6.1.2. CHECK is the same:
// nothing is ever held back from the disk. See RFC 3501 section 6.4.1.
var _ = register(Extension{
	Name: "NOOP",
	RFC:  9051,
	Commands: []Command{
		always("NOOP", noArgs, func(*Session, none) error { return nil }),
		selected("CHECK", noArgs, func(*Session, *Box, none) error { return nil }),
	},
})
