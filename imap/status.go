package imap

import (
	"slices"

	"imapd/imap/wire"
)

// STATUS tells about a mailbox without selecting it. See RFC 9051 section 6.3.11,
// and RFC 3501 section 6.3.10 for RECENT.
var _ = register(Extension{
	Name:     "STATUS",
	RFC:      9051,
	Commands: []Command{authed("STATUS", parseStatus, (*Session).status)},
	Status: []StatusItem{
		{Name: "MESSAGES", Append: func(b []byte, st Status) ([]byte, error) {
			return wire.AppendNumber(b, st.Now.Len()), nil
		}},
		{Name: "RECENT", Append: func(b []byte, st Status) ([]byte, error) {
			return wire.AppendNumber(b, st.recent()), nil
		}},
		{Name: "UIDNEXT", Append: func(b []byte, st Status) ([]byte, error) {
			return wire.AppendNumber(b, uint32(st.Now.Next)), nil
		}},
		{Name: "UIDVALIDITY", Append: func(b []byte, st Status) ([]byte, error) {
			return wire.AppendNumber(b, st.Now.Validity), nil
		}},
		{Name: "UNSEEN", Append: func(b []byte, st Status) ([]byte, error) {
			return wire.AppendNumber(b, st.Now.Unseen()), nil
		}},
		{Name: "DELETED", Append: func(b []byte, st Status) ([]byte, error) {
			return wire.AppendNumber(b, st.Now.Deleted()), nil
		}},
	},
})

type statusArgs struct {
	name  string
	items []*StatusItem
}

func parseStatus(d *wire.Decoder) (a statusArgs) {
	d.SP()
	a.name = d.Mailbox()
	d.SP()
	a.items = statusItemList(d)
	return a
}

// statusItemList parses a parenthesized list of at least one item. An item that
// is named twice counts once.
func statusItemList(d *wire.Decoder) (items []*StatusItem) {
	d.List(func() {
		item := statusItems.find(d.Keyword())
		switch {
		case item == nil:
			d.FailText("", "Unknown status item")
		case !slices.Contains(items, item):
			items = append(items, item)
		}
	})
	if len(items) == 0 {
		d.FailText("", "No status items")
	}
	return items
}

func (s *Session) status(u *User, a statusArgs) error {
	f, err := u.Store.Look(a.name)
	if err != nil {
		return err
	}
	return s.sendStatus(u, f.Name, a.items)
}

// sendStatus sends the STATUS response of a mailbox, or nothing and an error.
func (s *Session) sendStatus(u *User, name string, items []*StatusItem) error {
	m, err := u.Store.Mailbox(s.ctx, name)
	if err != nil {
		return err
	}
	defer m.Release()
	for _, item := range items {
		s.enable(item.Enable)
	}
	st := Status{Session: s, Mailbox: m, Now: m.Snapshot()}
	start := len(s.out)
	s.out = append(s.out, "* STATUS "...)
	s.out = wire.AppendMailbox(s.out, name, s.UTF8())
	open := " ("
	for _, item := range items {
		s.out = append(append(s.out, open...), item.Name...)
		s.out = append(s.out, ' ')
		open = " "
		if s.out, err = item.Append(s.out, st); err != nil {
			s.out = s.out[:start]
			return err
		}
	}
	s.out = append(s.out, ")\r\n"...)
	return nil
}

// recent returns how many messages are \Recent: those that no session has claimed
// and, in the mailbox that this session has selected, its own.
func (st Status) recent() int {
	from, to := st.Mailbox.Recent()
	lo, _ := st.Now.Find(from)
	hi, _ := st.Now.Find(to)
	n := hi - lo
	if b := st.box; b != nil && b.mailbox == st.Mailbox && !b.readOnly {
		n += b.countRecent()
	}
	return n
}
