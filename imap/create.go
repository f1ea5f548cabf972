package imap

import (
	"strings"

	"golang.org/x/text/unicode/norm"

	"imapd/imap/wire"
)

// CREATE makes a mailbox. See RFC 9051 section 6.3.4.
var _ = register(Extension{
	Name:     "CREATE",
	RFC:      9051,
	Commands: []Command{authed("CREATE", parseName, (*Session).create)},
})

// nameArg is a mailbox name, and how the client spelled it.
type nameArg struct{ name, sent string }

// parseName parses a space and a mailbox name, where that is all there is.
func parseName(d *wire.Decoder) nameArg {
	d.SP()
	return readName(d)
}

func readName(d *wire.Decoder) (a nameArg) {
	a.name, a.sent = d.MailboxAsSent()
	return a
}

func (s *Session) create(u *User, a nameArg) error {
	if err := s.checkNew(a.name); err != nil {
		return err
	}
	if err := u.Store.Create(s.ctx, a.name); err != nil {
		return err
	}
	// A separator at the end says that there will be children; it is no other
	// spelling.
	s.sendOldName("", a.name, strings.TrimSuffix(a.sent, string(u.Store.Separator())))
	return nil
}

// checkNew refuses a name for a new mailbox that is not normalized: two
// names must not look the same (RFC 9051 section 5.1). What comes in modified
// UTF-7 was never bound by that.
func (s *Session) checkNew(name string) error {
	if s.UTF8() && !norm.NFC.IsNormalString(name) {
		return no("CANNOT", "Mailbox name is not in Unicode normalization form C")
	}
	return nil
}
