package maildir_test

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
	modseqs     demand = "HIGHESTMODSEQ never falls"
	apartRename demand = "a folder whose list lies in a control directory keeps its UIDs when its rename dies"
)

// notYet is what is not demanded yet. Each needs a file that the engine does not
// write so far: the journal of intents, the index of modseqs.
var notYet = map[demand]bool{wholeAdd: true, wholeRename: true, modseqs: true, apartRename: true}

// An effect is what a command does to the folders when it is answered OK.
type effect struct {
	adds   []added
	drops  map[string][]maildir.UID
	flags  map[string]map[maildir.UID]string
	makes  string    // a folder
	kills  string    // a folder
	rename [2]string // a folder and all below it
	// weak says that a power cut may undo it: the site does not want each flag
	// and each unlink to cost a sync.
	weak bool
}

// added is a message that a command adds; with moved it comes from another folder.
type added struct {
	folder string
	mail
	moved bool
}

// A belief is what a client may believe of a message.
type belief struct {
	mail
	also        []string // further flags that it may have
	there, gone bool     // what it may be
}

// A hope is a message whose UID no client knows.
type hope struct {
	added
	least, most int
	group       int // those of one command; 0: of none
}

// A bond is a folder that has one of two names.
type bond struct{ old, now string }

// know is all that clients may believe.
type know struct {
	folders map[string]folder // their mails are in beliefs
	beliefs map[string]map[maildir.UID]belief
	hopes   []hope
	maybe   map[string]bool // folders that may be there or not
	bonds   []bond          // renamed, or not
	whole   bool            // all of bonds alike, whatever happened
	apart   bool            // lists lie in a control directory
	dead    uint32          // highest UIDVALIDITY of a folder that was deleted
	cut     bool            // the power has failed
	loose   bool            // only the mail counts, UIDs and flags may be lost

	first map[string]maildir.UID // UIDNEXT before the first command
}

func knowing(all map[string]folder, cut bool) *know {
	k := &know{folders: map[string]folder{}, beliefs: map[string]map[maildir.UID]belief{}, maybe: map[string]bool{}, cut: cut, first: map[string]maildir.UID{}}
	for name, f := range all {
		k.folders[name], k.first[name] = f, f.next
		k.beliefs[name] = map[maildir.UID]belief{}
		for u, m := range f.mails {
			k.beliefs[name][u] = belief{mail: m, there: true}
		}
	}
	return k
}

// done takes in a command that was answered OK.
func (k *know) done(e effect, given []maildir.UID) {
	if e.makes != "" {
		k.folders[e.makes] = folder{next: 1}
		k.beliefs[e.makes] = map[maildir.UID]belief{}
	}
	for i, a := range e.adds {
		if i >= len(given) { // nobody was told
			k.hopes = append(k.hopes, hope{added: a, least: 1, most: 1})
			continue
		}
		f := k.folders[a.folder]
		f.next = max(f.next, given[i]+1)
		k.folders[a.folder] = f
		k.beliefs[a.folder][given[i]] = belief{mail: a.mail, there: true}
	}
	undone := k.cut && e.weak
	k.change(e, func(b *belief) { b.gone, b.there = true, undone }, func(b *belief, flags string) {
		if undone {
			b.also = append(b.also, b.flags)
		}
		b.flags = flags
	})
	switch {
	case e.kills != "":
		k.dead = max(k.dead, k.folders[e.kills].validity)
		delete(k.folders, e.kills)
		delete(k.beliefs, e.kills)
	case e.rename[0] != "":
		for _, b := range k.family(e.rename) {
			k.folders[b.now], k.beliefs[b.now] = k.folders[b.old], k.beliefs[b.old]
			delete(k.folders, b.old)
			delete(k.beliefs, b.old)
		}
	}
}

// open takes in a command that was never answered, or answered with an error.
func (k *know) open(e effect, answered bool) {
	group := len(k.hopes) + 1
	for _, a := range e.adds {
		h := hope{added: a, most: 1, group: group}
		if answered && !a.moved {
			h.most = 0
		}
		k.hopes = append(k.hopes, h)
	}
	k.change(e, func(b *belief) { b.gone = true }, func(b *belief, flags string) { b.also = append(b.also, flags) })
	switch {
	case e.makes != "":
		k.maybe[e.makes] = true
	case e.kills != "":
		k.dead = max(k.dead, k.folders[e.kills].validity)
		k.maybe[e.kills] = true
	case e.rename[0] != "":
		k.bonds = k.family(e.rename)
		k.whole = answered
		k.loose = k.apart && !answered && notYet[apartRename]
	}
}

func (k *know) change(e effect, drop func(*belief), flag func(*belief, string)) {
	for name, uids := range e.drops {
		for _, u := range uids {
			b := k.beliefs[name][u]
			drop(&b)
			k.beliefs[name][u] = b
		}
	}
	for name, flags := range e.flags {
		for u, f := range flags {
			b := k.beliefs[name][u]
			flag(&b, f)
			k.beliefs[name][u] = b
		}
	}
}

