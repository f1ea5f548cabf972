package maildir

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"imapd/maildir/quota"
)

// expunging is one client's EXPUNGE.
type expunging struct {
	in    func(UID) bool // nil: all
	ahead bool           // what others did before is known by the events of what is removed
	gone  []UID
	err   error
}

// Expunge removes the messages that have \Deleted, of them only those for which
// in is true unless in is nil. It returns their UIDs, ascending. What others did
// before counts; a message that another program undeletes meanwhile stays.
func (m *Mailbox) Expunge(ctx context.Context, in func(UID) bool) ([]UID, error) {
	x := &expunging{in: in}
	// The events of what we remove come behind those of what others did before: these
	// need no fence of their own, if there is anything to remove.
	x.ahead = m.isTracked() && len(m.Snapshot().doomed(in)) > 0
	if !x.ahead {
		if err := m.Sync(ctx, Look); err != nil {
			return nil, err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, m.host.opt.LockWait)
	defer cancel()
	err := m.expunges.do(waiting, x, 1, func(fn func() error) error { return m.rename(ctx, fn) }, m.expungeAll)
	m.chargeFreed()
	return x.gone, errors.Join(m.kept(ctx, err), x.err)
}

// expungeAll removes what all want to go.
func (m *Mailbox) expungeAll(all []*expunging) {
	in := func(u UID) bool {
		return slices.ContainsFunc(all, func(x *expunging) bool { return x.in == nil || x.in(u) })
	}
	gone, err := m.expunge(in, slices.ContainsFunc(all, func(x *expunging) bool { return x.ahead }))
	for _, x := range all {
		x.err = err
		for _, u := range gone {
			if x.in == nil || x.in(u) {
				x.gone = append(x.gone, u)
			}
		}
	}
}

// expunge removes the messages with \Deleted for which in is true, and returns their
// UIDs, ascending. With ahead what others did before is not known yet.
func (m *Mailbox) expunge(in func(UID) bool, ahead bool) (gone []UID, err error) {
	for try := 0; ; try++ {
		done, left, err := m.unlink(m.Snapshot().doomed(in), true)
		gone = append(gone, done...)
		slices.Sort(gone)
		switch {
		case err != nil || try == tries:
			return gone, errors.Join(err, m.syncAfterEdit())
		case left > 0:
			err = m.refresh(try)
		case ahead && !(len(done) > 0 && m.nothingForeign(Look, 0)):
			m.resume()
			err = m.refresh(0)
		default:
			return gone, m.syncAfterEdit()
		}
		if err != nil {
			return gone, err
		}
		ahead = false
	}
}

// doomed returns the UIDs of the messages with \Deleted for which in, unless it is nil,
// is true, ascending.
func (s *Snapshot) doomed(in func(UID) bool) []UID {
	var uids []UID
	for u := range s.deleted() {
		if in == nil || in(u) {
			uids = append(uids, u)
		}
	}
	return uids
}

// deleted yields the UIDs of the messages with \Deleted, ascending.
func (s *Snapshot) deleted() func(yield func(UID) bool) {
	return func(yield func(UID) bool) {
		for _, d := range s.dirs {
			if d.sum.deleted == 0 {
				continue
			}
			for _, p := range d.pages {
				for i := range p.recs {
					if p.sum.deleted > 0 && Flags(p.recs[i].Flags)&Deleted != 0 && !yield(UID(p.recs[i].UID)) {
						return
					}
				}
			}
		}
	}
}

// unlink removes the files of uids (ascending) under the names that the snapshot
// has, and publishes that they are gone. It returns those that it removed, and
// how many had another name.
func (m *Mailbox) unlink(uids []UID, deleted bool) (done []UID, left int, err error) {
	if len(uids) == 0 {
		return nil, 0, nil
	}
	snap := m.Snapshot()
	rule, trash := m.store.quotaRule(), m.isTrash()
	var changes []change
	for _, u := range uids {
		msg, ok := snap.lookup(u)
		if !ok || deleted && (msg.Flags&Deleted == 0 || parseFlags(msg.name())&Deleted == 0 && len(msg.name()) > 0) {
			continue
		}
		var size quota.Usage
		if rule != quota.None {
			size = usageOf(rule, trash, m.dirOf(msg.place()), string(msg.name()))
		}
		err = m.dirOf(msg.place()).Unlink(string(msg.name()))
		if errors.Is(err, fs.ErrNotExist) {
			left, err = left+1, nil
			continue
		}
		if err != nil {
			break
		}
		m.own(unlinked, msg.place(), string(msg.name()))
		m.freed = m.freed.Add(size)
		done = append(done, u)
		changes = append(changes, change{uid: u, remove: true})
	}
	if len(changes) > 0 {
		_, rerr := m.record(snap, changes, nil, snap.Next)
		err = errors.Join(err, rerr)
	}
	return done, left, err
}
