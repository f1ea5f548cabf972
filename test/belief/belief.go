// Package belief holds what clients may believe of a store while its server is
// killed, meets errors and loses its power, and says where what is found
// afterwards is something else. Tests of the engine and of the whole server use
// it; see the security rules I1 to I16 and I19 for what it holds them to.
package belief

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"imapd/maildir"
)

// A demand is something that must hold after a crash, and that the engine may not
// hold yet.
type demand string

const (
	wholeAdd    demand = "APPEND and COPY of several messages are all there or none"
	wholeRename demand = "folders that are renamed together have all the old name or all the new one"
	apartRename demand = "a folder whose list lies in a control directory keeps its UIDs when its rename dies"
)

// notYet is what is not demanded.
var notYet = map[demand]bool{}

// An Effect is what a command does to the folders when it is answered OK.
type Effect struct {
	Adds   []Added
	Drops  map[string][]maildir.UID
	Flags  map[string]map[maildir.UID]string
	Makes  string    // a folder
	Kills  string    // a folder
	Rename [2]string // a folder and all below it
	// Weak says that a power cut may undo it: the site does not want each flag
	// and each unlink to cost a sync.
	Weak bool
}

// Added is a message that a command adds; with Moved it comes from another folder.
type Added struct {
	Folder string
	Mail
	Moved bool
}

// A Mail is a message as clients know it.
type Mail struct {
	Text  string
	Date  int64
	Flags string // names, sorted, with blanks between
}

// A Folder is a mailbox as clients know it.
type Folder struct {
	Validity uint32
	Next     maildir.UID
	ModSeq   maildir.ModSeq
	Mails    map[maildir.UID]Mail
}

// A belief is what a client may believe of a message.
type belief struct {
	Mail
	also        []string // further flags that it may have
	there, gone bool     // what it may be
	undead      bool     // it may come back as another message
}

// A hope is a message whose UID no client knows.
type hope struct {
	Added
	least, most int
	group       int // those of one command; 0: of none
}

// A bond is a folder that has one of two names.
type bond struct{ old, now string }

// Known is all that clients may believe.
type Known struct {
	folders map[string]Folder // their mails are in beliefs
	beliefs map[string]map[maildir.UID]belief
	hopes   []hope
	maybe   map[string]bool // folders that may be there or not
	bonds   []bond          // renamed, or not
	whole   bool            // all of bonds alike, whatever happened
	dead    uint32          // highest UIDVALIDITY of a folder that was deleted
	cut     bool            // the power has failed
	loose   bool            // only the mail counts, UIDs and flags may be lost

	first map[string]maildir.UID // UIDNEXT before the first command

	mirrors []Folder // what clients were told that may come back; see Stale

	// Apart says that lists lie in a control directory.
	Apart bool
	// Copied says that what is found is a copy, with other inode numbers: what was
	// about to be done is not known by them, and stays as it is.
	Copied bool
	// Unsaid says that modseqs need not be told: they cannot be written down.
	Unsaid bool
}

// New returns what is known where all has been told to clients; cut says that
// the power is going to fail.
func New(all map[string]Folder, cut bool) *Known {
	k := &Known{folders: map[string]Folder{}, beliefs: map[string]map[maildir.UID]belief{}, maybe: map[string]bool{}, cut: cut, first: map[string]maildir.UID{}}
	for name, f := range all {
		k.folders[name], k.first[name] = f, f.Next
		k.beliefs[name] = map[maildir.UID]belief{}
		for u, m := range f.Mails {
			k.beliefs[name][u] = belief{Mail: m, there: true}
		}
		k.Told(f)
	}
	return k
}

// Await adds a message that is there and has not been told to anybody.
func (k *Known) Await(a Added) { k.hopes = append(k.hopes, hope{Added: a, least: 1, most: 1}) }

// Folders returns the names of the folders that must be there, sorted.
func (k *Known) Folders() []string { return slices.Sorted(maps.Keys(k.folders)) }

