package wire

// Limits bounds what one command may cost. A field that is zero has the value
// that BeforeLogin gives it, so that a forgotten field is never "no limit".
type Limits struct {
	// Line is the octets of a command outside its literals, line ends included.
	// Beyond it the framing is lost.
	Line int64
	// Literal is the octets of one literal that is held in memory. Literals that
	// are streamed (Decoder.Literal) are the caller's to judge.
	Literal int64
	// Quoted and Word are the octets of one quoted string, and of one atom or
	// anything else that is written without quotes.
	Quoted, Word int64
	// Literals is the number of held literals in one command.
	Literals int
	// Args is the sum of the octets of all strings, literals and atoms held for
	// one command.
	Args int64
	// Items is the number of members of all parenthesised lists in one command.
	Items int
	// Depth is the nesting of parentheses.
	Depth int
	// NonSync is the octets of the largest non-synchronizing literal: 4096 with
	// LITERAL- (RFC 7888 section 5) and before login.
	NonSync int64
	// Skip is how many octets of a refused command are read away before the
	// connection is given up.
	Skip int64
}

// BeforeLogin returns the limits for somebody who has not yet said who they are:
// small enough that a hundred thousand such connections harm nobody.
func BeforeLogin() Limits {
	return Limits{
		Line:     8 << 10,
		Literal:  4 << 10,
		Quoted:   8 << 10,
		Word:     8 << 10,
		Literals: 8,
		Args:     16 << 10,
		Items:    100,
		Depth:    1, // ID has the only list
		NonSync:  4 << 10,
		Skip:     64 << 10,
	}
}

// AfterLogin returns the usual limits for a user. Literal does not bound APPEND,
// whose literals are streamed; NonSync is that of LITERAL-.
func AfterLogin() Limits {
	return Limits{
		Line:     2 << 20, // SOGo sends that many UIDs in one FETCH
		Literal:  1 << 20,
		Quoted:   128 << 10,
		Word:     128 << 10,
		Literals: 1000,
		Args:     1 << 20,
		Items:    64 << 10,
		Depth:    32,
		NonSync:  4 << 10,
		Skip:     16 << 20,
	}
}

// orDefault replaces zero fields.
func (l Limits) orDefault() Limits {
	d := BeforeLogin()
	if l.Line <= 0 {
		l.Line = d.Line
	}
	if l.Literal <= 0 {
		l.Literal = d.Literal
	}
	if l.Quoted <= 0 {
		l.Quoted = d.Quoted
	}
	if l.Word <= 0 {
		l.Word = d.Word
	}
	if l.Literals <= 0 {
		l.Literals = d.Literals
	}
	if l.Args <= 0 {
		l.Args = d.Args
	}
	if l.Items <= 0 {
		l.Items = d.Items
	}
	if l.Depth <= 0 {
		l.Depth = d.Depth
	}
	if l.NonSync <= 0 {
		l.NonSync = d.NonSync
	}
	if l.Skip <= 0 {
		l.Skip = d.Skip
	}
	return l
}
