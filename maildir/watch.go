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
	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// Watching: fsnotify says what happened in a folder, and a slow poll stands behind
// it where it cannot work. The host has one inotify instance, made at the first
// watch, and one goroutine that reads it. A mailbox has a goroutine only while
// it is looked at. How events are used is in track.go.

// A hub hands the events of the file system to mailboxes.
type hub struct {
	host *Host
	open func() (*fsnotify.Watcher, error)

	mu      sync.Mutex
	watcher *fsnotify.Watcher // nil until needed, or where there is none to have
	missing bool              // no instance was left, and the log says so
	closed  bool
	boxes   map[string]watched // by the path of cur and new
	done    chan struct{}      // closed when the reader has ended

	fence   *vfs.Fence // nil where the kernel has none
	ring    sync.Mutex // held from ringing the fence to its event
	arrived chan struct{}
}

// watched is a directory of a mailbox.
type watched struct {
	box   *Mailbox
	place place
}

// add has m told what happens in its directories. It reports whether the kernel
// will tell.
func (h *hub) add(m *Mailbox) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.host.opt.NoNotify || h.closed {
		return false
	}
	if h.watcher == nil && !h.start() {
		return false
	}
	for p, dir := range []vfs.Dir{inCur: m.cur, inNew: m.new} {
		path := filepath.Clean(dir.Path())
		if w, ok := h.boxes[path]; ok && w.box != m {
			w.box.track.lose() // its folder is not there any more
			h.removeLocked(w.box)
		}
		if err := h.watcher.Add(path); err != nil {
			if !m.unwatched {
				h.host.opt.Log.Warn("no file system events, polling", "mailbox", m.name, "err", err)
			}
			m.unwatched = true // each change tries again
			h.removeLocked(m)
			return false
		}
		h.boxes[path] = watched{m, place(p)}
		if !leadsTo(path, dir) { // the folder was renamed; another one may be there now
			h.removeLocked(m)
			return false
		}
	}
	m.unwatched = false
	return true
}

// has reports whether m is told what happens in its directories.
func (h *hub) has(m *Mailbox) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boxes[filepath.Clean(m.cur.Path())].box == m && h.boxes[filepath.Clean(m.new.Path())].box == m
}

func leadsTo(path string, dir vfs.Dir) bool {
	var a, b unix.Stat_t
	return unix.Stat(path, &a) == nil && unix.Fstat(dir.Fd(), &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// start makes the watcher. h.mu is held. It is asked for again at each watch:
// other programs of the user have the instances that are missing, and give them
// back.
func (h *hub) start() bool {
	w, err := h.open()
	if err != nil {
		if !h.missing {
			h.host.opt.Log.Warn("no file system events, polling", "err", err)
		}
		h.missing = true
		return false
	}
	h.watcher, h.boxes, h.done = w, map[string]watched{}, make(chan struct{})
	h.arrived = make(chan struct{}, 1)
	h.renewFence()
	go h.read(w, h.done)
	return true
}

// renewFence makes a fence in place of the one that there is: its event is late,
// and when it comes at last it must not be taken for that of a later ring. h.mu is
// held.
func (h *hub) renewFence() {
	old := h.fence
	h.fence = nil
	if f, err := vfs.NewFence(); err == nil {
		if h.watcher.Add(f.Path()) == nil {
			h.fence = f
		} else {
			f.Close()
		}
	}
	if old != nil {
		h.watcher.Remove(old.Path())
		old.Close()
	}
}

func (h *hub) remove(m *Mailbox) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removeLocked(m)
}

func (h *hub) removeLocked(m *Mailbox) {
	for _, d := range []vfs.Dir{m.cur, m.new} {
		if d == nil {
			continue
		}
		path := filepath.Clean(d.Path())
		if h.boxes[path].box == m {
			delete(h.boxes, path)
			if h.watcher != nil { // the host may have been closed meanwhile
				h.watcher.Remove(path) // fails if the directory is gone, and with it the watch
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

// fenceWait bounds how long events may be on their way.
const fenceWait = time.Second

// catchUp waits until all that has happened so far has been handed to the
// mailboxes. It reports whether it has.
func (h *hub) catchUp() bool {
	h.ring.Lock()
	defer h.ring.Unlock()
	h.mu.Lock()
	fence, done := h.fence, h.done
	select { // of the fence before this one
	case <-h.arrived:
	default:
	}
	h.mu.Unlock()
	if fence == nil || fence.Ring() != nil {
		return false
	}
	timer := time.NewTimer(fenceWait)
	defer timer.Stop()
	select {
	case <-h.arrived:
		return true
	case <-done:
	case <-timer.C:
		h.mu.Lock()
		if h.watcher != nil {
			h.renewFence()
		}
		h.mu.Unlock()
	}
	return false
}

// read belongs to the hub and ends when the watcher is closed.
func (h *hub) read(w *fsnotify.Watcher, done chan<- struct{}) {
	defer close(done)
	defer h.dropFence()
	for {
		select {
		case e, ok := <-w.Events:
			switch {
			case !ok:
				return
			case h.rung(e):
			case e.Op&^(fsnotify.Chmod|fsnotify.Write) != 0:
				h.event(e)
			}
		case _, ok := <-w.Errors:
			if !ok {
				return
			}
			h.lost() // mostly because the kernel's queue has run over
		}
	}
}

// rung reports whether e is the event of the fence, and says so to who rang it.
func (h *hub) rung(e fsnotify.Event) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fence == nil || e.Name != h.fence.Path() {
		return false
	}
	select {
	case h.arrived <- struct{}{}:
	default:
	}
	return true
}

func (h *hub) dropFence() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fence != nil {
		h.fence.Close()
		h.fence = nil
	}
}

// event hands e to its mailbox.
func (h *hub) event(e fsnotify.Event) {
	dir, name := filepath.Split(e.Name)
	h.mu.Lock()
	w, ok := h.boxes[filepath.Clean(dir)]
	self, gone := h.boxes[e.Name] // a watched directory was moved or removed itself
	if gone {
		self.box.track.lose()
		h.removeLocked(self.box) // and is watched no more
	}
	h.mu.Unlock()
	if gone {
		self.box.poke()
	}
	if ok {
		w.box.track.note(w.place, e.Op, name)
		w.box.poke()
	}
}

// lost follows events that have been dropped, or could not be read.
func (h *hub) lost() {
	h.mu.Lock()
	boxes := slices.Collect(maps.Values(h.boxes))
	h.mu.Unlock()
	for _, w := range boxes {
		w.box.track.lose()
		w.box.poke()
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
	m.follow()
	w := &m.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.calls) == 0 {
		w.calls = map[*func()]Access{}
		w.ctx, w.stop = context.WithCancel(context.Background())
		w.looks = new(sync.WaitGroup)
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

// doubt returns how long the next look should wait that takes the last doubts
// away, 0 if there are none: a change may share the clock tick of the last one.
func (m *Mailbox) doubt() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.clean != (stamp{}) || m.track.sound {
		return 0
	}
	settle := max(m.settle(m.track.last.cur), m.settle(m.track.last.new))
	return settle + max(settle/4, localTick)
}
