package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"imapd/maildir/vfs"
)

// distant has b be on a file system where a scan may miss files, and no stamp of
// the last seconds is clean.
func (b *box) distant() {
	b.atomic, b.local = false, false
	b.track.unsound()
}

// hide takes a file away from scans, and returns what brings it back.
func (b *box) hide(name string) (show func()) {
	b.t.Helper()
	move := func(from, to string) {
		b.t.Helper()
		if err := os.Rename(filepath.Join(b.path, from), filepath.Join(b.path, to)); err != nil {
			b.t.Fatal(err)
		}
	}
	move("cur/"+name, "tmp/hidden")
	return func() { move("tmp/hidden", "cur/"+name) }
}

// A message whose line is there and whose file a scan has missed keeps its UID, and
// those above it wait for it.
func TestFileMissedByScan(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true})
	b.deliver("cur", "1.h:2,", "x\n")
	b.sync(Look)
	b.distant()
	for _, name := range []string{"2.h:2,S", "3.h:2,"} {
		b.deliver("cur", name, "x\n")
	}
	b.listed("2 :2.h")
	b.listed("3 :3.h")
	show := b.hide("2.h:2,S")
	if locking, err := b.glance(context.Background(), Look); !locking || err != nil {
		t.Errorf("the lock is not asked for: %v", err)
	}
	b.want("1 1.h ")
	if n := b.Snapshot().Next; n != 2 {
		t.Errorf("UIDNEXT %d while UID 2 is looked for", n)
	}
	if b.clean != (stamp{}) {
		t.Error("the folder counts as known")
	}
	show()
	b.sync(Look)
	b.want("1 1.h ", `2 2.h \Seen`, "3 3.h ")
}

// Where another process has no list of what it has shown it shows all or nothing.
func TestFileMissedByFirstScan(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true})
	for _, name := range []string{"1.h:2,", "2.h:2,S", "3.h:2,"} {
		b.deliver("cur", name, "x\n")
	}
	b.sync(Look)
	other := NewHost(Options{NoNotify: true})
	defer other.Close()
	st, err := other.Open(b.st.cfg)
	if err != nil {
		t.Fatal(err)
	}
	m, err := st.share(context.Background(), "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Release()
	m.atomic, m.local = false, false
	show := b.hide("1.h:2,")
	if locking, err := m.glance(context.Background(), Look); !locking || err != nil || m.Snapshot() != nil {
		t.Errorf("half a mailbox is shown: %v, %v", locking, err)
	}
	show()
	if err := m.Sync(context.Background(), Look); err != nil {
		t.Fatal(err)
	}
	if got := told(m); !slices.Equal(got, told(b.Mailbox)) || len(got) != 3 {
		t.Errorf("%q", got)
	}
}

// A line without a file keeps nobody waiting for long, neither who looks nor who
// adds a message.
func TestLineWithoutFile(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true})
	b.deliver("cur", "1.h:2,", "x\n")
	b.sync(Look)
	b.distant()
	b.listed("2 :2.h")
	b.deliver("cur", "3.h:2,", "x\n")
	b.listed("3 :3.h")
	b.sync(Look)
	b.want("1 1.h ", "3 3.h ")
	b.listed("4 :4.h")
	if u := b.append(b.Mailbox, "x\n", FlagSet{}); u != 5 {
		t.Errorf("UID %d", u)
	}
	// Its file comes after all.
	b.deliver("cur", "4.h:2,F", "x\n")
	b.sync(Look)
	if l := told(b.Mailbox); len(l) != 4 || l[3] != `6 4.h \Flagged` {
		t.Errorf("%q", l)
	}
	// In a folder that is at rest two scans are enough.
	b.listed("7 :7.h")
	b.rest()
	start := time.Now()
	b.sync(Look)
	if d := time.Since(start); d > spread || b.Snapshot().Next != 8 {
		t.Errorf("UIDNEXT %d after %v", b.Snapshot().Next, d)
	}
}

// A real expunge is told even if the folder is never at rest, and nobody needs the
// lock for anything else.
func TestExpungeInUnrest(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true})
	b.deliver("cur", "1.h:2,", "x\n")
	b.deliver("cur", "2.h:2,", "x\n")
	b.sync(Look)
	b.distant()
	if err := os.Remove(b.in("cur", "1.h:2,")); err != nil {
		t.Fatal(err)
	}
	names := []string{"2.h:2,", "2.h:2,S"}
	for start := time.Now(); b.Snapshot().Len() == 2 && time.Since(start) < 5*time.Second; slices.Reverse(names) {
		b.renamed(names[0], names[1])
		b.sync(Look)
		time.Sleep(time.Millisecond)
	}
	if l := told(b.Mailbox); len(l) != 1 || l[0][:3] != "2 2" {
		t.Errorf("%q", l)
	}
}

// hooked calls fn each time that somebody is about to read the directory.
type hooked struct {
	vfs.Dir
	fn func()
}

func (d hooked) Fd() int { d.fn(); return d.Dir.Fd() }

// A file that is moved from cur/ to new/ each time that new/ has been read already,
// as a program may that marks mail as new, is not gone: neither where the time of
// new/ says so nor where its clock is too coarse for that.
func TestMovedAgainstTheScan(t *testing.T) {
	t.Parallel()
	for _, granule := range []time.Duration{0, 4 * time.Millisecond, time.Second} {
		t.Run(granule.String(), func(t *testing.T) {
			t.Parallel()
			movedAgainstTheScan(newBox(t, Options{NoNotify: true, granule: granule}))
		})
	}
}

func movedAgainstTheScan(b *box) {
	b.deliver("cur", "1.h:2,", "x\n")
	b.deliver("cur", "2.h:2,", "x\n")
	b.sync(Serve)
	read := b.host.scans.Load()
	move := func(from, to string) func() {
		last := read
		return func() {
			if n := b.host.scans.Load(); n > last {
				last = n
				os.Rename(b.in(from, "1.h:2,"), b.in(to, "1.h:2,"))
			}
		}
	}
	midSecond() // so that all that follows is in one
	b.cur, b.new = hooked{b.cur, move("cur", "new")}, hooked{b.new, move("new", "cur")}
	b.clean = stamp{}
	view := b.Snapshot()
	for i := range 3 {
		b.renamed("2.h:2,", "2.h:2,")
		b.deliver("new", fmt.Sprint(i+8, ".h"), "x\n")
		b.sync(Look)
	}
	if _, d, err := Advance(view, b.Snapshot(), false); len(d.Gone) > 0 || err != nil {
		b.t.Errorf("%v gone, %v", d.GoneUIDs, err)
	}
}
