package maildir

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"imapd/maildir/keywords"
	"imapd/maildir/vfs"
)

// keywordState is what dovecot-keywords and imapd-keywords said when they were
// read last. It is guarded by Mailbox.mu.
type keywordState struct {
	table     keywords.Table
	stat      keywords.Stat
	letters   trouble // with the file of table: letters are left as they are, and not shown
	over      keywords.Overflow
	beyond    trouble          // with that of over
	news      keywords.Changes // of over, that are not in the published snapshot
	compactAt int              // lines of over from which on it may be worth writing anew
	named     int              // names of over that shown and index know
	index     []int            // of the keyword of over with a number; -1: not served
	shown     *keywordTable    // what snapshots refer to; replaced, never changed
}

// A trouble is why a file cannot be used, nil if it can.
type trouble struct {
	err  error
	said bool // the log says so
}

// read brings k up to what dir holds now.
func (k *keywordState) read(dir vfs.Dir) error {
	st, err := keywords.StatFile(dir)
	if err != nil {
		return err
	}
	known := st == k.stat && k.shown != nil && k.letters.err == nil
	if !known {
		k.table, k.stat, err = keywords.Read(dir)
		if k.letters.err = err; err != nil && !errors.Is(err, keywords.ErrLetters) {
			return err
		}
	}
	news, err := k.over.Read(dir)
	k.news.All = k.news.All || news.All
	k.news.Bases = append(k.news.Bases, news.Bases...)
	if k.beyond.err = err; err != nil && !errors.Is(err, keywords.ErrOverflow) {
		return err
	}
	if !known || news.All || k.named != len(k.over.Names()) {
		k.show()
	}
	return nil
}

func (k *keywordState) set(t keywords.Table, st keywords.Stat) {
	k.table, k.stat = t, st
	k.show()
}

// show makes the table for snapshots: the letters have the first indexes, what
// imapd-keywords adds has those behind them. A keyword that is in both has that
// of its letter.
func (k *keywordState) show() {
	names := k.over.Names()
	shown := keywordTable{full: k.free(&k.table) < 0, names: make([]string, min(maxKeywords, max(bitKeywords, keywords.Letters+len(names))))}
	for i, name := range k.table {
		if s := asAtom(name); s == name || k.table.Index(s) < 0 && !slices.Contains(shown.names[:i], s) {
			shown.names[i] = s
		}
	}
	k.index = k.index[:0]
	for n, name := range names {
		i := k.table.Index(name)
		if i < 0 {
			i = keywords.Letters + k.over.Number(name)
		}
		if name == "" || i >= maxKeywords {
			i = -1
		}
		k.index = append(k.index, i)
		if i == keywords.Letters+n && atom(name) {
			shown.names[i] = name
		}
	}
	k.named = len(names)
	shown.full = shown.full && (k.beyond.err != nil || keywords.Letters+len(names) >= maxKeywords)
	if k.shown == nil || !k.shown.equal(&shown) {
		k.shown = &shown
	}
}

// overflow returns the keywords that imapd-keywords gives to the message.
func (k *keywordState) overflow(base []byte) Marks {
	var f Marks
	for _, n := range k.over.Of(base) {
		if i := k.index[n]; i >= 0 {
			f = f.with(i)
		}
	}
	return f
}

// lettersOnly reports whether imapd-keywords has nothing to say.
func (k *keywordState) lettersOnly() bool { return len(k.over.Names()) == 0 }

// overflowSet returns what imapd-keywords must say of a message whose flags were
// was and become f, and whether it says something else now. was is nil for a
// message that comes new.
func (k *keywordState) overflowSet(base []byte, was *Marks, f Marks) (keywords.Set, bool) {
	if len(k.index) == 0 {
		return keywords.Set{}, false
	}
	old := k.over.Of(base)
	set := k.numbers(old, was, f)
	if slices.Equal(set, old) {
		return keywords.Set{}, false
	}
	return keywords.Set{Base: string(base), Numbers: set}, true
}

// number returns the number that a keyword has in imapd-keywords, or will have
// once names, to which it is added then, are entered; -1 if there is no room.
func (k *keywordState) number(name string, names *[]string) int {
	if n := k.over.Number(name); n >= 0 {
		return n
	}
	n := slices.IndexFunc(*names, func(m string) bool { return strings.EqualFold(m, name) })
	if n < 0 {
		n = len(*names)
		if keywords.Letters+len(k.over.Names())+n >= maxKeywords || k.beyond.err != nil || !keywords.Possible(name) {
			return -1
		}
		*names = append(*names, name)
	}
	return len(k.over.Names()) + n
}

