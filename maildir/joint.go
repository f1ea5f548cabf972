package maildir

import (
	"context"
	"errors"
	"slices"
	"sync"

	"imapd/maildir/quota"
)

// Two syncs make an APPEND durable that has its data on disk already: of the
// directory and of the UID list. Clients that wait for the lock meanwhile are
// served together by the one that gets it: one hold of the lock and two syncs for
// all. Nobody waits for others to come.
//
// Each message is one APPEND of its own: one that fails takes no other with it.
// APPENDs of several messages are all or nothing and stay alone.

// mostJoint bounds how many APPENDs are made at once.
const mostJoint = 100

// A joint is the APPENDs that wait for the lock of one mailbox.
type joint struct {
	mu    sync.Mutex // innermost, held briefly
	queue []*incoming
	led   bool // one of those who wait, or have been served, goes for the lock
}

// An incoming is an APPEND of one message.
type incoming struct {
	msg      Appending
	validity uint32
	uid      UID
	err      error
	done     chan struct{} // closed when the rest says what became of it
	lead     chan struct{} // closed when it must go for the lock itself
}

// appendOne adds one message, whose data is on disk.
func (m *Mailbox) appendOne(ctx context.Context, msg Appending) (uint32, UID, error) {
	a := &incoming{msg: msg, done: make(chan struct{}), lead: make(chan struct{})}
	j := &m.joint
	j.mu.Lock()
	j.queue = append(j.queue, a)
	if !j.led {
		j.led = true
		close(a.lead)
	}
	j.mu.Unlock()
	select {
	case <-a.done:
	case <-a.lead:
		m.leadAppends(ctx, a)
	}
	return a.validity, a.uid, a.err
}

// errCutShort says that whoever made an APPEND for others too did not come to its end.
var errCutShort = errors.New("APPEND was cut short")

// leadAppends gets the lock for a and all who wait, and then has the next one who
// came too late lead. Where a does not get it, others may be luckier.
func (m *Mailbox) leadAppends(ctx context.Context, a *incoming) {
	j := &m.joint
	defer func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.led = len(j.queue) > 0; j.led {
			close(j.queue[0].lead)
		}
	}()
	err := m.edit(ctx, func() error {
		j.mu.Lock()
		n := min(len(j.queue), mostJoint)
		all := slices.Clone(j.queue[:n])
		j.queue = slices.Delete(j.queue, 0, n)
		j.mu.Unlock()
		whole := false
		defer func() { // also where a bug ends this session: the others must not wait for ever
			for _, b := range all {
				if !whole {
					b.err = errCutShort
				}
				close(b.done)
			}
		}()
		m.admitAll(all)
		whole = true
		return nil
	})
	j.mu.Lock()
	if i := slices.Index(j.queue, a); i >= 0 {
		j.queue = slices.Delete(j.queue, i, i+1)
		a.err = err
	}
	j.mu.Unlock()
}

// admitAll adds the messages of all, together if it can be, and says of each what
// became of it. The lock and m.mu are held.
func (m *Mailbox) admitAll(all []*incoming) {
	err := m.relist()
	if err == nil {
		err = m.readKeywords()
	}
	var add []newcomer
	var of []*incoming
	for _, a := range all {
		if a.err = err; err != nil {
			continue
		}
		n, err := m.arriving(&a.msg)
		if a.err = err; err == nil {
			add, of = append(add, n), append(of, a)
		}
	}
	for i := range add {
		add[i].failed = &of[i].err
	}
	validity, uids, err := m.admit(add, func() {})
	for i, a := range of {
		switch {
		case err != nil:
			a.err = err
		case a.err == nil:
			a.validity, a.uid = validity, uids[i]
		}
	}
}

// arriving returns the message as admit takes it. The lock is held, and the
// keywords have been read under it.
func (m *Mailbox) arriving(a *Appending) (newcomer, error) {
	marks, err := m.keys.marks(m.control, a.Flags, true)
	if err != nil {
		return newcomer{}, err
	}
	d := a.Delivery
	base := withSizes(m.host.freshBase(m), d.size, d.virtual)
	return newcomer{base: base, marks: marks, put: func(name string) error {
		return m.tmp.RenameNoReplace(d.tmp, m.cur, name)
	}, from: m.tmp, name: d.tmp}, nil
}

// arrived says that msgs are in the mailbox.
func (m *Mailbox) arrived(msgs []Appending) {
	for _, a := range msgs {
		a.tmp = ""
	}
	trash := m.store.isTrash(m.dir.Path())
	m.store.chargeBy(func(rule quota.Rule) (sum quota.Usage) {
		for _, a := range msgs {
			if rule.Counts(trash, a.Flags.System&Deleted != 0) {
				sum = sum.Add(quota.Usage{Octets: a.size, Messages: 1})
			}
		}
		return sum
	})
}
