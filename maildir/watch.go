package maildir

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Watching: fsnotify says when to look, a look says what there is, and a slow
// poll stands behind fsnotify where it cannot work. The host has one inotify
// instance, made at the first watch, and one goroutine that reads it. Each
// mailbox that is watched has one goroutine that looks.

// A hub hands the events of the file system to mailboxes.
type hub struct {
	host *Host

	mu      sync.Mutex
	watcher *fsnotify.Watcher   // nil until needed, or where there is none to have
	failed  bool                // no instance was left; polling must do
	boxes   map[string]*Mailbox // by the path of cur and new
	done    chan struct{}       // closed when the reader has ended
}

// add has m poked when its directories change. It reports whether the kernel
// will tell.
func (h *hub) add(m *Mailbox) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.host.opt.NoNotify || h.failed {
		return false
	}
	if h.watcher == nil {
		w, err := fsnotify.NewWatcher()
		if err != nil {
			h.failed = true
			h.host.opt.Log.Warn("no file system events, polling", "err", err)
			return false
		}
		h.watcher, h.boxes, h.done = w, map[string]*Mailbox{}, make(chan struct{})
		go h.read(w, h.done)
	}
	for _, p := range []string{m.cur.Path(), m.new.Path()} {
		p = filepath.Clean(p)
		if err := h.watcher.Add(p); err != nil {
			h.host.opt.Log.Warn("no file system events, polling", "mailbox", m.name, "err", err)
			h.removeLocked(m)
			return false
		}
		h.boxes[p] = m
	}
	return true
}

func (h *hub) remove(m *Mailbox) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removeLocked(m)
}

func (h *hub) removeLocked(m *Mailbox) {
	for _, p := range []string{m.cur.Path(), m.new.Path()} {
		p = filepath.Clean(p)
		if h.boxes[p] == m {
			delete(h.boxes, p)
			h.watcher.Remove(p) // fails if the directory is gone, and with it the watch
		}
	}
}

func (h *hub) close() error {
	h.mu.Lock()
	w, done := h.watcher, h.done
	h.watcher, h.failed = nil, true
	h.mu.Unlock()
	if w == nil {
		return nil
	}
	err := w.Close()
	<-done
	return err
}

// read belongs to the hub and ends when the watcher is closed.
func (h *hub) read(w *fsnotify.Watcher, done chan<- struct{}) {
	defer close(done)
	for {
		select {
		case e, ok := <-w.Events:
			if !ok {
				return
			}
			if e.Op&^(fsnotify.Chmod|fsnotify.Write) != 0 {
				h.poke(filepath.Dir(e.Name))
			}
		case err, ok := <-w.Errors:
			if !ok {
				return
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				h.pokeAll()
			}
		}
	}
}

func (h *hub) poke(dir string) {
	h.mu.Lock()
	m := h.boxes[dir]
	h.mu.Unlock()
	if m != nil {
		m.watch.poke()
	}
}

func (h *hub) pokeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.boxes {
		m.watch.poke()
	}
}

// watchers counts who wants a mailbox's snapshot kept fresh.
type watchers struct {
	mu      sync.Mutex
	n       int           // of all
	serving int           // of those that have it selected for writing
	dirty   chan struct{} // capacity 1, made with the mailbox
	stop    context.CancelFunc
	done    chan struct{}
}

func (w *watchers) poke() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

func (w *watchers) access() Access {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.serving > 0 {
		return Serve
	}
	return Look
}

// Watch keeps the snapshot fresh until stop is called: what other programs do
// is published, and closes Stale, without anybody asking. access is how the
// caller has the mailbox selected.
func (m *Mailbox) Watch(access Access) (stop func()) {
	w := &m.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	if access == Serve {
		w.serving++
	}
	if w.n == 1 {
		ctx, cancel := context.WithCancel(context.Background())
		w.done, w.stop = make(chan struct{}), cancel
		m.host.hub.add(m)
		go m.keepFresh(ctx, w.dirty, w.done)
	}
	return sync.OnceFunc(func() { m.unwatch(access) })
}

func (m *Mailbox) unwatch(access Access) {
	w := &m.watch
	w.mu.Lock()
	w.n--
	if access == Serve {
		w.serving--
	}
	if w.n > 0 {
		w.mu.Unlock()
		return
	}
	m.host.hub.remove(m)
	w.stop()
	done := w.done
	w.mu.Unlock()
	<-done
}

// keepFresh belongs to the watchers of m and ends when the last one stops.
func (m *Mailbox) keepFresh(ctx context.Context, dirty <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	poll := time.NewTimer(0) // what happened before the watch began
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-dirty:
		case <-poll.C:
		}
		wait := m.host.opt.Poll
		err := m.Sync(ctx, m.watch.access())
		if ctx.Err() != nil || errors.Is(err, ErrNotFound) {
			return
		}
		if err != nil {
			m.host.opt.Log.Warn("cannot look at a mailbox", "mailbox", m.name, "err", err)
		} else if m.doubtful() {
			wait = m.settle + m.settle/4
		}
		poll.Reset(wait)
	}
}

// doubtful reports whether the last look must be repeated soon: a change may
// share its clock tick.
func (m *Mailbox) doubtful() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clean == stamp{}
}
