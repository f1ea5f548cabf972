package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/faultfs"
	"imapd/maildir/index"
	"imapd/maildir/vfs"
)

// waiting returns how many wait for the lock.
func (j *joint[T]) waiting() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.queue)
}

// bursting is a directory from which nothing can be renamed without a panic.
type bursting struct{ vfs.Dir }

func (bursting) RenameNoReplace(string, vfs.Dir, string) error { panic("a bug") }

// A session that ends by a bug while it appends for others leaves none waiting, and
// none with the belief that its message is there.
func TestAppendsTogetherBurst(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	lock, err := b.lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	const n = 3
	ended := make(chan error, n)
	for range n {
		d, err := b.NewMessage(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Abort)
		go func() {
			defer func() {
				if recover() != nil {
					ended <- errCutShort
				}
			}()
			_, _, err := b.Append(context.Background(), []Appending{{Delivery: d}})
			ended <- err
		}()
	}
	for b.additions.waiting() < n {
		runtime.Gosched()
	}
	tmp := b.tmp
	b.tmp = bursting{tmp}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	for range n {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a message is said to be there")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a session waits for ever")
		}
	}
	b.tmp = tmp
	if u := b.append(b.Mailbox, "x\n", FlagSet{}); u != 1 {
		t.Errorf("UID %d afterwards", u)
	}
}

// Commands of clients who wait for the lock of one mailbox are done together, whatever
// brings the messages, and each is whole or fails alone.
func TestAddedTogether(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	ctx := context.Background()
	for i := range 3 {
		b.append(b.Mailbox, fmt.Sprintf("source %d\r\n", i+1), FlagSet{System: Flagged})
	}
	if err := b.st.Create(ctx, "Other"); err != nil {
		t.Fatal(err)
	}
	other := b.open("Other")
	other.ModSeqs()
	write := func(text string, there bool) Appending {
		d, err := other.NewMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Abort)
		fmt.Fprintf(d, "%s\r\n", text)
		if !there {
			if err := os.Remove(b.in(".Other", "tmp", d.tmp)); err != nil {
				t.Fatal(err)
			}
		}
		return Appending{Delivery: d}
	}
	appending := func(msgs ...Appending) func() ([]UID, error) {
		return func() ([]UID, error) {
			_, uids, err := other.Append(ctx, msgs)
			return uids, err
		}
	}
	copying := func(do func(context.Context, []UID, *Mailbox) (Copied, error), uids ...UID) func() ([]UID, error) {
		return func() ([]UID, error) {
			c, err := do(ctx, uids, other)
			return c.To, err
		}
	}
	commands := []struct {
		do   func() ([]UID, error)
		text []string // nil: it fails
	}{
		{appending(write("one", true)), []string{"one"}},
		{appending(write("gone", false)), nil},
		{appending(write("two", true), write("three", true)), []string{"two", "three"}},
		{appending(write("half", true), write("half", false)), nil},
		{copying(b.Copy, 1, 2), []string{"source 1", "source 2"}},
		{copying(b.Copy, 2, 3), []string{"source 2", "source 3"}},
		{copying(b.Move, 3), []string{"source 3"}},
	}
	lock, err := other.lock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	before := other.Snapshot()
	uids, errs := make([][]UID, len(commands)), make([]error, len(commands))
	var all sync.WaitGroup
	for i, c := range commands {
		all.Go(func() { uids[i], errs[i] = c.do() })
	}
	for other.additions.waiting() < len(commands) {
		runtime.Gosched()
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if got := other.Snapshot().ModSeq; got == before.ModSeq {
		t.Errorf("modseq %d as before", got)
	}
	want := map[UID]string{}
	for i, c := range commands {
		if (errs[i] == nil) != (c.text != nil) || len(uids[i]) != len(c.text) {
			t.Errorf("command %d: UIDs %d, %v", i, uids[i], errs[i])
			continue
		}
		for k, u := range uids[i] {
			want[u] = c.text[k]
			if k > 0 && u != uids[i][k-1]+1 {
				t.Errorf("command %d: UIDs %d", i, uids[i])
			}
		}
	}
	other.Sync(ctx, Serve)
	bases := map[string]bool{}
	for _, msg := range other.Snapshot().Range(0, other.Snapshot().Len()) {
		if text, err := os.ReadFile(b.in(".Other", "cur", string(msg.name()))); err != nil || strings.TrimSpace(string(text)) != want[msg.UID] || text == nil {
			t.Errorf("UID %d is %q (%v), want %q", msg.UID, text, err, want[msg.UID])
		}
		if msg.ModSeq != other.Snapshot().ModSeq {
			t.Errorf("UID %d has not come with the rest", msg.UID)
		}
		bases[string(msg.base())] = true
	}
	if n := other.Snapshot().Len(); n != len(want) || n != len(bases) || n != 8 {
		t.Errorf("%d messages with %d base names, want %d", n, len(bases), len(want))
	}
	b.sync(Serve)
	if left := told(b.Mailbox); len(left) != 2 {
		t.Errorf("%q are left", left)
	}
}

