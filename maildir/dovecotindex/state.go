package dovecotindex

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"slices"
	"sort"
	"strings"
)

// What the files may cost. A folder of a million messages with hundreds of
// keywords is far below.
const (
	maxLog      = 64 << 20 // octets of a log; Dovecot begins a new one after 1 MiB
	maxHeader   = 16 << 20 // octets of the header of dovecot.index, as in Dovecot
	maxMessages = 1 << 24
	maxKeywords = 4096
	maxName     = 4096    // octets of a keyword
	maxWords    = 1 << 23 // of 64 bits, in all sets of messages
	maxWork     = 1 << 24 // of them, written by the logs
)

// A state is a mailbox as the files tell of it, at some point of the log.
type state struct {
	id      uint32 // of the index; 0 while unknown
	seq     uint32 // of the log up to whose octet offset dovecot.index is complete;
	offset  uint32 // 0 without a dovecot.index
	header  [baseHeader]byte
	modseq  uint64
	uids    []uint32 // ascending, of all messages that ever were
	gone    set      // of those, the expunged ones
	names   []string
	byName  map[string]int // index in names by fold of the name
	have    []set          // by index in names
	words   int            // in have and gone
	work    int
	record  int // octets of a record of dovecot.index
	bitmask field
	modseqs field
}

// A field is where an extension keeps its part of each record.
type field struct{ offset, size int }

// validity is the UIDVALIDITY, 0 before Dovecot has looked at the mailbox.
func (s *state) validity() uint32 { return binary.LittleEndian.Uint32(s.header[24:]) }

// index is what callers get.
func (s *state) index() Index {
	x := Index{HighestModSeq: s.modseq}
	for i, name := range s.names {
		x.Keywords = append(x.Keywords, Keyword{Name: name, set: s.have[i].without(s.gone), all: s.uids})
	}
	return x
}

// add makes a message known.
func (s *state) add(uid uint32) error {
	if n := len(s.uids); n > 0 && uid <= s.uids[n-1] {
		return damaged("its UIDs do not ascend")
	}
	if uid == 0 || len(s.uids) >= maxMessages {
		return damaged("it has too many messages")
	}
	s.uids = append(s.uids, uid)
	return nil
}

// keyword returns the index of a keyword, which is entered if need be. Dovecot
// does not tell case apart.
func (s *state) keyword(name string) (int, error) {
	key := fold(name)
	if i, ok := s.byName[key]; ok {
		return i, nil
	}
	if name == "" || len(name) > maxName || strings.ContainsRune(name, 0) || len(s.names) >= maxKeywords {
		return 0, damaged("a keyword is none, or one too many")
	}
	if s.byName == nil {
		s.byName = map[string]int{}
	}
	s.byName[key] = len(s.names)
	s.names, s.have = append(s.names, name), append(s.have, nil)
	return len(s.names) - 1, nil
}

// fold makes names that differ in the case of ASCII letters only the same.
func fold(name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// between returns the indexes of the messages with UIDs from first to last:
// from up to but not including to.
func (s *state) between(first, last uint32) (from, to int) {
	from = sort.Search(len(s.uids), func(i int) bool { return s.uids[i] >= first })
	to = from + sort.Search(len(s.uids)-from, func(i int) bool { return s.uids[from+i] > last })
	return from, to
}

// put adds the messages from up to but not including to to b, or takes them
// out.
func (s *state) put(b *set, from, to int, in bool) error {
	if from >= to {
		return nil
	}
	if n := (to+63)/64 - len(*b); in && n > 0 {
		if s.words += n; s.words > maxWords {
			return damaged("it takes too much memory")
		}
		*b = append(*b, make(set, n)...)
	}
	b.put(from, to, in)
	return nil
}

// spend counts one change of the messages from up to but not including to, in
// each of sets sets.
func (s *state) spend(from, to, sets int) error {
	if s.work += (1 + (to-from)/64) * sets; s.work > maxWork {
		return damaged("it takes too long to read")
	}
	return nil
}

// A set is a set of indexes into state.uids, one a bit.
type set []uint64

// put adds the numbers from up to but not including to, or takes them out. What
// is added must have room.
func (b set) put(from, to int, in bool) {
	for to = min(to, 64*len(b)); from < to; {
		n := min(to-from, 64-from%64)
		mask := ^uint64(0) >> (64 - n) << (from % 64)
		if in {
			b[from/64] |= mask
		} else {
			b[from/64] &^= mask
		}
		from += n
	}
}

// without returns b without what is in c, in b's memory.
func (b set) without(c set) set {
	for i := range min(len(b), len(c)) {
		b[i] &^= c[i]
	}
	return b
}

// numbers yields what is in b, ascending.
func (b set) numbers() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, w := range b {
			for ; w != 0; w &= w - 1 {
				if !yield(64*i + bits.TrailingZeros64(w)) {
					return
				}
			}
		}
	}
}

// reset forgets all messages: another UIDVALIDITY came.
func (s *state) reset() {
	s.uids, s.gone, s.names, s.byName, s.have, s.words = nil, nil, nil, nil, nil, 0
}

// setHeader writes b over the header from octet off on.
func (s *state) setHeader(off int, b []byte) {
	before := s.validity()
	if off < len(s.header) {
		copy(s.header[off:], b)
	}
	if v := s.validity(); before != 0 && v != before {
		s.reset()
	}
}

// raise makes the highest modseq at least m.
func (s *state) raise(m uint64) { s.modseq = max(s.modseq, m) }

// cut splits off the first n octets of b.
func cut(b []byte, n int) (head, rest []byte, ok bool) {
	if n < 0 || n > len(b) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// pad rounds n up to a multiple of to.
func pad(n, to int) int { return (n + to - 1) / to * to }

// nameOf takes a name that ends at the first NUL or with b.
func nameOf(b []byte) string {
	if i := slices.Index(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
