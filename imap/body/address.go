package body

// An Address is one address of an ENVELOPE. RFC 9051 section 7.5.2: Host is NIL where a group starts, then Mailbox is
// the group's name, or ends, then Mailbox is NIL too. Of an address that cannot be understood the missing piece is
// called so: MISSING_MAILBOX, MISSING_DOMAIN, SYNTAX_ERROR, INVALID_ROUTE.
type Address struct {
	Name    NString // not decoded
	Route   NString
	Mailbox NString
	Host    NString
}

// IsGroupStart reports whether the address begins a group, whose name is Mailbox.
func (a *Address) IsGroupStart() bool { return !a.Host.OK && a.Mailbox.OK }

// IsGroupEnd reports whether the address ends a group.
func (a *Address) IsGroupEnd() bool { return !a.Host.OK && !a.Mailbox.OK }

// ParseAddresses reads the raw value of an address field as ENVELOPE does, up to max addresses and group marks.
func ParseAddresses(value []byte, max int) []Address {
	p := parser{lim: Limits{Addresses: max}.filled(), value: value}
	p.mem = p.lim.Memory
	return p.addresses(nil)
}

// addresses appends those of the collected field.
func (p *parser) addresses(list []Address) []Address {
	a := addrParser{p: p, lexer: p.lexer(), list: list}
	a.keep = true
	a.parse()
	return a.list
}

type addrParser struct {
	*lexer
	p    *parser
	list []Address
	cur  Address // the address being read
	odd  bool    // it is not well-formed
}

func (a *addrParser) full() bool { return len(a.list) >= a.p.lim.Addresses }

func (a *addrParser) text(b []byte) NString { return a.p.keepN(b) }

// emit appends the address that has been read. Without memory left it is dropped.
func (a *addrParser) emit() {
	if !a.full() && a.p.mem > 0 {
		a.p.mem -= min(a.p.mem, 16)
		a.list = append(a.list, a.cur)
	}
	a.cur, a.odd = Address{}, false
}

// emitMailbox emits an address and names what is missing in it.
func (a *addrParser) emitMailbox() {
	if !a.cur.Mailbox.OK {
		a.cur.Mailbox = NString{"MISSING_MAILBOX", true}
	}
	if a.cur.Host.S == "" {
		a.cur.Host = NString{"MISSING_DOMAIN", true}
	}
	a.emit()
}

// parse reads the list. It ends at the first address that is followed by anything but a comma.
func (a *addrParser) parse() {
	if a.skip() != more {
		return
	}
	for !a.full() {
		v := a.group()
		if v == bad {
			v = a.mailbox()
		}
		if v == end || !a.is(',') {
			return
		}
		a.i++
		switch a.skip() {
		case end:
			return
		case bad:
			a.emitMailbox()
			return
		}
	}
}

// group reads `name: a, b;`. It is bad, and nothing is consumed, if no group begins here; a group that is broken
// later on is still one.
func (a *addrParser) group() verdict {
	start := a.i
	var v verdict
	a.name, v = a.phrase(a.name[:0])
	if v != more || !a.is(':') {
		a.i = start
		return bad
	}
	a.i++
	v = a.skip()
	a.cur.Mailbox = a.text(a.name)
	a.emit()
	if v == more && !a.is(';') {
		v = a.members()
	}
	if v != bad {
		v = bad
		if a.is(';') {
			a.i++
			v = a.skip()
		}
	}
	a.cur = Address{}
	a.emit()
	if v == end {
		return end
	}
	return more
}

// members reads the addresses of a group.
func (a *addrParser) members() verdict {
	for {
		a.mailbox()
		if !a.is(',') {
			return more
		}
		a.i++
		if a.skip() != more {
			return bad
		}
	}
}

// mailbox reads `name <a@b>` or `a@b (name)`, or makes of what stands here the address that comes closest.
func (a *addrParser) mailbox() verdict {
	start := a.i
	v := a.nameAddr()
	if v == bad {
		a.i = start
		v = a.addrSpec()
		if a.odd && !a.cur.Name.OK && a.cur.Mailbox.OK && !a.cur.Host.OK {
			a.cur.Name = NString{string(collapse([]byte(a.cur.Mailbox.S))), true}
			a.cur.Mailbox = NString{}
		}
	}
	a.emitMailbox()
	return v
}

// nameAddr reads `name <a@b>`; it is bad if there is no < where it should be.
func (a *addrParser) nameAddr() verdict {
	var v verdict
	a.name, v = a.phrase(a.name[:0])
	if v != more || !a.is('<') {
		return bad
	}
	if len(a.name) > 0 {
		a.cur.Name = a.text(collapse(a.name))
	}
	if a.angle() == bad {
		a.cur.Host = NString{"SYNTAX_ERROR", true}
	}
	return a.rest()
}

// angle reads `<@route:a@b>`.
func (a *addrParser) angle() verdict {
	a.i++
	if a.skip() != more {
		return bad
	}
	if a.is('@') {
		if a.route() == more && a.is(':') {
			a.i++
		} else {
			a.cur.Route = NString{"INVALID_ROUTE", true}
			if a.done() {
				return bad
			}
		}
		if a.skip() != more {
			return bad
		}
	}
	if !a.is('>') {
		if a.local() != more {
			return bad
		}
		if a.is('@') && a.host() != more {
			return bad
		}
		if !a.is('>') {
			return bad
		}
	}
	a.i++
	return a.skip()
}

// route reads `@a,@b`.
func (a *addrParser) route() verdict {
	a.name = a.name[:0]
	for a.is('@') {
		if len(a.name) > 0 {
			a.name = append(a.name, ',')
		}
		a.name = append(a.name, '@')
		var v verdict
		if a.name, v = a.domain(a.name); v != more {
			return v
		}
		for a.skip() == more && a.is(',') {
			a.i++
		}
	}
	if a.done() {
		return end
	}
	a.cur.Route = a.text(a.name)
	return more
}

// local reads a local part into Mailbox.
func (a *addrParser) local() verdict {
	var v verdict
	a.name = a.name[:0]
	if a.is('"') {
		a.name, v = a.quoted(a.name)
	} else {
		a.name, v = a.localPart(a.name)
	}
	if v != bad {
		a.cur.Mailbox = a.text(a.name)
	}
	return v
}

// host reads @domain into Host.
func (a *addrParser) host() verdict {
	var v verdict
	a.name, v = a.domain(a.name[:0])
	if v != bad {
		a.cur.Host = a.text(a.name)
	}
	return v
}

// addrSpec reads a@b; a comment in or behind it is the name. Words without any @ are a name if there are several,
// else a mailbox.
func (a *addrParser) addrSpec() verdict {
	a.comment = a.comment[:0]
	quoted := a.is('"')
	v := a.local()
	a.odd = v != more
	host := false
	if v != end && a.is('@') {
		host = true
		if h := a.host(); h != more {
			v = h
		}
	}
	switch {
	case len(a.comment) > 0:
		a.cur.Name = a.text(collapse(a.comment))
	case !host:
		a.odd = true
		a.name = append(a.name, ' ')
		n := len(a.name)
		a.name, _ = a.phrase(a.name)
		if len(a.name) > n {
			a.cur.Mailbox = NString{}
			a.cur.Name = a.text(collapse(a.name))
		} else if !quoted {
			a.cur.Host = NString{"", true}
		}
		v = bad
	}
	return v
}
