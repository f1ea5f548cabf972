package imap

import (
	"strconv"

	"imapd/imap/wire"
	"imapd/maildir"
)

// CONDSTORE lets a client ask what has changed since it was here last, and
// change flags only where nobody else has. See RFC 7162 section 3.1.
//
// Whatever has to do with modification sequences makes the client one that is
// told of them from then on: Session.enable. The HIGHESTMODSEQ that a client may
// keep is always that of its view, and below the modseq of every ghost in it.
var _ = register(Extension{
	Name:     "CONDSTORE",
	RFC:      7162,
	Caps:     when(loggedIn, "CONDSTORE"),
	Fetch:    []FetchItem{{"MODSEQ", plainItem(FetchPart{ModSeq: true, Write: writeModSeq})}},
	FetchMod: []FetchModifier{{"CHANGEDSINCE", parseChangedSince}},
	StoreMod: []StoreModifier{{"UNCHANGEDSINCE", parseUnchangedSince}},
	Search:   []SearchKey{{"MODSEQ", parseModSeqKey}},
	Status:   []StatusItem{{Name: "HIGHESTMODSEQ", Enable: PropCondstore, Append: appendHighest}},
	Select: []SelectParam{{"CONDSTORE", func(_ *wire.Decoder, a *SelectArgs) {
		a.Enable |= PropCondstore
	}}},
	Enable: []EnableWord{{Name: "CONDSTORE", Props: PropCondstore}},
})

// modSeq parses a space and a modseq. 0 is accepted everywhere: iOS sends
// CHANGEDSINCE 0.
func modSeq(d *wire.Decoder) maildir.ModSeq {
	d.SP()
	return maildir.ModSeq(d.Number64())
}

func parseChangedSince(d *wire.Decoder, a *FetchArgs) {
	a.set.Since = modSeq(d)
	a.since = true
	a.item(d, "MODSEQ") // RFC 7162 section 3.1.4.1
}

func parseUnchangedSince(d *wire.Decoder, a *StoreArgs) {
	if a.only != nil {
		d.FailText("", "UNCHANGEDSINCE is there twice")
	}
	a.only = &maildir.Condition{Since: modSeq(d)}
}

// parseModSeqKey reads the modseq, and an entry name and type before it, which
// do not matter: a message has one modseq for all its flags (RFC 7162 section
// 3.1.5).
func parseModSeqKey(p *SearchParser) SearchTest {
	p.modSeq = true
	p.SP()
	if c := p.Peek(); c == '"' || c == '{' {
		_ = p.String()
		p.SP()
		switch p.Keyword() {
		case "PRIV", "SHARED", "ALL":
		default:
			p.FailText("", "Unknown entry type")
		}
		p.SP()
	}
	from := maildir.ModSeq(p.Number64())
	return SearchTest{Match: func(x *Searching) (bool, error) { return x.Msg.ModSeq >= from, nil }}
}

// appendHighest is the item HIGHESTMODSEQ of STATUS. Of the selected mailbox it
// does not say more than the client may believe to have.
func appendHighest(b []byte, st Status) ([]byte, error) {
	n := st.Now.ModSeq
	switch box := st.box; {
	case !st.Mailbox.ModSeqs():
		n = 0
	case box != nil && box.mailbox == st.Mailbox && box.owed > 0:
		n = box.owed - 1
	}
	return wire.AppendNumber(b, n), nil
}

// wantModSeqs makes ready for a command of the selected mailbox that needs
// modseqs.
func (s *Session) wantModSeqs() error {
	s.enable(PropCondstore)
	if !s.box.modSeqs {
		return bad("Mailbox has no modification sequences") // RFC 7162 section 3.1.2.2
	}
	return nil
}

// showsModSeqs reports whether FETCH responses that nobody asked for carry the
// modseq.
func (s *Session) showsModSeqs() bool {
	return s.props.Has(PropCondstore) && s.box.modSeqs && !s.box.mailbox.Forgetful()
}

// checkModSeqs tells a client that has been told of modseqs when there are none any
// more, before it is told what they would be needed for.
func (s *Session) checkModSeqs() {
	b := s.box
	if !b.modSeqs || !b.mailbox.Forgetful() {
		return
	}
	b.modSeqs = false
	if s.props.Has(PropCondstore) {
		s.sendHighest()
	}
}

// writeModSeq is the item MODSEQ of FETCH.
func writeModSeq(f *Fetching) error {
	f.appendModSeq(f.Msg)
	return nil
}

// writeNewModSeq is MODSEQ if this command has changed flags: the response is
// then one of those that have it unasked (RFC 7162 section 3.2.4).
func writeNewModSeq(f *Fetching) error {
	if f.newSeen && f.showsModSeqs() {
		f.appendModSeq(f.Msg)
	}
	return nil
}

// writeNewUID is the UID where writeNewModSeq is the modseq.
func writeNewUID(f *Fetching) error {
	if f.newSeen && f.props.Has(PropCondstore) {
		return writeUID(f)
	}
	return nil
}

// appendModSeq appends the item MODSEQ of m.
func (s *Session) appendModSeq(m maildir.Message) {
	s.marks |= markModSeq
	s.out = append(s.out, "MODSEQ ("...)
	s.out = strconv.AppendUint(s.out, uint64(m.ModSeq), 10)
	s.out = append(s.out, ')')
}

// owe keeps owed, the lowest modseq at which a ghost of the view was expunged,
// when the view has followed old.
func (b *Box) owe(old *maildir.Snapshot) {
	switch {
	case b.view.Ghosts() == 0:
		b.owed = 0
	case b.owed == 0:
		b.owed = b.firstGhost(old.ModSeq)
	}
}

// firstGhost returns the modseq at which the first ghost was expunged, which was
// after since. What is not known is taken to have been at once.
func (b *Box) firstGhost(since maildir.ModSeq) maildir.ModSeq {
	gone, complete := b.mailbox.Expunged(since)
	if !complete {
		return since + 1
	}
	for _, e := range gone {
		i, _ := b.view.Find(e.First)
		if i < b.view.Len() && b.view.At(i).UID <= e.Last && b.view.At(i).Ghost() {
			return e.ModSeq
		}
	}
	return since + 1
}

// highest returns the modseq up to which the client has been told everything.
func (b *Box) highest() maildir.ModSeq {
	if b.owed > 0 {
		return b.owed - 1
	}
	return b.view.ModSeq
}

// sendHighest sends HIGHESTMODSEQ, or that there is none.
func (s *Session) sendHighest() {
	if !s.box.modSeqs {
		s.untagged("OK [NOMODSEQ] No permanent modification sequences here")
		return
	}
	s.number("HIGHESTMODSEQ", uint64(s.box.highest()), "Highest")
}

// closeHighest says with the tagged reply how far the client has come, where it
// would not find that out itself or find too much: it has seen modseqs above
// those of expunges that it has not been told of (RFC 7162 section 3.2), or it
// has been told of expunges. A reply that has a code already, or is not OK, gets
// it before it.
func (s *Session) closeHighest(ok bool) {
	if s.box == nil || !s.showsModSeqs() {
		return
	}
	early := s.marks&markModSeq != 0 && s.box.owed > 0 && s.props.Has(PropQresync)
	if !early && s.marks&markExpunged == 0 {
		return
	}
	if !ok || s.done.code != "" {
		s.sendHighest()
		return
	}
	s.done.code = "HIGHESTMODSEQ " + strconv.FormatUint(uint64(s.box.highest()), 10)
}
