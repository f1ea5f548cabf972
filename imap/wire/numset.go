package wire

import (
	"cmp"
	"iter"
	"slices"
	"sort"
	"strconv"
)

// Star stands for "*" in a NumRange: the largest number in use, unknown to the
// grammar. It is 0, which is no sequence number and no UID; so 4294967295, which
// clients send for "to the end", stays a number.
const Star uint32 = 0

// A NumRange is the numbers from Start to Stop, both included, Start <= Stop. A
// Stop that is Star makes it "Start:*"; both Star make it "*".
type NumRange struct {
	Start, Stop uint32
}

// A NumSet is a set of sequence numbers or UIDs (RFC 9051 "sequence-set"): ranges that
// ascend, do not overlap and do not touch, and last at most one with Star. It is never
// expanded. The zero value is the empty set. Copies share their ranges: build a
// set with Add and AddRange first, pass it around then.
//
// Before Resolve a set may say less than was sent, but nothing else: "3:*,7:9" is
// kept as "3:*", since no number in use is above "*".
type NumSet struct {
	ranges []NumRange
	// Saved says that the set is "$", the result of the last SEARCH that saved one
	// (RFC 5182); the ranges are empty then.
	Saved bool
}

// NewNumSet returns the set of all numbers in ranges, which may come in any order,
// overlap, be reversed and use Star as the grammar uses "*". It takes n log n steps,
// and n if the ranges ascend already. It owns ranges from then on.
func NewNumSet(ranges ...NumRange) NumSet {
	for i, r := range ranges {
		if before(r.Stop, r.Start) {
			ranges[i] = NumRange{r.Stop, r.Start}
		}
	}
	byStart := func(a, b NumRange) int { return cmp.Compare(a.Start-1, b.Start-1) } // Star last
	if !slices.IsSortedFunc(ranges, byStart) {
		slices.SortFunc(ranges, byStart)
	}
	return NumSet{ranges: merge(ranges)}
}

// before orders numbers, Star being above all.
func before(a, b uint32) bool { return a-1 < b-1 }

// merge joins ranges, sorted by Start, that overlap or touch. It works in place.
func merge(ranges []NumRange) []NumRange {
	if len(ranges) == 0 {
		return nil
	}
	out := ranges[:1]
	for _, r := range ranges[1:] {
		last := &out[len(out)-1]
		switch {
		case last.Stop == Star: // takes all that follows
		case r.Start == Star, r.Start-1 > last.Stop:
			out = append(out, r)
		case before(last.Stop, r.Stop):
			last.Stop = r.Stop
		}
	}
	return out
}

// Add puts n into the set. Adding in ascending order is cheap; any other order
// costs a move of the ranges above n, for which NewNumSet is better.
func (s *NumSet) Add(n uint32) { s.AddRange(n, n) }

// AddRange puts the numbers from start to stop, in either order, into the set. Both
// may be Star.
func (s *NumSet) AddRange(start, stop uint32) {
	if before(stop, start) {
		start, stop = stop, start
	}
	r := NumRange{start, stop}
	if len(s.ranges) == 0 {
		s.ranges = append(s.ranges, r)
		return
	}
	if last := s.ranges[len(s.ranges)-1]; last.Stop != Star && start != Star && start > last.Stop {
		if start == last.Stop+1 {
			s.ranges[len(s.ranges)-1].Stop = stop
		} else {
			s.ranges = append(s.ranges, r)
		}
		return
	}
	i := sort.Search(len(s.ranges), func(i int) bool { return !before(s.ranges[i].Start, start) })
	s.ranges = slices.Insert(s.ranges, i, r)
	keep := max(i-1, 0)
	s.ranges = append(s.ranges[:keep], merge(s.ranges[keep:])...)
}

// Ranges returns the ranges in ascending order. The caller must not change them.
func (s NumSet) Ranges() []NumRange { return s.ranges }

// Empty reports whether the set has no range. "$" has none.
func (s NumSet) Empty() bool { return len(s.ranges) == 0 }

// HasStar reports whether "*" takes part, which some places of the grammar forbid.
func (s NumSet) HasStar() bool {
	return len(s.ranges) > 0 && s.ranges[len(s.ranges)-1].Stop == Star
}

// Equal reports whether both sets are the same.
func (s NumSet) Equal(t NumSet) bool {
	return s.Saved == t.Saved && slices.Equal(s.ranges, t.ranges)
}

// Resolve returns the set with max, the largest number in use, for "*". "4:*" with
// max 2 is 2:4 (RFC 9051 section 9, "seq-range"). With max 0 nothing is in use and ranges
// with "*" fall away. The result has no Star, but may have numbers above max.
func (s NumSet) Resolve(max uint32) NumSet {
	if !s.HasStar() {
		return s
	}
	n := len(s.ranges) - 1
	out := NumSet{ranges: slices.Clone(s.ranges[:n]), Saved: s.Saved}
	if max > 0 {
		start := s.ranges[n].Start
		if start == Star {
			start = max
		}
		out.AddRange(start, max)
	}
	return out
}

// Contains reports whether n is in the set, where max is the largest number in use.
func (s NumSet) Contains(n, max uint32) bool {
	if n == 0 {
		return false
	}
	if s.HasStar() {
		// min and max of the last range's ends, once "*" is known
		start := s.ranges[len(s.ranges)-1].Start
		if start == Star {
			start = max
		}
		if max > 0 && n >= min(start, max) && (n <= start || n <= max) {
			return true
		}
	}
	i := sort.Search(len(s.ranges), func(i int) bool { return !before(s.ranges[i].Stop, n) })
	return i < len(s.ranges) && s.ranges[i].Stop != Star && s.ranges[i].Start <= n
}

// Intersect returns the numbers that are in both sets, which must have no Star.
func (s NumSet) Intersect(t NumSet) (out NumSet) {
	a, b := s.ranges, t.ranges
	for len(a) > 0 && len(b) > 0 {
		if from, to := max(a[0].Start, b[0].Start), min(a[0].Stop, b[0].Stop); from <= to {
			out.AddRange(from, to)
		}
		if a[0].Stop < b[0].Stop {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return out
}

// Len returns how many numbers are in the set, which must have no Star.
func (s NumSet) Len() uint64 {
	var n uint64
	for _, r := range s.ranges {
		n += uint64(r.Stop-r.Start) + 1
	}
	return n
}

// All ranges over the numbers of a set without Star, in ascending order. It may
// be 2^32-1 steps long: clip the set first where a client chose it.
func (s NumSet) All() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for _, r := range s.ranges {
			for n := r.Start; ; n++ {
				if !yield(n) {
					return
				}
				if n == r.Stop {
					break
				}
			}
		}
	}
}

// String returns the set as AppendNumSet writes it.
func (s NumSet) String() string { return string(AppendNumSet(nil, s)) }

// AppendNumSet appends the set as a sequence-set: "1,5:7,9:*", or "$". The empty
// set, which the grammar cannot write, appends nothing.
func AppendNumSet(b []byte, s NumSet) []byte {
	if s.Saved {
		return append(b, '$')
	}
	for i, r := range s.ranges {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendSeqNumber(b, r.Start)
		if r.Stop != r.Start {
			b = append(b, ':')
			b = appendSeqNumber(b, r.Stop)
		}
	}
	return b
}

func appendSeqNumber(b []byte, n uint32) []byte {
	if n == Star {
		return append(b, '*')
	}
	return strconv.AppendUint(b, uint64(n), 10)
}
