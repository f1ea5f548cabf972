package maildir

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imapd/maildir/vfs"
)

// acting calls before ahead of each change of the directory.
type acting struct {
	vfs.Dir
	before func()
}

func (d acting) RenameNoReplace(name string, to vfs.Dir, newname string) error {
	d.before()
	return d.Dir.RenameNoReplace(name, to, newname)
}

func (d acting) Unlink(name string) error {
	d.before()
	return d.Dir.Unlink(name)
}

// at calls fn ahead of the change k+1 of a file of b.
func (b *box) at(k int, fn func()) {
	n := 0
	before := func() {
		if n++; n == k+1 {
			fn()
		}
	}
	b.cur, b.new = acting{b.cur, before}, acting{b.new, before}
}

// An edit of many files is not followed to its end. It finds what others do meanwhile,
// the mailbox is followed afterwards, and who watches it is told.
func TestBulk(t *testing.T) {
	t.Parallel()
	for what, tt := range map[string]struct {
		name   string // of each file
		events int    // of each change
		edit   func(b *box) error
		seen   string // the message that another program marks as seen meanwhile
	}{
		"STORE": {"cur/%04d.h:2,", 2, func(b *box) error {
			var uids []UID
			for _, m := range b.Snapshot().Range(0, b.Snapshot().Len()) {
				uids = append(uids, m.UID)
			}
			_, err := b.SetFlags(context.Background(), uids, AddFlags, FlagSet{System: Draft})
			return err
		}, `\Seen \Draft`},
		"EXPUNGE": {"cur/%04d.h:2,T", 1, func(b *box) error {
			_, err := b.Expunge(context.Background(), nil)
			return err
		}, `\Seen`},
		"new mail": {"new/%04d.h", 2, func(b *box) error { return b.Sync(context.Background(), Serve) }, `\Seen`},
	} {
		for _, watched := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, watched: %v", what, watched), func(t *testing.T) {
				t.Parallel()
				const n = 3 * bulkFrom
				b := newBox(t, Options{Fsync: FsyncNever})
				name := func(i int) string { return b.in(fmt.Sprintf(tt.name, i)) }
				for i := range n {
					if err := os.WriteFile(name(i), []byte("x"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if b.follow(); what != "new mail" {
					b.followed()
				}
				var reached atomic.Int32
				var early sync.WaitGroup
				defer early.Wait()
				b.at(bulkFrom/tt.events-1, func() {
					if reached.Add(1); !b.host.hub.has(b.Mailbox) {
						t.Error("not followed from the beginning")
					}
				})
				b.at(bulkFrom/tt.events+1, func() {
					// The watch that a SELECT has begun may come now.
					early.Go(b.followEarly)
					time.Sleep(20 * time.Millisecond)
					if reached.Add(1); b.host.hub.has(b.Mailbox) {
						t.Error("followed")
					}
					b.deliver("cur", "9999.h:2,", "x")
					if err := os.Rename(name(n-1), b.in("cur", fmt.Sprintf("%04d.h:2,S", n-1))); err != nil {
						t.Error(err)
					}
				})
				if watched {
					defer b.Watch(Serve, nil)()
				}
				if err := tt.edit(b); err != nil {
					t.Fatal(err)
				}
				if !watched {
					b.edited()
				}
				want := []string{fmt.Sprintf("%d %04d.h %s", n, n-1, tt.seen), fmt.Sprintf("%d 9999.h ", n+1)}
				last := func() []string { l := told(b.Mailbox); return l[max(0, len(l)-2):] }
				for end := time.Now().Add(5 * time.Second); watched && !(slices.Equal(last(), want) && b.isTracked()) && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				if l := last(); !slices.Equal(l, want) || reached.Load() != 2 {
					t.Errorf("the last are %q, want %q; %d of 2 places reached", l, want, reached.Load())
				}
				if !b.isTracked() {
					t.Error("not tracked afterwards")
				}
			})
		}
	}
}

// What another program has marked goes with what we knew to be marked, and without it,
// and costs no scan. So does what is marked while we expunge.
func TestExpungeForeign(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{Fsync: FsyncNever})
	for i := range 9 {
		b.deliver("cur", fmt.Sprintf("%d.h:2,", i+1), "x")
	}
	b.followed()
	mark := func(i int) { b.renamed(fmt.Sprintf("%d.h:2,", i), fmt.Sprintf("%d.h:2,T", i)) }
	expunge := func(want ...UID) {
		t.Helper()
		if gone, err := b.Expunge(context.Background(), nil); !slices.Equal(gone, want) || err != nil {
			t.Errorf("%v has gone (%v), want %v", gone, err, want)
		}
	}
	delUs := func(u UID) {
		if _, err := b.SetFlags(context.Background(), []UID{u}, AddFlags, FlagSet{System: Deleted}); err != nil {
			t.Fatal(err)
		}
	}
	b.quietScans("EXPUNGE", func() {
		mark(1)
		expunge(1)
		delUs(2)
		mark(3)
		expunge(2, 3)
		delUs(4)
		expunge(4)
		expunge()
		delUs(5)
		b.at(0, func() { mark(6) })
		expunge(5, 6)
	})
	b.want("7 7.h ", "8 8.h ", "9 9.h ")
}