// numbers returns what imapd-keywords must say of a message that had the numbers
// old there, where those of its flags in which was and f differ are as in f.
func (k *keywordState) numbers(old []uint16, was *Marks, f Marks) []uint16 {
	var set []uint16
	for n, i := range k.index {
		_, has := slices.BinarySearch(old, uint16(n))
		if i >= 0 && (was == nil || was.has(i) != f.has(i)) {
			has = f.has(i)
		}
		if has {
			set = append(set, uint16(n))
		}
	}
	return set
}

// atom reports whether name can be sent as a flag-keyword.
func atom(name string) bool { return name != "" && asAtom(name) == name }

// asAtom returns name as it can be sent as a flag-keyword. A file that was written
// by hand may hold anything: what no keyword can have is shown as '_'.
func asAtom(name string) string {
	return strings.Map(func(c rune) rune {
		if c <= ' ' || c >= 0x7f || strings.ContainsRune(`(){%*"\]`, c) {
			return '_'
		}
		return c
	}, name)
}

// letter returns the index of the letter of a keyword, as it is in the file or as
// it is shown, or -1.
func (k *keywordState) letter(t *keywords.Table, name string) int {
	if i := t.Index(name); i >= 0 {
		return i
	}
	for i, s := range k.names().names[:keywords.Letters] {
		if s != "" && s != t[i] && strings.EqualFold(s, name) {
			return i
		}
	}
	return -1
}

// names returns the table for a snapshot.
func (k *keywordState) names() *keywordTable {
	if k.shown == nil {
		k.shown = &keywordTable{names: make([]string, bitKeywords)}
	}
	return k.shown
}

// same reports whether s has the keywords of now.
func (k *keywordState) same(s *Snapshot) bool {
	return s.keywords.equal(k.names())
}

// free returns the lowest letter that can be given a name, or -1.
func (k *keywordState) free(t *keywords.Table) int {
	if k.letters.err != nil {
		return -1
	}
	return t.Free()
}

// unread returns those of the letters in f whose names cannot be read.
func (k *keywordState) unread(f Flags) Flags {
	if k.letters.err == nil {
		return 0
	}
	return f & (keywordFlag(keywords.Letters) - keywordFlag(0))
}

// nameless returns those of the letters in f that have no name.
func (k *keywordState) nameless(f Flags) Flags {
	if k.letters.err != nil {
		return 0
	}
	var left Flags
	for i, name := range k.table {
		if name == "" {
			left |= f & keywordFlag(i)
		}
	}
	return left
}

// adopt gives a name to letters in f that files have and nobody named, as
// Dovecot does. Only under the lock is that certain: a program may rename the
// file before it writes the name.
func (k *keywordState) adopt(dir vfs.Dir, f Flags) error {
	left := k.nameless(f)
	if left == 0 {
		return nil
	}
	t := k.table
	for i := range t {
		if left&keywordFlag(i) != 0 {
			t[i] = "unknown-" + strconv.Itoa(i)
			if j := k.table.Index(t[i]); j >= 0 {
				t[i] += "-" + strconv.Itoa(j)
			}
		}
	}
	return k.write(dir, t)
}

func (k *keywordState) write(dir vfs.Dir, t keywords.Table) error {
	st, err := keywords.Write(dir, t, k.stat)
	if err != nil {
		return err
	}
	k.set(t, st)
	return nil
}

// marks returns set as the mailbox numbers it. With add, keywords that the
// mailbox does not have are given letters, or numbers in imapd-keywords where no
// letter is free, and are on disk before anything uses them. The lock is held and
// k has been read under it.
func (k *keywordState) marks(dir vfs.Dir, set FlagSet, add bool) (Marks, error) {
	f := Marks{Flags: set.System & SystemFlags}
	t := k.table
	var more []string // for imapd-keywords
	for _, name := range set.Keywords {
		i := k.letter(&t, name)
		if n := k.over.Number(name); i < 0 && n >= 0 {
			i = k.index[n]
		}
		if i < 0 && !add {
			continue
		}
		if i < 0 {
			if i = k.free(&t); i >= 0 && keywords.Possible(name) {
				t[i] = name
			} else if i = k.number(name, &more); i >= 0 {
				i += keywords.Letters
			}
		}
		if i < 0 {
			return Marks{}, ErrKeywords
		}
		f = f.with(i)
	}
	if t != k.table {
		if err := k.write(dir, t); err != nil {
			return Marks{}, err
		}
	}
	return f, k.enter(dir, more, nil)
}

// enter adds to imapd-keywords, durably. The lock is held.
func (k *keywordState) enter(dir vfs.Dir, names []string, sets []keywords.Set) error {
	err := k.over.Add(dir, names, sets)
	if err == nil && k.named != len(k.over.Names()) {
		k.show()
	}
	return err
}
