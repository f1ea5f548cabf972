package dovecotindex

import (
	"encoding/binary"
)

// A log is dovecot.index.log or its predecessor.
type log struct {
	id, seq uint32
	modseq  uint64 // before the first record
	data    []byte // the whole file
	start   int    // of the first record
}

// minLogHeader is the size of the header of the oldest logs.
const minLogHeader = 24

// parseLog reads the header of a log:
//
//	 0 major version  1 minor version  2 size of the header (16 bits)
//	 4 id of the index  8 sequence number of this file
//	24 modseq at the beginning of this file (64 bits)  32 compat flags
func parseLog(b []byte) (*log, error) {
	le := binary.LittleEndian
	if len(b) < minLogHeader {
		return nil, damaged("it is too short")
	}
	size := int(le.Uint16(b[2:]))
	switch {
	case b[0] != 1 || b[1] >= 2 && size > 32 && len(b) > 32 && b[32]&littleEndian == 0:
		return nil, damaged("it is of another version")
	case size < minLogHeader || size > len(b):
		return nil, damaged("its header makes no sense")
	}
	l := &log{id: le.Uint32(b[4:]), seq: le.Uint32(b[8:]), data: b, start: size}
	if size >= 32 {
		l.modseq = le.Uint64(b[24:])
	}
	if l.id == 0 {
		return nil, damaged("Dovecot has marked it so")
	}
	return l, nil
}

// Types of records in a log. Expunges carry the bits of protected as well, so
// that no flipped bit makes one.
const (
	typeMask       = 0x0fffffff
	external       = 0x10000000 // has happened, and is not only asked for
	protected      = 0xcd90
	typeExpunge    = 0x1 | protected
	typeAppend     = 0x2
	typeFlags      = 0x4
	typeHeader     = 0x20
	typeKeyword    = 0x400
	typeNoKeywords = 0x800
	typeExpungeID  = 0x2000 | protected // with a GUID
	typeModSeq     = 0x8000
	typeBoundary   = 0x80000
	typeAttribute  = 0x100000
)

// apply brings s forward to the end of l. Records that dovecot.index knows count
// for modseqs only. A record, or a group of them, that reaches beyond the end of
// the file is being written now, and has not happened yet.
func (s *state) apply(l *log) error {
	modseq := l.modseq
	s.raise(modseq)
	for at := l.start; at+8 <= len(l.data); {
		size, ok := recordSize(l.data[at:])
		if !ok {
			return nil
		}
		if size < 8 {
			return damaged("a record of its log is too small")
		}
		if at+size > len(l.data) {
			return nil
		}
		kind, body := binary.LittleEndian.Uint32(l.data[at+4:]), l.data[at+8:at+size]
		if kind&typeMask == typeBoundary && len(body) >= 4 && int64(at)+int64(binary.LittleEndian.Uint32(body)) > int64(len(l.data)) {
			return nil
		}
		modseq += counts(kind)
		known := l.seq < s.seq || l.seq == s.seq && int64(at) < int64(s.offset)
		if err := s.applyRecord(kind, body, known, &modseq); err != nil {
			return err
		}
		s.raise(modseq)
		at += size
	}
	return nil
}

// recordSize reads the size of a record, its header of eight octets included. It
// is big-endian, in units of four octets and seven bits an octet, with the
// eighth bit set once the record is whole.
func recordSize(b []byte) (int, bool) {
	n := binary.BigEndian.Uint32(b)
	if n&0x80808080 != 0x80808080 {
		return 0, false
	}
	return int(n&0x7f|n>>1&0x3f80|n>>2&0x1fc000|n>>3&0xfe00000) << 2, true
}

// counts returns how far a record takes the modseq, or more: some changes of
// flags that no client sees do not count for Dovecot.
func counts(kind uint32) uint64 {
	switch kind & typeMask {
	case typeExpunge, typeExpungeID:
		if kind&external == 0 {
			return 0
		}
		return 1
	case typeAppend, typeFlags, typeKeyword, typeNoKeywords, typeAttribute:
		return 1
	}
	return 0
}

