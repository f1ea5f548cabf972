package imap

import (
	"slices"

	"imapd/imap/wire"
)

// ESEARCH lets a client say what it wants to know of the messages found, and
// answers with ranges. See RFC 4731, or RFC 9051 sections 6.4.4 and 7.3.4.
var _ = register(Extension{
	Name: "ESEARCH",
	RFC:  4731,
	Caps: when(loggedIn, "ESEARCH"),
	Results: []SearchReturn{
		{Name: "MIN", Needs: NeedFirst, Write: func(s *Session, o *SearchOutcome) error {
			return s.found(" MIN ", o.First)
		}},
		{Name: "MAX", Needs: NeedLast, Write: func(s *Session, o *SearchOutcome) error {
			return s.found(" MAX ", o.Last)
		}},
		{Name: "ALL", Needs: NeedAll, Write: (*Session).foundAll},
		{Name: "COUNT", Needs: NeedAll, Write: func(s *Session, o *SearchOutcome) error {
			s.out = append(s.out, " COUNT "...)
			s.out = wire.AppendNumber(s.out, o.Count)
			return nil
		}},
	},
})

// SEARCHRES keeps what was found for "$". See RFC 5182, or RFC 9051 section
// 6.4.4.1.
var _ = register(Extension{
	Name: "SEARCHRES",
	RFC:  5182,
	Caps: when(loggedIn, "SEARCHRES"),
	Results: []SearchReturn{
		{Name: "SAVE", Parse: func(_ *SearchParser, a *SearchArgs) { a.Save = true }},
	},
})

// returns reads the list of return options.
func (p *SearchParser) returns(a *SearchArgs) {
	p.List(func() {
		r := resultOpts.find(p.Keyword())
		if r == nil {
			p.FailText("", "Unknown return option")
			return
		}
		if r.Parse != nil {
			r.Parse(p, a)
		}
		if r.Write != nil && !slices.Contains(a.Returns, r) {
			a.Returns = append(a.Returns, r)
		}
	})
}

// needs returns what has to be known of the messages found.
func (a *SearchArgs) needs() (n SearchNeeds) {
	for _, r := range a.Returns {
		n |= r.Needs
	}
	if n == 0 {
		return NeedAll
	}
	return n
}

// sendESearch sends the ESEARCH response.
func (s *Session) sendESearch(a *SearchArgs, o *SearchOutcome) error {
	s.out = append(s.out, "* ESEARCH (TAG "...)
	s.out = wire.AppendString(s.out, s.tag)
	s.out = append(s.out, ')')
	if a.UID {
		s.out = append(s.out, " UID"...)
	}
	returns := a.Returns
	if len(returns) == 0 {
		returns = []*SearchReturn{resultOpts.find("ALL")} // RFC 4731 section 3.1
	}
	for _, r := range returns {
		if err := r.Write(s, o); err != nil {
			return err
		}
	}
	if a.modSeq && o.Count > 0 {
		s.marks |= markModSeq
		s.out = append(s.out, " MODSEQ "...) // RFC 4731 section 3.2
		s.out = wire.AppendNumber(s.out, o.ModSeq)
	}
	s.out = append(s.out, "\r\n"...)
	return nil
}

// found appends one number, if there is one.
func (s *Session) found(name string, n uint32) error {
	if n > 0 {
		s.out = append(s.out, name...)
		s.out = wire.AppendNumber(s.out, n)
	}
	return nil
}

// foundAll appends the numbers as a set, unless there are none, in pieces.
func (s *Session) foundAll(o *SearchOutcome) error {
	if o.Numbers.Empty() {
		return nil
	}
	s.out = append(s.out, " ALL "...)
	return s.appendSet(o.Numbers)
}