// Done takes in a command that was answered OK.
func (k *Known) Done(e Effect, given []maildir.UID) {
	if e.Makes != "" {
		k.folders[e.Makes] = Folder{Next: 1}
		k.beliefs[e.Makes] = map[maildir.UID]belief{}
	}
	for i, a := range e.Adds {
		if i >= len(given) { // nobody was told
			k.Await(a)
			continue
		}
		f := k.folders[a.Folder]
		f.Next = max(f.Next, given[i]+1)
		k.folders[a.Folder] = f
		k.beliefs[a.Folder][given[i]] = belief{Mail: a.Mail, there: true}
	}
	undone := k.cut && e.Weak
	k.change(e, func(b *belief) { b.gone, b.there, b.undead = true, false, undone }, func(b *belief, flags string) {
		if undone {
			b.also = append(b.also, b.Flags)
		}
		b.Flags = flags
	})
	switch {
	case e.Kills != "":
		k.dead = max(k.dead, k.folders[e.Kills].Validity)
		delete(k.folders, e.Kills)
		delete(k.beliefs, e.Kills)
	case e.Rename[0] != "":
		for _, b := range k.family(e.Rename) {
			k.folders[b.now], k.beliefs[b.now] = k.folders[b.old], k.beliefs[b.old]
			delete(k.folders, b.old)
			delete(k.beliefs, b.old)
		}
	}
}

// Open takes in a command that was never answered, or answered with an error.
func (k *Known) Open(e Effect, answered bool) {
	group := len(k.hopes) + 1
	for _, a := range e.Adds {
		h := hope{Added: a, most: 1, group: group}
		if answered && !a.Moved {
			h.most = 0
		}
		k.hopes = append(k.hopes, h)
	}
	k.change(e, func(b *belief) { b.gone, b.undead = true, k.cut }, func(b *belief, flags string) { b.also = append(b.also, flags) })
	switch {
	case e.Makes != "":
		k.maybe[e.Makes] = true
	case e.Kills != "":
		k.dead = max(k.dead, k.folders[e.Kills].Validity)
		k.maybe[e.Kills] = true
	case e.Rename[0] != "":
		k.bonds = k.family(e.Rename)
		k.whole = answered
		k.loose = k.Apart && !answered && notYet[apartRename]
	}
}

func (k *Known) change(e Effect, drop func(*belief), flag func(*belief, string)) {
	for name, uids := range e.Drops {
		for _, u := range uids {
			b := k.beliefs[name][u]
			drop(&b)
			k.beliefs[name][u] = b
		}
	}
	for name, flags := range e.Flags {
		for u, f := range flags {
			b := k.beliefs[name][u]
			flag(&b, f)
			k.beliefs[name][u] = b
		}
	}
}

// family returns the folders that a rename is about.
func (k *Known) family(r [2]string) []bond {
	var all []bond
	for name := range k.folders {
		if rest, ok := strings.CutPrefix(name, r[0]); ok && (rest == "" || rest[0] == '/') {
			all = append(all, bond{name, r[1] + rest})
		}
	}
	return all
}

// Violations compares what is there with what may be believed.
func (k *Known) Violations(all map[string]Folder) []string {
	var v []string
	say := func(format string, args ...any) { v = append(v, fmt.Sprintf(format, args...)) }
	all = maps.Clone(all)
	olds, news := 0, 0
	for _, b := range k.bonds {
		if f, ok := all[b.now]; ok {
			if _, both := all[b.old]; both {
				say("%s and %s are both there", b.old, b.now)
			}
			all[b.old] = f
			delete(all, b.now)
			news++
		} else {
			olds++
		}
	}
	if olds > 0 && news > 0 && (k.whole || !notYet[wholeRename]) {
		say("%d folders have the old name and %d the new one", olds, news)
	}
	for name := range all {
		if _, ok := k.folders[name]; !ok && !k.maybe[name] {
			say("the folder %s is there", name)
		}
	}
	for name, want := range k.folders {
		got, ok := all[name]
		switch {
		case !ok && k.maybe[name]:
		case !ok:
			say("the folder %s is gone", name)
		default:
			v = append(v, k.compare(name, want, got)...)
		}
	}
	for name, got := range all {
		_, known := k.folders[name]
		filled := slices.ContainsFunc(k.hopes, func(h hope) bool { return h.Folder == name })
		if !known && k.maybe[name] && (len(got.Mails) > 0 && !filled || got.Validity <= k.dead) {
			say("%s is new, and has UIDVALIDITY %d and %v", name, got.Validity, got.Mails)
		}
	}
	return append(v, k.unfulfilled(all)...)
}