// family returns the folders that a rename is about.
func (k *know) family(r [2]string) []bond {
	var all []bond
	for name := range k.folders {
		if rest, ok := strings.CutPrefix(name, r[0]); ok && (rest == "" || rest[0] == '/') {
			all = append(all, bond{name, r[1] + rest})
		}
	}
	return all
}

// violations compares what is there with what may be believed.
func (k *know) violations(all map[string]folder) []string {
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
		filled := slices.ContainsFunc(k.hopes, func(h hope) bool { return h.folder == name })
		if !known && k.maybe[name] && (len(got.mails) > 0 && !filled || got.validity <= k.dead) {
			say("%s is new, and has UIDVALIDITY %d and %v", name, got.validity, got.mails)
		}
	}
	return append(v, k.unfulfilled(all)...)
}

func (k *know) compare(name string, want, got folder) (v []string) {
	say := func(format string, args ...any) { v = append(v, name+": "+fmt.Sprintf(format, args...)) }
	if k.loose {
		if len(got.mails) != len(k.beliefs[name]) {
			say("%d messages", len(got.mails))
		}
		return v
	}
	if want.validity != 0 && got.validity != want.validity || got.validity <= k.dead && want.validity == 0 {
		say("UIDVALIDITY %d, was %d", got.validity, want.validity)
	}
	if got.next < want.next {
		say("UIDNEXT %d, was %d", got.next, want.next)
	}
	if got.modseq < want.modseq && !notYet[modseqs] {
		say("HIGHESTMODSEQ %d, was %d", got.modseq, want.modseq)
	}
	beliefs := k.beliefs[name]
	next := want.next
	if slices.ContainsFunc(k.hopes, func(h hope) bool { return h.folder == name && h.least > 0 }) {
		next = k.first[name] // they have got theirs meanwhile
	}
	for u, m := range got.mails {
		b, known := beliefs[u]
		switch {
		case !known && u < next:
			say("UID %d, below UIDNEXT %d, is a new message: %+v", u, next, m)
		case !known: // it is hoped for, or nobody's
		case !b.there:
			say("UID %d is back: %+v", u, m)
		case m.text != b.text || m.date != b.date:
			say("UID %d is %+v, was %+v", u, m, b.mail)
		case m.flags != b.flags && !slices.Contains(b.also, m.flags):
			say("UID %d has the flags %q, must have %q or one of %q", u, m.flags, b.flags, b.also)
		}
	}
	for u, b := range beliefs {
		if _, ok := got.mails[u]; !ok && !b.gone {
			say("UID %d is lost: %+v", u, b.mail)
		}
	}
	return v
}

// unfulfilled looks at the messages whose UIDs nobody knows.
func (k *know) unfulfilled(all map[string]folder) (v []string) {
	if k.loose {
		return nil
	}
	say := func(format string, args ...any) { v = append(v, fmt.Sprintf(format, args...)) }
	some, none := map[int]int{}, map[int]int{}
	hoped := map[string]bool{}
	for _, h := range k.hopes {
		n := k.strangers(all, h.folder, h.text)
		hoped[h.folder+"\n"+h.text] = true
		if n < h.least || n > h.most {
			say("%s: %q is there %d times, not %d to %d", h.folder, h.text, n, h.least, h.most)
		}
		if n == 0 {
			none[h.group]++
		} else {
			some[h.group]++
		}
		for u, m := range all[h.folder].mails {
			if _, known := k.beliefs[h.folder][u]; !known && m.text == h.text && (m.date != h.date || m.flags != h.flags) {
				say("%s: UID %d is %+v, must be %+v", h.folder, u, m, h.mail)
			}
		}
		if h.moved && n+k.copies(all, h.folder, h.text) == 0 {
			say("%q is lost on its way to %s", h.text, h.folder)
		}
	}
	for g, n := range some {
		if none[g] > 0 && g > 0 && !k.moving(g) && !notYet[wholeAdd] {
			say("%d messages of one command are there, and %d are not", n, none[g])
		}
	}
	for name, f := range all {
		for u, m := range f.mails {
			if _, known := k.beliefs[name][u]; !known && !hoped[name+"\n"+m.text] && !k.undead(name, m.text) {
				say("%s: nobody knows UID %d: %+v", name, u, m)
			}
		}
	}
	return v
}

// undead reports whether a message of that text was expunged, and the power cut
// may have brought it back: as another one.
func (k *know) undead(name, text string) bool {
	for _, b := range k.beliefs[name] {
		if b.text == text && b.gone && b.there {
			return true
		}
	}
	return false
}

func (k *know) moving(group int) bool {
	return slices.ContainsFunc(k.hopes, func(h hope) bool { return h.group == group && h.moved })
}

// strangers counts the messages of a text that have no UID that clients know.
func (k *know) strangers(all map[string]folder, name, text string) int {
	n := 0
	for u, m := range all[name].mails {
		if _, known := k.beliefs[name][u]; !known && m.text == text {
			n++
		}
	}
	return n
}

// copies counts the messages of a text in other folders.
func (k *know) copies(all map[string]folder, but, text string) int {
	n := 0
	for name, f := range all {
		for _, m := range f.mails {
			if name != but && m.text == text {
				n++
			}
		}
	}
	return n
}
