package uidlist

import (
	"bytes"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
)

// Parse reads a whole list. It fails with ErrHeader only; the entries that
// were found are returned even then, so that a caller who knows UIDVALIDITY
// from elsewhere can set it. It keeps no reference to data.
func Parse(data []byte) (List, error) {
	l := List{}
	first, rest, ok := cutLine(data)
	if !ok {
		l.Damage.Torn = len(data)
		return l, ErrHeader
	}
	err := l.parseHeader(string(first))
	p := parser{v1: l.Version == 1, opaque: l.Version == 2, next: max(l.Next, 1)}
	p.lines(rest)
	l.Entries, l.Lines = p.entries, p.count
	l.Size = int64(len(data)-len(rest)) + p.size
	l.Damage.Torn, l.Damage.Bad, l.Damage.Renumber, l.Damage.More = p.damage.Torn, p.damage.Bad, p.damage.Renumber, p.damage.More
	l.Damage.Cut = p.cut(string(rest[p.size:]))
	l.Next = p.next
	return l, err
}

// A Tail is what was appended to a list since it was read.
type Tail struct {
	Size   int64 // octets understood; add them to List.Size
	Lines  int
	Next   uint32 // above after and every UID mentioned
	Damage Damage // Torn, Bad, Renumber and More
}

// cutLine splits data behind its first LF; line comes without LF and CR.
func cutLine(data []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(data, '\n')
	if i < 0 {
		return nil, data, false
	}
	return bytes.TrimSuffix(data[:i], []byte{'\r'}), data[i+1:], true
}

// parseHeader takes the fields of the first line. Version stays 0 where the
// line is none of a list that can be read.
func (l *List) parseHeader(line string) error {
	version, rest, _ := strings.Cut(line, " ")
	switch version {
	case "3":
		l.headerFields(rest)
	case "1", "2": // of version 2 only the header is known
		f := strings.Fields(rest)
		if len(f) > 0 {
			l.Validity, _ = number(f[0])
		}
		if len(f) > 1 {
			l.Next, _ = number(f[1])
		}
		l.Damage.NoGUID = version == "2"
	default:
		return ErrHeader
	}
	l.Version = int(version[0] - '0')
	l.Damage.NoNext = l.Next == 0
	if l.Validity == 0 {
		return ErrHeader
	}
	return nil
}

func (l *List) headerFields(rest string) {
	var extra strings.Builder
	for _, f := range strings.Fields(rest) {
		switch f[0] {
		case 'V':
			l.Validity, _ = number(f[1:])
		case 'N':
			l.Next, _ = number(f[1:])
		case 'G':
			if isGUID(f[1:]) {
				l.GUID = f[1:]
			}
		default:
			extra.WriteString(" " + f)
		}
	}
	l.Extra = extra.String()
	l.Damage.NoGUID = l.GUID == ""
}

func isGUID(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
}

// number reads a decimal number of 32 bits; 0 is not ok.
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, false
	}
	return uint32(n), n > 0
}

// maxExpected is for how many entries there is room before the first is read: a line
// need not be one. maxRenumber is how many names Damage.Renumber holds.
const (
	maxExpected = 1 << 20
	maxRenumber = 1000
)

// A parser reads entry lines.
type parser struct {
	v1     bool   // lines without fields and colon
	opaque bool   // lines of which only the UID is understood
	skip   uint32 // lines with a UID up to this were read before
	last   uint32 // the last UID taken
	next   uint32 // above every UID mentioned

	each    func(Entry) // takes entries; nil: they are collected
	entries []Entry
	count   int
	size    int64
	damage  Damage
}

func (p *parser) lines(data []byte) {
	end := bytes.LastIndexByte(data, '\n') + 1
	p.damage.Torn = len(data) - end
	p.size = int64(end)
	if end > 0 {
		p.entries = make([]Entry, 0, min(bytes.Count(data[:end], []byte{'\n'}), maxExpected))
		p.text(string(data[:end]))
	}
	p.mention(leadingUID(string(data[end:min(len(data), end+16)])))
	p.unique()
}

// text reads lines of which each has its end.
func (p *parser) text(text string) {
	for len(text) > 0 {
		i := strings.IndexByte(text, '\n')
		p.count++
		p.line(text[:i])
		text = text[i+1:]
	}
}

// cut reads the line without end, if its UID is above all others. A name that has
// another UID already keeps that.
func (p *parser) cut(line string) Entry {
	uid := leadingUID(line)
	blank := strings.IndexByte(line, ' ')
	if uid <= p.last || p.opaque || len(line) > 1024 {
		return Entry{}
	}
	extra, base, ok := p.split(line[blank:])
	base, _, _ = strings.Cut(base, ":")
	if !ok || !ValidBase(base) || slices.ContainsFunc(p.entries, func(e Entry) bool { return e.Base == base }) {
		return Entry{}
	}
	return Entry{uid, base, extra}
}

// leadingUID reads the UID of a torn line: what is there of it is at least
// burnt. 0 means that there is none.
func leadingUID(line string) uint32 {
	i := strings.IndexByte(line, ' ')
	if i <= 0 || i > 10 {
		return 0
	}
	uid, ok := uidOf(line[:i])
	if !ok {
		return 0
	}
	return uid
}

