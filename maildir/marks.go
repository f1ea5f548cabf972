package maildir

import "slices"

// Marks are all flags of a message. Flags has a bit for each of the first 59
// keywords of a mailbox, which is all that nearly every mailbox has; the indexes
// of the others are a list, in a side table of the page that the message is in.
//
// A record with room for 1,000 bits would be five times as long. A list in the
// names of the page would let a few messages outgrow the 16 bits of an offset.
// The index keeps one bit that says that there is a list: imapd-keywords has it,
// and that file is the truth.
type Marks struct {
	Flags
	more []uint16 // indexes from bitKeywords on, ascending; never changed
}

// has reports whether the keyword with index i is among m.
func (m Marks) has(i int) bool {
	if i < bitKeywords {
		return m.Flags&keywordFlag(i) != 0
	}
	_, ok := slices.BinarySearch(m.more, uint16(i))
	return ok
}

// with returns m with the keyword that has index i.
func (m Marks) with(i int) Marks {
	if i < bitKeywords {
		m.Flags |= keywordFlag(i)
		return m
	}
	if at, ok := slices.BinarySearch(m.more, uint16(i)); !ok {
		m.more = slices.Insert(slices.Clone(m.more), at, uint16(i))
	}
	return m
}

// Equal reports whether m and o are the same flags.
func (m Marks) Equal(o Marks) bool { return m.Flags == o.Flags && slices.Equal(m.more, o.more) }

// agree reports whether m and o say the same of the flags in set.
func (m Marks) agree(o, set Marks) bool {
	return (m.Flags^o.Flags)&set.Flags == 0 &&
		!slices.ContainsFunc(set.more, func(i uint16) bool { return m.has(int(i)) != o.has(int(i)) })
}

// Apply returns what the operation with f makes of the flags old.
func (op FlagOp) Apply(old, f Marks) Marks {
	switch op {
	case AddFlags:
		old.Flags |= f.Flags
		for _, i := range f.more {
			old = old.with(int(i))
		}
		return old
	case RemoveFlags:
		old.Flags &^= f.Flags
		if len(old.more) > 0 && len(f.more) > 0 {
			old.more = slices.DeleteFunc(slices.Clone(old.more), func(i uint16) bool { return f.has(int(i)) })
		}
		return old
	}
	return f
}

// Marks returns the flags of m.
func (m Message) Marks() Marks { return Marks{m.Flags, m.MoreKeywords()} }

// MoreKeywords returns the indexes of the message's keywords that have no bit in
// Flags, ascending. The caller must not change it.
func (m Message) MoreKeywords() []uint16 { return m.page.moreOf(m.rec) }

// HasKeyword reports whether m has the keyword with index i of its snapshot.
func (m Message) HasKeyword(i int) bool { return i >= 0 && m.Marks().has(i) }

// Marks returns the flags that set names; keywords that the mailbox does not have
// are left out.
func (s *Snapshot) Marks(set FlagSet) Marks {
	m := Marks{Flags: set.System}
	for _, name := range set.Keywords {
		if i := s.Keyword(name); i >= 0 {
			m = m.with(i)
		}
	}
	return m
}
