package maildir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/tree"
)

// userIn makes a Maildir in dir for one more user of h, and opens its INBOX.
func userIn(t *testing.T, h *Host, dir string) *Mailbox {
	t.Helper()
	root := filepath.Join(dir, "Maildir")
	st, err := h.Open(tree.Config{Root: root, Separator: '/'})
	if err == nil {
		err = st.Init()
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := st.Mailbox(context.Background(), "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Release)
	return m
}

// elsewhere returns a directory on another file system than t.TempDir.
func elsewhere(t *testing.T) string {
	t.Helper()
	var here, there unix.Stat_t
	if err := unix.Stat(t.TempDir(), &here); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{"/dev/shm", "/var/tmp", "."} {
		if unix.Stat(root, &there) != nil || there.Dev == here.Dev {
			continue
		}
		dir, err := os.MkdirTemp(root, "imapd-")
		if err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	t.Skip("NOT TESTED, for want of a second file system")
	return ""
}

// hang takes a slot for an operation that does not end before the test does.
func hang(t *testing.T, m *Mailbox) {
	t.Helper()
	if err := m.slot(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.leave)
}

// starved reports whether a look at m waits for a slot.
func starved(t *testing.T, m *Mailbox) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := m.Sync(ctx, Look)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	return err != nil
}

// TestHungDisk holds that users whose operations do not come back keep those of
// others waiting on the same file system only, and one user mostly himself.
func TestHungDisk(t *testing.T) {
	t.Parallel()
	h := NewHost(Options{NoNotify: true, Slots: 3, SlotsPerUser: 2})
	t.Cleanup(func() { h.Close() })
	greedy, next, last := userIn(t, h, t.TempDir()), userIn(t, h, t.TempDir()), userIn(t, h, t.TempDir())
	other := userIn(t, h, elsewhere(t))
	for range 2 {
		hang(t, greedy)
	}
	if !starved(t, greedy) || starved(t, next) {
		t.Error("one user waits for what another has taken")
	}
	hang(t, next)
	if !starved(t, last) {
		t.Error("more operations than a file system may have")
	}
	if starved(t, other) {
		t.Error("a disk waits for another one")
	}
}

// TestHungDisks holds that however many file systems hang, the process does not run
// out of threads, and that who gives up waiting gives back what he had taken.
func TestHungDisks(t *testing.T) {
	t.Parallel()
	h := NewHost(Options{NoNotify: true, Slots: mostSlots, SlotsPerUser: 2})
	t.Cleanup(func() { h.Close() })
	m, other := userIn(t, h, t.TempDir()), userIn(t, h, elsewhere(t))
	for range mostSlots {
		h.slots <- struct{}{}
	}
	for range 3 {
		if !starved(t, m) || !starved(t, other) {
			t.Error("more operations than the process may have")
		}
	}
	for range mostSlots {
		<-h.slots
	}
	if starved(t, m) || starved(t, other) {
		t.Error("slots have not been given back")
	}
}
