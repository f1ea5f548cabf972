package imap

import (
	"maps"
	"slices"
)

// SPECIAL-USE says which mailbox is for what: always in answers to the basic
// LIST, on request to the extended one. See RFC 6154.
var _ = register(Extension{
	Name:    "SPECIAL-USE",
	RFC:     6154,
	Caps:    when(loggedIn, "SPECIAL-USE"),
	Filters: []ListOption{listFilter("SPECIAL-USE", ListSpecialUse, ListSpecialUse)},
	Returns: []ListOption{listReturn("SPECIAL-USE", ListSpecialUse)},
})

// usualUses are the mailboxes that have a special use where the configuration
// gives that use to no other.
var usualUses = []struct{ use, name string }{
	{`\Archive`, "Archive"}, {`\Drafts`, "Drafts"}, {`\Junk`, "Junk"}, {`\Sent`, "Sent"}, {`\Trash`, "Trash"},
}

// specialUses returns the attributes of mailboxes by their names, which begin
// with prefix.
func (s *Session) specialUses(prefix string) map[string]string {
	uses := map[string]string{}
	add := func(name, use string) {
		if uses[prefix+name] != "" {
			use = uses[prefix+name] + " " + use
		}
		uses[prefix+name] = use
	}
	for _, use := range slices.Sorted(maps.Keys(s.conf.SpecialUse)) {
		add(s.conf.SpecialUse[use], use)
	}
	for _, u := range usualUses {
		if _, set := s.conf.SpecialUse[u.use]; !set {
			add(u.name, u.use)
		}
	}
	return uses
}
