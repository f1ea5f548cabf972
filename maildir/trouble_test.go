package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"imapd/maildir/faultfs"
	"imapd/maildir/intents"
	"imapd/maildir/tree"
	"imapd/maildir/uidlist"
)

// Where scans are not atomic one of them proves nothing.
func TestAbsenceNeedsProof(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,", "x\n")
	b.deliver("cur", "2.h:2,", "x\n")
	b.sync(Serve)
	b.atomic = false
	if err := os.Remove(filepath.Join(b.path, "cur", "1.h:2,")); err != nil {
		t.Fatal(err)
	}
	b.sync(Serve)
	b.want("1 1.h ", "2 2.h ")
	old := time.Now().Add(-time.Minute)
	os.Chtimes(filepath.Join(b.path, "cur"), old, old)
	os.Chtimes(filepath.Join(b.path, "new"), old, old)
	b.sync(Serve)
	b.want("1 1.h ", "2 2.h ")
	b.sync(Serve)
	b.want("2 2.h ")
}

func TestSweep(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	strays := []string{filepath.Join(b.path, "tmp", "1.stray"), filepath.Join(b.path, uidlist.LockName+".123.4")}
	for _, stray := range strays {
		if err := os.WriteFile(stray, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.sweep(time.Now())
	for _, stray := range strays {
		if _, err := os.Stat(stray); err != nil {
			t.Error("what is in use was removed:", err)
		}
	}
	b.sweep(time.Now().Add(strayAge + time.Minute))
	for _, stray := range strays {
		if _, err := os.Stat(stray); !errors.Is(err, os.ErrNotExist) {
			t.Error("a stray stays:", err)
		}
	}
	if _, err := os.Stat(filepath.Join(b.path, uidlist.Name)); err != nil {
		t.Error(err)
	}
}

// A folder that is deleted while it is open says so.
func TestFolderDeleted(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.append(b.Mailbox, "x\r\n", FlagSet{})
	if err := os.RemoveAll(b.path); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(context.Background(), Serve); !errors.Is(err, ErrNotFound) {
		t.Errorf("a look at a deleted folder: %v", err)
	}
	if _, err := b.SetFlags(context.Background(), []UID{1}, AddFlags, FlagSet{System: Seen}); !errors.Is(err, ErrNotFound) {
		t.Errorf("STORE in a deleted folder: %v", err)
	}
}

// On a full disk what has a UID is served and can be expunged; what has none
// waits until there is room.
func TestServeWithoutSpace(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.append(b.Mailbox, "one\r\n", FlagSet{})
	b.append(b.Mailbox, "two\r\n", FlagSet{System: Deleted})
	b.Mailbox.Release()
	b.deliver("new", "9999999999.h", "x\n")
	var fault faultfs.FS
	b.start(Options{Open: fault.Open})
	if b.Snapshot().Len() != 3 {
		t.Fatalf("%q", told(b.Mailbox))
	}
	b.deliver("new", "9999999999.i", "y\n")
	fault.Arm(faultfs.Always("write", unix.ENOSPC))
	b.sync(Serve)
	if gone, err := b.Expunge(context.Background(), nil); err != nil || !slices.Equal(gone, []UID{2}) {
		t.Errorf("expunged %v, %v", gone, err)
	}
	if l := told(b.Mailbox); len(l) != 2 {
		t.Errorf("on a full disk there is %q", l)
	}
	fault.Disarm()
	b.sync(Serve)
	if l := told(b.Mailbox); len(l) != 3 || !strings.HasPrefix(l[2], "4 9999999999.i") {
		t.Errorf("with room again there is %q", l)
	}
}

// On a full disk EXPUNGE makes room, whatever has come or was renamed before it.
func TestExpungeWithoutSpace(t *testing.T) {
	t.Parallel()
	for what, before := range map[string]func(b *box, name string){
		"new mail": func(b *box, _ string) { b.deliver("cur", "9999999999.i:2,", "y\n") },
		"new mail, and the message renamed": func(b *box, name string) {
			b.deliver("cur", "9999999999.i:2,", "y\n")
			b.renamed(name, strings.Replace(name, ":2,T", ":2,ST", 1))
		},
	} {
		var fault faultfs.FS
		b := newBox(t, Options{Open: fault.Open})
		b.append(b.Mailbox, "one\r\n", FlagSet{})
		u := b.append(b.Mailbox, "two\r\n", FlagSet{System: Deleted})
		b.followed()
		msg, _ := b.Snapshot().lookup(u)
		fault.Arm(faultfs.Always("write", unix.ENOSPC))
		before(b, string(msg.name()))
		if gone, err := b.Expunge(context.Background(), nil); err != nil || !slices.Equal(gone, []UID{u}) {
			t.Errorf("%s: expunged %v, %v", what, gone, err)
		}
	}
}

// A lock that somebody else holds stops what needs it, in bounded time, and
// nothing else.
func TestForeignLock(t *testing.T) {
	t.Parallel()
	for _, lock := range []Lock{LockAlways, LockNewUIDs} {
		b := newBox(t, Options{Lock: lock, LockWait: 50 * time.Millisecond})
		b.append(b.Mailbox, "x\r\n", FlagSet{System: Deleted})
		foreign := filepath.Join(b.path, "dovecot-uidlist.lock")
		if err := os.WriteFile(foreign, []byte("1:elsewhere"), 0o600); err != nil {
			t.Fatal(err)
		}
		b.deliver("new", "9999999999.h", "x\n")
		b.sync(Serve)
		if b.Snapshot().Len() != 1 {
			t.Error("a UID was given without the lock")
		}
		_, err := b.SetFlags(context.Background(), []UID{1}, AddFlags, FlagSet{System: Seen})
		if lock == LockAlways && !errors.Is(err, ErrBusy) || lock == LockNewUIDs && err != nil {
			t.Errorf("lock %d: STORE under a foreign lock: %v", lock, err)
		}
		_, err = b.SetFlags(context.Background(), []UID{1}, AddFlags, FlagSet{Keywords: []string{"new"}})
		if !errors.Is(err, ErrBusy) {
			t.Errorf("lock %d: a new keyword under a foreign lock: %v", lock, err)
		}
		os.Remove(foreign)
		b.sync(Serve)
		if b.Snapshot().Len() != 2 {
			t.Error("the delivery is not seen when the lock is gone")
		}
	}
}

// A watch that begins when the system can watch again is told of deliveries,
// though one before had to poll.
func TestWatchComesBack(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{Poll: time.Hour})
	b.host.hub.open = func() (*fsnotify.Watcher, error) { return nil, unix.EMFILE }
	b.Watch(Serve, nil)()
	b.host.hub.open = fsnotify.NewWatcher
	told := make(chan struct{}, 100)
	defer b.Watch(Serve, func() { told <- struct{}{} })()
	for i := range 2 { // the first may come from the look at the beginning
		b.deliver("new", fmt.Sprintf("%d.h", 1700000000+i), "x\n")
		select {
		case <-told:
		case <-time.After(5 * time.Second):
			t.Fatalf("not told of delivery %d", i)
		}
	}
}

// Watches that end while others begin lose no change.
func TestWatchTurns(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	for i := range 200 {
		told := make(chan struct{}, 1)
		stop := b.Watch(Serve, func() {
			select {
			case told <- struct{}{}:
			default:
			}
		})
		b.deliver("new", fmt.Sprintf("%d.h", 1700000000+i), "x\n")
		select {
		case <-told:
		case <-time.After(5 * time.Second):
			t.Fatalf("not told of delivery %d", i)
		}
		if i%2 == 0 {
			go stop()
		} else {
			stop()
		}
	}
}

// A folder that came from elsewhere gets the control directory it lacks.
func TestControlDirectory(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("new", "1.h", "x\n")
	b.Mailbox.Release()
	control := filepath.Join(t.TempDir(), "a", "b")
	st, err := b.host.Open(tree.Config{Root: b.path, Control: control, Separator: '/'})
	if err != nil {
		t.Fatal(err)
	}
	b.st = st
	b.Mailbox = b.open("INBOX")
	b.want("1 1.h ")
	lists, err := filepath.Glob(filepath.Join(control, "*", "dovecot-uidlist"))
	if err != nil || len(lists) != 1 {
		t.Errorf("UID lists below the control directory: %q %v", lists, err)
	}
	// What is noted of a MOVE is beside the list, and found there.
	held := b.intend(intents.Intent{Kind: intents.Move, Target: ".", Steps: []intents.Step{{From: "9.h:2,", To: "9.h"}}})
	held.Close() // and killed
	notes, err := filepath.Glob(filepath.Join(control, "*", intents.Name))
	if err != nil || len(notes) != 1 || exists(b.dir, intents.Name) {
		t.Errorf("notes below the control directory: %q %v", notes, err)
	}
	b.restored = false // as a process that begins
	b.clean = stamp{}
	b.sync(Serve)
	if intents.Waiting(b.control) {
		t.Error("what was noted is still there")
	}
}

// Where UIDs cannot be recorded, mail without one is not shown; without any
// list the folder is refused, unless the site wants UIDs that do not stick.
func TestUnwritable(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,S", "x\n")
	b.sync(Serve)
	b.Mailbox.Release()
	b.deliver("new", "2.h", "x\n")
	var sealed faultfs.FS
	sealed.Arm(faultfs.Always("create", unix.EROFS))
	b.start(Options{Open: sealed.Open})
	b.want(`1 1.h \Seen`)
	if !b.UIDsStick() {
		t.Error("a UID from the list does not stick")
	}
	if _, err := b.SetFlags(context.Background(), []UID{1}, AddFlags, FlagSet{System: Flagged}); !errors.Is(err, unix.EROFS) {
		t.Errorf("STORE on a read-only disk: %v", err)
	}
	b.Mailbox.Release()
	if err := os.Remove(filepath.Join(b.path, "dovecot-uidlist")); err != nil {
		t.Fatal(err)
	}
	b.host.Close() // and with it what the Host remembers
	other := NewHost(Options{Open: sealed.Open})
	defer other.Close()
	st, err := other.Open(tree.Config{Root: b.path, Separator: '/'})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Mailbox(context.Background(), "INBOX"); !errors.Is(err, ErrNoUIDs) {
		t.Errorf("a folder without a list: %v", err)
	}
	b.start(Options{Open: sealed.Open, ReadOnly: true})
	b.want(`1 1.h \Seen`, "2 2.h ")
	if b.UIDsStick() {
		t.Error("UIDs of a folder without a list stick")
	}
	b.sync(Look)
	b.want(`1 1.h \Seen`, "2 2.h ")
	b.deliver("new", "3.h", "x\n")
	b.sync(Look)
	b.want(`1 1.h \Seen`, "2 2.h ")
}

// Clients that append at the same time each get a UID of their own, whoever did
// the work, and one that fails fails alone.
func TestAppendsTogether(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	lock, err := b.lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	const n = 20
	uids := make([]UID, n)
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		d, err := b.NewMessage(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(d, "Subject: %d\r\n\r\n", i)
		if i == 7 { // its file goes before it is placed
			if err := os.Remove(b.in("tmp", d.tmp)); err != nil {
				t.Fatal(err)
			}
		}
		all.Go(func() {
			defer d.Abort()
			ctx := context.Background()
			if i == 9 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithCancel(ctx)
				cancel()
			}
			_, u, err := b.Append(ctx, []Appending{{Delivery: d}})
			if errs[i] = err; err == nil {
				uids[i] = u[0]
			}
		})
	}
	for b.additions.waiting() < n-1 { // 9 may have led, and given up
		runtime.Gosched()
	}
	syncs := b.Snapshot().ModSeq
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	seen := map[UID]bool{}
	for i, u := range uids {
		switch {
		case i == 7 && errs[i] == nil:
			t.Error("a message without a file was appended")
		case i == 7 || i == 9 && errs[i] != nil:
		case errs[i] != nil:
			t.Errorf("message %d: %v", i, errs[i])
		case seen[u]:
			t.Errorf("UID %d twice", u)
		}
		seen[u] = true
	}
	s := b.Snapshot()
	if s.Len() < n-2 || s.ModSeq == syncs {
		t.Errorf("%d messages", s.Len())
	}
	b.sync(Serve)
	for _, msg := range s.Range(0, s.Len()) {
		if text, err := b.read(msg.UID); err != nil || uids[subject(t, text)] != msg.UID {
			t.Errorf("UID %d is %q, %v", msg.UID, text, err)
		}
	}
}

// subject returns the number in "Subject: n".
func subject(t *testing.T, text string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(text, "Subject: %d", &n); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return n
}
