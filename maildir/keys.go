package maildir

import (
	"strconv"
	"strings"

	"imapd/maildir/keywords"
	"imapd/maildir/vfs"
)

// keywordState is dovecot-keywords as it was read last. It is guarded by
// Mailbox.mu.
type keywordState struct {
	table keywords.Table
	stat  keywords.Stat
	shown *[maxKeywords]string // what snapshots refer to; replaced, never changed
}

// read brings k up to what dir holds now.
func (k *keywordState) read(dir vfs.Dir) error {
	st, err := keywords.StatFile(dir)
	if err != nil || st == k.stat && k.shown != nil {
		return err
	}
	t, st, err := keywords.Read(dir)
	if err != nil {
		return err
	}
	k.set(t, st)
	return nil
}

func (k *keywordState) set(t keywords.Table, st keywords.Stat) {
	k.table, k.stat = t, st
	shown := [maxKeywords]string{}
	for i, name := range t {
		if atom(name) {
			shown[i] = name
		}
	}
	if k.shown == nil || *k.shown != shown {
		k.shown = &shown
	}
}

// atom reports whether name can be sent as a flag-keyword. A file that was
// written by hand may hold anything.
func atom(name string) bool {
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`(){%*"\]`, c) >= 0 {
			return false
		}
	}
	return name != ""
}

// names returns the table for a snapshot.
func (k *keywordState) names() *[maxKeywords]string {
	if k.shown == nil {
		k.shown = new([maxKeywords]string)
	}
	return k.shown
}

// same reports whether s has the keywords of now.
func (k *keywordState) same(s *Snapshot) bool { return *s.keywords == *k.names() }

// nameless returns those of the letters in f that have no name.
func (k *keywordState) nameless(f Flags) Flags {
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

// flags returns set as the mailbox numbers it. With add, keywords that the
// mailbox does not have are given letters, which are on disk before a file name
// uses them. The lock is held and k has been read under it.
func (k *keywordState) flags(dir vfs.Dir, set FlagSet, add bool) (Flags, error) {
	f := set.System & SystemFlags
	t := k.table
	for _, name := range set.Keywords {
		i := t.Index(name)
		if i < 0 {
			if !add {
				continue
			}
			if i = t.Free(); i < 0 {
				return 0, ErrKeywords
			}
			t[i] = name
		}
		f |= keywordFlag(i)
	}
	if t == k.table {
		return f, nil
	}
	return f, k.write(dir, t)
}
