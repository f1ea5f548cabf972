package imap

import (
	"errors"

	"imapd/imap/body"
	"imapd/imap/wire"
)

// SEARCH finds messages. See RFC 9051 section 6.4.4. It is read in
// searchparse.go, its keys are in searchkeys.go and searchtext.go, and messages
// are tried in searchrun.go.
var _ = register(Extension{
	Name: "SEARCH",
	RFC:  9051,
	Commands: []Command{
		selectedStream("SEARCH", func(s *Session, b *Box, d *wire.Decoder) error {
			return s.search(b, d, false)
		}).with(UsesSeq),
		// Between the answer to this one and the next command EXPUNGE may be sent
		// (RFC 9051 section 7.5.1).
		selectedStream("UID SEARCH", func(s *Session, b *Box, d *wire.Decoder) error {
			return s.search(b, d, true)
		}),
	},
	Search: searchKeyRows,
})

// SearchArgs are the arguments of a SEARCH command.
type SearchArgs struct {
	UID      bool            // UID SEARCH: the answer has UIDs
	Extended bool            // there is RETURN, or IMAP4rev2 is enabled: answer with ESEARCH
	Returns  []*SearchReturn // as asked for, each once
	Save     bool            // RETURN (SAVE)
	program  searchProgram
	modSeq   bool // there is a key MODSEQ: the answer has the highest one
}

// search reads, runs and answers a SEARCH.
func (s *Session) search(b *Box, d *wire.Decoder, uid bool) error {
	p := s.searchParser(d)
	a := SearchArgs{UID: uid, Extended: s.Rev2()}
	p.SP()
	p.arguments(&a)
	err := p.end()
	if a.modSeq = p.modSeq; a.modSeq && err == nil {
		err = s.wantModSeqs()
	}
	if p.numbers {
		s.marks |= markNumbers
	}
	if err == nil {
		var o *SearchOutcome
		if o, err = s.find(b, &a); err == nil {
			return s.sendFound(b, &a, o)
		}
	}
	var syntax *wire.SyntaxError
	if a.Save && !errors.As(err, &syntax) {
		b.saved = wire.NumSet{} // on NO, not on BAD: RFC 9051 section 6.4.4.1
	}
	return err
}

// sendFound answers a SEARCH.
func (s *Session) sendFound(b *Box, a *SearchArgs, o *SearchOutcome) error {
	if a.Save {
		b.saved = o.UIDs
	}
	if !a.Extended {
		return s.sendSearch(a, o)
	}
	if a.Save && len(a.Returns) == 0 {
		return nil // SAVE alone is silent: RFC 9051 section 6.4.4
	}
	return s.sendESearch(a, o)
}

// sendSearch sends the SEARCH response of IMAP4rev1, also if nothing was found
// (RFC 3501 section 7.2.5).
func (s *Session) sendSearch(a *SearchArgs, o *SearchOutcome) error {
	s.out = append(s.out, "* SEARCH"...)
	for n := range o.Numbers.All() {
		s.out = append(s.out, ' ')
		s.out = wire.AppendNumber(s.out, n)
		if err := s.spill(); err != nil {
			return err
		}
	}
	if a.modSeq && o.Count > 0 {
		s.marks |= markModSeq
		s.out = append(s.out, " (MODSEQ "...) // RFC 7162 section 3.1.6
		s.out = wire.AppendNumber(s.out, o.ModSeq)
		s.out = append(s.out, ')')
	}
	s.out = append(s.out, "\r\n"...)
	return nil
}

// errCharset refuses a search in a charset that is not known. The list is of
// those that every client can fall back on.
var errCharset = no("BADCHARSET (UTF-8 US-ASCII)", "Unknown charset")

// arguments reads what follows SEARCH: return options, charset and keys.
func (p *SearchParser) arguments(a *SearchArgs) {
	word := p.word()
	if word == "RETURN" {
		a.Extended = true
		p.SP()
		p.returns(a)
		p.SP()
		word = p.word()
	}
	if word == "CHARSET" {
		p.SP()
		p.charset = p.AString()
		if p.Err() == nil && !body.KnownCharset(p.charset) {
			p.refuse(errCharset)
		}
		p.SP()
		word = p.word()
	}
	a.program = p.searchProgram(word)
}
