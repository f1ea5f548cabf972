package transcript

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// vars are the names that a script has bound, with what they stand for.
type vars map[string]string

var (
	varPattern    = regexp.MustCompile(`\$\$|\$_|\$[a-z][a-z0-9]*`)
	statusPattern = regexp.MustCompile(`^(\S+ (?:OK|NO|BAD|BYE|PREAUTH))( \[[^\]]*\])?(?: (.*))?$`)
	listPattern   = regexp.MustCompile(`(FLAGS|LIST|LSUB) \(([^()]*)\)`)
)

// fill puts the values of variables into what a client sends.
func (v vars) fill(text string) (string, error) {
	var missing error
	out := varPattern.ReplaceAllStringFunc(text, func(name string) string {
		if name == "$$" {
			return "$"
		}
		value, ok := v[name[1:]]
		if !ok {
			missing = fmt.Errorf("%s is not known yet", name)
		}
		return value
	})
	return out, missing
}

// match reports whether got is what want says, and binds the names that it
// meets for the first time if it is.
func (v vars) match(want, got Line) bool {
	w, g := canonical(want, true), canonical(got, false)
	if words, ok := strings.CutSuffix(w, " ..."); ok {
		have := strings.Fields(g)
		for _, word := range strings.Fields(words) {
			if !slices.Contains(have, word) {
				return false
			}
		}
		return true
	}
	w, g = human(w, g)
	pattern, names := v.pattern(sorted(w))
	found := regexp.MustCompile(pattern).FindStringSubmatch(sorted(g))
	if found == nil {
		return false
	}
	bound := vars{}
	for i, name := range names {
		if other, ok := bound[name]; ok && other != found[i+1] {
			return false
		}
		bound[name] = found[i+1]
	}
	for name, value := range bound {
		v[name] = value
	}
	return true
}

// pattern makes a regular expression of text with variables, and names what
// its groups bind.
func (v vars) pattern(text string) (pattern string, names []string) {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	at := 0
	for _, m := range varPattern.FindAllStringIndex(text, -1) {
		b.WriteString(regexp.QuoteMeta(text[at:m[0]]))
		at = m[1]
		name := text[m[0]+1 : m[1]]
		value, known := v[name]
		switch {
		case name == "$":
			b.WriteString(`\$`)
		case name == "_":
			b.WriteString(`.*`)
		case known:
			b.WriteString(regexp.QuoteMeta(value))
		case m[0] > 0 && text[m[0]-1] == '"' && strings.HasPrefix(text[at:], `"`):
			b.WriteString(`([^"]*)`)
			names = append(names, name)
		default:
			b.WriteString(`([^\s()\[\]"]+)`)
			names = append(names, name)
		}
	}
	b.WriteString(regexp.QuoteMeta(text[at:]))
	b.WriteString(`\z`)
	return b.String(), names
}

// canonical writes a line with its literals as quoted strings, which may then
// hold line ends. Dollar signs in the literals of a script are no variables.
func canonical(l Line, script bool) string {
	var b strings.Builder
	for _, c := range l {
		text := c.Text
		if script && c.Head != "" {
			text = strings.ReplaceAll(text, "$", "$$")
		}
		switch {
		case c.Bare:
			b.WriteString(head(c.Head, text))
		case c.Head == "":
			b.WriteString(text)
		default:
			b.WriteString(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`)
		}
	}
	return b.String()
}

// human removes from a wanted and a received line what is not compared: the
// text for humans, and the code where any will do.
func human(want, got string) (string, string) {
	if strings.HasPrefix(want, "+") && strings.HasPrefix(got, "+") {
		text, ok := strings.CutPrefix(want, "+ =")
		if !ok {
			return "+", "+"
		}
		return "+ " + strings.Trim(text, `"`), got
	}
	w, g := statusPattern.FindStringSubmatch(want), statusPattern.FindStringSubmatch(got)
	if w == nil || g == nil {
		return want, got
	}
	if w[2] == " [*]" {
		w[2], g[2] = "", ""
	}
	text, ok := strings.CutPrefix(w[3], "=")
	if !ok {
		return w[1] + w[2], g[1] + g[2]
	}
	return w[1] + w[2] + " " + strings.Trim(text, `"`), g[1] + g[2] + " " + g[3]
}

// sorted puts what has no order in one.
func sorted(text string) string {
	if numbers, ok := strings.CutPrefix(text, "* SEARCH "); ok {
		numbers, modseq, _ := strings.Cut(numbers, "(")
		return "* SEARCH " + sortedWords(numbers) + "(" + modseq
	}
	if m := esearchPattern.FindStringSubmatch(text); m != nil {
		pairs := pairPattern.FindAllString(m[2], -1)
		slices.Sort(pairs)
		return m[1] + strings.Join(pairs, "")
	}
	if m := statusDataPattern.FindStringSubmatch(text); m != nil {
		pairs := pairPattern.FindAllString(" "+m[2], -1)
		slices.Sort(pairs)
		return m[1] + "(" + strings.Join(pairs, "") + ")"
	}
	if m := fetchPattern.FindStringSubmatch(text); m != nil {
		return m[1] + "(" + strings.Join(fetchItems(m[2]), " ") + ")"
	}
	return sortedLists(text)
}

var (
	esearchPattern = regexp.MustCompile(`^(\* ESEARCH \(TAG [^)]*\)(?: UID)?)((?: \w+ \S+)*)$`)
	pairPattern    = regexp.MustCompile(` \w+ \S+`)
	// The data of STATUS; the name may hold parentheses.
	statusDataPattern = regexp.MustCompile(`(?s)^(\* STATUS .* )\(((?:\w+ [^\s()]+ ?)+)\)$`)
	fetchPattern      = regexp.MustCompile(`(?s)^(\* \d+ FETCH )\((.*)\)$`)
	sectionPattern    = regexp.MustCompile(`^[A-Z.0-9]+\[[^\]]*\]`)
)

func sortedWords(text string) string {
	words := strings.Fields(text)
	slices.SortFunc(words, func(a, b string) int {
		return strings.Compare(strings.ReplaceAll(a, "$$", "$"), strings.ReplaceAll(b, "$$", "$"))
	})
	return strings.Join(words, " ")
}

func sortedLists(text string) string {
	return listPattern.ReplaceAllStringFunc(text, func(list string) string {
		m := listPattern.FindStringSubmatch(list)
		return m[1] + " (" + sortedWords(m[2]) + ")"
	})
}

// fetchItems splits the items of a FETCH response, sorts them, and writes the
// names of header fields in capitals and without quotes.
func fetchItems(text string) []string {
	var items []string
	for text != "" {
		name := sectionPattern.FindString(text)
		text = text[len(name):]
		name = strings.ReplaceAll(strings.ToUpper(name), `"`, "")
		space := strings.IndexByte(text, ' ')
		if space < 0 {
			return append(items, name+text) // not the form of an item: leave it alone
		}
		n := space + 1 + valueLen(text[space+1:])
		items = append(items, sortedLists(name+text[:n]))
		text = strings.TrimPrefix(text[n:], " ")
	}
	slices.Sort(items)
	return items
}

// valueLen returns the length of the word, string or list that s starts with.
func valueLen(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			i += quotedLen(s[i:]) - 1
		case '(':
			depth++
		case ')':
			depth--
		case ' ':
			if depth == 0 {
				return i
			}
		}
	}
	return len(s)
}
