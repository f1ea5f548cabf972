package imap

import (
	"slices"
	"strings"

	"imapd/imap/wire"
	"imapd/maildir"
)

// STORE changes flags. See RFC 9051 section 6.4.6.
var _ = register(Extension{
	Name: "STORE",
	RFC:  9051,
	Commands: []Command{
		selected("STORE", parseStore(seqSet), (*Session).store).with(UsesSeq),
		selected("UID STORE", parseStore(uidSet), (*Session).store),
	},
})

// StoreArgs are the arguments of a STORE.
type StoreArgs struct {
	set    Set
	op     maildir.FlagOp
	silent bool
	flags  []string
	only   *maildir.Condition // UNCHANGEDSINCE; nil: none
}

func parseStore(set func(*wire.Decoder) Set) func(*wire.Decoder) StoreArgs {
	return func(d *wire.Decoder) (a StoreArgs) {
		d.SP()
		a.set = set(d)
		d.SP()
		if d.Peek() == '(' {
			d.List(func() {
				if m := storeMods.find(d.Keyword()); m != nil {
					m.Parse(d, &a)
				} else {
					d.FailText("", "Unknown STORE modifier")
				}
			})
			d.SP()
		}
		switch {
		case d.Accept('+'):
			a.op = maildir.AddFlags
		case d.Accept('-'):
			a.op = maildir.RemoveFlags
		default:
			a.op = maildir.ReplaceFlags
		}
		word := d.Keyword()
		word, a.silent = strings.CutSuffix(word, ".SILENT")
		if word != "FLAGS" {
			d.FailText("", "Unknown STORE data item")
		}
		d.SP()
		a.flags = d.FlagsArg()
		return a
	}
}

// store changes the flags of the messages that are still there, in one edit of
// the mailbox, and answers with what became of them.
func (s *Session) store(b *Box, a StoreArgs) error {
	if err := b.writable(); err != nil {
		return err
	}
	flags, err := flagSet(a.flags)
	if err != nil {
		return err
	}
	if a.only != nil {
		if err := s.wantModSeqs(); err != nil {
			return err
		}
		s.sync() // what another program has changed just now counts
	}
	messages, err := b.find(a.set)
	if err != nil {
		return err
	}
	var at []int
	var uids []maildir.UID
	var failed error
	for i, m := range messages {
		if m.Ghost() {
			failed = errExpunged
			continue
		}
		at, uids = append(at, i), append(uids, m.UID)
	}
	if len(uids) == 0 {
		return failed
	}
	done, err := s.setFlags(b, &a, uids, flags)
	if err != nil {
		return err // the report tells what has changed nevertheless
	}
	if done.ModSeq != 0 {
		s.marks |= markFiles
	}
	if err := s.answerStore(b, &a, flags, at, done.Modified); err != nil {
		return err
	}
	if len(done.Gone) > 0 && !a.set.UID {
		failed = errExpunged
	}
	if len(done.Modified) > 0 {
		return s.notStored(b, &a, done.Modified, failed)
	}
	return failed
}

func (s *Session) setFlags(b *Box, a *StoreArgs, uids []maildir.UID, flags maildir.FlagSet) (maildir.Changed, error) {
	if a.only == nil {
		return b.mailbox.SetFlags(s.ctx, uids, a.op, flags)
	}
	a.only.Known = b.view
	return b.mailbox.SetFlagsUnchanged(s.ctx, uids, *a.only, a.op, flags)
}

// A storeAnswer is a FETCH response that STORE owes for a message.
type storeAnswer struct {
	index  int
	modSeq maildir.ModSeq
	flags  bool // else the modseq only
}

// answerStore sends the flags of the messages with the indexes at, of which those
// with the UIDs modified have failed. With .SILENT it sends those that are not what
// the client must think they are, because somebody else has changed them too, and
// only the modseq where that is news.
func (s *Session) answerStore(b *Box, a *StoreArgs, flags maildir.FlagSet, at []int, modified []maildir.UID) error {
	now := b.mailbox.Snapshot()
	marks := now.Marks(flags)
	var answers []storeAnswer
	for _, i := range at {
		old := b.view.At(i)
		j, ok := now.Find(old.UID)
		if !ok {
			continue
		}
		m := now.At(j)
		_, failed := slices.BinarySearch(modified, m.UID)
		switch {
		case !a.silent:
			answers = append(answers, storeAnswer{i, m.ModSeq, true})
		case failed && m.ModSeq == old.ModSeq: // the report will not say why
			answers = append(answers, storeAnswer{i, m.ModSeq, true})
		case failed || !m.Marks().Equal(a.op.Apply(old.Marks(), marks)):
			continue // the report tells it
		case s.showsModSeqs() && (a.only != nil || m.ModSeq != old.ModSeq): // RFC 7162 sections 3.1.3 and 3.2.4
			answers = append(answers, storeAnswer{i, m.ModSeq, false})
		}
		b.tell(m.UID, m.ModSeq)
	}
	if err := s.report(true); err != nil {
		return err
	}
	return s.sendAnswers(b, a, answers)
}

// sendAnswers sends what STORE owes, but for what the report has just told.
func (s *Session) sendAnswers(b *Box, a *StoreArgs, answers []storeAnswer) error {
	for _, r := range answers {
		m := b.view.At(r.index)
		switch {
		case m.Ghost() || a.silent && m.ModSeq != r.modSeq:
			continue
		case r.flags:
			s.reportFlags(r.index, m)
		default:
			s.reportModSeq(r.index, m)
		}
		if err := s.spill(); err != nil {
			return err
		}
	}
	return nil
}

// notStored says which messages were not changed, because others have been there
// before (RFC 7162 section 3.1.3): with NO where the command has failed for others.
func (s *Session) notStored(b *Box, a *StoreArgs, modified []maildir.UID, failed error) error {
	var set wire.NumSet
	for _, uid := range modified {
		if i, ok := b.view.Find(uid); ok && !a.set.UID {
			set.Add(uint32(i) + 1)
		} else if a.set.UID {
			set.Add(uint32(uid))
		}
	}
	code := "MODIFIED " + set.String()
	if failed != nil {
		return no(code, failed.Error())
	}
	s.ok(code, "Some of the messages have been changed by others")
	return nil
}
