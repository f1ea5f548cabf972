package imap

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"imapd/control"
	"imapd/imap/wire"
	"imapd/maildir"
)

// FETCH returns data of messages. See RFC 9051 section 6.4.5, and RFC 3501
// section 6.4.5 for the RFC822 items.
var _ = register(Extension{
	Name: "FETCH",
	RFC:  9051,
	Commands: []Command{
		selected("FETCH", parseFetch(seqSet), (*Session).fetch).with(UsesSeq),
		selected("UID FETCH", parseFetch(uidSet), (*Session).fetch),
	},
	Fetch: []FetchItem{
		{"UID", plainItem(FetchPart{Write: writeUID})},
		{"FLAGS", plainItem(FetchPart{Write: writeFlags})},
		{"INTERNALDATE", plainItem(FetchPart{Cost: CostStat, Write: writeDate})},
		{"RFC822.SIZE", plainItem(FetchPart{Cost: CostStat, Write: writeSize})},
		{"ENVELOPE", plainItem(FetchPart{Cost: CostHeader, Write: writeEnvelope})},
		{"BODYSTRUCTURE", plainItem(FetchPart{Cost: CostFile, Tree: true, Write: writeBodyStructure})},
		{"BODY", parseBody},
		{"BODY.PEEK", parseBodyPeek},
		{"RFC822", plainItem(rfc822("RFC822", wholeMessage, true))},
		{"RFC822.HEADER", plainItem(rfc822("RFC822.HEADER", headerOfMessage, false))},
		{"RFC822.TEXT", plainItem(rfc822("RFC822.TEXT", textOfMessage, true))},
	},
})

// fetchMacros stand for several items, and only alone.
var fetchMacros = map[string][]string{
	"ALL":  {"FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"},
	"FAST": {"FLAGS", "INTERNALDATE", "RFC822.SIZE"},
	"FULL": {"FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"},
}

// FetchArgs are the arguments of a FETCH.
type FetchArgs struct {
	set   Set
	parts []FetchPart
	named map[string]struct{} // keys of parts; names of those without arguments
	uid   bool                // the first of parts is UID
	cost  Cost                // highest of parts
	seen  bool                // one of parts sets \Seen
	tree  bool                // one of parts needs the tree

	modSeq   bool // one of parts needs modseqs
	since    bool // CHANGEDSINCE: set.Since is set
	vanished bool // VANISHED
}

func parseFetch(set func(*wire.Decoder) Set) func(*wire.Decoder) FetchArgs {
	return func(d *wire.Decoder) (a FetchArgs) {
		d.SP()
		a.set = set(d)
		d.SP()
		a.items(d)
		if d.AcceptSP() && d.Peek() == '(' {
			d.List(func() {
				if m := fetchMods.find(d.Keyword()); m != nil {
					m.Parse(d, &a)
				} else {
					d.FailText("", "Unknown FETCH modifier")
				}
			})
		}
		if d.Err() == nil {
			a.implied()
		}
		return a
	}
}

// items parses the data items.
func (a *FetchArgs) items(d *wire.Decoder) {
	if d.Peek() == '(' {
		d.List(func() { a.item(d, d.Keyword()) })
		if len(a.parts) == 0 {
			d.FailText("", "No data items")
		}
		return
	}
	word := d.Keyword()
	names := fetchMacros[word]
	if names == nil || !itemEnds(d) {
		names = []string{word}
	}
	for _, name := range names {
		a.item(d, name)
	}
}

// item parses the data item called name. One that is named twice is sent once, as
// Dovecot does it with those without arguments.
func (a *FetchArgs) item(d *wire.Decoder, name string) {
	row := fetchItems.find(name)
	if row == nil {
		d.FailText("", "Unknown FETCH data item")
		return
	}
	p := row.Parse(d)
	if d.Err() != nil {
		return
	}
	a.cost = max(a.cost, p.Cost)
	a.seen = a.seen || p.Seen
	a.tree = a.tree || p.Tree
	a.modSeq = a.modSeq || p.ModSeq
	if p.Key == "" {
		p.Key = name
	}
	if a.has(p.Key) {
		return
	}
	if a.named == nil {
		a.named = map[string]struct{}{}
	}
	a.named[p.Key] = struct{}{}
	if name == "UID" { // first, where some clients want it
		a.uid = true
		a.parts = slices.Insert(a.parts, 0, p)
	} else {
		a.parts = append(a.parts, p)
	}
}

