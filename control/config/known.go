package config

import (
	_ "embed"
	"strings"
)

//go:embed known.txt
var knownText string

// known is what known.txt says of a name: what happens to it, and the word
// behind that.
type known struct {
	fate, arg string
}

// A dictionary knows every name that a file may use. It is the text itself,
// searched: a map of its names would cost every start of a process for one
// client more than all that a file asks of it.
type dictionary struct{}

// here tells whether name is one of the tables.
func (dictionary) here(name string) bool {
	for _, table := range [][]option{options, limits} {
		for i := range table {
			if table[i].name == name {
				return true
			}
		}
	}
	return false
}

// lines yields the names of known.txt and what it says of them. A name that
// ends in "*" stands for all that begin with what is before it.
func (dictionary) lines(yield func(name string, k known) bool) {
	for line := range strings.Lines(knownText) {
		name, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if name == "#" || rest == "" {
			continue
		}
		var k known
		k.fate, k.arg, _ = strings.Cut(rest, " ")
		if !yield(name, k) {
			return
		}
	}
}

// all yields every name that is one, and what happens to it.
func (d dictionary) all(yield func(name string, k known) bool) {
	for _, table := range [][]option{options, limits} {
		for i := range table {
			if !yield(table[i].name, known{fate: "here"}) {
				return
			}
		}
	}
	d.lines(func(name string, k known) bool {
		return strings.HasSuffix(name, "*") || k.fate == "foreign" || yield(name, k)
	})
}

// find returns what is known of name; ok is false for one that is no option.
func (d dictionary) find(name string) (k known, ok bool) {
	if d.here(name) {
		return known{fate: "here"}, true
	}
	if strings.HasPrefix(name, "xlist-") {
		return known{fate: "xlist"}, true
	}
	for n, says := range d.lines {
		if n == name {
			return says, says.fate != "foreign"
		}
		if prefix, some := strings.CutSuffix(n, "*"); some && len(name) > len(prefix) && strings.HasPrefix(name, prefix) {
			k, ok = known{fate: "silent"}, true
		}
	}
	return k, ok
}

// split takes the service off a name such as "imap_timeout". It returns the
// name unchanged where it is known as it is, and ok false where it is neither.
func (d dictionary) split(name string) (service, option string, k known, ok bool) {
	if k, ok := d.find(name); ok {
		return "", name, k, true
	}
	for i := 1; i < len(name); i++ {
		if name[i] == '_' {
			if k, ok := d.find(name[i+1:]); ok {
				return name[:i], name[i+1:], k, true
			}
		}
	}
	return "", name, known{}, false
}

// nearest returns the known name that is most like name, or "" where none has two
// of three octets in common with it. Of equally near ones it prefers those that do
// something here, then the first in the alphabet.
func (d dictionary) nearest(name string) string {
	if len(name) > 64 {
		return ""
	}
	best, least := "", 2*(len(name)/3+1)
	for n, k := range d.all {
		if diff := 2 * (len(n) - len(name)); diff > least || -diff > least {
			continue
		}
		rank := 2 * distance(name, n)
		if k.fate != "here" {
			rank++
		}
		if rank < least || rank == least && n < best {
			best, least = n, rank
		}
	}
	return best
}

// distance counts the octets to insert, delete, replace or swap with their
// neighbour to make b of a.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, last[j]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
