package imap

import (
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
}

func parseStore(set func(*wire.Decoder) Set) func(*wire.Decoder) StoreArgs {
	return func(d *wire.Decoder) (a StoreArgs) {
		d.SP()
		a.set = set(d)
		d.SP()
		if d.Peek() == '(' {
			d.List(func() {
				if m := storeMods[d.Keyword()]; m != nil {
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
	done, err := b.mailbox.SetFlags(s.ctx, uids, a.op, flags)
	if err != nil {
		return err // the report tells what has changed nevertheless
	}
	if err := s.answerStore(b, &a, flags, at); err != nil {
		return err
	}
	if len(done.Gone) > 0 && !a.set.UID {
		return errExpunged
	}
	return failed
}

// answerStore sends the flags of the messages with the indexes at. With .SILENT it
// sends those that are not what the client must think they are, because somebody
// else has changed them too.
func (s *Session) answerStore(b *Box, a *StoreArgs, flags maildir.FlagSet, at []int) error {
	now := b.mailbox.Snapshot()
	bits := flags.System
	for _, k := range flags.Keywords {
		bit, _ := now.KeywordFlag(k)
		bits |= bit
	}
	for _, i := range at {
		old := b.view.At(i)
		if j, ok := now.Find(old.UID); ok {
			m := now.At(j)
			if !a.silent || m.Flags == a.op.Apply(old.Flags, bits) {
				b.tell(m.UID, m.ModSeq)
			}
		}
	}
	if err := s.report(true); err != nil || a.silent {
		return err
	}
	for _, i := range at {
		if m := b.view.At(i); !m.Ghost() {
			s.reportFlags(i, m)
			if err := s.spill(); err != nil {
				return err
			}
		}
	}
	return nil
}
