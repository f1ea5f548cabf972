package imap

import (
	"strings"

	"imapd/imap/wire"
	"imapd/maildir/tree"
)

// LIST tells the names of mailboxes. See RFC 9051 section 6.3.9, and RFC 3501
// section 6.3.8 for what a client of before RFC 5258 is used to.
//
// There are two ways to ask. The basic one is answered with all that is known
// of a mailbox, as clients came to expect. The extended one, with options or
// several patterns, is answered with what the options ask for. Both as Dovecot
// does.
var _ = register(Extension{
	Name:     "LIST",
	RFC:      9051,
	Commands: []Command{authed("LIST", parseList, (*Session).list)},
})

func parseList(d *wire.Decoder) (a ListArgs) {
	d.SP()
	if d.Peek() == '(' {
		a.Extended = true
		listOptions(d, listFilters, &a)
		d.SP()
	}
	a.Ref = d.ListMailbox()
	d.SP()
	if d.Peek() == '(' {
		a.Extended = true
		d.List(func() { a.Patterns = append(a.Patterns, d.ListMailbox()) })
	} else {
		a.Patterns = []string{d.ListMailbox()}
	}
	if d.AcceptSP() && d.Peek() != '\r' && d.Peek() != '\n' {
		if a.Extended = true; d.Keyword() != "RETURN" {
			d.FailText("", "RETURN is expected")
		}
		d.SP()
		listOptions(d, listReturns, &a)
	}
	if a.Filter&ListRecursiveMatch != 0 && a.Filter&^(ListRecursiveMatch|ListRemote) == 0 {
		d.FailText("", "RECURSIVEMATCH needs another selection option")
	}
	return a
}

// listOptions parses a parenthesized list of options, which may be empty.
func listOptions(d *wire.Decoder, options table[ListOption], a *ListArgs) {
	d.List(func() {
		if o := options.find(d.Keyword()); o != nil {
			o.Parse(d, a)
		} else {
			d.FailText("", "Unknown option of LIST")
		}
	})
}

// listFilter and listReturn make options without arguments.
func listFilter(name string, filter, implied ListBits) ListOption {
	return ListOption{Name: name, Parse: func(_ *wire.Decoder, a *ListArgs) {
		a.Filter |= filter
		a.Return |= implied
	}}
}

func listReturn(name string, bit ListBits) ListOption {
	return ListOption{Name: name, Parse: func(_ *wire.Decoder, a *ListArgs) { a.Return |= bit }}
}

func (s *Session) list(u *User, a ListArgs) error {
	if !a.Extended {
		if a.Patterns[0] == "" {
			s.listRoot(u, a.Ref)
			return nil
		}
		a.Return = ListChildren | ListSpecialUse
	}
	names, err := s.listed(u, a)
	if err != nil {
		return err
	}
	for i := range names {
		n := &names[i]
		s.out = append(s.out, "* LIST ("...)
		s.listAttributes(n, a)
		s.out = append(s.out, ") "...)
		s.listName(n.Name)
		s.listChildInfo(n, a)
		s.out = append(s.out, "\r\n"...)
		if a.Return&ListStatus != 0 && n.Exists {
			if err := s.listStatus(u, n.Name, a.Status); err != nil {
				return err
			}
		}
		if err := s.spill(); err != nil {
			return err
		}
	}
	return nil
}

// listRoot answers LIST with an empty pattern: it asks for the separator, and for the
// root of the reference. The root is the prefix if the reference has it, else
// what UW-IMAP would say, and Dovecot says.
func (s *Session) listRoot(u *User, ref string) {
	root, sep := u.Store.Prefix(), string(u.Store.Separator())
	if root == "" || !strings.HasPrefix(ref, root) {
		n := strings.Index(ref, sep)
		root = ref[:n+1]
	}
	s.out = append(s.out, `* LIST (\Noselect) `...)
	s.listName(root)
	s.out = append(s.out, "\r\n"...)
}

// listName appends the separator and a name.
func (s *Session) listName(name string) {
	s.out = wire.AppendString(s.out, string(s.user.Store.Separator()))
	s.out = append(s.out, ' ')
	s.out = wire.AppendMailbox(s.out, name, s.UTF8())
}

// listAttributes appends the attributes that a asks for.
func (s *Session) listAttributes(n *listedName, a ListArgs) {
	start := len(s.out)
	if a.Return&ListSubscribed != 0 && n.subscribed {
		s.out = append(s.out, `\Subscribed `...)
	}
	switch {
	case n.Exists:
	case n.Container || !a.Extended && !s.Rev2():
		s.out = append(s.out, `\Noselect `...)
	default:
		s.out = append(s.out, `\NonExistent `...)
	}
	switch {
	case a.Return&ListChildren == 0:
	case n.HasChildren:
		s.out = append(s.out, `\HasChildren `...)
	default:
		s.out = append(s.out, `\HasNoChildren `...)
	}
	if a.Return&ListSpecialUse != 0 && n.use != "" {
		s.out = append(append(s.out, n.use...), ' ')
	}
	if len(s.out) > start {
		s.out = s.out[:len(s.out)-1]
	}
}

// A listedName is a name and all that LIST may say of it.
type listedName struct {
	tree.Folder
	subscribed bool
	use        string // special uses, with a space between them
	matches    bool   // one of the patterns
	parent     bool   // of a name that satisfies the selection options
	needed     bool   // ... and is not listed itself
}

// listed returns the names to list, with INBOX first and parents before children.
func (s *Session) listed(u *User, a ListArgs) ([]listedName, error) {
	if len(a.Patterns) > s.conf.Limits.Patterns {
		return nil, no("LIMIT", "Too many patterns")
	}
	folders, err := u.Store.List()
	if err != nil {
		return nil, err
	}
	var subscriptions []string
	if (a.Filter|a.Return)&ListSubscribed != 0 {
		if subscriptions, err = u.Store.Subscriptions(); err != nil {
			return nil, err
		}
	}
	l := newListing(folders, u.Store.Separator())
	l.subscribe(subscriptions, a.Filter)
	if (a.Filter|a.Return)&ListSpecialUse != 0 {
		l.mark(s.specialUses(u.Store.Prefix()))
	}
	l.match(s.patterns(u, a))
	return l.choose(a.Filter), nil
}

// patterns returns the canonical patterns of a: the reference is put before
// each (RFC 9051 section 6.3.9). Empty ones and those that are too long match
// nothing.
func (s *Session) patterns(u *User, a ListArgs) []*tree.Pattern {
	var list []*tree.Pattern
	for _, p := range a.Patterns {
		if p != "" && len(a.Ref)+len(p) <= s.conf.Limits.MailboxName {
			list = append(list, tree.Compile(a.Ref+p, u.Store.Separator()))
		}
	}
	return list
}
