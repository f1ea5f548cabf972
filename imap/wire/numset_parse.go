package wire

import (
	"math"
	"slices"
)

// NumSet reads a sequence-set, "*" included, or "$". 0 and numbers of more than 32
// bits are errors. The set is parsed from the buffer as it comes: a line of
// 2 MiB of UIDs costs its ranges and no more.
func (d *Decoder) NumSet() NumSet {
	if d.Accept('$') {
		return NumSet{Saved: true}
	}
	var p setParser
	for {
		w := d.window()
		if w == nil {
			return NumSet{}
		}
		n, state := p.feed(w)
		d.consume(n)
		if state == setMore {
			continue
		}
		if state == setBad || !p.last() {
			d.Fail("sequence set")
			return NumSet{}
		}
		return NewNumSet(p.ranges...)
	}
}

// A setParser parses a sequence-set that comes in pieces.
type setParser struct {
	ranges []NumRange
	start  uint32 // before the ":"
	num    uint64 // the number under way
	has    bool   // num is one, or "*"
	star   bool   // num is "*", which nothing may follow
	ranged bool   // the ":" has been read
}

type setState uint8

const (
	setMore setState = iota // all of the piece is part of the set so far
	setDone                 // an octet that is not of a set ends it
	setBad                  // an octet that is of a set, but not here
)

// feed takes the next piece and returns how many octets of it belong to the set.
func (p *setParser) feed(w []byte) (int, setState) {
	for i := 0; i < len(w); i++ {
		switch c := w[i]; {
		case c >= '0' && c <= '9':
			n := p.digits(w[i:])
			if n == 0 {
				return i, setBad
			}
			i += n - 1
		case c == ',':
			if !p.last() {
				return i, setBad
			}
		case c == ':':
			if p.ranged || !p.valid() {
				return i, setBad
			}
			p.start, p.ranged = uint32(p.num), true
			p.num, p.has, p.star = 0, false, false
		case c == '*':
			if p.has {
				return i, setBad
			}
			p.has, p.star = true, true
		default:
			return i, setDone
		}
	}
	return len(w), setMore
}

// digits takes the digits at the start of w, as far as they are a number, and
// returns how many they are.
func (p *setParser) digits(w []byte) int {
	if p.star {
		return 0
	}
	num := p.num
	for i, c := range w {
		if c < '0' || c > '9' {
			p.num, p.has = num, true
			return i
		}
		next := num*10 + uint64(c-'0')
		if next > math.MaxUint32 {
			p.num = num
			return i
		}
		num = next
	}
	p.num, p.has = num, true
	return len(w)
}

// valid reports whether the number under way is one: not 0, not missing.
func (p *setParser) valid() bool { return p.has && (p.star || p.num != 0) }

// last ends the range under way, if it is whole.
func (p *setParser) last() bool {
	if !p.valid() {
		return false
	}
	r := NumRange{uint32(p.num), uint32(p.num)} // Star is 0
	if p.ranged {
		r.Start = p.start
	}
	if len(p.ranges) == cap(p.ranges) {
		p.makeRoom()
	}
	p.ranges = append(p.ranges, r)
	p.num, p.has, p.star, p.ranged = 0, false, false, false
	return true
}

// mergeAt is the number of ranges at which it is looked whether they are fewer.
const mergeAt = 1024

// makeRoom makes room for another range. A set that says the same again and again,
// as "1:*,1:*,...", does not grow.
func (p *setParser) makeRoom() {
	if len(p.ranges) >= mergeAt {
		p.ranges = NewNumSet(p.ranges...).ranges
	}
	if len(p.ranges) > cap(p.ranges)/2 || cap(p.ranges) == 0 {
		p.ranges = slices.Grow(p.ranges, len(p.ranges)+1) // doubles, append alone would copy five times as much
	}
}
