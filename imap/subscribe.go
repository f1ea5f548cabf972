package imap

import "imapd/maildir"

// SUBSCRIBE and UNSUBSCRIBE change the list of mailboxes that the user wants to
// see. See RFC 9051 sections 6.3.7 and 6.3.8.
var _ = register(Extension{
	Name: "SUBSCRIBE",
	RFC:  9051,
	Commands: []Command{
		authed("SUBSCRIBE", parseName, (*Session).subscribe),
		authed("UNSUBSCRIBE", parseName, func(_ *Session, u *User, a nameArg) error {
			return u.Store.Unsubscribe(a.name)
		}),
	},
})

// subscribe takes only what exists: a typing error would stay in the list for
// ever. What is deleted afterwards stays subscribed.
func (s *Session) subscribe(u *User, a nameArg) error {
	f, err := u.Store.Look(a.name)
	if err != nil {
		return err
	}
	if !f.Exists && !f.Container {
		return maildir.ErrNotFound
	}
	return u.Store.Subscribe(a.name)
}
