package strict

import (
	"regexp"
	"strings"
)

var (
	dateTime = regexp.MustCompile(`^[ 0-3]\d-(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)-\d{4} \d\d:\d\d:\d\d [-+]\d{4}$`)
	section  = regexp.MustCompile(`^(BODY|BINARY|BINARY\.SIZE)\[.*\](<\d+>)?$`)
)

// fetched checks the pairs of item and value in a FETCH response.
func fetched(items []Value) {
	if len(items)%2 != 0 || len(items) == 0 {
		fail("items and values do not pair")
	}
	seen := map[string]bool{}
	for i := 0; i < len(items); i += 2 {
		name, v := items[i].Text, items[i+1]
		if seen[name] && !section.MatchString(name) {
			fail("item %s twice", name)
		}
		seen[name] = true
		item(name, v)
	}
}

func item(name string, v Value) {
	switch name {
	case "FLAGS":
		Flags(members(v))
	case "UID":
		need(number(v) > 0, v, "UID")
	case "MODSEQ":
		m := members(v)
		need(len(m) == 1, v, "modseq")
		positive64(m[0])
	case "INTERNALDATE":
		need(v.Kind == Quoted && dateTime.MatchString(v.Text), v, "date-time")
	case "RFC822.SIZE":
		number64(v)
	case "ENVELOPE":
		envelope(members(v))
	case "BODY":
		body(members(v), false)
	case "BODYSTRUCTURE":
		body(members(v), true)
	case "RFC822", "RFC822.HEADER", "RFC822.TEXT":
		mustNString(v)
	default:
		switch {
		case !section.MatchString(name):
			fail("item %q", name)
		case strings.HasPrefix(name, "BINARY.SIZE["):
			number64(v)
		default:
			mustNString(v)
		}
	}
}

// envelope checks the ten fields of RFC 9051 section 7.5.2.
func envelope(f []Value) {
	if len(f) != 10 {
		fail("envelope of %d fields", len(f))
	}
	for _, i := range []int{0, 1, 8, 9} {
		mustNString(f[i])
	}
	for _, list := range f[2:8] {
		if list.Kind == Nil {
			continue
		}
		if len(members(list)) == 0 {
			fail("empty list of addresses")
		}
		for i, address := range list.List {
			if len(members(address)) != 4 || address.Spaced && i > 0 {
				fail("address %d", i)
			}
			each(address.List, mustNString)
		}
	}
}

// body checks a BODY, or with ext a BODYSTRUCTURE.
func body(f []Value, ext bool) {
	a := &args{left: f}
	if len(f) > 0 && f[0].Kind == List {
		for i := 0; len(a.left) > 0 && a.left[0].Kind == List; i++ {
			part := a.next()
			if part.Spaced && i > 0 {
				fail("space between parts")
			}
			body(part.List, ext)
		}
		mustString(a.next())
		if ext {
			params(a.next())
			extension(a)
		}
		a.end()
		return
	}
	typ, sub := a.next(), a.next()
	mustString(typ)
	mustString(sub)
	params(a.next())
	mustNString(a.next())
	mustNString(a.next())
	mustString(a.next())
	number64(a.next())
	switch {
	case strings.EqualFold(typ.Text, "text"):
		number64(a.next())
	case strings.EqualFold(typ.Text, "message") && (strings.EqualFold(sub.Text, "rfc822") || strings.EqualFold(sub.Text, "global")):
		envelope(members(a.next()))
		body(members(a.next()), ext)
		number64(a.next())
	}
	if ext {
		mustNString(a.next()) // MD5
		extension(a)
	}
	a.end()
}

// extension checks disposition, language and location.
func extension(a *args) {
	if v := a.next(); v.Kind != Nil {
		d := members(v)
		if len(d) != 2 {
			fail("disposition of %d", len(d))
		}
		mustString(d[0])
		params(d[1])
	}
	if v := a.next(); v.Kind == List {
		need(len(v.List) > 0, v, "language")
		each(v.List, mustString)
	} else {
		mustNString(v)
	}
	mustNString(a.next())
}

func params(v Value) {
	if v.Kind == Nil {
		return
	}
	if len(members(v)) == 0 || len(v.List)%2 != 0 {
		fail("parameters do not pair")
	}
	each(v.List, mustString)
}