// Clients who wait to expunge are served together, each what it has asked for.
func TestExpungedTogether(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	for i := range 6 {
		b.deliver("cur", fmt.Sprintf("%d.h:2,T", i+1), "x")
	}
	b.sync(Serve)
	b.ModSeqs()
	lock, err := b.lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	wants := [][]UID{{1, 2}, {2, 3}, {}, {5}}
	gone := make([][]UID, len(wants))
	var all sync.WaitGroup
	for i, want := range wants {
		all.Go(func() {
			var err error
			if gone[i], err = b.Expunge(context.Background(), func(u UID) bool { return slices.Contains(want, u) }); err != nil {
				t.Error(err)
			}
		})
	}
	for b.expunges.waiting() < len(wants) {
		runtime.Gosched()
	}
	since := b.Snapshot().ModSeq
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	for i, want := range wants {
		if !slices.Equal(gone[i], want) && len(gone[i])+len(want) > 0 {
			t.Errorf("client %d: %d have gone, want %d", i, gone[i], want)
		}
	}
	b.want("4 4.h \\Deleted", "6 6.h \\Deleted")
	if n := len(slices.DeleteFunc(slices.Clone(b.past.gone), func(r index.Range) bool { return r.ModSeq <= uint64(since) })); n == 0 {
		t.Error("no expunge is recorded")
	}
	for _, r := range b.past.gone {
		if r.ModSeq != uint64(b.Snapshot().ModSeq) {
			t.Errorf("%d to %d have not gone with the rest", r.From, r.To)
		}
	}
}

// A message that comes to a folder which another process has deleted meanwhile is
// refused, and not put into what is left of it in the trash, though that is all there.
func TestAddToTrashed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, follow := range []bool{false, true} {
		b := newBox(t, Options{NoNotify: !follow})
		stock(1)(b)
		target := *b
		target.Mailbox = b.open("Other")
		if follow {
			target.followed()
		}
		d, err := target.NewMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Abort()
		fmt.Fprint(d, "begun before\n")
		var fault faultfs.FS
		other := *b
		other.start(Options{Open: fault.Open})
		fault.Arm(func(c faultfs.Call) error {
			if c.Op == "unlink" && strings.Contains(c.Path, "/..DOVECOT-TRASHED/") {
				return faultfs.ErrKilled
			}
			return nil
		})
		if other.st.Delete(ctx, "Other"); !fault.Dead() {
			t.Fatal("the trash was emptied")
		}
		b.ageLocks()
		if _, _, err := target.Append(ctx, []Appending{{Delivery: d}}); !errors.Is(err, ErrNotFound) {
			t.Errorf("APPEND, tracked %v: %v", follow, err)
		}
		if _, err := b.Move(ctx, []UID{1}, target.Mailbox); !errors.Is(err, ErrNotFound) {
			t.Errorf("MOVE, tracked %v: %v", follow, err)
		}
		if b.sync(Look); b.Snapshot().Len() != 1 {
			t.Errorf("tracked %v: INBOX has %q", follow, told(b.Mailbox))
		}
	}
}

// Who waits for the lock that another program has waits no longer for being behind others,
// and who is cut off does not wait at all.
func TestTogetherBusy(t *testing.T) {
	t.Parallel()
	const n, wait = 6, 200 * time.Millisecond
	b := newBox(t, Options{LockWait: wait})
	b.deliver("cur", "1.h:2,T", "x")
	b.sync(Serve)
	b.deliver("", "dovecot-uidlist.lock", "1:elsewhere")
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	begin := time.Now()
	errs, took := make([]error, n+1), make([]time.Duration, n+1)
	var all sync.WaitGroup
	for i := range n + 1 {
		all.Go(func() {
			if i == n {
				for b.expunges.waiting() < n {
					runtime.Gosched()
				}
				all.Go(func() {
					for b.expunges.waiting() <= n {
						runtime.Gosched()
					}
					cut()
				})
				_, errs[i] = b.Expunge(ctx, nil)
			} else {
				_, errs[i] = b.Expunge(context.Background(), nil)
			}
			took[i] = time.Since(begin)
		})
	}
	all.Wait()
	for i, err := range errs[:n] {
		if !errors.Is(err, ErrBusy) || took[i] > 3*wait {
			t.Errorf("client %d: %v after %v", i, err, took[i])
		}
	}
	if !errors.Is(errs[n], context.Canceled) || took[n] >= wait {
		t.Errorf("who was cut off: %v after %v", errs[n], took[n])
	}
}

