package keywords

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// File names have 26 letters for keywords. What a folder has beyond them is in
// imapd-keywords: which messages have them, by base name. It is not a cache;
// nothing else knows.
//
// The file is text. The first line is "imapd-keywords 1"; every other one is
// sealed (package vfs), and its text is one of
//
//	K <number> <name>             the keyword with the number, from 0
//	S <number>,<number>,... <base>  all keywords of the message; "-" for none
//	C <ceiling>                   no modification sequence is above it yet
//	I <digits>                    the second line: no two files begin alike
//
// Lines are appended under the lock of the folder's list, several with one write,
// and synced. Of two S lines of one base name the last counts, of two K lines of
// one number the first. A line whose checksum is wrong means nothing; what
// follows the last LF is an append that was torn, or one that is being written,
// and nothing may be appended behind it. A number that any line mentions is never
// given to another name.
//
// A binary file with records of one size could be updated in place, but a torn
// update would lose what was there, and nobody could read it with a pager.

// OverflowName is the file's name in a folder (in its control directory).
const OverflowName = "imapd-keywords"

const (
	overflowTmp    = OverflowName + ".tmp"
	overflowBroken = OverflowName + ".broken"
	overflowFamily = "imapd-keywords "
	overflowHead   = overflowFamily + "1\n"
	maxOverflow    = 256 << 20 // octets of the file
	maxName        = 1024      // octets of a keyword
	maxNumber      = 1023
	overflowBegin  = 64 // octets of a file, its I line among them
)

// ErrOverflow says that the file cannot be written: it is of a newer version, or
// it is no regular file, or too large.
var ErrOverflow = errors.New("imapd-keywords cannot be used")

// An Overflow is what the file of one folder says. The zero value is ready to
// read. It is not safe for use by several goroutines.
type Overflow struct {
	names   []string // by number; "" is a number without a name
	ceiling uint64
	// sets has the keywords of a message, ascending and not empty, by the hash
	// of its base name; equal ones share their memory.
	sets map[uint64][]uint16
	seed maphash.Seed
	same map[string][]uint16 // by their text

	stat    overflowStat // zero: there is no file
	begin   []byte       // of the file: its inode number may be used again
	size    int64        // octets that were understood, whole lines
	lines   int
	torn    bool // something follows them: nothing may be appended
	foreign bool // the first line is not ours
	future  bool // it is that of a later version
}

type overflowStat struct {
	Stat
	CtimeNs int64
}

// Changes says which messages a reading gave other keywords.
type Changes struct {
	All   bool     // perhaps all
	Bases []string // else these
}

// Any reports whether there are any.
func (c Changes) Any() bool { return c.All || len(c.Bases) > 0 }

// A Set is the keywords of one message, by number, ascending.
type Set struct {
	Base    string
	Numbers []uint16
}

// Compare orders sets by base name.
func (s Set) Compare(o Set) int { return strings.Compare(s.Base, o.Base) }

// Names returns the keywords by number; a number without one has "". The caller
// must not change it.
func (o *Overflow) Names() []string { return o.names }

// Of returns the numbers of the message's keywords, ascending. The caller must
// not change it.
func (o *Overflow) Of(base []byte) []uint16 {
	if len(o.sets) == 0 {
		return nil
	}
	return o.sets[maphash.Bytes(o.seed, base)]
}

// Empty reports whether no message has a keyword from here.
func (o *Overflow) Empty() bool { return len(o.sets) == 0 }

// Lines returns how many lines the file has.
func (o *Overflow) Lines() int { return o.lines }

// Ceiling returns the highest ceiling that RaiseCeiling was given, 0 if none.
func (o *Overflow) Ceiling() uint64 { return o.ceiling }

// Mark tells one state of the file from another, 0 where there is none.
func (o *Overflow) Mark() uint64 {
	if o.stat == (overflowStat{}) {
		return 0
	}
	return uint64(o.stat.CtimeNs) ^ o.stat.Ino<<40 ^ uint64(o.stat.Size)<<20
}

// Number returns the lowest number that has the name, without regard to case, or
// -1.
func (o *Overflow) Number(name string) int {
	name = fold(name)
	return slices.IndexFunc(o.names, func(n string) bool { return n != "" && fold(n) == name })
}

// Possible reports whether name can be written as a keyword.
func Possible(name string) bool {
	return name != "" && len(name) <= maxName && !strings.ContainsAny(name, " \r\n\x00")
}

func (o *Overflow) reset() {
	*o = Overflow{sets: map[uint64][]uint16{}, seed: maphash.MakeSeed(), same: map[string][]uint16{}}
}

// Read brings o up to what dir holds now. A file that has only grown is read from
// where the last reading ended. What is no file of ours, but a FIFO or a link,
// is ErrOverflow, and nothing is known then.
func (o *Overflow) Read(dir vfs.Dir) (Changes, error) {
	if o.sets == nil {
		o.reset()
	}
	var st unix.Stat_t
	err := unix.Fstatat(dir.Fd(), OverflowName, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		had := o.stat != overflowStat{}
		if had {
			o.reset()
		}
		return Changes{All: had}, nil
	}
	if err == nil && overflowStatOf(&st) == o.stat {
		return Changes{}, nil
	}
	fd, st, err := vfs.OpenRegular(dir, OverflowName)
	if err != nil {
		o.reset()
		return Changes{All: true}, unusable(ErrOverflow, err)
	}
	defer unix.Close(fd)
	now := overflowStatOf(&st)
	if grown := now.Dev == o.stat.Dev && now.Ino == o.stat.Ino && now.Size > o.size; !grown || o.foreign || o.future || !o.begins(fd) {
		o.reset()
	}
	whole := o.size == 0
	b, err := tail(fd, o.size, now.Size)
	if err != nil {
		o.reset()
		return Changes{All: true}, unusable(ErrOverflow, &os.PathError{Op: "read", Path: dir.Path() + "/" + OverflowName, Err: err})
	}
	o.stat = now
	changed := o.take(b)
	if whole {
		return Changes{All: true}, nil
	}
	return Changes{Bases: changed}, nil
}

