package imap

import (
	"slices"
	"strings"
)

// CAPABILITY lists what the session may use now.
// See RFC 9051 section 6.1.1.
var _ = register(Extension{
	Name:     "CAPABILITY",
	RFC:      9051,
	Caps:     baseCaps,
	Commands: []Command{always("CAPABILITY", noArgs, (*Session).capability).with(Silent)},
})

// baseCaps are the capabilities that have no command of their own.
func baseCaps(s *Session) []string {
	literal := "LITERAL+"
	if s.conf.LiteralMinus {
		literal = "LITERAL-" // RFC 7888 section 5
	}
	return []string{literal}
}

func (s *Session) capability(none) error {
	s.untagged("CAPABILITY ", strings.Join(s.Capabilities(), " "))
	return nil
}

// Capabilities returns what s may use now: both base protocols, then the rest in a
// stable order, without what the administrator suppresses.
func (s *Session) Capabilities() []string {
	caps := []string{"IMAP4rev1", "IMAP4rev2"}
	for x := extensions; x != nil; x = x.next {
		if x.Caps != nil {
			caps = append(caps, x.Caps(s)...)
		}
	}
	return slices.DeleteFunc(caps, func(c string) bool {
		return slices.Contains(s.conf.SuppressCapabilities, strings.ToUpper(c))
	})
}
