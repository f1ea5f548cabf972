package imap

// LIST-EXTENDED has selection and return options of LIST. No mailbox is remote,
// so REMOTE changes nothing. See RFC 5258, or RFC 9051 sections 6.3.9.1 to 6.3.9.6.
var _ = register(Extension{
	Name: "LIST-EXTENDED",
	RFC:  5258,
	Caps: when(loggedIn, "LIST-EXTENDED"),
	Filters: []ListOption{
		listFilter("SUBSCRIBED", ListSubscribed, ListSubscribed),
		listFilter("REMOTE", ListRemote, 0),
		listFilter("RECURSIVEMATCH", ListRecursiveMatch, 0),
	},
	Returns: []ListOption{listReturn("SUBSCRIBED", ListSubscribed)},
})

// listChildInfo appends the extended data item CHILDINFO: which of the selection
// options a mailbox below n satisfies.
func (s *Session) listChildInfo(n *listedName, a ListArgs) {
	if !n.parent || a.Filter&ListRecursiveMatch == 0 {
		return
	}
	s.out = append(s.out, ` (CHILDINFO (`...)
	if a.Filter&ListSubscribed != 0 {
		s.out = append(s.out, `"SUBSCRIBED" `...)
	}
	if a.Filter&ListSpecialUse != 0 {
		s.out = append(s.out, `"SPECIAL-USE" `...)
	}
	s.out = append(s.out[:len(s.out)-1], "))"...)
}
