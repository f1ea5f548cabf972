// Package uidlist reads and writes dovecot-uidlist, the file that says which
// UID a message of a Maildir has, and holds the dot lock that guards it.
//
// The file is text. Its first line is "3 V<uidvalidity> N<next uid> G<guid>",
// with further " <key><value>" fields that are kept as they are; every other
// line is "<uid>[ <key><value>]... :<base name>", UIDs ascending. Version 1,
// "1 <uidvalidity> <next uid>" followed by "<uid> <base name>", is what Courier
// writes; it is read, and replaced by version 3 at the first rewrite.
//
// # Salvage
//
// Dovecot throws a damaged file away, and with it every UID that clients know.
// Here nothing that is certain is given up:
//
//   - As long as UIDVALIDITY can be read it is kept.
//   - A line is a message if its UID is above all before it and its base name
//     is a possible one. Of two lines with one base name the last is the
//     message (it is normal after a race; the earlier UID is expunged).
//   - A line whose UID is not above all before it names a message of unknown
//     UID: the first with a UID keeps it, the others get new ones
//     (Damage.Renumber). Keeping the longest ascending run instead would save
//     more after one wild UID, but then reading the whole file and reading it
//     piece by piece, as it grows, would give different answers.
//   - What follows the last LF is an append that was torn, or one that is being
//     written now. It is no message, and nothing may be appended behind it; but
//     where there is a file of just its name it was complete (Damage.Cut).
//   - Where Dovecot appended to such a torn line two entries are glued together:
//     "30 :16463050 :base". If the digits end in the UID that the writer must
//     have given, that UID is the message's; else it is of unknown UID.
//   - A UID that any readable line mentions is never given out again.
package uidlist

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
)

// Name is the list's file name in a folder (in its control directory).
const Name = "dovecot-uidlist"

// MaxUID is the highest UID that a message can have, as Dovecot has it: 4294967295 is
// none. Where List.Next is above it no message can be added before the folder has a new
// UIDVALIDITY.
const MaxUID = 1<<32 - 2

// ErrHeader says that a list has no first line from which UIDVALIDITY can be
// read.
var ErrHeader = errors.New("dovecot-uidlist: no usable header")

// A Header is the first line.
type Header struct {
	Version  int    // 1 or 3 as read; always written as 3
	Validity uint32 // 1 and up
	// Next is above every UID that the file mentions, whatever its N field
	// said. It is the next UID to give, at least as far as this file knows.
	Next  uint32
	GUID  string // 32 lower case hex digits, or empty where the file has none
	Extra string // the other fields as they were, such as " P1"
}

// An Entry is one message.
type Entry struct {
	UID   uint32 // 1 to MaxUID
	Base  string // the file name up to its first ':'
	Extra string // fields as they were, such as " W309 Gabc"
}

// Field returns the value of the field key ('W', 'S', 'G', ...) of e.
func (e Entry) Field(key byte) (string, bool) {
	for _, f := range strings.Fields(e.Extra) {
		if f[0] == key {
			return f[1:], true
		}
	}
	return "", false
}

// A List is what a file says. Its strings share one buffer of the file's size,
// which lives as long as one of them does.
type List struct {
	Header
	Entries []Entry // UIDs ascending, base names unique
	Size    int64   // octets understood; ends behind a LF
	Lines   int     // lines after the header, duplicates and stale ones included
	Damage  Damage
}

// Damage tells what was wrong with a list.
type Damage struct {
	// Torn counts the octets behind the last LF. Without the lock this may
	// be another program's append that is not complete yet.
	Torn int
	// Cut is what they say if they are the beginning of a line, at least. It
	// may be all of it: the caller, who has the lock, looks whether a file has
	// just that base name. Base is empty where it says nothing.
	Cut Entry
	// Bad counts lines that say nothing usable.
	Bad int
	// Renumber holds base names that the file lists under a UID that cannot
	// be theirs, in its order: messages that need a new UID. Of those that are
	// too many to hold More has the number: their files have no UID either way.
	Renumber []string
	More     int
	// NoNext and NoGUID say that the header lacks these fields.
	NoNext, NoGUID bool
}

// Any reports whether there is damage.
func (d Damage) Any() bool {
	return d.Torn > 0 || d.Bad > 0 || len(d.Renumber) > 0 || d.More > 0 || d.NoNext || d.NoGUID
}

// NeedsRewrite reports whether l must be written anew before anything is
// appended to its file.
func (l *List) NeedsRewrite() bool { return l.Version != 3 || l.Damage.Any() }

// New returns the list of a new, empty folder with a fresh GUID. Validity comes
// from the counter of the folder tree and is not 0.
func New(validity uint32) List {
	return List{Header: Header{Version: 3, Validity: validity, Next: 1, GUID: NewGUID()}}
}

// NewGUID returns 32 random hex digits.
func NewGUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// ValidBase reports whether base can stand in a list and name a file.
func ValidBase(base string) bool {
	if base == "" || len(base) > 255 || base[0] == '.' {
		return false
	}
	for _, c := range []byte(":/\x00\r\n") { // faster than ContainsAny, and it is asked of every line
		if strings.IndexByte(base, c) >= 0 {
			return false
		}
	}
	return true
}

// AppendHeader appends the header line of version 3 to b.
func (h Header) AppendHeader(b []byte) []byte {
	b = append(b, "3 V"...)
	b = strconv.AppendUint(b, uint64(h.Validity), 10)
	b = append(b, " N"...)
	b = strconv.AppendUint(b, uint64(h.Next), 10)
	if h.GUID != "" {
		b = append(b, " G"...)
		b = append(b, h.GUID...)
	}
	b = append(b, h.Extra...)
	return append(b, '\n')
}

// AppendEntry appends the line of e to b. The base must be a ValidBase.
func AppendEntry(b []byte, e Entry) []byte {
	b = strconv.AppendUint(b, uint64(e.UID), 10)
	b = append(b, e.Extra...)
	b = append(b, " :"...)
	b = append(b, e.Base...)
	return append(b, '\n')
}

// Encode returns the whole file in version 3.
func (l *List) Encode() []byte {
	size := 128 + len(l.Extra)
	for _, e := range l.Entries {
		size += 14 + len(e.Extra) + len(e.Base)
	}
	b := l.AppendHeader(make([]byte, 0, size))
	for _, e := range l.Entries {
		b = AppendEntry(b, e)
	}
	return b
}
