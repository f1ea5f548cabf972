package notice

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// DefaultPoll is the interval of the slow look where none is given.
const DefaultPoll = time.Minute

// Options say what a Watcher watches.
type Options struct {
	// Dir is the configuration directory. Where it is empty nothing is ever
	// said and nothing watched.
	Dir string
	// Service names msg/shutdown.SERVICE.
	Service string
	// Poll is how often to look without being told; DefaultPoll if 0 or less.
	Poll time.Duration
	// Logs is called from the Watcher's goroutine, never twice at a time,
	// when something may have changed in log/ and at each poll. It may be
	// nil.
	Logs func()
	// Log is told when there is no watch and only the poll is left. It may
	// be nil.
	Log *slog.Logger
}

// state is what the files said at the last look. It is never modified:
// changed is closed when another one has been published.
type state struct {
	motd, shutdown notice
	changed        chan struct{}
}

// A Watcher knows what the notices say now. Its methods may be called from
// any number of goroutines.
type Watcher struct {
	opt   Options
	now   atomic.Pointer[state]
	mu    sync.Mutex // one look at a time
	stop  chan struct{}
	begin *time.Timer // nil where nothing is watched
	ended sync.WaitGroup

	// Owned by the goroutine in watch and run.
	fs     *fsnotify.Watcher      // nil where only the poll is left
	known  map[string]os.FileInfo // the directories that are watched
	warned bool
}

// young is how long a process need not watch: a client that is gone by then
// was greeted by what the files said, and a watch, with its buffer of 64 KiB,
// would have cost as much as all that was done for it.
const young = 100 * time.Millisecond

// New starts to watch the notices a moment later. Until then they say what they did at
// the last Refresh, nothing before the first: whoever begins a session calls it
// anyway. The Watcher's one goroutine ends with Close.
func New(opt Options) *Watcher {
	return start(opt, young, fsnotify.NewWatcher)
}

// start is New with another moment and another source of watches, for tests.
func start(opt Options, after time.Duration, watch func() (*fsnotify.Watcher, error)) *Watcher {
	if opt.Poll <= 0 {
		opt.Poll = DefaultPoll
	}
	w := &Watcher{opt: opt, stop: make(chan struct{}), known: map[string]os.FileInfo{}}
	w.now.Store(&state{changed: make(chan struct{})})
	if opt.Dir == "" {
		return w
	}
	w.ended.Add(1)
	w.begin = time.AfterFunc(after, func() {
		defer w.ended.Done()
		w.watch(watch)
		w.run()
	})
	return w
}

// watch opens the watch, and looks at what has changed before there was one.
func (w *Watcher) watch(open func() (*fsnotify.Watcher, error)) {
	var err error
	if w.fs, err = open(); err != nil {
		w.fs = nil
		w.pollOnly(err)
	}
	w.rewatch()
	w.Refresh()
	if w.opt.Logs != nil {
		w.opt.Logs()
	}
}

// Motd returns the message of the day, and whether there is one.
func (w *Watcher) Motd() (text string, ok bool) {
	n := w.now.Load().motd
	return n.text, n.on
}

// Shutdown returns the shutdown notice, and whether there is one. It costs one
// atomic load.
func (w *Watcher) Shutdown() (text string, ok bool) {
	n := w.now.Load().shutdown
	return n.text, n.on
}

// Changed returns a channel that is closed when Motd or Shutdown say something
// else. Who takes the channel first and asks them then misses no change.
func (w *Watcher) Changed() <-chan struct{} {
	return w.now.Load().changed
}

// Refresh looks at the files now, so that a new connection is greeted by what
// they say and not by what the last event said. While a shutdown file is
// being written it waits for the text, for at most 50 ms.
func (w *Watcher) Refresh() {
	if w.opt.Dir != "" && w.look() {
		t := time.NewTimer(settle)
		defer t.Stop()
		select {
		case <-t.C:
			w.look()
		case <-w.Changed():
		}
	}
}

