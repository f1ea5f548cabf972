package imap

import (
	"iter"

	"imapd/imap/wire"
	"imapd/maildir"
)

// A Box is the selected mailbox: what it is, and what the client knows of it.
// It belongs to the session's goroutine.
type Box struct {
	mailbox    *maildir.Mailbox
	view       *maildir.Snapshot // what the client has been told; only report replaces it
	readOnly   bool              // EXAMINE, or a mailbox that cannot be written
	recent     []uidRange        // messages that are \Recent in this session, ascending
	recentTold int               // as last told by RECENT
	keywords   []string          // as last told by FLAGS
	full       bool              // no room for keywords, as last told by PERMANENTFLAGS
	gone       bool              // the folder does not exist any more
	told       map[fact]struct{} // changes of flags that this client need not hear of
	saved      wire.NumSet       // "$", UIDs of the last SEARCH RETURN (SAVE) (RFC 9051 section 6.4.4.1)
	stop       func()            // ends the watch; nil until the first IDLE
	place      place             // where a FETCH in pieces has got to
	modSeqs    bool              // there are modseqs; else NOMODSEQ (RFC 7162 section 3.1.2.2)
	owed       maildir.ModSeq    // lowest at which a ghost of the view was expunged; 0: no ghosts
}

// uidRange is the UIDs from <= u < to.
type uidRange struct{ from, to maildir.UID }

// fact is one state of one message.
type fact struct {
	uid    maildir.UID
	modseq maildir.ModSeq
}

// access says how the session looks at its mailbox: EXAMINE never moves
// messages from new to cur.
func (b *Box) access() maildir.Access {
	if b.readOnly {
		return maildir.Look
	}
	return maildir.Serve
}

// writable returns the refusal for a command that changes an EXAMINEd mailbox.
func (b *Box) writable() error {
	if b.readOnly {
		return maildir.ErrReadOnly
	}
	return nil
}

// isRecent reports whether uid is \Recent in this session.
func (b *Box) isRecent(uid maildir.UID) bool {
	for i := len(b.recent) - 1; i >= 0; i-- {
		if r := b.recent[i]; r.from <= uid {
			return uid < r.to
		}
	}
	return false
}

// countRecent returns the number of messages in the view that are \Recent.
func (b *Box) countRecent() int {
	n := 0
	for _, r := range b.recent {
		from, _ := b.view.Find(r.from)
		to, _ := b.view.Find(r.to)
		n += to - from
	}
	return n
}

// tell notes that the client knows the flags that message uid has at modseq, so that
// the report does not repeat them: because it was sent them just now, or because it
// set them itself and asked for silence (STORE .SILENT).
func (b *Box) tell(uid maildir.UID, modseq maildir.ModSeq) {
	if b.told == nil {
		b.told = map[fact]struct{}{}
	}
	b.told[fact{uid, modseq}] = struct{}{}
}

// A Set is the set of messages that a command names: sequence numbers or, in
// its UID form, UIDs.
type Set struct {
	wire.NumSet
	UID   bool
	Since maildir.ModSeq // leave out what has not changed since
}

// seqSet parses a set of sequence numbers, uidSet one of UIDs.
func seqSet(d *wire.Decoder) Set { return Set{NumSet: d.NumSet()} }
func uidSet(d *wire.Decoder) Set { return Set{NumSet: d.NumSet(), UID: true} }

// spUIDSet parses a space and a set of UIDs, where that is all there is.
func spUIDSet(d *wire.Decoder) Set {
	d.SP()
	return uidSet(d)
}

// uids returns the UIDs that a UID set means now: "*" and "$" are replaced.
func (b *Box) uids(set Set) wire.NumSet {
	if set.Saved {
		return b.saved
	}
	return set.Resolve(lastUID(b.view))
}

// find returns the messages of the view that set names, ascending and each
// once, by index (sequence number - 1). A UID that does not exist is skipped silently; a sequence number that does
// not exist is BAD (RFC 9051 section 9, seq-number). "$" is the saved search
// result in both forms. Ghosts are among them for sequence numbers only: a UID form must not see them.
// The iterator walks the view as it is now; the cost is that of the messages
// found plus a binary search for each range.
func (b *Box) find(set Set) (iter.Seq2[int, maildir.Message], error) {
	view := b.view
	if set.UID || set.Saved {
		return uidMessages(view, b.uids(set), set.Since), nil
	}
	n := uint32(view.Len())
	if n == 0 {
		return nil, bad("Mailbox is empty") // not even "*" is a sequence number
	}
	ranges := set.Resolve(n)
	for _, r := range ranges.Ranges() {
		if r.Stop > n {
			return nil, bad("Invalid message sequence number")
		}
	}
	return func(yield func(int, maildir.Message) bool) {
		for _, r := range ranges.Ranges() {
			for i, m := range view.RangeSince(int(r.Start)-1, int(r.Stop), set.Since) {
				if !yield(i, m) {
					return
				}
			}
		}
	}, nil
}

// uidMessages returns the messages of view, without ghosts, whose UID is in set
// and that have changed since.
func uidMessages(view *maildir.Snapshot, set wire.NumSet, since maildir.ModSeq) iter.Seq2[int, maildir.Message] {
	return func(yield func(int, maildir.Message) bool) {
		for _, r := range set.Ranges() {
			lo, _ := view.Find(maildir.UID(r.Start))
			hi, there := view.Find(maildir.UID(r.Stop))
			if there {
				hi++
			}
			for i, m := range view.RangeSince(lo, hi, since) {
				if !m.Ghost() && !yield(i, m) {
					return
				}
			}
		}
	}
}

// lastUID returns the UID that "*" means in view: of the last message that is no
// ghost, 0 if there is none.
func lastUID(view *maildir.Snapshot) uint32 {
	for i := view.Len() - 1; i >= 0; i-- {
		if m := view.At(i); !m.Ghost() {
			return uint32(m.UID)
		}
	}
	return 0
}
