package imap

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"imapd/control"
	"imapd/imap/wire"
	"imapd/maildir"
)

// sync looks whether other programs have changed the selected mailbox: three
// stats if not. A fault is logged; the client goes on with what was known.
func (s *Session) sync() { s.lookBy(s.box.mailbox.Sync) }

// syncEdited is sync where the command itself has just changed files of the
// mailbox: what others did before that shows without a look.
func (s *Session) syncEdited() { s.lookBy(s.box.mailbox.SyncEdited) }

func (s *Session) lookBy(look func(context.Context, maildir.Access) error) {
	err := look(s.ctx, s.box.access())
	if err == nil || s.ctx.Err() != nil {
		return
	}
	if errors.Is(err, maildir.ErrNotFound) {
		s.box.gone = true
		return
	}
	s.log.Warn("cannot look at mailbox", "user", control.Name(s.userName()), "mailbox", control.Name(s.boxName()), "error", err)
}

// report tells the client what it does not know yet of its mailbox, and is the
// only place that writes EXISTS, RECENT, EXPUNGE, VANISHED and FETCH responses
// that were not asked for. With hold, because the client is using sequence numbers,
// messages that are gone stay in the view as ghosts and no EXPUNGE or VANISHED is
// sent.
func (s *Session) report(hold bool) error {
	b := s.box
	if b == nil {
		return nil
	}
	if b.gone {
		return &byeError{Code: "UNAVAILABLE", Text: "Selected mailbox was deleted"}
	}
	s.checkModSeqs()
	now := b.mailbox.Snapshot()
	if now == b.view {
		b.told = nil
		return nil
	}
	view, d, err := maildir.Advance(b.view, now, hold)
	if err != nil {
		s.log.Error("mailbox went back", "user", control.Name(s.userName()), "mailbox", control.Name(s.boxName()), "error", err)
		return &byeError{Code: "UNAVAILABLE", Text: "Selected mailbox has changed, please reconnect"}
	}
	old := b.view
	b.view = view
	b.owe(old)
	if err := s.reportGone(d); err != nil {
		return err
	}
	if d.Added > 0 {
		s.claimRecent()
		s.reportCount()
	}
	if b.recentTold != b.countRecent() {
		s.reportRecent()
	}
	s.reportFlagNames()
	for _, i := range d.Changed {
		m := view.At(i)
		if _, known := b.told[fact{m.UID, m.ModSeq}]; known {
			continue
		}
		s.reportFlags(i, m)
		if err := s.spill(); err != nil {
			return err
		}
	}
	b.told = nil
	return s.spill()
}

// reportGone sends EXPUNGE for the messages that have left the view, or VANISHED
// to a client that has enabled QRESYNC (RFC 7162 section 3.2.10.2).
func (s *Session) reportGone(d maildir.Delta) error {
	if s.props.Has(PropQresync) && s.box.modSeqs {
		var set wire.NumSet
		for _, uid := range slices.Backward(d.GoneUIDs) {
			set.Add(uint32(uid))
		}
		if !set.Empty() {
			s.marks |= markExpunged
		}
		return s.sendVanished("", set)
	}
	for _, i := range d.Gone {
		s.out = append(s.out, "* "...)
		s.out = strconv.AppendInt(s.out, int64(i)+1, 10)
		s.out = append(s.out, " EXPUNGE\r\n"...)
		if err := s.spill(); err != nil {
			return err
		}
	}
	return nil
}

// sendVanished sends the UIDs in set as vanished, in pieces; nothing if there are
// none. kind is "" or " (EARLIER)".
func (s *Session) sendVanished(kind string, set wire.NumSet) error {
	if set.Empty() {
		return nil
	}
	s.out = append(append(append(s.out, "* VANISHED"...), kind...), ' ')
	if err := s.appendSet(set); err != nil {
		return err
	}
	s.out = append(s.out, "\r\n"...)
	return nil
}

// appendSet appends a set of numbers, which need not fit into the buffer.
func (s *Session) appendSet(set wire.NumSet) error {
	for i, r := range set.Ranges() {
		if i > 0 {
			s.out = append(s.out, ',')
		}
		s.out = wire.AppendNumber(s.out, r.Start)
		if r.Stop != r.Start {
			s.out = append(s.out, ':')
			s.out = wire.AppendNumber(s.out, r.Stop)
		}
		if err := s.spill(); err != nil {
			return err
		}
	}
	return nil
}

// reportCount sends EXISTS.
func (s *Session) reportCount() {
	s.out = append(s.out, "* "...)
	s.out = strconv.AppendInt(s.out, int64(s.box.view.Len()), 10)
	s.out = append(s.out, " EXISTS\r\n"...)
}