// mention burns a UID.
func (p *parser) mention(uid uint32) {
	if uid <= MaxUID && uid >= p.next {
		p.next = uid + 1
	}
}

func (p *parser) line(line string) {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if p.opaque {
		p.mention(leadingUID(line))
		p.damage.Bad++
		return
	}
	blank := strings.IndexByte(line, ' ')
	if blank <= 0 || blank > 10 {
		p.bad(line)
		return
	}
	uid, ok := uidOf(line[:blank])
	if !ok {
		p.bad(line)
		return
	}
	extra, base, ok := p.split(line[blank:])
	if !ok {
		p.mention(uid)
		p.bad(line)
		return
	}
	if i := strings.IndexByte(base, ':'); i >= 0 {
		if g := strings.LastIndex(base, " :"); g >= 0 && p.glued(uid, base[:g], base[g+2:]) {
			return
		}
		base = base[:i]
	}
	if !ValidBase(base) {
		p.mention(uid)
		p.damage.Bad++
		return
	}
	p.take(uid, base, extra)
}

// uidOf is number for UIDs, fast: a list has many.
func uidOf(s string) (uint32, bool) {
	n := uint64(0)
	for i := 0; i < len(s); i++ {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + uint64(c)
	}
	return uint32(n), n > 0 && n <= MaxUID
}

// split separates the fields from the base name in what follows a UID, from
// the blank on.
func (p *parser) split(s string) (extra, base string, ok bool) {
	if p.v1 {
		// A colon in front is not of version 1, but certain.
		return "", strings.TrimPrefix(s[1:], ":"), true
	}
	i := strings.Index(s, " :")
	if i < 0 {
		return "", "", false
	}
	return strings.TrimRight(s[:i], " "), s[i+2:], true
}

// bad counts a line that is none. If it ends as an entry does, that entry is a
// message of unknown UID.
func (p *parser) bad(line string) {
	p.damage.Bad++
	if p.v1 {
		return
	}
	if i := strings.LastIndex(line, " :"); i >= 0 {
		p.renumber(line[i+2:])
	}
}

func (p *parser) renumber(base string) {
	base, _, _ = strings.Cut(base, ":")
	switch {
	case !ValidBase(base):
	case len(p.damage.Renumber) == maxRenumber:
		p.damage.More++
	default:
		p.damage.Renumber = append(p.damage.Renumber, strings.Clone(base))
	}
}

// glued handles a torn entry (its UID and left, the beginning of its base
// name) that another entry was appended to, whose own digits and fields end
// left. It reports false if this is one entry with an odd name.
func (p *parser) glued(uid uint32, left, base string) bool {
	fields := left
	for {
		i := strings.LastIndexByte(left, ' ')
		if i < 0 || i+1 == len(left) || left[i+1] < 'A' || left[i+1] > 'Z' {
			break
		}
		left = left[:i]
	}
	extra := fields[len(left):]
	if left == "" || left[len(left)-1] < '0' || left[len(left)-1] > '9' {
		return false
	}
	base, _, _ = strings.Cut(base, ":")
	p.damage.Bad++
	// The writer did not see the torn line, so it did not count its UID.
	want := p.next
	p.mention(uid)
	if strings.HasSuffix(left, strconv.FormatUint(uint64(want), 10)) && ValidBase(base) {
		p.take(want, base, extra)
		return true
	}
	p.mention(want)
	p.renumber(base)
	return true
}

func (p *parser) take(uid uint32, base, extra string) {
	switch {
	case uid > p.last:
		if e := (Entry{uid, base, extra}); p.each != nil {
			p.each(e)
		} else {
			p.entries = append(p.entries, e)
		}
		p.last = uid
		p.mention(uid)
	case uid <= p.skip:
	default:
		p.renumber(base)
	}
}

// unique drops every entry whose base name comes again below it, and from
// Renumber the names that are entries.
func (p *parser) unique() {
	if dropDuplicates(p.entries) > 0 {
		p.entries = slices.DeleteFunc(p.entries, func(e Entry) bool { return e.UID == 0 })
	}
	if len(p.damage.Renumber) == 0 {
		return
	}
	seen := make(map[string]bool, len(p.entries))
	for _, e := range p.entries {
		seen[e.Base] = true
	}
	p.damage.Renumber = slices.DeleteFunc(p.damage.Renumber, func(base string) bool {
		was := seen[base]
		seen[base] = true
		return was
	})
}

// dropDuplicates sets to 0 the UID of every entry whose base name comes again,
// and counts them. Its hash table with open addressing takes a third of the
// time and a tenth of the memory of a map.
func dropDuplicates(entries []Entry) (count int) {
	size := 16
	for size < 2*len(entries) {
		size *= 2
	}
	slots := make([]uint32, size) // index of an entry + 1
	seed, mask := maphash.MakeSeed(), uint64(size-1)
	for i := range entries {
		h := maphash.String(seed, entries[i].Base) & mask
		for slots[h] != 0 && entries[slots[h]-1].Base != entries[i].Base {
			h = (h + 1) & mask
		}
		if slots[h] != 0 {
			entries[slots[h]-1].UID = 0
			count++
		}
		slots[h] = uint32(i + 1)
	}
	return count
}
