package imap

import (
	"strings"
	"unicode/utf8"

	"imapd/imap/body"
	"imapd/imap/wire"
)

// A SearchParser reads the arguments of SEARCH. It is a decoder that knows the
// search's charset and limits. As in a decoder, the first error sticks.
type SearchParser struct {
	*wire.Decoder
	charset string // as named by CHARSET, or ""
	keys    int    // how many more keys there may be
	room    int64  // octets that their strings may still have, folded
	depth   int    // how many more keys may contain the next one
	strings stringKeys
	modSeq  bool  // there is a key MODSEQ
	numbers bool  // there is a set of message numbers
	refusal error // why the search is refused although it is well-formed
}

func (s *Session) searchParser(d *wire.Decoder) *SearchParser {
	l := &s.conf.Limits
	return &SearchParser{Decoder: d, keys: l.SearchKeys, room: l.Args, depth: l.SearchDepth}
}

// refuse makes err the answer to the command. What follows is not read.
func (p *SearchParser) refuse(err error) {
	if p.Err() == nil {
		p.refusal = err
		p.FailText("", "refused")
	}
}

// end reads the end of the command and returns the first error.
func (p *SearchParser) end() error {
	err := p.End()
	if p.refusal != nil {
		return p.refusal
	}
	return err
}

// word reads the name of a key or option, in upper case. It is empty where a
// key begins that has no name: a set or a parenthesis.
func (p *SearchParser) word() string {
	switch c := p.Peek(); {
	case c == '(' || c == '*' || c == '$' || '0' <= c && c <= '9':
		return ""
	}
	return p.Keyword()
}

// searchProgram reads keys to the end of the command. word is the name of the
// first, which has been read.
func (p *SearchParser) searchProgram(word string) searchProgram {
	root := SearchTest{All: []SearchTest{p.key(word)}}
	for p.AcceptSP() {
		if c := p.Peek(); c == '\r' || c == '\n' {
			break // a space at the end is forgiven, as End forgives it
		}
		root.All = append(root.All, p.Key())
	}
	return newSearchProgram(root, p.strings)
}

// Key reads one key.
func (p *SearchParser) Key() SearchTest { return p.key(p.word()) }

func (p *SearchParser) key(word string) (t SearchTest) {
	if p.Err() != nil {
		return SearchTest{}
	}
	if p.keys--; p.keys < 0 {
		p.FailText("LIMIT", "Too many search keys")
		return SearchTest{}
	}
	if p.depth--; p.depth < 0 {
		p.FailText("LIMIT", "Search keys are nested too deeply")
		return SearchTest{}
	}
	switch k := searchKeys.find(word); {
	case k != nil:
		t = k.Parse(p)
	case word != "":
		p.FailText("", "Unknown search key")
	case p.Accept('('):
		t = p.list()
	default:
		set := p.NumSet()
		p.numbers = p.numbers || !set.Saved
		t = setTest(Set{NumSet: set})
	}
	p.depth++
	return t
}

// list reads the rest of a list of keys in parentheses, of which all must match.
func (p *SearchParser) list() (t SearchTest) {
	for p.Err() == nil {
		t.All = append(t.All, p.Key())
		if p.Accept(')') {
			break
		}
		p.SP()
		if p.Accept(')') {
			break // a space there is forgiven, as in other lists
		}
	}
	return t
}

// Text reads a string in the charset of the search, and returns it in UTF-8.
func (p *SearchParser) Text() string {
	text := p.LenientAString()
	if p.charset != "" {
		text = body.ToUTF8(p.charset, []byte(text))
	}
	if !utf8.ValidString(text) || p.charset != "" && strings.ContainsRune(text, utf8.RuneError) {
		p.FailText("", "Search string is not in its charset")
	}
	return text
}

// folded makes a string ready to be looked for. That can make it several times as
// long, and the sum is bounded as that of the arguments is.
func (p *SearchParser) folded(text string) []byte {
	key := body.Fold(nil, []byte(text))
	if p.room -= int64(len(key)); p.room < 0 {
		p.FailText("LIMIT", "Search strings are too long")
	}
	return key
}
