package maildir

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fsnotify/fsnotify"
)

// A folder that the kernel does not tell of, for want of watches, is mentioned in the
// log once, not with each change.
func TestNoWatchIsSaidOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	b := newBox(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	b.deliver("cur", "1.h:2,", "x\n")
	b.sync(Look)
	hub := &b.host.hub
	hub.open = func() (*fsnotify.Watcher, error) {
		w, err := fsnotify.NewWatcher()
		if err == nil {
			w.Close() // nothing can be added
		}
		return w, err
	}
	for range 5 {
		b.follow()
	}
	if n := strings.Count(log.String(), "polling"); n != 1 || hub.has(b.Mailbox) {
		t.Errorf("said %d times:\n%s", n, &log)
	}
	hub.watcher, hub.open = nil, fsnotify.NewWatcher
	b.follow()
	if !hub.has(b.Mailbox) {
		t.Error("not followed when that is possible again")
	}
}

// What is followed are the directories that are open, whatever their path is by now.
func TestRenamedFolderIsFollowed(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,", "x\n")
	old := b.path
	b.path += ".moved"
	if err := os.Rename(old, b.path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(old, "cur"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.followed()
	n := b.host.scans.Load()
	b.renamed("1.h:2,", "1.h:2,S")
	b.sync(Look)
	b.want(`1 1.h \Seen`)
	if b.host.scans.Load() != n {
		t.Error("it had to be scanned")
	}
}

// Whatever goes wrong while events are read, events may be missing.
func TestErrorOfWatcher(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,", "x\n")
	b.followed()
	b.deaf()
	b.renamed("1.h:2,", "1.h:2,S")
	b.track.note(inNew, 0, "0.h") // an event that says nothing
	b.host.hub.watcher.Errors <- errors.New("short read")
	if !b.host.hub.catchUp() {
		t.Fatal("no fence")
	}
	b.sync(Look)
	b.want(`1 1.h \Seen`)
}