// has reports whether the item with that key was named.
func (a *FetchArgs) has(key string) bool {
	_, has := a.named[key]
	return has
}

// itemEnds reports whether nothing follows the name of an item.
func itemEnds(d *wire.Decoder) bool {
	c := d.Peek()
	return c == ' ' || c == ')' || c == '\r' || c == '\n'
}

// implied adds the UID to the answers of UID FETCH (RFC 9051 section 6.4.9), and
// to what sets \Seen the FLAGS, where they change, with all that goes with them.
func (a *FetchArgs) implied() {
	var first []FetchPart
	i := 0
	switch {
	case a.uid:
		i = 1
	case a.set.UID:
		a.uid = true
		first = append(first, FetchPart{Write: writeUID})
	}
	if a.seen {
		if !a.uid {
			first = append(first, FetchPart{Write: writeNewUID})
		}
		if !a.has("FLAGS") {
			first = append(first, FetchPart{Write: writeNewFlags})
		}
		if !a.modSeq {
			first = append(first, FetchPart{Write: writeNewModSeq})
		}
	}
	a.parts = slices.Insert(a.parts, i, first...)
}

// seenBatch is how many messages FETCH marks \Seen at a time: enough to make the
// lock cheap, few enough that of a download that breaks off not much more is
// marked than the client has got.
const seenBatch = 100

// fetch answers for the messages in order. What fails for one message, or for
// one of its items, does not keep the others from the client.
func (s *Session) fetch(b *Box, a FetchArgs) error {
	messages, err := b.find(a.set)
	if err != nil {
		return err
	}
	if a.modSeq {
		if err := s.wantModSeqs(); err != nil {
			return err
		}
	}
	if a.vanished {
		if err := s.fetchVanished(b, &a); err != nil {
			return err
		}
	}
	f := Fetching{Session: s, Box: b, heeded: time.Now()}
	defer f.release()
	var failed error
	for batch := range batches(messages, seenBatch) {
		if a.seen && !b.readOnly {
			if err := s.see(b, batch); err != nil {
				return err
			}
		}
		for _, e := range batch {
			f.Msg, f.Seq, f.newSeen = e.msg, e.index+1, e.newSeen
			err := f.respond(&a)
			f.closeFile()
			switch {
			case err == nil:
			case s.werr != nil || s.ctx.Err() != nil || ends(err) || errors.Is(err, errSpent):
				return err
			case failed == nil:
				failed = err
			}
			if err := s.spill(); err != nil {
				return err
			}
			if err := s.expelled(); err != nil {
				return err
			}
			if err := f.heed(true); err != nil {
				return err
			}
		}
	}
	return failed
}

// errSpent refuses a FETCH that asks too much of a message.
var errSpent = no("LIMIT", "Too much is asked of one message")

// numbered is a message with its place in the view.
type numbered struct {
	index   int // sequence number - 1
	msg     maildir.Message
	newSeen bool
}

// batches cuts messages into slices of up to n, each good until the next.
func batches(messages iter.Seq2[int, maildir.Message], n int) iter.Seq[[]numbered] {
	return func(yield func([]numbered) bool) {
		var batch []numbered
		for i, m := range messages {
			batch = append(batch, numbered{index: i, msg: m})
			if len(batch) == n {
				if !yield(batch) {
					return
				}
				batch = batch[:0]
			}
		}
		if len(batch) > 0 {
			yield(batch)
		}
	}
}

