package transcript

import "strings"

// A Form is a way to play a script.
type Form string

// The forms; see the package comment.
const (
	Plain        Form = "plain"
	Bytes        Form = "bytes"
	Pipelined    Form = "pipelined"
	Literals     Form = "literals"
	LiteralsPlus Form = "literals+"
)

// Forms are all of them.
var Forms = []Form{Plain, Bytes, Pipelined, Literals, LiteralsPlus}

// Plays reports whether s can be played in form f.
func (s *Script) Plays(f Form) bool {
	if s.Not[string(f)] != "" {
		return false
	}
	if f != Pipelined {
		return true
	}
	clients := map[string]bool{}
	for _, step := range s.Steps {
		if step.Kind == TLS || step.Kind == Outside {
			return false // must happen between two commands
		}
		clients[step.Client] = true
	}
	return len(clients) == 1
}

// literalize makes every string and every astring of a command a literal.
func (f Form) literalize(l Line) Line {
	if f != Literals && f != LiteralsPlus {
		return l
	}
	w := rewriter{head: map[Form]string{Literals: "{}", LiteralsPlus: "{+}"}[f]}
	for _, c := range l {
		if c.Head != "" {
			w.flush()
			w.out = append(w.out, c)
			w.argument() // the literal was one
			continue
		}
		w.text(c.Text)
	}
	w.flush()
	if n := len(w.out); n == 0 || w.out[n-1].Head != "" && !w.out[n-1].Bare {
		w.out = append(w.out, Chunk{}) // a line ends in text, if only an empty one
	}
	return w.out
}

// astrings tells which arguments of a command are astrings, as a bit set. Of
// other commands only quoted strings are made literals.
var astrings = map[string]uint{
	"LOGIN": 3, "SELECT": 1, "EXAMINE": 1, "CREATE": 1, "DELETE": 1, "RENAME": 3, "SUBSCRIBE": 1, "UNSUBSCRIBE": 1,
	"LIST": 3, "LSUB": 3, "STATUS": 1, "APPEND": 1, "COPY": 2, "MOVE": 2,
}

// searchStrings are the search keys that astrings follow, with their number.
var searchStrings = map[string]int{
	"BCC": 1, "BODY": 1, "CC": 1, "CHARSET": 1, "FROM": 1, "HEADER": 2, "SUBJECT": 1, "TEXT": 1, "TO": 1,
}

// searchDates are the search keys that a date follows, which may be quoted and
// is no string all the same.
var searchDates = map[string]bool{
	"BEFORE": true, "ON": true, "SINCE": true, "SENTBEFORE": true, "SENTON": true, "SENTSINCE": true,
}

// A rewriter reads a command word by word.
type rewriter struct {
	head    string
	out     Line
	pending strings.Builder // text not yet in out

	words   int    // words seen at depth 0, the tag among them
	depth   int    // of parentheses
	command string // in capitals, without UID
	first   int    // the number of the first argument
	strings int    // how many search strings are to come
	date    bool   // the next word is a search key's date
}

func (w *rewriter) flush() {
	if w.pending.Len() > 0 {
		w.out = append(w.out, Chunk{Text: w.pending.String()})
		w.pending.Reset()
	}
}

// text reads a part of the command that has no literal in it.
func (w *rewriter) text(s string) {
	for s != "" {
		switch s[0] {
		case ' ', ')', '(':
			if s[0] == '(' && w.depth == 0 {
				w.words++ // a list is one argument
			}
			w.depth = max(0, w.depth+strings.IndexByte(") (", s[0])-1)
			w.pending.WriteByte(s[0])
			s = s[1:]
		case '"':
			n := quotedLen(s)
			w.quoted(s[:n])
			s = s[n:]
		default:
			n := strings.IndexAny(s, ` ()"`)
			if n < 0 {
				n = len(s)
			}
			w.word(s[:n])
			s = s[n:]
		}
	}
}

// quotedLen returns the length of the quoted string that s starts with.
func quotedLen(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s)
}

func (w *rewriter) quoted(q string) {
	date := w.date || w.command == "APPEND" && w.words > w.first
	tag := w.words == 0
	w.argument()
	if tag || date || len(q) < 2 || q[len(q)-1] != '"' {
		w.pending.WriteString(q)
		return
	}
	var b strings.Builder
	for i := 1; i < len(q)-1; i++ {
		if q[i] == '\\' {
			i++
		}
		b.WriteByte(q[i])
	}
	w.literal(b.String())
}

func (w *rewriter) word(word string) {
	upper := strings.ToUpper(word)
	switch {
	case w.words == 1 && upper == "UID" && w.depth == 0:
		w.pending.WriteString(word)
		return
	case w.words == 1 && w.depth == 0:
		w.command, w.first = upper, 2
		w.words++
		w.pending.WriteString(word)
		return
	}
	astring := w.isString(word)
	w.argument()
	if astring {
		w.literal(word)
		return
	}
	if w.command == "SEARCH" {
		w.strings, w.date = searchStrings[upper], searchDates[upper]
	}
	w.pending.WriteString(word)
}

// isString reports whether word, about to be counted, is an astring.
func (w *rewriter) isString(word string) bool {
	if w.command == "SEARCH" {
		return w.strings > 0
	}
	k := w.words - w.first
	return w.command != "" && w.depth == 0 && k >= 0 && k < 8 && astrings[w.command]>>k&1 == 1 && !strings.Contains(word, "{")
}

// argument counts a word that was read.
func (w *rewriter) argument() {
	if w.depth == 0 {
		w.words++
	}
	w.strings, w.date = max(w.strings-1, 0), false
}

func (w *rewriter) literal(text string) {
	w.flush()
	w.out = append(w.out, Chunk{Text: text, Head: w.head})
}
