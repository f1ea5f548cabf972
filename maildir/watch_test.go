package maildir

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
)

// A folder that the kernel does not tell of, for want of watches or because it has
// another path now, is mentioned in the log once, not with each change.
func TestNoWatchIsSaidOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	b := newBox(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	b.deliver("cur", "1.h:2,", "x\n")
	b.sync(Look)
	if err := os.Rename(b.path, b.path+".moved"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		b.mu.Lock()
		b.followLocked()
		b.mu.Unlock()
	}
	if n := strings.Count(log.String(), "polling"); n != 1 || b.host.hub.has(b.Mailbox) {
		t.Errorf("said %d times:\n%s", n, &log)
	}
	if err := os.Rename(b.path+".moved", b.path); err != nil {
		t.Fatal(err)
	}
	b.follow()
	if !b.host.hub.has(b.Mailbox) {
		t.Error("not followed when that is possible again")
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
