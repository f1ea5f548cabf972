package wire

import "strings"

// systemFlags are the flags whose spelling is fixed; case does not matter in flags.
var systemFlags = [...]string{`\Seen`, `\Answered`, `\Flagged`, `\Deleted`, `\Draft`, `\Recent`}

// Flag reads a flag of at most 255 octets: "\Seen", "$Forwarded", "work". System
// flags (and \Recent, which the caller must refuse where it may not be set) are
// returned in the spelling of RFC 9051, others as sent. "\*" is an error.
func (d *Decoder) Flag() string {
	if !d.Accept('\\') {
		return d.span(isAtom, maxFlag, "flag")
	}
	name := d.span(isAtom, maxFlag-1, "flag")
	if d.err != nil {
		return ""
	}
	for _, f := range systemFlags {
		if strings.EqualFold(f[1:], name) {
			return f
		}
	}
	return `\` + name
}

// FlagList reads a parenthesised list of flags, which may be empty.
func (d *Decoder) FlagList() []string {
	var flags []string
	d.List(func() { flags = append(flags, d.Flag()) })
	return d.flags(flags)
}

// FlagsArg reads the flags of STORE: a list, or flags without parentheses.
func (d *Decoder) FlagsArg() []string {
	if d.Peek() == '(' {
		return d.FlagList()
	}
	flags := []string{d.Flag()}
	for d.AcceptSP() {
		if c := d.Peek(); c == '\r' || c == '\n' || c == ' ' {
			break // End forgives the space
		}
		if d.items++; d.items > d.lim.Items {
			d.FailText("TOOBIG", "too many flags")
		}
		flags = append(flags, d.Flag())
	}
	return d.flags(flags)
}

// flags returns nothing after an error.
func (d *Decoder) flags(flags []string) []string {
	if d.err != nil {
		return nil
	}
	return flags
}
