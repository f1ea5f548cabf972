package imap

import (
	"iter"

	"imapd/imap/wire"
	"imapd/maildir"
)

// QRESYNC brings a client that has been away up to date with the SELECT itself:
// it is told which of its messages have gone and which flags have changed. See
// RFC 7162 section 3.2.
//
// A client deletes what it is told has vanished. So a UID is named only if no
// message of the view has it, whatever the history of expunges says; and where
// that does not reach back far enough, every UID that the client may know and
// that is not there is named.
var _ = register(Extension{
	Name:     "QRESYNC",
	RFC:      7162,
	Caps:     when(loggedIn, "QRESYNC"),
	FetchMod: []FetchModifier{{"VANISHED", func(_ *wire.Decoder, a *FetchArgs) { a.vanished = true }}},
	Select:   []SelectParam{{"QRESYNC", parseResync}},
	Enable:   []EnableWord{{Name: "QRESYNC", Props: PropCondstore | PropQresync}},
})

// resync is the QRESYNC parameter of SELECT: what the client knows.
type resync struct {
	validity uint32
	since    maildir.ModSeq
	named    bool        // known was sent
	known    wire.NumSet // UIDs that the client has
	// Numbers of messages and the UIDs that they have for the client.
	numbers, uids wire.NumSet
}

func parseResync(d *wire.Decoder, a *SelectArgs) {
	q := &resync{}
	d.SP()
	d.Expect('(')
	q.validity = d.NZNumber()
	q.since = modSeq(d)
	more := d.AcceptSP()
	if more && d.Peek() != '(' {
		q.named, q.known = true, plainSet(d)
		more = d.AcceptSP()
	}
	if more {
		d.Expect('(')
		q.numbers = plainSet(d)
		d.SP()
		q.uids = plainSet(d)
		d.Expect(')')
		if q.numbers.Len() != q.uids.Len() {
			d.FailText("", "As many UIDs as message numbers are needed")
		}
	}
	d.Expect(')')
	a.resync = q
}

// plainSet parses a set of numbers without "*" and "$".
func plainSet(d *wire.Decoder) wire.NumSet {
	set := d.NumSet()
	if set.Saved || set.HasStar() {
		d.FailText("", "Only numbers can be in this set")
		return wire.NumSet{}
	}
	return set
}

// allowed refuses the parameter to a client that has not enabled QRESYNC.
func (q *resync) allowed(s *Session) error {
	if q != nil && !s.props.Has(PropQresync) {
		return bad("QRESYNC has not been enabled")
	}
	return nil
}

// resync tells the client of the mailbox that it has just selected what has
// become of the messages that it knows, as UID FETCH would (RFC 7162 section
// 3.2.5.1).
func (s *Session) resync(b *Box, q *resync) error {
	if q == nil || !b.modSeqs || q.validity != b.view.Validity {
		return nil
	}
	since := q.since
	if since > b.view.ModSeq {
		since = 0 // it has seen another history of this mailbox
	}
	known := q.known
	if !q.named {
		known = wire.NewNumSet(wire.NumRange{Start: 1, Stop: wire.Star})
	}
	if err := s.sendVanished(" (EARLIER)", b.vanished(known, since, q.agreed(b.view))); err != nil {
		return err
	}
	changed, err := b.find(Set{NumSet: known, UID: true, Since: since})
	if err != nil {
		return err
	}
	for i, m := range changed {
		s.reportFlags(i, m)
		if err := s.spill(); err != nil {
			return err
		}
	}
	return nil
}

// agreed returns the highest UID up to which the client has just the messages
// that view has: number and UID of one message are as the client says, so no
// message below it is missing (RFC 7162 section 3.2.5.2).
func (q *resync) agreed(view *maildir.Snapshot) (uid uint32) {
	next, stop := iter.Pull(q.uids.All())
	defer stop()
	for n := range q.numbers.All() {
		u, _ := next()
		if int64(n) > int64(view.Len()) || uint32(view.At(int(n)-1).UID) != u {
			break
		}
		uid = u
	}
	return uid
}

// vanished returns those UIDs of known that were expunged after since. Where that
// is not remembered it returns all above agreed that are not there.
func (b *Box) vanished(known wire.NumSet, since maildir.ModSeq, agreed uint32) wire.NumSet {
	last := uint32(b.view.Next) - 1 // no UID above it has ever been told
	if known.Saved {
		known = b.saved
	}
	known = known.Resolve(last)
	runs, complete := b.mailbox.Expunged(since)
	var past []wire.NumRange
	if complete {
		for _, e := range runs {
			past = append(past, wire.NumRange{Start: uint32(e.First), Stop: uint32(e.Last)})
		}
	} else if agreed < last {
		past = []wire.NumRange{{Start: agreed + 1, Stop: last}}
	}
	return b.absent(known.Intersect(wire.NewNumSet(past...)), last)
}

// absent returns the UIDs of set up to last that no message of the view has. A
// ghost is there: it is told of as any other that goes.
func (b *Box) absent(set wire.NumSet, last uint32) (out wire.NumSet) {
	for _, r := range set.Ranges() {
		from, stop := r.Start, min(r.Stop, last)
		lo, _ := b.view.Find(maildir.UID(from))
		for _, m := range b.view.Range(lo, b.view.Len()) {
			if uint32(m.UID) > stop {
				break
			}
			if from < uint32(m.UID) {
				out.AddRange(from, uint32(m.UID)-1)
			}
			from = uint32(m.UID) + 1
		}
		if from <= stop {
			out.AddRange(from, stop)
		}
	}
	return out
}

// fetchVanished is the modifier VANISHED of UID FETCH (RFC 7162 section 3.2.6).
func (s *Session) fetchVanished(b *Box, a *FetchArgs) error {
	switch {
	case !a.set.UID:
		return bad("VANISHED is for UID FETCH")
	case !a.since:
		return bad("VANISHED needs CHANGEDSINCE")
	case !s.props.Has(PropQresync):
		return bad("QRESYNC has not been enabled")
	}
	return s.sendVanished(" (EARLIER)", b.vanished(a.set.NumSet, a.set.Since, 0))
}
