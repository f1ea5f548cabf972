package imap

import (
	"strconv"

	"imapd/imap/wire"
	"imapd/maildir"
)

// SELECT and EXAMINE open a mailbox; EXAMINE changes nothing in it.
// See RFC 9051 sections 6.3.2 and 6.3.3.
var _ = register(Extension{
	Name: "SELECT",
	RFC:  9051,
	Commands: []Command{
		authed("SELECT", parseSelect, func(s *Session, u *User, a SelectArgs) error {
			return s.selectBox(u, a, false)
		}).with(Silent),
		authed("EXAMINE", parseSelect, func(s *Session, u *User, a SelectArgs) error {
			return s.selectBox(u, a, true)
		}).with(Silent),
	},
})

// SelectArgs are the arguments of SELECT and EXAMINE.
type SelectArgs struct {
	Name   string
	Sent   string // the name as the client spelled it
	Enable Props  // that the parameters imply, as CONDSTORE does
	resync *resync
}

func parseSelect(d *wire.Decoder) (a SelectArgs) {
	d.SP()
	a.Name, a.Sent = d.MailboxAsSent()
	if d.AcceptSP() {
		d.List(func() {
			if p := selectParams.find(d.Keyword()); p != nil {
				p.Parse(d, &a)
			} else {
				d.FailText("", "Unknown parameter")
			}
		})
	}
	return a
}

// selectBox opens the mailbox. Whether it succeeds or not, the one that was
// selected before is closed; not before, since it may be the same.
func (s *Session) selectBox(u *User, a SelectArgs, examine bool) error {
	if err := a.resync.allowed(s); err != nil {
		return err
	}
	defer s.present("")
	m, err := u.Store.Mailbox(s.ctx, a.Name)
	if s.box != nil {
		s.unselect()
		s.untagged("OK [CLOSED] Previous mailbox closed.") // RFC 9051 section 7.1
	}
	if err != nil {
		return err
	}
	b := &Box{mailbox: m, readOnly: examine || m.ReadOnly()}
	if err := m.Sync(s.ctx, b.access()); err != nil {
		m.Release()
		return err
	}
	s.enable(a.Enable)
	b.modSeqs = m.ModSeqs() // which may find that everything counts as changed
	b.view = m.Snapshot()
	s.box = b
	s.claimRecent()
	s.describe(a)
	if b.readOnly {
		s.ok("READ-ONLY", "")
	} else {
		s.ok("READ-WRITE", "")
	}
	return s.resync(b, a.resync)
}

// describe sends what a client must know of the mailbox that it has selected.
func (s *Session) describe(a SelectArgs) {
	b := s.box
	s.sendFlagNames()
	s.reportCount()
	s.reportRecent()
	if i, ok := b.view.FirstUnseen(); ok && !s.Rev2() {
		s.number("UNSEEN", uint64(i)+1, "First unseen.")
	}
	if !b.mailbox.UIDsStick() {
		s.untagged("NO [UIDNOTSTICKY] UIDs cannot be recorded here") // RFC 4315 section 2
	}
	s.number("UIDVALIDITY", uint64(b.view.Validity), "UIDs valid")
	s.number("UIDNEXT", uint64(b.view.Next), "Predicted next UID")
	if s.props.Has(PropCondstore) {
		s.sendHighest()
	}
	if s.Rev2() {
		s.sendName("", s.spelling(a.Name), a.Sent)
	}
}

// number sends an untagged OK whose response code carries a number.
func (s *Session) number(code string, n uint64, text string) {
	s.untagged("OK [", code, " ", strconv.FormatUint(n, 10), "] ", text)
}

// unselect closes the mailbox, if there is one, without expunging.
func (s *Session) unselect() {
	b := s.box
	if b == nil {
		return
	}
	s.box = nil
	if b.stop != nil {
		b.stop()
	}
	b.mailbox.Release()
}

// claimRecent makes new messages \Recent in this session, if no other session
// was first. An EXAMINEd mailbox shows them without taking them. IMAP4rev2 has
// no \Recent (RFC 9051 appendix E), and leaves it to those who have.
func (s *Session) claimRecent() {
	if s.Rev2() {
		return
	}
	b := s.box
	var from, to maildir.UID
	if b.readOnly {
		from, to = b.mailbox.Recent()
		b.recent = b.recent[:0]
	} else {
		from, to = b.mailbox.ClaimRecent()
	}
	switch last := len(b.recent) - 1; {
	case from >= to:
	case last >= 0 && b.recent[last].to == from:
		b.recent[last].to = to
	default:
		b.recent = append(b.recent, uidRange{from, to})
	}
}
