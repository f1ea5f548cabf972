package maildir

import (
	"context"
	"slices"
)

// A Condition is what a conditional STORE asks of each message before it changes
// it. See RFC 7162 section 3.1.3.
type Condition struct {
	Since ModSeq // the message must not have changed after this
	// Known is what the client has been told. Where it had the message as of
	// Since, adding and removing flags look at these flags only: RFC 7162 section
	// 3.1.12. It may be nil.
	Known *Snapshot
}

// SetFlagsUnchanged is SetFlags for those messages that meet the condition; the
// others are Changed.Modified. Each is decided with the lock held, in the moment
// before its file is renamed, and again if another program was faster.
func (m *Mailbox) SetFlagsUnchanged(ctx context.Context, uids []UID, c Condition, op FlagOp, set FlagSet) (Changed, error) {
	done, err := m.changeFlags(ctx, uids, &c, op, set)
	slices.Sort(done.Modified)
	return done, err
}

// holds reports whether op with flags may be done to msg. Without a condition
// everything may.
func (c *Condition) holds(msg Message, op FlagOp, flags Marks) bool {
	if c == nil || msg.ModSeq <= c.Since {
		return true
	}
	if c.Known == nil || op == ReplaceFlags {
		return false
	}
	known, ok := c.Known.lookup(msg.UID)
	return ok && known.ModSeq <= c.Since && known.Marks().agree(msg.Marks(), flags)
}