// applyRecord does what a record says, unless it is known.
func (s *state) applyRecord(kind uint32, b []byte, known bool, modseq *uint64) error {
	if kind&typeMask == typeModSeq {
		return each(b, 12, func(b []byte) error {
			*modseq = max(*modseq, binary.LittleEndian.Uint64(b[4:]))
			return nil
		})
	}
	if known {
		return nil
	}
	switch kind & typeMask {
	case typeExpunge:
		return s.expunge(kind, b, 8, 4)
	case typeExpungeID:
		return s.expunge(kind, b, 20, 0)
	case typeAppend:
		return each(b, 8, func(b []byte) error {
			uid := binary.LittleEndian.Uint32(b)
			if n := len(s.uids); n > 0 && uid <= s.uids[n-1] {
				return nil // Dovecot passes over it too
			}
			return s.add(uid)
		})
	case typeHeader:
		return s.headerUpdate(b)
	case typeKeyword:
		return s.keywordUpdate(b)
	case typeNoKeywords:
		return s.ranges(b, len(s.have), func(from, to int) error {
			for i := range s.have {
				if err := s.put(&s.have[i], from, to, false); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return nil
}

// each calls f with every size octets of b.
func each(b []byte, size int, f func([]byte) error) error {
	if len(b)%size != 0 {
		return damaged("a record of its log has an odd size")
	}
	for ; len(b) > 0; b = b[size:] {
		if err := f(b[:size]); err != nil {
			return err
		}
	}
	return nil
}

// ranges calls f with the messages of every pair of UIDs in b; f changes as many
// sets as it says.
func (s *state) ranges(b []byte, sets int, f func(from, to int) error) error {
	return each(b, 8, func(b []byte) error {
		from, to := s.between(binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]))
		if from == to {
			return nil
		}
		if err := s.spend(from, to, sets); err != nil {
			return err
		}
		return f(from, to)
	})
}

// expunge removes messages; the entries of size octets begin with a UID, and
// the last UID of a range follows at octet last. An expunge that is only asked
// for has not happened.
func (s *state) expunge(kind uint32, b []byte, size, last int) error {
	if kind&external == 0 {
		return nil
	}
	return each(b, size, func(b []byte) error {
		from, to := s.between(binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[last:]))
		if err := s.spend(from, to, 1); err != nil {
			return err
		}
		return s.put(&s.gone, from, to, true)
	})
}

// headerUpdate writes parts of the header of dovecot.index: offset and size of 16
// bits each, the octets, and padding to a multiple of four.
func (s *state) headerUpdate(b []byte) error {
	for len(b) > 0 {
		h, rest, ok := cut(b, 4)
		if !ok {
			return damaged("a record of its log is cut off")
		}
		data, _, ok := cut(rest, int(binary.LittleEndian.Uint16(h[2:])))
		if !ok {
			return damaged("a record of its log is cut off")
		}
		s.setHeader(int(binary.LittleEndian.Uint16(h)), data)
		b = rest[min(len(rest), pad(len(data), 4)):]
	}
	return nil
}

// keywordUpdate adds or takes away a keyword: 0 for the one or 1 for the other,
// an octet without meaning, the length of the name in 16 bits, the name, padding
// to a multiple of four, and ranges of UIDs.
func (s *state) keywordUpdate(b []byte) error {
	h, rest, ok := cut(b, 4)
	if !ok || h[0] > 1 {
		return damaged("a change of keywords makes no sense")
	}
	name, _, ok := cut(rest, int(binary.LittleEndian.Uint16(h[2:])))
	if !ok {
		return damaged("a change of keywords makes no sense")
	}
	k, err := s.keyword(string(name))
	if err != nil {
		return err
	}
	return s.ranges(rest[min(len(rest), pad(len(name), 4)):], 1, func(from, to int) error {
		return s.put(&s.have[k], from, to, h[0] == 0)
	})
}