// reportRecent sends RECENT, unless the client has enabled IMAP4rev2, which has
// none (RFC 9051 appendix E).
func (s *Session) reportRecent() {
	b := s.box
	b.recentTold = b.countRecent()
	if s.Rev2() {
		return
	}
	s.out = append(s.out, "* "...)
	s.out = strconv.AppendInt(s.out, int64(b.recentTold), 10)
	s.out = append(s.out, " RECENT\r\n"...)
}

// reportFlagNames sends FLAGS and PERMANENTFLAGS if there is a keyword that the
// client has not heard of, before a FETCH shows it.
func (s *Session) reportFlagNames() {
	b := s.box
	if slices.Equal(b.keywords, b.view.Keywords()) && b.full == b.view.KeywordsFull() {
		return
	}
	s.sendFlagNames()
}

// sendFlagNames sends FLAGS and PERMANENTFLAGS.
func (s *Session) sendFlagNames() {
	b := s.box
	b.keywords = b.view.Keywords()
	b.full = b.view.KeywordsFull()
	s.out = append(s.out, "* FLAGS ("...)
	s.appendFlagNames()
	s.out = append(s.out, ")\r\n* OK [PERMANENTFLAGS ("...)
	switch {
	case b.readOnly:
		s.out = append(s.out, ")] Read-only mailbox.\r\n"...)
		return
	case b.full:
		s.appendFlagNames()
	default:
		s.appendFlagNames()
		s.out = append(s.out, ` \*`...)
	}
	s.out = append(s.out, ")] Flags permitted.\r\n"...)
}

// appendFlagNames appends the flags that exist in the mailbox.
func (s *Session) appendFlagNames() {
	s.out = append(s.out, `\Answered \Flagged \Deleted \Seen \Draft`...)
	for _, name := range s.box.keywords {
		if name != "" {
			s.out = append(append(s.out, ' '), name...)
		}
	}
}

// reportFlags sends the flags of the message at index i of the view.
func (s *Session) reportFlags(i int, m maildir.Message) {
	s.out = append(s.out, "* "...)
	s.out = strconv.AppendInt(s.out, int64(i)+1, 10)
	s.out = append(s.out, " FETCH ("...)
	// UID forms, IMAP4rev2 and CONDSTORE want the UID in every FETCH (RFC 9051
	// section 7.5.2, RFC 7162 section 3.2.4).
	if s.Rev2() || s.props.Has(PropCondstore) || s.cmd != nil && s.cmd.uidForm() {
		s.out = append(s.out, "UID "...)
		s.out = strconv.AppendUint(s.out, uint64(m.UID), 10)
		s.out = append(s.out, ' ')
	}
	s.out = append(s.out, "FLAGS ("...)
	s.appendFlags(m)
	s.out = append(s.out, ')')
	if s.showsModSeqs() {
		s.out = append(s.out, ' ')
		s.appendModSeq(m)
	}
	s.out = append(s.out, ")\r\n"...)
}

// reportModSeq sends the modseq of the message at index i of the view, whose flags
// the client knows.
func (s *Session) reportModSeq(i int, m maildir.Message) {
	s.out = append(s.out, "* "...)
	s.out = strconv.AppendInt(s.out, int64(i)+1, 10)
	s.out = append(s.out, " FETCH (UID "...)
	s.out = strconv.AppendUint(s.out, uint64(m.UID), 10)
	s.out = append(s.out, ' ')
	s.appendModSeq(m)
	s.out = append(s.out, ")\r\n"...)
}

// appendFlags appends the flags of m, without parentheses, \Recent among them
// where the client knows it. It does not allocate but for keywords.
func (s *Session) appendFlags(m maildir.Message) {
	n := len(s.out)
	for i, name := range systemFlags {
		if m.Flags&(1<<i) != 0 {
			s.out = append(append(s.out, name...), ' ')
		}
	}
	more := m.MoreKeywords()
	if m.Flags&^maildir.SystemFlags != 0 || len(more) > 0 {
		keywords := s.box.view.Keywords()
		for i, name := range keywords {
			if m.Flags>>(len(systemFlags)+i) == 0 {
				break
			}
			if m.Flags&(1<<(len(systemFlags)+i)) != 0 && name != "" {
				s.out = append(append(s.out, name...), ' ')
			}
		}
		for _, i := range more {
			if int(i) < len(keywords) && keywords[i] != "" { // else the file that has its name is gone
				s.out = append(append(s.out, keywords[i]...), ' ')
			}
		}
	}
	if !s.Rev2() && s.box.isRecent(m.UID) {
		s.out = append(s.out, `\Recent `...)
	}
	if len(s.out) > n {
		s.out = s.out[:len(s.out)-1]
	}
}

// systemFlags has the names of the flags of package maildir, by bit.
var systemFlags = [...]string{`\Seen`, `\Answered`, `\Flagged`, `\Deleted`, `\Draft`}
