package control

import (
	"sync"
	"time"
)

// An idler tells when a process that a launcher starts again at need has had no
// client for a while. A nil idler never does.
type idler struct {
	after time.Duration
	over  chan struct{} // has something in it when the time may have come

	mu      sync.Mutex
	clients int
	timer   *time.Timer
}

// newIdler returns an idler that counts from now on; nil where after is 0.
func newIdler(after time.Duration) *idler {
	if after <= 0 {
		return nil
	}
	i := &idler{after: after, over: make(chan struct{}, 1)}
	i.timer = time.AfterFunc(after, func() {
		select {
		case i.over <- struct{}{}:
		default:
		}
	})
	return i
}

// done is ready when it may be time to go: ask empty then, when no more clients
// can come in.
func (i *idler) done() <-chan struct{} {
	if i == nil {
		return nil
	}
	return i.over
}

func (i *idler) empty() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.clients == 0
}

// enter and leave count a client in and out.

func (i *idler) enter() {
	if i == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.clients++
	i.timer.Stop()
}

func (i *idler) leave() {
	if i == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.clients--; i.clients == 0 {
		i.timer.Reset(i.after)
	}
}

func (i *idler) stop() {
	if i != nil {
		i.timer.Stop()
	}
}
