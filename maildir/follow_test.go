package maildir

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// newLargeBox returns a box with n messages, in which nothing has happened for an
// hour.
func newLargeBox(t *testing.T, o Options, n int) *box {
	t.Helper()
	b := &box{t: t, path: filepath.Join(t.TempDir(), "Maildir")}
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(b.path, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if err := os.WriteFile(b.in("cur", fmt.Sprintf("17%08d.h:2,", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.rest()
	b.start(o)
	return b
}

// rest has the folder look as if nothing had happened for an hour.
func (b *box) rest() {
	b.t.Helper()
	old := time.Now().Add(-time.Hour)
	for _, d := range []string{"cur", "new"} {
		if err := os.Chtimes(b.in(d, ""), old, old); err != nil {
			b.t.Fatal(err)
		}
	}
}

// A process for many clients follows a large mailbox before the first change: then
// no look scans it again. Others do not.
func TestFollowEarly(t *testing.T) {
	t.Parallel()
	b := newLargeBox(t, Options{FollowEarly: true}, followFrom)
	b.sync(Look)
	if b.early.Load() {
		t.Error("a mailbox that nobody has selected is to be followed")
	}
	b.sync(Serve)
	if !b.early.Load() {
		t.Error("a large mailbox that was selected is not to be followed")
	}
	if b.track.following {
		t.Error("it was followed before the client had its answer")
	}
	b.followEarly()
	b.quietScans("deliveries and flags by another program", func() {
		b.deliver("new", "19.h", "x\n")
		b.sync(Serve)
		b.renamed("1700000007.h:2,", "1700000007.h:2,S")
		b.sync(Serve)
	})
	s := b.Snapshot()
	if s.Len() != followFrom+1 || s.At(7).Flags != Seen || s.At(followFrom).place() != inCur {
		t.Errorf("%d messages, flags %b", s.Len(), s.At(7).Flags)
	}

	one := newLargeBox(t, Options{}, followFrom)
	one.sync(Serve)
	if one.early.Load() || one.track.following {
		t.Error("a process for one client follows what it has selected")
	}
}

// What changes while the kernel is asked to tell of a folder is found by a scan.
func TestFollowEarlyTooLate(t *testing.T) {
	t.Parallel()
	b := newLargeBox(t, Options{FollowEarly: true}, followFrom)
	b.sync(Serve)
	b.renamed("1700000007.h:2,", "1700000007.h:2,S")
	b.followEarly()
	if b.track.sound {
		t.Error("a folder is trusted that is not as it was")
	}
	b.renamed("1700000008.h:2,", "1700000008.h:2,S")
	b.sync(Serve)
	if s := b.Snapshot(); s.At(7).Flags != Seen || s.At(8).Flags != Seen {
		t.Errorf("flags %b and %b", s.At(7).Flags, s.At(8).Flags)
	}
}

// A mailbox that has been closed meanwhile is left alone.
func TestFollowEarlyClosed(t *testing.T) {
	t.Parallel()
	b := newLargeBox(t, Options{FollowEarly: true}, followFrom)
	m := b.open("INBOX")
	b.sync(Serve)
	m.Release()
	b.Release()
	if b.followEarly(); b.track.following || b.early.Load() {
		t.Error("a mailbox is followed that nobody has open")
	}
	b.host.Close()
	b.followEarly()
}