// see sets \Seen on the messages of batch before they are sent, so that the
// flags in the answer are true. If they cannot be set, as on a full disk, the
// client gets the messages all the same.
func (s *Session) see(b *Box, batch []numbered) error {
	var uids []maildir.UID
	for _, e := range batch {
		if e.msg.Flags&maildir.Seen == 0 && !e.msg.Ghost() {
			uids = append(uids, e.msg.UID)
		}
	}
	if len(uids) == 0 {
		return nil
	}
	_, err := b.mailbox.SetFlags(s.ctx, uids, maildir.AddFlags, maildir.FlagSet{System: maildir.Seen})
	if err != nil {
		if s.ctx.Err() != nil {
			return err
		}
		s.log.Warn("cannot mark messages as seen", "user", control.Name(s.userName()), "mailbox", control.Name(s.boxName()), "error", err)
	}
	now := b.mailbox.Snapshot()
	for _, uid := range uids {
		if i, ok := now.Find(uid); ok && now.At(i).Flags&maildir.Seen != 0 {
			b.tell(uid, now.At(i).ModSeq)
		}
	}
	if err := s.report(true); err != nil {
		return err
	}
	for i := range batch {
		e := &batch[i]
		was := e.msg.Flags
		e.msg = b.view.At(e.index)
		e.newSeen = e.msg.Flags&^was&maildir.Seen != 0
	}
	return nil
}

// respond appends the FETCH response of one message. Items that cannot be had
// are left out, and a response without items altogether; the error says why.
func (f *Fetching) respond(a *FetchArgs) error {
	ghost := f.Msg.Ghost()
	if ghost && a.set.UID {
		return nil // gone since the command began
	}
	s := f.Session
	start, sent := len(s.out), s.sent
	s.out = append(s.out, "* "...)
	s.out = wire.AppendNumber(s.out, f.Seq)
	s.out = append(s.out, " FETCH ("...)
	first := len(s.out)
	failed := f.prepare(a)
	for i := range a.parts {
		p := &a.parts[i]
		if p.Cost >= CostHeader && f.file == nil {
			continue
		}
		if f.spent() {
			failed = errSpent
			break
		}
		err := f.item(p, s.sent == sent && len(s.out) == first)
		if err != nil && ends(err) {
			if s.sent == sent {
				s.out = s.out[:start]
				return err
			}
			return fmt.Errorf("%w: %w", errSilent, err) // no BYE into the middle of a response
		}
		if failed == nil {
			failed = err
		}
	}
	gone := errors.Is(failed, maildir.ErrGone)
	if s.sent == sent && (len(s.out) == first || gone && a.set.UID) {
		s.out = s.out[:start]
	} else {
		s.out = append(s.out, ")\r\n"...)
	}
	if gone && a.set.UID {
		return nil // as if it had never been
	}
	return failed
}

// prepare makes ready for the items: it opens the file if one of them needs it.
func (f *Fetching) prepare(a *FetchArgs) error {
	f.wantTree, f.wantAll = a.tree, a.cost == CostFile
	if a.cost < CostHeader {
		return nil
	}
	if f.Msg.Ghost() {
		return maildir.ErrGone
	}
	return f.open(f)
}

// item appends one item and the space before it. What it appended before it
// failed is taken back, unless some of it has been sent: then the client waits for
// the rest of a literal that there is not, and the connection must end.
func (f *Fetching) item(p *FetchPart, first bool) error {
	s := f.Session
	start, sent := len(s.out), s.sent
	if !first {
		s.out = append(s.out, ' ')
	}
	begin := len(s.out)
	err := p.Write(f)
	if s.sent == sent {
		if err != nil || len(s.out) == begin {
			s.out = s.out[:start]
		}
		return err
	}
	if err != nil && s.werr == nil {
		if errors.Is(err, errCut) || errors.Is(err, errGone) {
			return err
		}
		s.log.Error("message cannot be sent to its end", "user", control.Name(s.userName()), "mailbox", control.Name(s.boxName()), "uid", f.Msg.UID, "error", err)
		err = fmt.Errorf("%w: %w", errSilent, err)
	}
	return err
}
