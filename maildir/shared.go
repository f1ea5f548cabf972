package maildir

import (
	"context"
	"errors"
	"sync"
)

// With maildir_fsync: always a STORE waits until the disk has its renames. It holds no
// lock for that: one sync, which begins after the renames of all who wait for it, is
// good for them all.

// A sharedSync is what is synced for several at once. The zero value is ready for use.
type sharedSync struct {
	mu      sync.Mutex // innermost, held briefly
	running *syncing
	next    *syncing // that which has not begun
}

// A syncing is one sync, and its outcome once done is closed.
type syncing struct {
	done chan struct{}
	err  error
}

// errNotSynced says that whoever would have synced for others too has given up.
var errNotSynced = errors.New("the sync was given up")

// do returns the outcome of a call of sync, by whomever, that begins after that of do.
// One that ends while ctx is done may be for nobody else.
func (s *sharedSync) do(ctx context.Context, sync func() error) error {
	for {
		s.mu.Lock()
		this, own := s.next, false
		if this == nil {
			this, own = &syncing{done: make(chan struct{}), err: errNotSynced}, true
			s.next = this
		}
		s.mu.Unlock()
		if own {
			return s.lead(ctx, this, sync)
		}
		select {
		case <-this.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if this.err != errNotSynced {
			return this.err
		}
	}
}

// lead calls sync for all who wait for this, once nobody else does.
func (s *sharedSync) lead(ctx context.Context, this *syncing, sync func() error) error {
	defer close(this.done)
	for !s.begin(this) {
		s.mu.Lock()
		before := s.running
		s.mu.Unlock()
		if before == nil {
			continue
		}
		select {
		case <-before.done:
		case <-ctx.Done():
			s.mu.Lock()
			s.next = nil
			s.mu.Unlock()
			return ctx.Err()
		}
	}
	defer func() {
		s.mu.Lock()
		s.running = nil
		s.mu.Unlock()
	}()
	err := sync()
	if err == nil || ctx.Err() == nil {
		this.err = err
	}
	return err
}

// begin makes this the one that runs, if there is none: who comes now waits for another.
func (s *sharedSync) begin(this *syncing) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return false
	}
	s.running, s.next = this, nil
	return true
}

// syncRenames makes renames durable where the site asked for it, with those of others.
// Nothing is held.
func (m *Mailbox) syncRenames(ctx context.Context) error {
	if m.host.opt.Fsync != FsyncAlways {
		return nil
	}
	return m.renames.do(ctx, func() error {
		if err := m.slot(ctx); err != nil {
			return err
		}
		defer m.leave()
		return m.syncAfterEdit()
	})
}
