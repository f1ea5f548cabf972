package imap

import (
	"strings"

	"imapd/imap/wire"
)

// LSUB lists the subscriptions for clients older than LIST (SUBSCRIBED).
// See RFC 3501 section 6.3.9.
var _ = register(Extension{
	Name:     "LSUB",
	RFC:      3501,
	Commands: []Command{authed("LSUB", parseLsub, (*Session).lsub)},
})

func parseLsub(d *wire.Decoder) (a ListArgs) {
	d.SP()
	a.Ref = d.ListMailbox()
	d.SP()
	a.Patterns = []string{d.ListMailbox()}
	return a
}

// lsub answers with \Noselect for a name that is not subscribed itself, but has
// others below it that are and that a % at the end of the pattern keeps out; and
// for one that is, and is only a parent of mailboxes. Special uses are there
// because Outlook looks for them here.
func (s *Session) lsub(u *User, a ListArgs) error {
	a.Filter, a.Return = ListSubscribed, ListSpecialUse
	if strings.HasSuffix(a.Patterns[0], "%") {
		a.Filter |= ListRecursiveMatch
	}
	names, err := s.listed(u, a)
	if err != nil {
		return err
	}
	for i := range names {
		n := &names[i]
		s.out = append(s.out, "* LSUB ("...)
		switch {
		case !n.subscribed, !n.Exists && n.HasChildren:
			s.out = append(s.out, `\Noselect`...)
		default:
			s.out = append(s.out, n.use...)
		}
		s.out = append(s.out, ") "...)
		s.listName(n.Name)
		s.out = append(s.out, "\r\n"...)
		if err := s.spill(); err != nil {
			return err
		}
	}
	return nil
}
