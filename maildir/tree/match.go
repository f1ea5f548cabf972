package tree

import "strings"

// A Pattern is a LIST pattern, made ready to be matched against many names:
// '*' stands for any octets, '%' for any but the separator (RFC 9051 section
// 6.3.9). A part INBOX at the beginning of a name matches in any case.
//
// It is a machine whose states are the positions of the pattern, kept as bits:
// matching costs the length of the name times a 64th of that of the pattern,
// whatever they are. There is no backtracking that a client could provoke.
type Pattern struct {
	separator byte
	words     int        // of a set of states
	octet     [256]uint8 // index in literal of each octet; 0 for one that is not in the pattern
	literal   [][]uint64 // states that an octet leads on from; the first is empty
	any       []uint64   // states at a '*'
	level     []uint64   // states at a '%'
	end       int        // the state that accepts
	all       bool       // the pattern is "*"
}

// Compile makes a Pattern ready. Every string is a pattern.
func Compile(pattern string, separator byte) *Pattern {
	pattern = collapse(pattern)
	p := &Pattern{
		separator: separator, words: len(pattern)/64 + 1, end: len(pattern), all: pattern == "*",
	}
	p.any, p.level = make([]uint64, p.words), make([]uint64, p.words)
	p.literal = [][]uint64{make([]uint64, p.words)}
	for i := range len(pattern) {
		set := p.any
		switch c := pattern[i]; c {
		case '*':
		case '%':
			set = p.level
		default:
			if p.octet[c] == 0 {
				p.octet[c] = uint8(len(p.literal)) // of 254 at most: the wildcards are none
				p.literal = append(p.literal, make([]uint64, p.words))
			}
			set = p.literal[p.octet[c]]
		}
		set[i/64] |= 1 << (i % 64)
	}
	return p
}

// collapse makes one wildcard of each run of them.
func collapse(pattern string) string {
	var b strings.Builder
	for i := 0; i < len(pattern); {
		n := i
		for n < len(pattern) && (pattern[n] == '*' || pattern[n] == '%') {
			n++
		}
		switch {
		case n == i:
			b.WriteByte(pattern[i])
			n++
		case strings.IndexByte(pattern[i:n], '*') >= 0:
			b.WriteByte('*')
		default:
			b.WriteByte('%')
		}
		i = n
	}
	return b.String()
}

// Match reports whether name matches.
func (p *Pattern) Match(name string) bool {
	if p.all {
		return true
	}
	inbox := 0
	if n := len("INBOX"); len(name) >= n && strings.EqualFold(name[:n], "INBOX") && (len(name) == n || name[n] == p.separator) {
		inbox = n
	}
	if p.words == 1 {
		return p.matchShort(name, inbox)
	}
	state, next := make([]uint64, p.words), make([]uint64, p.words)
	state[0] = 1
	p.skip(state)
	for i := range len(name) {
		if !p.step(next, state, name[i], i < inbox) {
			return false
		}
		state, next = next, state
	}
	return state[p.end/64]&(1<<(p.end%64)) != 0
}

// matchShort is Match for a pattern whose states fit into a word, as they do in
// practice. The first inbox octets match in any case.
func (p *Pattern) matchShort(name string, inbox int) bool {
	any, level := p.any[0], p.level[0]
	wild := any | level
	s := uint64(1)
	s |= s & wild << 1
	for i := range len(name) {
		c := name[i]
		on := p.literal[p.octet[c]][0]
		if i < inbox {
			on |= p.literal[p.octet[c^0x20]][0]
		}
		stay := s & any
		if c != p.separator {
			stay |= s & level
		}
		s = s&on<<1 | stay
		s |= s & wild << 1
		if s == 0 {
			return false
		}
	}
	return s>>p.end&1 != 0
}

// step sets next to the states that c leads to, and reports whether there are
// any.
func (p *Pattern) step(next, state []uint64, c byte, fold bool) bool {
	here, other := p.literal[p.octet[c]], p.literal[0]
	if fold {
		other = p.literal[p.octet[c^0x20]]
	}
	carry, alive := uint64(0), uint64(0)
	for w, s := range state {
		on := s & (here[w] | other[w])
		stay := s & p.any[w]
		if c != p.separator {
			stay |= s & p.level[w]
		}
		next[w] = on<<1 | carry | stay
		carry = on >> 63
		alive |= next[w]
	}
	p.skip(next)
	return alive != 0
}

// skip adds the states behind wildcards, which may stand for nothing. Two never
// follow each other.
func (p *Pattern) skip(state []uint64) {
	carry := uint64(0)
	for w, s := range state {
		wild := s & (p.any[w] | p.level[w])
		state[w] |= wild<<1 | carry
		carry = wild >> 63
	}
}

// Match reports whether name matches a LIST pattern; see Pattern.
func Match(pattern, name string, separator byte) bool {
	return Compile(pattern, separator).Match(name)
}
