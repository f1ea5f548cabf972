package imap

import (
	"errors"

	"imapd/control"
	"imapd/imap/wire"
	"imapd/maildir"
)

// LIST-STATUS adds the STATUS of each mailbox to LIST. See RFC 5819, or RFC 9051
// section 6.3.9.2.
var _ = register(Extension{
	Name: "LIST-STATUS",
	RFC:  5819,
	Caps: when(loggedIn, "LIST-STATUS"),
	Returns: []ListOption{{Name: "STATUS", Parse: func(d *wire.Decoder, a *ListArgs) {
		d.SP()
		a.Return |= ListStatus
		a.Status = statusItemList(d)
	}}},
})

// listStatus sends the STATUS of a mailbox. One that cannot be looked at is left
// out, so that it does not hide the others.
func (s *Session) listStatus(u *User, name string, items []*StatusItem) error {
	err := s.sendStatus(u, name, items)
	if err == nil || s.ctx.Err() != nil {
		return err
	}
	if !errors.Is(err, maildir.ErrNotFound) {
		s.log.Warn("cannot look at mailbox", "user", control.Name(u.Name), "mailbox", control.Name(name), "error", err)
	}
	return nil
}