// Close ends the watch and waits for its goroutine. The notices stay what they
// were.
func (w *Watcher) Close() {
	close(w.stop)
	if w.begin != nil && w.begin.Stop() {
		w.ended.Done()
	}
	w.ended.Wait()
}

// look reads the notices and publishes them if they changed. again tells that
// one is still being written; until it is, it stays what it was.
func (w *Watcher) look() (again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.now.Load()
	motd, err := readMotd(w.opt.Dir)
	if err != nil {
		motd = old.motd
	}
	shutdown, err := readShutdown(w.opt.Dir, w.opt.Service)
	if err != nil {
		again = errors.Is(err, errUnsettled)
		shutdown = old.shutdown
	}
	if motd != old.motd || shutdown != old.shutdown {
		w.now.Store(&state{motd, shutdown, make(chan struct{})})
		close(old.changed)
	}
	return again
}

// run is the Watcher's goroutine.
func (w *Watcher) run() {
	poll := time.NewTicker(w.opt.Poll)
	defer poll.Stop()
	again := time.NewTimer(settle)
	defer again.Stop()

	var events chan fsnotify.Event
	var lost chan error
	if w.fs != nil {
		defer w.fs.Close()
		events, lost = w.fs.Events, w.fs.Errors
	}
	for {
		logs := false
		select {
		case <-w.stop:
			return
		case e := <-events:
			var notices bool
			if notices, logs = w.concerns(e.Name); !notices && !logs {
				continue
			}
			w.forget(filepath.Clean(e.Name))
		case <-lost: // events were dropped: look at everything
			logs = true
		case <-poll.C:
			logs = true
		case <-again.C:
		}
		if w.rewatch() {
			logs = true
		}
		if w.look() {
			again.Reset(settle)
		}
		if logs && w.opt.Logs != nil {
			w.opt.Logs()
		}
	}
}

// concerns tells whether an event for the path name may have changed a notice,
// or log/.
func (w *Watcher) concerns(name string) (notices, logs bool) {
	dir, base := filepath.Split(filepath.Clean(name))
	switch filepath.Clean(dir) {
	case filepath.Join(w.opt.Dir, "msg"):
		return base == "motd" || strings.HasPrefix(base, "shutdown"), false
	case filepath.Join(w.opt.Dir, "log"):
		return false, true
	case filepath.Clean(w.opt.Dir):
		return base == "msg", base == "log"
	}
	return true, true // the configuration directory itself
}

// rewatch makes the watches follow the directories: those that appeared or
// were replaced get one, those that are gone lose it. It tells whether
// anything changed. It runs before each look, so that what happened in a
// directory before it was watched is seen.
func (w *Watcher) rewatch() (changed bool) {
	if w.fs == nil {
		return false
	}
	for _, dir := range []string{w.opt.Dir, filepath.Join(w.opt.Dir, "msg"), filepath.Join(w.opt.Dir, "log")} {
		info, err := os.Stat(dir)
		if err == nil && w.known[dir] != nil && os.SameFile(info, w.known[dir]) {
			continue
		}
		if err != nil && w.known[dir] == nil {
			continue
		}
		changed = true
		w.forget(dir)
		if err != nil || !info.IsDir() {
			continue
		}
		if err := w.fs.Add(dir); err == nil {
			w.known[dir] = info
		} else if !errors.Is(err, fs.ErrNotExist) {
			w.pollOnly(err)
		}
	}
	return changed
}

// forget ends the watch of dir if there is one. An event for a watched
// directory itself calls for it even where the identity stays the same: inode
// numbers are given out again at once.
func (w *Watcher) forget(dir string) {
	if w.known[dir] != nil {
		// Fails where the kernel has dropped the watch already.
		_ = w.fs.Remove(dir)
		delete(w.known, dir)
	}
}

func (w *Watcher) pollOnly(err error) {
	if w.opt.Log != nil && !w.warned {
		w.warned = true
		w.opt.Log.Warn("notices are only polled", "dir", w.opt.Dir, "every", w.opt.Poll, "err", err)
	}
}
