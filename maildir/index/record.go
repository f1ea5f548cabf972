package index

import (
	"encoding/binary"
	"hash/crc32"
	"unsafe"
)

var order = binary.LittleEndian

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// asWritten says that this machine has a Record in memory as it stands in the file:
// the numbers of the fields are in their order, and none is padded.
var asWritten = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// octets returns the memory of recs.
func octets(recs []Record) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(recs))), len(recs)*recordSize)
}

// The size of a Record is that in the file.
var _ = [1]struct{}{}[unsafe.Sizeof(Record{})-recordSize]

// recordSize is the octets of a record in the file.
const recordSize = 40

// A Record is one message. It holds no pointer: its name is in the page.
type Record struct {
	UID     uint32
	NameOff uint16 // of the name in the names of the page
	NameLen uint8  // 0: the name is not known
	BaseLen uint8
	Flags   uint64
	Mod     uint64 // modseq in the lower 56 bits, Bits above; see SetModSeq
	Facts
}

// Facts is what has been found out about the file of a message. The file is the
// truth, and is asked where a fact is missing.
type Facts struct {
	Date    uint32 // seconds since 1970, the file's mtime
	Size    uint32 // octets on disk, or NoSize
	Virtual uint32 // octets with CRLF in the lower 31 bits, or NoVirtual; see Counted
	Saved   uint32 // seconds since 1970 when it came to the mailbox; 0: not known
}

const (
	NoSize    = 1<<32 - 1 // nothing is known: Date means nothing either
	NoVirtual = 1<<31 - 1
	// Counted says that Virtual comes from counting, not from the name.
	Counted = 1 << 31
)

// NoFacts is what is known of a file that nobody has looked at.
var NoFacts = Facts{Size: NoSize, Virtual: NoVirtual}

// Bits of a record.
const (
	InNew  = 1 << 56 // the file lies in new/
	Ghost  = 1 << 57 // expunged, kept in a view; never in the file
	More   = 1 << 58 // has keywords that Flags has no bit for: they are in imapd-keywords
	Placed = 1 << 59 // has the name that the Order knows, which was loaded with it; never in the file
	modSeq = 1<<56 - 1
)

// ModSeq returns when the message changed last.
func (r *Record) ModSeq() uint64 { return r.Mod & modSeq }

// SetModSeq changes when the message changed last.
func (r *Record) SetModSeq(m uint64) { r.Mod = r.Mod&^modSeq | m&modSeq }

func (r *Record) append(b []byte) []byte {
	b = order.AppendUint32(b, r.UID)
	b = order.AppendUint16(b, r.NameOff)
	b = append(b, r.NameLen, r.BaseLen)
	b = order.AppendUint64(b, r.Flags)
	b = order.AppendUint64(b, r.Mod&^(Ghost|Placed))
	return r.Facts.append(b)
}

func (f *Facts) append(b []byte) []byte {
	b = order.AppendUint32(b, f.Date)
	b = order.AppendUint32(b, f.Size)
	b = order.AppendUint32(b, f.Virtual)
	return order.AppendUint32(b, f.Saved)
}

// read fills r from the first recordSize octets of b.
func (r *Record) read(b []byte) {
	_ = b[recordSize-1]
	r.UID = order.Uint32(b)
	r.NameOff = order.Uint16(b[4:])
	r.NameLen, r.BaseLen = b[6], b[7]
	r.Flags = order.Uint64(b[8:])
	r.Mod = order.Uint64(b[16:]) &^ (Ghost | Placed)
	r.Facts.read(b[24:])
}

const factsSize = 16

func (f *Facts) read(b []byte) {
	_ = b[factsSize-1]
	f.Date, f.Size = order.Uint32(b), order.Uint32(b[4:])
	f.Virtual, f.Saved = order.Uint32(b[8:]), order.Uint32(b[12:])
}

// A Range is the UIDs From to To of messages that were expunged at ModSeq.
type Range struct {
	From, To uint32
	ModSeq   uint64
}

const rangeSize = 16

func (r *Range) append(b []byte) []byte {
	b = order.AppendUint32(b, r.From)
	b = order.AppendUint32(b, r.To)
	return order.AppendUint64(b, r.ModSeq)
}

func (r *Range) read(b []byte) {
	_ = b[rangeSize-1]
	r.From, r.To, r.ModSeq = order.Uint32(b), order.Uint32(b[4:]), order.Uint64(b[8:])
}

// sane reports whether r can have been written by us.
func (r *Range) sane() bool { return r.From <= r.To && r.To <= maxUID && r.ModSeq <= maxSane }

// State is what the index says of the folder as a whole.
type State struct {
	ModSeq  uint64 // highest that was given
	Ceiling uint64 // below which all that were given are: durable before they are
	Since   uint64 // every expunge after this modseq is known
	Boot    [16]byte
	Clean   bool   // all flags of this boot are durable
	Next    uint32 // UIDNEXT
	Recent  uint32 // UIDs from here on are not \Recent to anybody yet
	Stamp   Stamp
	Limit   uint64 // of the lock file, as far as the index knows what was told below it; 0: an older version wrote it
}

// A Stamp is how the folder looked when the index was true of it. To this
// package it is a row of numbers; all zero: the folder must be looked at.
type Stamp [StampLen]uint64

// StampLen is the length of a Stamp.
const StampLen = 15

const stateSize = 3*8 + 16 + 4 + 4 + 4 + 8*StampLen + 8

func (s *State) sane() bool {
	return s.ModSeq <= maxSane && s.Ceiling <= maxSane && s.Since <= maxSane && s.Limit <= maxSane
}

func (s *State) append(b []byte) []byte {
	b = order.AppendUint64(b, s.ModSeq)
	b = order.AppendUint64(b, s.Ceiling)
	b = order.AppendUint64(b, s.Since)
	b = append(b, s.Boot[:]...)
	var clean uint32
	if s.Clean {
		clean = 1
	}
	b = order.AppendUint32(b, clean)
	b = order.AppendUint32(b, s.Next)
	b = order.AppendUint32(b, s.Recent)
	for _, n := range s.Stamp {
		b = order.AppendUint64(b, n)
	}
	return order.AppendUint64(b, s.Limit)
}

func (s *State) read(b []byte) {
	_ = b[stateSize-1]
	s.ModSeq, s.Ceiling, s.Since = order.Uint64(b), order.Uint64(b[8:]), order.Uint64(b[16:])
	copy(s.Boot[:], b[24:40])
	s.Clean = order.Uint32(b[40:]) == 1
	s.Next, s.Recent = order.Uint32(b[44:]), order.Uint32(b[48:])
	for i := range s.Stamp {
		s.Stamp[i] = order.Uint64(b[52+8*i:])
	}
	s.Limit = order.Uint64(b[52+8*StampLen:])
}
