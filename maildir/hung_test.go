package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/faultfs"
	"imapd/maildir/tree"
	"imapd/maildir/vfs"
)

// hangs mounts a file system at dir that does not answer before it is released.
func hangs(t *testing.T, dir string) (release func()) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Mount("hung", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd))
	}
	if os.IsPermission(err) || os.IsNotExist(err) {
		t.Skipf("NOT TESTED, for want of the right to mount: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { unix.Close(fd) }) // which ends all that waits for it
	t.Cleanup(func() {
		release()
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return release
}

// soon fails the test if fn takes long.
func soon(t *testing.T, what string, fn func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(5 * time.Second):
		t.Errorf("%s waits for the disk of another user", what)
	}
}

// A user whose file server hangs at the moment when his mailbox begins to be followed
// has nobody wait but himself.
func TestFollowHungPath(t *testing.T) {
	t.Parallel()
	h := NewHost(Options{})
	t.Cleanup(func() { h.Close() })
	dir := t.TempDir()
	bad, good := userIn(t, h, dir), &box{t: t, host: h, Mailbox: userIn(t, h, t.TempDir())}
	uid := good.append(good.Mailbox, "x\r\n", FlagSet{})
	good.follow()
	release := hangs(t, filepath.Join(dir, "Maildir", "cur"))
	var waits sync.WaitGroup
	defer waits.Wait()
	defer release()
	ended := make(chan struct{})
	waits.Go(func() { bad.follow(); close(ended) }) // IDLE, or the first STORE
	for len(bad.gate.slots) == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx := context.Background()
	soon(t, "STORE", func() error {
		_, err := good.SetFlags(ctx, []UID{uid}, AddFlags, FlagSet{System: Flagged})
		return err
	})
	soon(t, "NOOP", func() error { return good.Sync(ctx, Serve) })
	soon(t, "IDLE", func() error { good.Watch(Serve, nil)(); return nil })
	soon(t, "IDLE of one who comes", func() error { userIn(t, h, t.TempDir()).Watch(Serve, nil)(); return nil })
	soon(t, "the fence", func() error {
		if !h.hub.catchUp() {
			return errors.New("events do not come")
		}
		return nil
	})
	select {
	case <-ended:
		t.Error("the path does not hang: the test is none")
	default:
	}
}

// Sessions of a user whose disk hangs wait without a thread, but for as many as he may
// have operations, and give up with their clients.
func TestThreadsOfHungDisk(t *testing.T) {
	h := NewHost(Options{NoNotify: true, Slots: 3, SlotsPerUser: 2})
	t.Cleanup(func() { h.Close() })
	root := filepath.Join(t.TempDir(), "Maildir")
	st, err := h.Open(tree.Config{Root: root, Separator: '/'})
	if err == nil {
		err = st.Init()
	}
	if err != nil {
		t.Fatal(err)
	}
	release := hangs(t, root)
	threads := func() int {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return len(tasks)
	}
	before := threads()
	const sessions = 200
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	back := make(chan error, sessions)
	for range sessions {
		go func() {
			_, err := st.Mailbox(ctx, "INBOX")
			back <- err
		}()
	}
	for range sessions - 2 {
		select {
		case err := <-back:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%d sessions have not given up", sessions-len(back))
		}
	}
	if n := threads() - before; n > 20 {
		t.Errorf("%d threads more for %d sessions of one user, who may have 2 slots", n, sessions)
	}
	release()
	for range 2 {
		<-back
	}
}

// Whatever asks the disk for something has a slot.
func TestEachOperationHasASlot(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h := NewHost(Options{SlotsPerUser: 1})
	t.Cleanup(func() { h.Close() })
	m := userIn(t, h, t.TempDir())
	b := &box{t: t, host: h, st: m.store, Mailbox: m}
	fresh := func() *Mailbox { // of its own where Mailbox.mu is held meanwhile
		name := fmt.Sprint(len(h.boxes))
		if err := b.st.Create(ctx, name); err != nil {
			t.Fatal(err)
		}
		return b.open(name)
	}
	b.append(m, strings.Repeat("x\r\n", 100), FlagSet{})
	if err := b.st.Create(ctx, "unused"); err != nil {
		t.Fatal(err)
	}
	once, other, target := fresh(), fresh(), fresh()
	looked, known, told, watched := fresh(), fresh(), fresh(), fresh()
	msg := m.Snapshot().At(0)
	file, err := m.OpenMessage(ctx, msg)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	begun := func() *Delivery {
		d, err := m.NewMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Write([]byte("x\n")); err != nil {
			t.Fatal(err)
		}
		return d
	}
	written, whole, aborted := begun(), begun(), begun()
	defer written.Abort()
	defer whole.Abort()
	hold := bounds{m.gate.slots, m.disk.slots, h.slots}
	if err := hold.enter(ctx); err != nil {
		t.Fatal(err)
	}
	ops := map[string]func() error{
		"open":       func() error { x, err := b.st.Mailbox(ctx, "INBOX"); return errors.Join(err, release(x)) },
		"open other": func() error { x, err := b.st.Mailbox(ctx, "unused"); return errors.Join(err, release(x)) },
		"target":     func() error { x, err := b.st.Target(ctx, target.Name()); return errors.Join(err, release(x)) },
		"login":      func() error { _, err := h.Open(b.st.cfg); return err },
		"list":       func() error { _, err := b.st.List(); return err },
		"look":       func() error { _, err := b.st.Look("unused"); return err },
		"sync":       func() error { return m.Sync(ctx, Look) },
		"news":       func() error { looked.hasNews(ctx); return nil },
		"lock":       func() error { l, err := other.lock(ctx); return errors.Join(err, l.Unlock()) },
		"create":     func() error { d, err := m.NewMessage(ctx); d.Abort(); return err },
		"write":      func() error { _, err := written.Write(make([]byte, deliveryBuffer)); return err },
		"fsync":      func() error { return whole.settle(time.Now()) },
		"abort":      func() error { aborted.Abort(); return nil },
		"read":       func() error { _, err := file.ReadAt(make([]byte, 10), 0); return err },
		"date":       func() error { _, err := m.Date(msg); return err },
		"copy":       func() error { _, err := m.Copy(ctx, []UID{1}, other); return err },
		"sources":    func() error { _, err := known.sources(ctx, []UID{1}); return err },
		"modseqs":    func() error { told.ModSeqs(); return nil },
		"read-only":  func() error { m.ReadOnly(); return nil },
		"follow":     func() error { watched.follow(); return nil },
		"release":    func() error { once.Release(); return nil },
	}
	// What a record knows needs no disk.
	msg.rec.Size = ^uint32(0)
	var waits sync.WaitGroup
	var mu sync.Mutex
	ended := map[string]error{}
	for what, op := range ops {
		waits.Go(func() {
			err := op()
			mu.Lock()
			defer mu.Unlock()
			ended[what] = err
		})
	}
	time.Sleep(100 * time.Millisecond)
	mu.Lock()
	for what, err := range ended {
		t.Errorf("%s has ended without a slot: %v", what, err)
	}
	clear(ended)
	mu.Unlock()
	hold.leave()
	waits.Wait()
	for what, err := range ended {
		if err != nil && err != io.EOF {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(m.gate.slots)+len(m.disk.slots)+len(h.slots) > 0 {
		t.Error("slots have not been given back")
	}
}

func release(m *Mailbox) error {
	if m != nil {
		m.Release()
	}
	return nil
}

// The last session of a mailbox goes, and to make room another one is closed, of a user
// whose disk hangs. Nobody waits for that.
func TestReleaseDoesNotWaitForOthers(t *testing.T) {
	t.Parallel()
	var fs faultfs.FS
	bad := t.TempDir()
	h := NewHost(Options{NoNotify: true, Open: func(path string) (vfs.Dir, error) {
		if strings.HasPrefix(path, bad) {
			return fs.Open(path)
		}
		return vfs.Open(path)
	}})
	h.mostKept = 1
	first := userIn(t, h, bad)
	if !first.ModSeqs() {
		t.Fatal("no index, and nothing to do when it is closed")
	}
	second, third := userIn(t, h, t.TempDir()), userIn(t, h, t.TempDir())
	first.Release()
	hung, free := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(hung) })
	fs.Arm(func(c faultfs.Call) error { once(); <-free; return nil })
	soon(t, "the end of a session", func() error { second.Release(); return nil })
	<-hung
	soon(t, "the end of a session that has a third mailbox closed", func() error { third.Release(); return nil })
	ended := make(chan struct{})
	go func() { h.Close(); close(ended) }()
	close(free)
	<-ended
	if len(h.gates)+len(h.disks) > 0 {
		t.Errorf("%d users and %d disks when all is closed", len(h.gates), len(h.disks))
	}
}

// The disk of a user who is not known is that of the users beside him.
func TestHomes(t *testing.T) {
	t.Parallel()
	h := NewHost(Options{NoNotify: true, Slots: 2, SlotsPerUser: 1})
	t.Cleanup(func() { h.Close() })
	dir, there := t.TempDir(), elsewhere(t)
	home := func(names ...string) string { return filepath.Join(append(names, "Maildir")...) }
	for i, d := range []string{dir, there} {
		for range 2 {
			userIn(t, h, filepath.Join(d, fmt.Sprint("u", i)))
		}
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Stat(dir, &a), unix.Stat(there, &b)); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for root, dev := range map[string]uint64{home(dir, "new"): a.Dev, home(there, "new"): b.Dev, "/nowhere/u": 0, "u": 0, "/": 0} {
		if got := h.home(root); got != dev {
			t.Errorf("%s is on %d, want %d: %v", root, got, dev, h.homes)
		}
	}
	if len(h.homes) != 2 {
		t.Errorf("homes: %v", h.homes)
	}
}
