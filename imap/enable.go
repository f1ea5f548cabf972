package imap

import (
	"slices"

	"imapd/imap/wire"
)

// ENABLE turns on what changes the answers of other commands.
// See RFC 5161, or RFC 9051 section 6.3.1.
var _ = register(Extension{
	Name:     "ENABLE",
	RFC:      5161,
	Caps:     when(anyState, "ENABLE"),
	Commands: []Command{authed("ENABLE", parseEnable, (*Session).enableWords)},
	Enable:   []EnableWord{{Name: "IMAP4REV2", Show: "IMAP4rev2", Props: PropRev2}},
})

// parseEnable reads at least one word. What is not in the table is ignored, as
// the RFC wants it.
func parseEnable(d *wire.Decoder) []*EnableWord {
	var words []*EnableWord
	d.SP()
	for {
		if w := enableWords.find(d.Keyword()); w != nil {
			words = append(words, w)
		}
		if d.Err() != nil || !d.AcceptSP() {
			return words
		}
	}
}

func (s *Session) enableWords(_ *User, words []*EnableWord) error {
	s.out = append(s.out, "* ENABLED"...)
	var all Props
	for i, w := range words {
		if s.props.Has(w.Props) || slices.Contains(words[:i], w) {
			continue // RFC 5161 section 3.2: only what this command has enabled
		}
		all |= w.Props
		show := w.Show
		if show == "" {
			show = w.Name
		}
		s.out = append(append(s.out, ' '), show...)
	}
	s.out = append(s.out, "\r\n"...)
	s.enable(all)
	return nil
}
