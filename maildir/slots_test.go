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
	"imapd/maildir/vfs"
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

// TestOpeningHasSlot holds that whatever is done to folders opens no directory without a
// slot.
func TestOpeningHasSlot(t *testing.T) {
	t.Parallel()
	var h *Host
	doing := ""
	h = NewHost(Options{NoNotify: true, Open: func(path string) (vfs.Dir, error) {
		if len(h.slots) == 0 {
			t.Errorf("%s: %s is opened without a slot", doing, path)
		}
		return vfs.Open(path)
	}})
	t.Cleanup(func() { h.Close() })
	root := files{"courierimapsubscribed": "INBOX\nINBOX.Work\n", "maildirsize": "1000S\n           0            0\n"}.make(t)
	ctx := context.Background()
	var st *Store
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"Open", func() (err error) { st, err = h.Open(tree.Config{Root: root, Separator: '/'}); return err }},
		{"Init", func() error { return st.Init() }},
		{"Subscriptions", func() error { _, err := st.Subscriptions(); return err }},
		{"Create", func() error { return st.Create(ctx, "Entwürfe") }},
		{"Rename", func() error { return st.Rename(ctx, "Entwürfe", "Trash") }},
		{"Delete", func() error { return st.Delete(ctx, "Trash") }},
	} {
		doing = step.what
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", doing, err)
		}
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

// TestFoldersHaveSlots holds that changes of folders and of subscriptions wait for a
// slot, but take none while they wait for another program.
func TestFoldersHaveSlots(t *testing.T) {
	t.Parallel()
	h := NewHost(Options{NoNotify: true, SlotsPerUser: 2})
	t.Cleanup(func() { h.Close() })
	m := userIn(t, h, t.TempDir())
	st, ctx := m.store, context.Background()
	changes := map[string]func() error{
		"CREATE":        func() error { return st.Create(ctx, "created") },
		"RENAME":        func() error { return st.Rename(ctx, "old", "new") },
		"DELETE":        func() error { return st.Delete(ctx, "doomed") },
		"SUBSCRIBE":     func() error { return st.Subscribe("INBOX") },
		"subscriptions": func() error { _, err := st.Subscriptions(); return err },
	}
	for _, name := range []string{"old", "doomed"} {
		if err := st.Create(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	start := func() map[string]chan error {
		ends := map[string]chan error{}
		for what, change := range changes {
			end := make(chan error, 1)
			ends[what] = end
			go func() { end <- change() }()
		}
		time.Sleep(50 * time.Millisecond)
		return ends
	}
	for range 2 {
		m.await()
	}
	ends := start()
	for what, end := range ends {
		if len(end) > 0 {
			t.Errorf("%s has not waited for a slot", what)
		}
	}
	m.leave()
	m.leave()
	for what, end := range ends {
		if err := <-end; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}

	lock, err := os.Create(filepath.Join(m.dir.Path(), "mailboxes.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.dir.Path(), "subscriptions.lock"), []byte("1:elsewhere"), 0o600); err != nil {
		t.Fatal(err)
	}
	changes = map[string]func() error{}
	for _, name := range []string{"a", "b", "c"} {
		changes["CREATE "+name] = func() error { return st.Create(ctx, name) }
		changes["SUBSCRIBE "+name] = func() error { return st.Subscribe(name) }
	}
	ends = start()
	if starved(t, m) {
		t.Error("who waits for a lock has a slot")
	}
	for what, end := range ends {
		if len(end) > 0 {
			t.Errorf("%s has not waited for the lock", what)
		}
	}
	for _, name := range []string{"mailboxes.lock", "subscriptions.lock"} {
		if err := os.Remove(filepath.Join(m.dir.Path(), name)); err != nil {
			t.Fatal(err)
		}
	}
	for what, end := range ends {
		if err := <-end; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}
