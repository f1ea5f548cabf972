package control

import (
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// gatherCerts is how long changes of certificate files are let come together:
// certificate and key are replaced one after the other. Where something happens in
// their directory all the time, as where a log lies there, it is gatherMost.
const (
	gatherCerts = 200 * time.Millisecond
	gatherMost  = 2 * time.Second
)

// backup is how often a handshake looks at files that are watched as well.
const backup = time.Minute

// blindly is how often it does where the directories are root's alone: as those
// of certbot are, and a server that has given root up cannot watch them.
const blindly = 5 * time.Second

// A certWatch has certificates read again when something happens in the
// directories of their files, and in those that links lead to.
type certWatch struct {
	fs    *fsnotify.Watcher
	ended sync.WaitGroup
}

// Watch has the files read again as soon as they change, until Close. Without
// it, and where the system cannot tell, handshakes look now and then.
func (c *Certificates) Watch() {
	if c == nil {
		return
	}
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		c.log.Warn("certificates are only looked at by handshakes", "err", err)
		return
	}
	w := &certWatch{fs: fs}
	c.mu.Lock()
	c.watch = w
	c.mu.Unlock()
	w.add(c)
	w.ended.Go(func() { w.run(c) })
}

// Close ends the watch, if there is one. The certificates are good as they are.
func (c *Certificates) Close() {
	if c == nil {
		return
	}
	c.mu.Lock()
	w := c.watch
	c.watch = nil
	c.mu.Unlock()
	if w != nil {
		w.fs.Close()
		w.ended.Wait()
	}
}

// add watches all directories of c that are not watched yet. What cannot be
// watched is looked at by handshakes.
func (w *certWatch) add(c *Certificates) {
	var dirs []string
	if c.names != "" {
		dirs = append(dirs, c.names)
	}
	blind := false
	list, _ := c.list() // refresh tells
	for _, n := range list {
		for _, file := range []string{n.cert, n.key} {
			dirs = append(dirs, filepath.Dir(file))
			if real, err := filepath.EvalSymlinks(file); err == nil {
				dirs = append(dirs, filepath.Dir(real))
			} else if errors.Is(err, fs.ErrPermission) {
				blind = true
			}
		}
	}
	for _, dir := range dirs {
		if err := w.fs.Add(dir); errors.Is(err, fs.ErrPermission) {
			blind = true
		}
	}
	c.mu.Lock()
	c.blind = blind
	c.mu.Unlock()
}

// run is the goroutine of a watch; it ends when fs is closed.
func (w *certWatch) run(c *Certificates) {
	quiet := time.NewTimer(gatherCerts)
	defer quiet.Stop()
	var first time.Time // event since the last look
	happened := func() {
		if first.IsZero() {
			first = time.Now()
		}
		if time.Since(first) < gatherMost {
			quiet.Reset(gatherCerts)
		}
	}
	for {
		select {
		case _, ok := <-w.fs.Events:
			if !ok {
				return
			}
			happened()
		case _, ok := <-w.fs.Errors: // events were dropped
			if !ok {
				return
			}
			happened()
		case <-quiet.C:
			first = time.Time{}
			c.refresh()
			w.add(c)
		}
	}
}