// begins reports whether the file fd begins as the one that was read.
func (o *Overflow) begins(fd int) bool {
	b, err := tail(fd, 0, int64(len(o.begin)))
	return err == nil && bytes.Equal(b, o.begin)
}

func overflowStatOf(st *unix.Stat_t) overflowStat {
	return overflowStat{statOf(st), st.Ctim.Nano()}
}

// unusable marks errors that say what a file is, not how the disk is.
func unusable(mark, err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EFBIG) || errors.Is(err, unix.ENXIO) || errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", mark, err)
	}
	return err
}

func tail(fd int, from, size int64) ([]byte, error) {
	if size > maxOverflow {
		return nil, unix.EFBIG
	}
	b := make([]byte, max(0, size-from))
	n, err := vfs.ReadFullAt(fd, b, from)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return b[:n], nil
}

// take enters the lines of b, which follow what is known, and returns the base
// names that they are about.
func (o *Overflow) take(b []byte) (bases []string) {
	if o.size == 0 {
		o.begin = bytes.Clone(b[:min(len(b), overflowBegin)])
		if len(b) < len(overflowHead) && strings.HasPrefix(overflowHead, string(b)) {
			o.torn = true
			return nil
		}
		b = o.head(b)
	}
	if o.future {
		return nil
	}
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			break
		}
		if base := o.line(b[:i]); base != "" {
			bases = append(bases, base)
		}
		o.size += int64(i) + 1
		o.lines++
		b = b[i+1:]
	}
	o.torn = len(b) > 0
	return bases
}

// head takes the first line off the file. Where it is not ours the lines that
// have a checksum may still be.
func (o *Overflow) head(b []byte) []byte {
	rest, ours := bytes.CutPrefix(b, []byte(overflowHead))
	switch {
	case ours:
		o.size = int64(len(overflowHead))
	case bytes.HasPrefix(b, []byte(overflowFamily)) && bytes.IndexByte(b, '\n') > len(overflowFamily):
		o.future = true
	default:
		o.foreign = true
	}
	return rest
}

// A record is one line of the file.
type record struct {
	kind    byte
	number  uint64
	text    string // name or base
	numbers []byte
}

// parseRecord reads a line without its LF.
func parseRecord(line []byte) (r record, ok bool) {
	text, ok := vfs.Unseal(line)
	if !ok || len(text) < 2 || text[1] != ' ' {
		return r, false
	}
	r.kind = text[0]
	first, rest, _ := bytes.Cut(text[2:], []byte{' '})
	r.text = string(rest)
	switch r.kind {
	case 'S':
		r.numbers = first
		return r, validBase(r.text)
	case 'K':
		var err error
		r.number, err = strconv.ParseUint(string(first), 10, 16)
		return r, err == nil && r.number <= maxNumber && Possible(r.text)
	case 'C':
		var err error
		r.number, err = strconv.ParseUint(string(first), 10, 63)
		return r, err == nil && r.text == ""
	}
	return r, false
}

func validBase(base string) bool {
	return base != "" && len(base) <= 255 && !strings.ContainsAny(base, ":/\x00\r\n")
}

// line enters one line and returns the base name that it is about, if any.
func (o *Overflow) line(b []byte) (base string) {
	r, ok := parseRecord(b)
	if !ok {
		return ""
	}
	switch r.kind {
	case 'K':
		o.reserve(int(r.number))
		if o.names[r.number] == "" {
			o.names[r.number] = r.text
		}
	case 'C':
		o.ceiling = max(o.ceiling, r.number)
	case 'S':
		set, ok := o.intern(r.numbers)
		if !ok {
			return ""
		}
		key := maphash.String(o.seed, r.text)
		if len(set) == 0 {
			delete(o.sets, key)
		} else {
			o.sets[key] = set
		}
		return r.text
	}
	return ""
}

// reserve makes sure that no new name gets the number.
func (o *Overflow) reserve(number int) {
	for len(o.names) <= number {
		o.names = append(o.names, "")
	}
}

// intern returns the numbers that text lists.
func (o *Overflow) intern(text []byte) ([]uint16, bool) {
	if set, ok := o.same[string(text)]; ok {
		return set, true
	}
	set, ok := parseNumbers(text)
	if !ok {
		return nil, false
	}
	for _, n := range set {
		o.reserve(int(n))
	}
	if len(o.same) < 1<<16 {
		o.same[string(text)] = set
	}
	return set, true
}

func parseNumbers(text []byte) (set []uint16, ok bool) {
	if string(text) == "-" {
		return nil, true
	}
	for part := range bytes.SplitSeq(text, []byte{','}) {
		n, err := strconv.ParseUint(string(part), 10, 16)
		if err != nil || n > maxNumber || len(set) > 0 && set[len(set)-1] >= uint16(n) {
			return nil, false
		}
		set = append(set, uint16(n))
	}
	return set, true
}
