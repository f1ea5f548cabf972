package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"imapd/maildir/courier"
	"imapd/maildir/keywords"
)

// Courier has keywords in files of its own and no letters in file names. The 26
// that most messages have get letters here, the others go where keywords without
// a letter go. Letters that are in the names all the same, of a program that
// numbered them in its own way, mean nothing to anybody and are removed, before
// any letter gets a name; those that dovecot-keywords names are kept: they are
// Dovecot's, or ours from an attempt that was interrupted.

// takeCourierKeywords gives the messages of the folder Courier's keywords,
// durably.
func (m *Mailbox) takeCourierKeywords() error {
	k, err := courier.ReadKeywords(m.dir)
	if err != nil {
		return unread(err)
	}
	if k.Unreadable > 0 {
		m.host.opt.Log.Warn("keywords of Courier that are no files", "mailbox", m.name, "number", k.Unreadable)
	}
	files, err := m.files()
	if err != nil {
		return err
	}
	named := SystemFlags | ^m.keys.nameless(^Flags(0))
	if err := m.renameAll(func(f file) Flags { return parseFlags(f.name) & named }); err != nil {
		return err
	}
	table := m.keys.table
	if m.keys.letters.err == nil {
		table = chooseLetters(table, k, files)
	}
	if table != m.keys.table {
		if err := m.keys.write(m.control, table); err != nil {
			return err
		}
	}
	if rest := withoutLetter(&table, k, files); len(rest) > 0 {
		if err := m.keepOverflow(rest); err != nil {
			return err
		}
	}
	return m.renameAll(func(f file) Flags {
		flags := parseFlags(f.name)
		for _, i := range k.Of[f.base()] {
			if n := table.Index(k.Names[i]); n >= 0 {
				flags |= keywordFlag(n)
			}
		}
		return flags
	})
}

// nameable reports whether a keyword of Courier's can be one here.
func nameable(name string) bool { return atom(name) && keywords.Possible(name) }

// chooseLetters returns t with letters for the keywords that most files have.
func chooseLetters(t keywords.Table, k courier.Keywords, files []file) keywords.Table {
	uses := make([]int, len(k.Names))
	for _, f := range files {
		for _, i := range k.Of[f.base()] {
			uses[i]++
		}
	}
	order := make([]int, 0, len(uses))
	for i, n := range uses {
		if n > 0 && nameable(k.Names[i]) && t.Index(k.Names[i]) < 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return uses[b] - uses[a] })
	for _, i := range order {
		n := t.Free()
		if n < 0 {
			break
		}
		t[n] = k.Names[i]
	}
	return t
}

// withoutLetter returns the keywords of files, by base name, that t has no letter
// for.
func withoutLetter(t *keywords.Table, k courier.Keywords, files []file) map[string][]string {
	rest := map[string][]string{}
	for _, f := range files {
		var names []string
		for _, i := range k.Of[f.base()] {
			if nameable(k.Names[i]) && t.Index(k.Names[i]) < 0 {
				names = append(names, k.Names[i])
			}
		}
		if len(names) > 0 {
			rest[f.base()] = names
		}
	}
	return rest
}

// keepOverflow keeps keywords for which there is no letter, by base name.
func (m *Mailbox) keepOverflow(add map[string][]string) error {
	dropped, err := m.addOverflow(add)
	if len(dropped) > 0 {
		m.host.opt.Log.Warn("no room for keywords", "mailbox", m.name, "keywords", dropped)
	}
	return err
}

// renameAll gives every file of the folder the flags that want says, durably. The
// lock is held.
func (m *Mailbox) renameAll(want func(f file) Flags) error {
	for try := 0; ; try++ {
		files, err := m.files()
		if err != nil {
			return err
		}
		missed := false
		for _, f := range files {
			flags := want(f)
			if flags == parseFlags(f.name) {
				continue
			}
			dir := m.dirOf(f.place)
			err := dir.RenameNoReplace(f.name, dir, withFlags(f.name, flags))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				missed = true // another program has renamed it
			case errors.Is(err, fs.ErrExist): // a twin; see partTwins
			case err != nil:
				return err
			}
		}
		switch {
		case !missed && m.host.opt.Fsync == FsyncNever:
			return nil
		case !missed: // an earlier attempt may not have come to this
			return errors.Join(m.cur.Sync(), m.new.Sync())
		case try == tries:
			return fmt.Errorf("a file is renamed all the time: %w", ErrBusy)
		}
	}
}

// importSubscriptions makes the subscriptions those of Courier, if there are none
// yet. A later call does nothing.
func (s *Store) importSubscriptions() error {
	if s.subscribed.Load() {
		return nil
	}
	names, err := s.courierSubscriptions()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is no Maildir yet
	}
	if err == nil && len(names) > 0 {
		err = s.tree.FirstSubscriptions(names)
	}
	if unwritable(err) {
		s.host.opt.Log.Warn("no subscriptions taken over", "err", err)
		err = nil
	}
	s.subscribed.Store(err == nil)
	return err
}

// courierSubscriptions reads what Courier has. It fails with fs.ErrNotExist where there
// is no Maildir.
func (s *Store) courierSubscriptions() ([][]string, error) {
	leave, err := s.slot(context.Background())
	if err != nil {
		return nil, err
	}
	defer leave()
	root, err := s.host.opt.Open(s.cfg.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	names, err := courier.ReadSubscriptions(root)
	if noFile(err) {
		s.host.opt.Log.Warn("no subscriptions taken over", "err", err)
		return nil, nil
	}
	return names, err
}
