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

// A dictionary knows every name that a file may use.
type dictionary struct {
	names    map[string]known
	prefixes []string // of names with a part of the site's own
}

func readDictionary() dictionary {
	d := dictionary{names: make(map[string]known, 700)}
	for line := range strings.Lines(knownText) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] == "#" {
			continue
		}
		if prefix, ok := strings.CutSuffix(f[0], "*"); ok {
			d.prefixes = append(d.prefixes, prefix)
			continue
		}
		k := known{fate: f[1]}
		if len(f) > 2 {
			k.arg = f[2]
		}
		d.names[f[0]] = k
	}
	for _, table := range [][]option{options, limits} {
		for i := range table {
			d.names[table[i].name] = known{fate: "here"}
		}
	}
	return d
}

// find returns what is known of name.
func (d *dictionary) find(name string) (known, bool) {
	if k, ok := d.names[name]; ok {
		return k, true
	}
	if _, ok := strings.CutPrefix(name, "xlist-"); ok {
		return known{fate: "xlist"}, true
	}
	for _, p := range d.prefixes {
		if len(name) > len(p) && strings.HasPrefix(name, p) {
			return known{fate: "silent"}, true
		}
	}
	return known{}, false
}

// split takes the service off a name such as "imap_timeout". It returns the
// name unchanged where it is known as it is, and ok false where it is neither.
func (d *dictionary) split(name string) (service, option string, k known, ok bool) {
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

// nearest returns the known name that is most like name, or "" where none is
// much like it. Of equally near ones it prefers those that do something here,
// then the first in the alphabet.
func (d *dictionary) nearest(name string) string {
	if len(name) > 64 {
		return ""
	}
	best, least := "", 2*(len(name)/2+1)
	for n, k := range d.names {
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
