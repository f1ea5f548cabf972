package maildir

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Watching: fsnotify says when to look, a look says what there is, and a slow
// poll stands behind fsnotify where it cannot work. The host has one inotify
// instance, made at the first watch, and one goroutine that reads it. A mailbox
// has a goroutine only while it is looked at.

// A hub hands the events of the file system to mailboxes.
type hub struct {
	host *Host
	open func() (*fsnotify.Watcher, error)

	mu      sync.Mutex
	watcher *fsnotify.Watcher // nil until needed, or where there is none to have
	missing bool              // no instance was left, and the log says so
	closed  bool
	boxes   map[string]*Mailbox // by the path of cur and new
	done    chan struct{}       // closed when the reader has ended
}

// add has m poked when its directories change. It reports whether the kernel
// will tell.
func (h *hub) add(m *Mailbox) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.host.opt.NoNotify || h.closed {
		return false
	}
	if h.watcher == nil {
		// Asked for again at each watch: other programs of the user have the
		// instances that are missing, and give them back.
		w, err := h.open()
		if err != nil {
			if !h.missing {
				h.host.opt.Log.Warn("no file system events, polling", "err", err)
			}
			h.missing = true
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
			if h.watcher != nil { // the host may have been closed meanwhile
				h.watcher.Remove(p) // fails if the directory is gone, and with it the watch
			}
		}
	}
}

func (h *hub) close() error {
	h.mu.Lock()
	w, done := h.watcher, h.done
	h.watcher, h.closed = nil, true
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
		m.poke()
	}
}

func (h *hub) pokeAll() {
	h.mu.Lock()
	boxes := slices.Collect(maps.Values(h.boxes))
	h.mu.Unlock()
	for _, m := range boxes {
		m.poke()
	}
}

// watchers counts who wants a mailbox's snapshot kept fresh. While nothing
// happens a watched mailbox is a timer and an entry in the hub, no goroutine.
type watchers struct {
	mu      sync.Mutex // inside Mailbox.mu
	calls   map[*func()]Access
	timer   *time.Timer // the poll, or the next look where the last left doubt
	looking bool        // a goroutine runs freshen
	again   bool        // and must look once more
	ctx     context.Context
	stop    context.CancelFunc
	looks   *sync.WaitGroup // goroutines since the first of calls began to watch
}

// access returns how the mailbox is selected by those who watch.
func (w *watchers) access() Access {
	for _, a := range w.calls {
		if a == Serve {
			return Serve
		}
	}
	return Look
}

// tell calls everybody who watches: there is a newer snapshot.
func (w *watchers) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for f := range w.calls {
		if *f != nil {
			(*f)()
		}
	}
}

// Watch keeps the snapshot fresh until stop is called: what other programs do
// is published without anybody asking. access is how the caller has the mailbox
// selected. changed, if it is not nil, is called whenever a newer snapshot has
// been published, whoever made it; it must not block, nor call the mailbox.
func (m *Mailbox) Watch(access Access, changed func()) (stop func()) {
	w := &m.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.calls) == 0 {
		w.calls = map[*func()]Access{}
		w.ctx, w.stop = context.WithCancel(context.Background())
		w.looks = new(sync.WaitGroup)
		m.host.hub.add(m)
		w.timer = time.AfterFunc(0, m.poke) // what happened before the watch began
	}
	w.calls[&changed] = access
	return sync.OnceFunc(func() { m.unwatch(&changed) })
}

func (m *Mailbox) unwatch(call *func()) {
	w := &m.watch
	w.mu.Lock()
	delete(w.calls, call)
	if len(w.calls) > 0 {
		w.mu.Unlock()
		return
	}
	m.host.hub.remove(m)
	w.stop()
	w.timer.Stop()
	looks := w.looks
	w.mu.Unlock()
	looks.Wait()
}

// poke has the mailbox looked at soon, if it is watched. It does not wait.
func (m *Mailbox) poke() {
	w := &m.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case len(w.calls) == 0:
	case w.looking:
		w.again = true
	default:
		m.lookSoon()
	}
}

// lookSoon has a goroutine look. m.watch.mu is held.
func (m *Mailbox) lookSoon() {
	w := &m.watch
	w.looking, w.again = true, false
	w.looks.Add(1)
	go m.freshen(w.ctx, w.looks)
}

// freshen looks at the mailbox until no poke came meanwhile. The last watcher
// that stops waits for it.
func (m *Mailbox) freshen(ctx context.Context, looks *sync.WaitGroup) {
	w := &m.watch
	defer looks.Done()
	for {
		w.mu.Lock()
		access := w.access()
		w.mu.Unlock()
		wait := m.host.opt.Poll
		err := m.Sync(ctx, access)
		switch {
		case ctx.Err() != nil || errors.Is(err, ErrNotFound):
		case err != nil:
			m.host.opt.Log.Warn("cannot look at a mailbox", "mailbox", m.name, "err", err)
		default:
			if d := m.doubt(); d > 0 {
				wait = d
			}
		}
		if !m.lookAgain(ctx, wait) {
			return
		}
	}
}

// lookAgain reports whether freshen has to go on: a poke came while it looked.
// If not, the next look is due after wait.
func (m *Mailbox) lookAgain(ctx context.Context, wait time.Duration) bool {
	w := &m.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.again && ctx.Err() == nil:
		w.again = false
		return true
	case w.again && len(w.calls) > 0:
		m.lookSoon() // for those who have begun to watch meanwhile
		return false
	case ctx.Err() == nil:
		w.timer.Reset(wait)
	}
	w.looking, w.again = false, false
	return false
}
