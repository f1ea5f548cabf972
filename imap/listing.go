package imap

import (
	"slices"
	"strings"

	"imapd/maildir/tree"
)

// A listing is worked out of the folders that exist and the names that are
// subscribed, in memory and without a look at any folder: a user may have
// thousands.
type listing struct {
	names     []listedName
	byName    map[string]int // index in names; made when it is first asked for
	separator byte
}

func newListing(folders []tree.Folder, separator byte) *listing {
	l := &listing{names: make([]listedName, len(folders)), separator: separator}
	for i, f := range folders {
		l.names[i].Folder = f
	}
	return l
}

// find returns the entry of name, or nil.
func (l *listing) find(name string) *listedName {
	if l.byName == nil {
		l.byName = make(map[string]int, len(l.names))
		for i := range l.names {
			l.byName[l.names[i].Name] = i
		}
	}
	if i, ok := l.byName[name]; ok {
		return &l.names[i]
	}
	return nil
}

// subscribe marks names. If subscribed names are what is to be listed, those
// that do not exist are among them, and with RECURSIVEMATCH their parents too.
func (l *listing) subscribe(names []string, filter ListBits) {
	before := len(l.names)
	for _, name := range names {
		if n := l.find(name); n != nil {
			n.subscribed = true
		} else if filter&ListSubscribed != 0 {
			l.add(name).subscribed = true
		}
		if filter&ListSubscribed == 0 || filter&ListRecursiveMatch == 0 {
			continue
		}
		for up := l.up(name); up != "" && l.find(up) == nil; up = l.up(up) {
			l.add(up)
		}
	}
	if len(l.names) > before {
		l.merge(before)
	}
}

func (l *listing) add(name string) *listedName {
	l.byName[name] = len(l.names)
	l.names = append(l.names, listedName{Folder: tree.Folder{Name: name}})
	return &l.names[len(l.names)-1]
}

// up returns the parent of a name, or "".
func (l *listing) up(name string) string {
	return name[:max(0, strings.LastIndexByte(name, l.separator))]
}

// merge puts the names behind the first known ones, which are in order, where
// they belong.
func (l *listing) merge(known int) {
	compare := func(a, b listedName) int { return tree.Compare(a.Name, b.Name, l.separator) }
	old, added := l.names[:known], l.names[known:]
	slices.SortFunc(added, compare)
	merged := make([]listedName, 0, len(l.names))
	for _, n := range added {
		i := 0
		for i < len(old) && compare(old[i], n) < 0 {
			i++
		}
		merged = append(append(merged, old[:i]...), n)
		old = old[i:]
	}
	l.names, l.byName = append(merged, old...), nil
}

// mark sets the special uses of the mailboxes that exist.
func (l *listing) mark(uses map[string]string) {
	for i := range l.names {
		if n := &l.names[i]; n.Exists {
			n.use = uses[n.Name]
		}
	}
}

func (l *listing) match(patterns []*tree.Pattern) {
	for i := range l.names {
		for _, p := range patterns {
			if p.Match(l.names[i].Name) {
				l.names[i].matches = true
				break
			}
		}
	}
}

// choose returns the names that match and satisfy the selection options. With
// RECURSIVEMATCH also parents of such that match no pattern themselves, so
// that none is told of twice (RFC 9051 section 6.3.9.6).
func (l *listing) choose(filter ListBits) []listedName {
	if filter&ListRecursiveMatch != 0 {
		for i := range l.names {
			if n := &l.names[i]; n.satisfies(filter) {
				l.tellParents(n)
			}
		}
	}
	chosen := l.names[:0]
	for _, n := range l.names {
		if n.matches && (n.needed || n.satisfies(filter)) {
			chosen = append(chosen, n)
		}
	}
	return chosen
}

func (l *listing) tellParents(n *listedName) {
	for up := l.up(n.Name); up != ""; up = l.up(up) {
		if p := l.find(up); p != nil {
			p.parent = true
			p.needed = p.needed || !n.matches
		}
	}
}

// satisfies reports whether n is one of those that the selection options name.
func (n *listedName) satisfies(filter ListBits) bool {
	return (filter&ListSubscribed == 0 || n.subscribed) && (filter&ListSpecialUse == 0 || n.use != "")
}