func (k *Known) compare(name string, want, got Folder) (v []string) {
	say := func(format string, args ...any) { v = append(v, name+": "+fmt.Sprintf(format, args...)) }
	if k.loose {
		if len(got.Mails) != len(k.beliefs[name]) {
			say("%d messages", len(got.Mails))
		}
		return v
	}
	if want.Validity != 0 && got.Validity != want.Validity || got.Validity <= k.dead && want.Validity == 0 {
		say("UIDVALIDITY %d, was %d", got.Validity, want.Validity)
	}
	if got.Next < want.Next {
		say("UIDNEXT %d, was %d", got.Next, want.Next)
	}
	beliefs := k.beliefs[name]
	next := want.Next
	if slices.ContainsFunc(k.hopes, func(h hope) bool { return h.Folder == name && h.least > 0 }) {
		next = k.first[name] // they have got theirs meanwhile
	}
	for u, m := range got.Mails {
		b, known := beliefs[u]
		switch {
		case !known && u < next:
			say("UID %d, below UIDNEXT %d, is a new message: %+v", u, next, m)
		case !known: // it is hoped for, or nobody's
		case !b.there:
			say("UID %d is back: %+v", u, m)
		case m.Text != b.Text || m.Date != b.Date:
			say("UID %d is %+v, was %+v", u, m, b.Mail)
		case m.Flags != b.Flags && !slices.Contains(b.also, m.Flags):
			say("UID %d has the flags %q, must have %q or one of %q", u, m.Flags, b.Flags, b.also)
		}
	}
	for u, b := range beliefs {
		if _, ok := got.Mails[u]; !ok && !b.gone {
			say("UID %d is lost: %+v", u, b.Mail)
		}
	}
	return v
}

// unfulfilled looks at the messages whose UIDs nobody knows.
func (k *Known) unfulfilled(all map[string]Folder) (v []string) {
	if k.loose {
		return nil
	}
	say := func(format string, args ...any) { v = append(v, fmt.Sprintf(format, args...)) }
	some, none := map[int]int{}, map[int]int{}
	hoped := map[string]bool{}
	for _, h := range k.hopes {
		n := k.strangers(all, h.Folder, h.Text)
		hoped[h.Folder+"\n"+h.Text] = true
		if n < h.least || n > h.most {
			say("%s: %q is there %d times, not %d to %d", h.Folder, h.Text, n, h.least, h.most)
		}
		if n == 0 {
			none[h.group]++
		} else {
			some[h.group]++
		}
		for u, m := range all[h.Folder].Mails {
			if _, known := k.beliefs[h.Folder][u]; !known && m.Text == h.Text && (m.Date != h.Date || m.Flags != h.Flags) {
				say("%s: UID %d is %+v, must be %+v", h.Folder, u, m, h.Mail)
			}
		}
		if h.Moved && n+k.copies(all, h.Folder, h.Text) == 0 {
			say("%q is lost on its way to %s", h.Text, h.Folder)
		}
	}
	for g, n := range some {
		if none[g] > 0 && g > 0 && !k.moving(g) && !k.Copied && !notYet[wholeAdd] {
			say("%d messages of one command are there, and %d are not", n, none[g])
		}
	}
	for name, f := range all {
		for u, m := range f.Mails {
			if _, known := k.beliefs[name][u]; !known && !hoped[name+"\n"+m.Text] && !k.undead(name, m.Text) {
				say("%s: nobody knows UID %d: %+v", name, u, m)
			}
		}
	}
	return v
}

// undead reports whether a message of that text was expunged, and the power cut
// may have brought it back: as another one, for clients know that its UID is gone.
func (k *Known) undead(name, text string) bool {
	for _, b := range k.beliefs[name] {
		if b.Text == text && b.undead {
			return true
		}
	}
	return false
}

func (k *Known) moving(group int) bool {
	return slices.ContainsFunc(k.hopes, func(h hope) bool { return h.group == group && h.Moved })
}

// strangers counts the messages of a text that have no UID that clients know.
func (k *Known) strangers(all map[string]Folder, name, text string) int {
	n := 0
	for u, m := range all[name].Mails {
		if _, known := k.beliefs[name][u]; !known && m.Text == text {
			n++
		}
	}
	return n
}

// copies counts the messages of a text in other folders.
func (k *Known) copies(all map[string]Folder, but, text string) int {
	n := 0
	for name, f := range all {
		for _, m := range f.Mails {
			if name != but && m.Text == text {
				n++
			}
		}
	}
	return n
}