// A syncedDir is a directory whose syncs go on when the test says so.
type syncedDir struct {
	vfs.Dir
	begun chan struct{}
	goOn  chan error
}

func (d *syncedDir) Sync() error {
	d.begun <- struct{}{}
	return <-d.goOn
}

func (d *syncedDir) RenameNoReplace(name string, to vfs.Dir, newname string) error {
	if t, ok := to.(*syncedDir); ok {
		to = t.Dir
	}
	return d.Dir.RenameNoReplace(name, to, newname)
}

// STOREs that wait for the disk wait for one sync, that begins after all of them. One
// that gives up leaves the others theirs, and a sync that fails does so for all.
func TestSyncedTogether(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{Fsync: FsyncAlways})
	const n = 5
	for i := range n {
		b.deliver("cur", fmt.Sprintf("%d.h:2,", i+1), "x")
	}
	b.sync(Serve)
	b.ModSeqs()
	d := &syncedDir{Dir: b.cur, begun: make(chan struct{}), goOn: make(chan error)}
	b.cur = d
	t.Cleanup(func() { b.cur = d.Dir })
	late := time.After(20 * time.Second)
	store := func(ctx context.Context, u UID) <-chan error {
		answer := make(chan error, 1)
		go func() {
			_, err := b.SetFlags(ctx, []UID{u}, AddFlags, FlagSet{System: Seen})
			answer <- err
		}()
		return answer
	}
	answered := func(answer <-chan error) error {
		t.Helper()
		select {
		case err := <-answer:
			return err
		case <-late:
			t.Fatal("no answer")
			return nil
		}
	}
	syncs := 0
	begins := func() {
		t.Helper()
		select {
		case <-d.begun:
			syncs++
		case <-late:
			t.Fatal("nothing is synced")
		}
	}
	waits := func(u UID) { // until u has the flag, and somebody waits for the next sync
		t.Helper()
		for {
			b.renames.mu.Lock()
			next := b.renames.next != nil
			b.renames.mu.Unlock()
			if msg, ok := b.Snapshot().lookup(u); ok && msg.Flags&Seen != 0 && next {
				return
			}
			select {
			case <-late:
				t.Fatal("it does not come so far")
			case <-time.After(time.Millisecond):
			}
		}
	}
	first := store(context.Background(), 1)
	begins()
	// The second would sync for those that come after it, and gives up.
	ctx, cancel := context.WithCancel(context.Background())
	second := store(ctx, 2)
	waits(2)
	var rest []<-chan error
	for u := UID(3); u <= n; u++ {
		rest = append(rest, store(context.Background(), u))
		waits(u)
	}
	time.Sleep(10 * time.Millisecond) // so that all have come to where they wait
	cancel()
	if err := answered(second); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	time.Sleep(10 * time.Millisecond)
	d.goOn <- nil
	if err := answered(first); err != nil {
		t.Error(err)
	}
	begins()
	for _, r := range rest {
		select {
		case err := <-r:
			t.Fatalf("an answer before it is on disk: %v", err)
		default:
		}
	}
	d.goOn <- unix.EIO
	failed, ended := 0, make(chan error)
	go func() {
		for _, r := range rest {
			ended <- <-r
		}
		close(ended)
	}()
	for done := false; !done; {
		select {
		case err, more := <-ended:
			if done = !more; errors.Is(err, unix.EIO) {
				failed++
			}
		case <-d.begun: // for one that came later than it should have
			syncs++
			d.goOn <- unix.EIO
		case <-late:
			t.Fatal("a STORE waits for ever")
		}
	}
	if failed != n-2 || syncs > 3 {
		t.Errorf("%d of %d failed, with %d syncs", failed, n-2, syncs)
	}
}
