package maildir

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
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

	// adding is held, before mu, while directories are added to the watcher, which has a
	// lock of its own meanwhile: it tells of one by the name that it was first added by.
	adding sync.Mutex

	mu      sync.Mutex        // held briefly, never over what may ask a file system
	watcher *fsnotify.Watcher // nil until needed, or where there is none to have
	missing bool              // no instance was left, and the log says so
	closed  bool
	boxes   map[string]watched  // by what cur and new are watched as
	paths   map[folderID]string // what that is
	done    chan struct{}       // closed when the reader has ended

	fence   *vfs.Fence // nil where the kernel has none
	ring    sync.Mutex // held from ringing the fence to its event
	arrived chan struct{}
	late    atomic.Int64 // fences whose events did not come in time
}

// watched is a directory of a mailbox.
type watched struct {
	box   *Mailbox
	place place
	id    folderID
}

// watchPath is what d is watched as: the directory that we have open, whatever is at its
// path by now. To follow this link takes no look-up in a directory, for which a disk or
// a file server may be asked that does not answer: fsnotify lets nobody add or
// remove a directory meanwhile, nor reads events.
func watchPath(d vfs.Dir) string { return "/proc/self/fd/" + strconv.Itoa(d.Fd()) }

// add has m told what happens in its directories. It reports whether the kernel
// will tell. The caller has a disk slot of m, and holds nothing that other mailboxes
// need.
func (h *hub) add(m *Mailbox) bool {
	// A file server is asked all the same whether we may. So it is now, before others
	// wait for us, and what it has said is good for a moment.
	if h.host.opt.NoNotify || !m.inPlace() {
		return false
	}
	dirs := []watched{inCur: {m, inCur, idOf(m.cur)}, inNew: {m, inNew, idOf(m.new)}}
	h.adding.Lock()
	w := h.claim(m, dirs)
	if w == nil {
		h.adding.Unlock()
		return false
	}
	err := w.Add(watchPath(m.cur))
	if err == nil {
		err = w.Add(watchPath(m.new))
	}
	h.adding.Unlock()
	// A directory that was moved away before is not at its place; of one that is moved
	// from now on an event tells.
	return h.settle(m, err, err == nil && m.inPlace())
}

// claim has the events of m handed to it, as soon as there are any, and nobody else
// who had one of dirs. It returns the watcher to add them to, nil if there is none or
// another goroutine does it.
func (h *hub) claim(m *Mailbox, dirs []watched) *fsnotify.Watcher {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || m.claiming || h.watcher == nil && !h.start() {
		return nil
	}
	m.claiming = true
	for _, d := range dirs {
		if w, ok := h.boxes[h.paths[d.id]]; ok && w.box != m {
			w.box.track.lose() // its folder is not there any more, or it is being closed
			h.removeLocked(w.box)
		}
		path := watchPath(m.dirOf(d.place))
		h.boxes[path], h.paths[d.id] = d, path
	}
	return h.watcher
}

// settle ends what claim has begun: the directories of m have been added, or err says
// why not, and there that they are its folder's. It reports whether the kernel tells of
// them: one may have been moved away meanwhile.
func (h *hub) settle(m *Mailbox, err error, there bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && !m.unwatched {
		h.host.opt.Log.Warn("no file system events, polling", "mailbox", m.name, "err", err)
	}
	m.unwatched = err != nil // each change tries again
	for _, d := range []vfs.Dir{m.cur, m.new} {
		there = there && h.boxes[watchPath(d)].box == m
	}
	if m.claiming, m.told = false, there; !there {
		h.removeLocked(m)
		h.unwatch(m.cur) // if it was added after an event had the other removed
		h.unwatch(m.new)
	}
	return there
}

// has reports whether m is told what happens in its directories.
func (h *hub) has(m *Mailbox) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return m.told
}

// idOf returns which directory d is.
func idOf(d vfs.Dir) folderID {
	var st unix.Stat_t
	if unix.Fstat(d.Fd(), &st) != nil {
		return folderID{}
	}
	return folderID{uint64(st.Dev), st.Ino}
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
	h.watcher, h.done = w, make(chan struct{})
	h.boxes, h.paths = map[string]watched{}, map[folderID]string{}
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
	m.told = false
	for _, d := range []vfs.Dir{m.cur, m.new} {
		if d == nil {
			continue
		}
		path := watchPath(d)
		if w := h.boxes[path]; w.box == m {
			delete(h.boxes, path)
			if h.paths[w.id] == path {
				delete(h.paths, w.id)
			}
			h.unwatch(d)
		}
	}
}

// unwatch takes d out of the watcher. h.mu is held.
func (h *hub) unwatch(d vfs.Dir) {
	if h.watcher != nil { // the host may have been closed meanwhile
		h.watcher.Remove(watchPath(d)) // fails if the directory is gone, and with it the watch
	}
}

func (h *hub) close() error {
	h.adding.Lock()
	defer h.adding.Unlock()
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
	late := h.late.Load()
	h.ring.Lock()
	defer h.ring.Unlock()
	if h.late.Load() != late {
		return false // in the time that we had to wait: not each waits as long, one after the other
	}
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
		h.late.Add(1)
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
