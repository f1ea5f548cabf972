package imap

import (
	"context"
	"errors"

	"imapd/imap/wire"
	"imapd/maildir"
)

// COPY adds messages to another mailbox. See RFC 9051 section 6.4.7; COPYUID is
// RFC 4315 section 3.
var _ = register(Extension{
	Name: "COPY",
	RFC:  9051,
	Commands: []Command{
		selected("COPY", parseCopy(seqSet), (*Session).copy).with(UsesSeq),
		selected("UID COPY", parseCopy(uidSet), (*Session).copy),
	},
})

// copyArgs are the arguments of COPY and MOVE.
type copyArgs struct {
	set  Set
	name string
}

func parseCopy(set func(*wire.Decoder) Set) func(*wire.Decoder) copyArgs {
	return func(d *wire.Decoder) (a copyArgs) {
		d.SP()
		a.set = set(d)
		d.SP()
		a.name = d.Mailbox()
		return a
	}
}

func (s *Session) copy(b *Box, a copyArgs) error {
	c, err := s.transfer(b, a, b.mailbox.Copy)
	if len(c.To) > 0 {
		s.ok(copyUID(c), "")
	}
	return err
}

// transfer has do copy or move the messages that a names.
func (s *Session) transfer(b *Box, a copyArgs, do func(context.Context, []maildir.UID, *maildir.Mailbox) (maildir.Copied, error)) (maildir.Copied, error) {
	to, err := s.target(s.user, a.name)
	if err != nil {
		return maildir.Copied{}, err
	}
	defer to.Release()
	uids, err := b.live(a.set)
	if err != nil || len(uids) == 0 {
		return maildir.Copied{}, err
	}
	c, err := do(s.ctx, uids, to)
	if errors.Is(err, maildir.ErrGone) {
		err = errExpunged
	}
	return c, err
}

// errExpunged refuses a command that names a message which is gone, and of which
// the client does not know that yet (RFC 5530).
var errExpunged = no("EXPUNGEISSUED", "Some of the messages no longer exist")

// live returns the UIDs of the messages in set, ascending. A message that is
// gone but still numbered makes the whole command fail.
func (b *Box) live(set Set) ([]maildir.UID, error) {
	messages, err := b.find(set)
	if err != nil {
		return nil, err
	}
	var uids []maildir.UID
	for _, m := range messages {
		if m.Ghost() {
			return nil, errExpunged
		}
		uids = append(uids, m.UID)
	}
	return uids, nil
}

// copyUID returns the response code that pairs the UIDs of c.
func copyUID(c maildir.Copied) string {
	b := append([]byte("COPYUID "), number(c.Validity)...)
	for _, uids := range [][]maildir.UID{c.From, c.To} {
		var set wire.NumSet
		for _, u := range uids {
			set.Add(uint32(u))
		}
		b = wire.AppendNumSet(append(b, ' '), set)
	}
	return string(b)
}
