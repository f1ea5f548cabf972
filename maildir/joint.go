package maildir

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"imapd/maildir/quota"
	"imapd/maildir/uidlist"
)

// What makes a change durable costs a disk several times what the change itself does:
// an APPEND whose data is there takes two syncs, of the directory and of the UID list.
// Clients that wait for the lock of one mailbox to add messages (APPEND, COPY, MOVE)
// are served together by the one that gets it: one hold of the lock, and the same two
// syncs for all. So are those that wait to expunge, with one. Nobody waits for others
// to come.
//
// Each command stays one of its own: one that fails takes no other with it, and what
// must be whole is.

// mostJoint bounds how many messages are added at once by more than one command.
const mostJoint = 100

// errCutShort says that whoever did it for others too did not come to its end.
var errCutShort = errors.New("the command was cut short")

// A joint is those who wait for the lock of one mailbox to do the same.
type joint[T any] struct {
	mu    sync.Mutex // innermost, held briefly
	queue []*turn[T]
	led   bool // one of those who wait, or have been served, goes for the lock
}

// A turn is one of those who wait.
type turn[T any] struct {
	of   *T
	size int           // messages
	err  error         // why of was not served
	done chan struct{} // closed when the rest says what became of it
	lead chan struct{} // closed when it must go for the lock itself
}

// do has of served, with others who wait: serve is called in an edit, for as many as
// come to mostJoint messages. of has size of them. The error is that of the edit, or of
// ctx, which bounds how long others may keep of waiting; what became of a request that was
// served is left to serve. Where one does not get the lock, others may be luckier.
func (j *joint[T]) do(ctx context.Context, of *T, size int, edit func(fn func() error) error, serve func(all []*T)) error {
	t := &turn[T]{of: of, size: size, done: make(chan struct{}), lead: make(chan struct{})}
	j.mu.Lock()
	j.queue = append(j.queue, t)
	if !j.led {
		j.led = true
		close(t.lead)
	}
	j.mu.Unlock()
	if err := j.await(ctx, t); err != nil {
		return err
	}
	select {
	case <-t.done: // of is being served
	case <-t.lead:
		j.goAhead(t, edit, serve)
	}
	return t.err
}

// await waits until t is done, leads or is about to be served, or for as long as ctx
// lets it: then t has left.
func (j *joint[T]) await(ctx context.Context, t *turn[T]) error {
	select {
	case <-t.lead:
		return nil // mostly
	default:
	}
	r := uidlist.Reminder{Ctx: ctx}
	for {
		due, stop := r.Due()
		select {
		case <-t.done:
		case <-t.lead:
		case <-ctx.Done():
			if j.leave(t) {
				stop()
				return ctx.Err()
			}
		case <-due:
			r.Look()
			continue
		}
		stop()
		return nil
	}
}

// leave takes t out of the queue. It reports false if it is being served, or leads.
func (j *joint[T]) leave(t *turn[T]) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	select {
	case <-t.lead:
		return false
	default:
	}
	i := slices.Index(j.queue, t)
	if i >= 0 {
		j.queue = slices.Delete(j.queue, i, i+1)
	}
	return i >= 0
}

// goAhead gets the lock for t and all who wait, and then has the next one who came too
// late lead.
func (j *joint[T]) goAhead(t *turn[T], edit func(fn func() error) error, serve func(all []*T)) {
	defer func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.led = len(j.queue) > 0; j.led {
			close(j.queue[0].lead)
		}
	}()
	err := edit(func() error {
		turns := j.take()
		whole := false
		defer func() { // also where a bug ends this session: the others must not wait for ever
			for _, b := range turns {
				if !whole {
					b.err = errCutShort
				}
				close(b.done)
			}
		}()
		all := make([]*T, len(turns))
		for i, b := range turns {
			all[i] = b.of
		}
		serve(all)
		whole = true
		return nil
	})
	j.mu.Lock()
	if i := slices.Index(j.queue, t); i >= 0 {
		j.queue = slices.Delete(j.queue, i, i+1)
		t.err = err
	}
	j.mu.Unlock()
}

// take returns those who are served now, at least one.
func (j *joint[T]) take() []*turn[T] {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, size := 1, j.queue[0].size
	for n < len(j.queue) && size+j.queue[n].size <= mostJoint {
		size += j.queue[n].size
		n++
	}
	turns := slices.Clone(j.queue[:n])
	j.queue = slices.Delete(j.queue, 0, n)
	return turns
}

// An adding is messages that one command adds to a mailbox: all of them or none.
type adding struct {
	// prepare returns them, when the mailbox is locked and what is there has been
	// read. It adds to taken, and keeps off, the base names that others will have who
	// come with them.
	prepare func(taken map[string]bool) ([]newcomer, error)
	placed  func() // called when all are placed, before anything is synced; may be nil
	copies  bool   // they have base names already, which may not be free

	add      []newcomer
	validity uint32
	uids     []UID // of add
	err      error
}

// arrive adds n messages to m, with those of others who wait.
func (m *Mailbox) arrive(ctx context.Context, n int, a *adding) error {
	waiting, cancel := context.WithTimeout(ctx, m.host.opt.LockWait)
	defer cancel()
	err := m.additions.do(waiting, a, n, func(fn func() error) error { return m.edit(ctx, fn) }, m.admitAll)
	return errors.Join(m.kept(ctx, err), a.err)
}

// kept returns err, of a joint: that others have kept us waiting for too long is ErrBusy.
func (m *Mailbox) kept(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", m.name, ErrBusy)
	}
	return err
}

// admitAll adds the messages of all, and says of each what became of it. The lock and
// m.mu are held.
func (m *Mailbox) admitAll(all []*adding) {
	err := m.readForAdding(slices.ContainsFunc(all, func(a *adding) bool { return a.copies }))
	taken := map[string]bool{}
	for _, a := range all {
		if a.err = err; err == nil {
			a.add, a.err = a.prepare(taken)
		}
	}
	all = slices.DeleteFunc(slices.Clone(all), func(a *adding) bool { return a.err != nil })
	if err := m.admit(all); err != nil {
		for _, a := range all {
			a.err = errors.Join(a.err, err)
		}
	}
}

// readForAdding reads what must be known before messages are added; with copies which
// base names are free as well.
func (m *Mailbox) readForAdding(copies bool) error {
	if err := m.inTree(); err != nil {
		return err
	}
	if !copies {
		return errors.Join(m.relist(), m.readKeywords())
	}
	// A look, not only the list: a base name that a file has is taken.
	if err := m.refresh(0); err != nil {
		return err
	}
	return errors.Join(m.list.load(m.control), m.readKeywords())
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
	trash := m.isTrash()
	m.store.chargeBy(func(rule quota.Rule) (sum quota.Usage) {
		for _, a := range msgs {
			if rule.Counts(trash, a.Flags.System&Deleted != 0) {
				sum = sum.Add(quota.Usage{Octets: a.size, Messages: 1})
			}
		}
		return sum
	})
}
