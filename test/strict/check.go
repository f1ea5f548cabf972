package strict

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// check fails unless the response has the shape that its name asks for.
func check(r *Response) {
	switch {
	case r.Tag != "*":
		if r.Name == "BYE" || r.Name == "PREAUTH" {
			fail("tagged %s", r.Name)
		}
		return
	case r.Name == "":
		fail("nothing behind *")
	}
	switch r.Name {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		return
	case "EXISTS", "RECENT", "EXPUNGE", "FETCH":
		numbered(r)
		return
	}
	if r.Number != 0 {
		fail("number before %s", r.Name)
	}
	a := &args{left: r.Args}
	switch r.Name {
	case "CAPABILITY", "ENABLED":
		atoms(a.rest())
	case "FLAGS":
		Flags(a.list())
	case "LIST", "LSUB":
		listed(a)
	case "STATUS":
		status(a)
	case "SEARCH":
		searched(a)
	case "VANISHED":
		vanished(a)
	case "ESEARCH":
		esearch(a)
	case "NAMESPACE":
		for range 3 {
			if v := a.next(); v.Kind != Nil && v.Kind != List {
				fail("namespaces are neither list nor NIL")
			}
		}
	case "ID":
		if v := a.next(); v.Kind != Nil {
			pairs(v)
		}
	default:
		fail("response %q", r.Name)
	}
	a.end()
}

func numbered(r *Response) {
	a := &args{left: r.Args}
	if r.Name == "FETCH" {
		fetched(a.list())
	}
	a.end()
	if r.Number == 0 && (r.Name == "EXPUNGE" || r.Name == "FETCH") {
		fail("message 0")
	}
}

// args are the arguments of a response that have not been looked at.
type args struct{ left []Value }

func (a *args) next() Value {
	if len(a.left) == 0 {
		fail("too few arguments")
	}
	v := a.left[0]
	a.left = a.left[1:]
	return v
}

func (a *args) rest() []Value {
	v := a.left
	a.left = nil
	return v
}

func (a *args) list() []Value { return members(a.next()) }

func (a *args) end() {
	if len(a.left) > 0 {
		fail("%d arguments too many", len(a.left))
	}
}

func members(v Value) []Value {
	if v.Kind != List {
		fail("%q is no list", v.Text)
	}
	return v.List
}

func atoms(values []Value) {
	for _, v := range values {
		if v.Kind != Atom {
			fail("%q is no atom", v.Text)
		}
	}
}

// number returns the 32-bit number that v is.
func number(v Value) uint32 {
	n, err := strconv.ParseUint(v.Text, 10, 32)
	if v.Kind != Atom || err != nil || len(v.Text) > 1 && v.Text[0] == '0' {
		fail("%q is no number", v.Text)
	}
	return uint32(n)
}

func number64(v Value) {
	if _, err := strconv.ParseUint(v.Text, 10, 63); v.Kind != Atom || err != nil {
		fail("%q is no 63-bit number", v.Text)
	}
}

// positive64 is number64 for a modseq, which is not 0.
func positive64(v Value) {
	number64(v)
	need(v.Text != "0", v, "modseq")
}

func isString(v Value) bool  { return v.Kind == Quoted || v.Kind == Literal }
func nstring(v Value) bool   { return v.Kind == Nil || isString(v) }
func mailbox(v Value)        { need(v.Kind == Atom || isString(v), v, "mailbox") }
func mustString(v Value)     { need(isString(v), v, "string") }
func mustNString(v Value)    { need(nstring(v), v, "string or NIL") }
func pairs(v Value)          { parameters(members(v)) }
func parameters(all []Value) { need(len(all)%2 == 0, Value{}, "list of pairs"); each(all, mustNString) }

func need(ok bool, v Value, what string) {
	if !ok {
		fail("%q is no %s", v.Text, what)
	}
}

func each(all []Value, f func(Value)) {
	for _, v := range all {
		f(v)
	}
}

// Flags fails unless all of them are flags, and each is there once.
func Flags(flags []Value) {
	seen := map[string]bool{}
	for _, f := range flags {
		name := strings.ToLower(f.Text)
		if f.Kind != Atom || strings.ContainsAny(name, "[]") && name[0] == '\\' {
			fail("%q is no flag", f.Text)
		}
		if seen[name] {
			fail("flag %q twice", f.Text)
		}
		seen[name] = true
	}
}

// searched checks the numbers of SEARCH, and the modseq that may follow at least
// one of them (RFC 7162 section 3.1.6).
func searched(a *args) {
	n := 0
	for ; len(a.left) > 0 && a.left[0].Kind != List; n++ {
		number(a.next())
	}
	if n == 0 || len(a.left) == 0 {
		return
	}
	v := a.list()
	if len(v) != 2 || v[0].Text != "MODSEQ" {
		fail("list behind the numbers")
	}
	positive64(v[1])
}

// vanished checks the UIDs of VANISHED (RFC 7162 section 3.2.10).
func vanished(a *args) {
	if len(a.left) > 0 && a.left[0].Kind == List {
		if v := a.list(); len(v) != 1 || v[0].Text != "EARLIER" {
			fail("list before the UIDs")
		}
	}
	v := a.next()
	need(numSet.MatchString(v.Text), v, "set of UIDs")
}

func listed(a *args) {
	Flags(a.list())
	if v := a.next(); v.Kind != Nil && (v.Kind != Quoted || len(v.Text) != 1) {
		fail("separator %q", v.Text)
	}
	mailbox(a.next())
	if len(a.left) > 0 {
		members(a.next())
	}
}

var statusItems = []string{"MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "DELETED", "SIZE", "APPENDLIMIT", "HIGHESTMODSEQ"}

func status(a *args) {
	mailbox(a.next())
	items := a.list()
	if len(items)%2 != 0 {
		fail("item without a value")
	}
	for i := 0; i < len(items); i += 2 {
		if !slices.Contains(statusItems, items[i].Text) {
			fail("item %q", items[i].Text)
		}
		number64(items[i+1])
	}
}

var numSet = regexp.MustCompile(`^[1-9]\d*(:[1-9]\d*)?(,[1-9]\d*(:[1-9]\d*)?)*$`)

func esearch(a *args) {
	if len(a.left) > 0 && a.left[0].Kind == List {
		tag := a.list()
		if len(tag) != 2 || tag[0].Text != "TAG" || !isString(tag[1]) {
			fail("correlator")
		}
	}
	if len(a.left) > 0 && a.left[0].Text == "UID" {
		a.next()
	}
	for len(a.left) > 0 {
		name, v := a.next().Text, a.next()
		switch name {
		case "MIN", "MAX", "COUNT":
			number(v)
		case "MODSEQ":
			positive64(v)
		case "ALL":
			need(numSet.MatchString(v.Text), v, "set of numbers")
		default:
			fail("item %q", name)
		}
	}
}
