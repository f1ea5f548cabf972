package maildir

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

// renamed is what another program does.
func (b *box) renamed(from, to string) {
	b.t.Helper()
	if err := os.Rename(b.in("cur", from), b.in("cur", to)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) flag(uid UID) {
	b.t.Helper()
	if _, err := b.SetFlags(context.Background(), []UID{uid}, AddFlags, FlagSet{System: Flagged}); err != nil {
		b.t.Fatal(err)
	}
}

// followed has b tracked.
func (b *box) followed() {
	b.t.Helper()
	b.follow()
	b.clean = stamp{}
	b.sync(Serve)
	if !b.track.sound {
		b.t.Fatal("not tracked")
	}
}

// quietScans fails the test unless fn works without reading a directory.
func (b *box) quietScans(what string, fn func()) {
	b.t.Helper()
	before := b.host.scans.Load()
	fn()
	if n := b.host.scans.Load() - before; n > 0 {
		b.t.Errorf("%s: %d directories read", what, n)
	}
}

// What changes one by one is never scanned for: neither without an index, nor with one
// and the look that ends the commands of a client that is told modseqs.
func TestChangesNeedNoScan(t *testing.T) {
	t.Parallel()
	for what, remembers := range map[string]bool{"plain": false, "with an index": true} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, Options{Fsync: FsyncNever})
			end := b.Sync
			if remembers {
				end = b.SyncEdited
			}
			changesNeedNoScan(b, remembers, func() {
				b.t.Helper()
				if err := end(context.Background(), Serve); err != nil {
					b.t.Fatal(err)
				}
			})
		})
	}
}

// changesNeedNoScan has b changed in every way, and calls end after each change of its
// own.
func changesNeedNoScan(b *box, remembers bool, end func()) {
	const n = 10_000
	for i := range n {
		if err := os.WriteFile(b.in("cur", fmt.Sprintf("17%08d.h:2,", i)), nil, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
	b.sync(Serve)
	if remembers {
		b.remembering()
	}
	since := b.Snapshot().ModSeq
	b.quietScans("1000 STOREs", func() {
		for u := range UID(1000) {
			b.flag(u + 1)
			end()
		}
	})
	b.quietScans("100 deliveries", func() {
		for i := range 100 {
			b.deliver("new", fmt.Sprintf("18%08d.h", i), "x\n")
			b.sync(Serve)
			if got := b.Snapshot().Len(); got != n+i+1 {
				b.t.Fatalf("%d messages after %d deliveries", got, i+1)
			}
		}
	})
	b.quietScans("1000 NOOPs", func() {
		for range 1000 {
			b.sync(Serve)
		}
	})
	b.quietScans("flags by another program", func() {
		b.renamed("1700005000.h:2,", "1700005000.h:2,S")
		b.sync(Serve)
	})
	if b.Snapshot().At(5000).Flags != Seen {
		b.t.Error("a flag that another program has set is not seen")
	}
	b.quietScans("expunge by another program", func() {
		if err := os.Remove(b.in("cur", "1700005000.h:2,S")); err != nil {
			b.t.Fatal(err)
		}
		b.sync(Serve)
	})
	if got := b.Snapshot().Len(); got != n+99 {
		b.t.Errorf("%d messages after one was removed", got)
	}
	b.quietScans("100 expunges", func() {
		for u := range UID(100) {
			if _, err := b.SetFlags(context.Background(), []UID{u + 1}, AddFlags, FlagSet{System: Deleted}); err != nil {
				b.t.Fatal(err)
			}
			if _, err := b.Expunge(context.Background(), nil); err != nil {
				b.t.Fatal(err)
			}
			end()
		}
	})
	if gone, complete := b.Expunged(since); remembers && (len(gone) != 101 || !complete) {
		b.t.Errorf("%d expunges are remembered, all: %v", len(gone), complete)
	}
	if got := b.Snapshot().Len(); got != n-1 {
		b.t.Errorf("%d messages in the end", got)
	}
}

// A change that hides behind our own in the time of the folder is told by its
// event.
func TestChangeHiddenByTheClock(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,", "x\n")
	b.deliver("cur", "2.h:2,", "x\n")
	b.followed()
	b.flag(1)
	b.sync(Serve)
	st, err := os.Stat(b.in("cur"))
	if err != nil {
		t.Fatal(err)
	}
	b.renamed("2.h:2,", "2.h:2,S")
	if err := os.Chtimes(b.in("cur"), st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	if !b.host.hub.catchUp() {
		t.Fatal("no fence")
	}
	b.sync(Serve)
	b.want(`1 1.h \Flagged`, `2 2.h \Seen`)
}

// Events that are missing, for whatever reason, are made up for by a scan.
func TestLostEvents(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,", "x\n")
	for what, lose := range map[string]func(){
		"queue overflow": func() { b.host.hub.lost() },
		"too many notes": func() {
			b.track.mu.Lock()
			b.track.notes = make([]note, mostNotes)
			b.track.mu.Unlock()
			b.renamed("1.h:2,", "1.h:2,")
		},
	} {
		b.followed()
		before := b.host.scans.Load()
		lose()
		b.renamed("1.h:2,", "1.h:2,F")
		b.sync(Serve)
		b.want(`1 1.h \Flagged`)
		if b.host.scans.Load() == before {
			t.Errorf("%s: not scanned", what)
		}
		b.renamed("1.h:2,F", "1.h:2,")
		b.sync(Serve)
		b.want(`1 1.h `)
	}
}

// Whatever another program does, and we in between, a mailbox that is tracked
// holds what a fresh scan finds.
func TestTrackedEqualsScanned(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, Options{Fsync: FsyncNever})
			for i := range 20 {
				b.deliver("cur", fmt.Sprintf("1%03d.h:2,", i), "x\n")
			}
			b.followed()
			r := rand.New(rand.NewPCG(seed, 1))
			last := UID(0)
			for round := range 60 {
				for range 1 + r.IntN(4) {
					b.mischief(r, round)
				}
				if r.IntN(3) == 0 {
					b.ownChange(r)
				}
				b.sync(Serve)
				got := told(b.Mailbox)
				if s := b.Snapshot(); s.Next < last {
					t.Fatalf("UIDNEXT fell from %d to %d", last, s.Next)
				} else {
					last = s.Next
				}
				if want := b.scanned(); !slices.Equal(got, want) {
					t.Fatalf("round %d:\n got %q\nwant %q", round, got, want)
				}
			}
		})
	}
}

// scanned returns what a process finds that knows nothing but the files.
func (b *box) scanned() []string {
	b.t.Helper()
	h := NewHost(Options{NoNotify: true, Fsync: FsyncNever})
	defer h.Close()
	st, err := h.Open(b.st.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	m, err := st.Mailbox(context.Background(), "INBOX")
	if err != nil {
		b.t.Fatal(err)
	}
	defer m.Release()
	m.mu.Lock()
	m.clean = stamp{}
	m.mu.Unlock()
	if err := m.Sync(context.Background(), Look); err != nil {
		b.t.Fatal(err)
	}
	return told(m)
}

// mischief does one thing that another program might do.
func (b *box) mischief(r *rand.Rand, round int) {
	b.t.Helper()
	files := b.files("cur")
	pick := func() string { return files[r.IntN(len(files))] }
	fresh := fmt.Sprintf("2%03d.%d.h", round, r.IntN(1e6))
	must := func(err error) {
		if err != nil {
			b.t.Fatal(err)
		}
	}
	switch k := r.IntN(9); {
	case k == 0:
		b.deliver("new", fresh, "x\n")
	case k == 1:
		b.deliver("cur", fresh+":2,S", "x\n")
	case len(files) < 5:
		b.deliver("new", fresh, "x\n")
	case k <= 4:
		f := pick()
		must(os.Rename(b.in("cur", f), b.in("cur", withFlags(f, Flags(r.IntN(32))))))
	case k == 5:
		must(os.Remove(b.in("cur", pick())))
	case k == 6: // a flag change as careless tools make it
		f := pick()
		to := withFlags(f, parseFlags(f)^Answered)
		must(os.Link(b.in("cur", f), b.in("cur", to)))
		must(os.Remove(b.in("cur", f)))
	case k == 7: // away and back
		f := pick()
		must(os.Rename(b.in("cur", f), b.in("tmp", f)))
		if r.IntN(2) == 0 {
			b.sync(Serve)
		}
		must(os.Rename(b.in("tmp", f), b.in("cur", f)))
	case k == 8: // another message of the same name
		f := pick()
		must(os.WriteFile(b.in("new", f[:baseLen(f)]), []byte("other\n"), 0o600))
	}
}

// ownChange does one thing that a client might do.
func (b *box) ownChange(r *rand.Rand) {
	b.t.Helper()
	s := b.Snapshot()
	if s.Len() == 0 {
		return
	}
	u := s.At(r.IntN(s.Len())).UID
	var err error
	switch r.IntN(4) {
	case 0:
		b.append(b.Mailbox, "mine\r\n", FlagSet{System: Seen})
	case 1:
		_, err = b.SetFlags(context.Background(), []UID{u}, AddFlags, FlagSet{System: Deleted})
		if err == nil {
			_, err = b.Expunge(context.Background(), func(x UID) bool { return x == u })
		}
	default:
		_, err = b.SetFlags(context.Background(), []UID{u}, ReplaceFlags, FlagSet{System: Flags(r.IntN(32)) &^ Deleted})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// What is in new/ and known is moved without looking for it.
func TestReceiveKnown(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,", "x\n")
	b.followed()
	b.deliver("new", "4.h", "x\n")
	b.deliver("new", "5.h:2,S", "x\n")
	b.sync(Look)
	time.Sleep(2 * localSettle) // the stamp must be old enough for the look to be clean
	b.sync(Look)
	b.quietScans("moving to cur/", func() { b.sync(Serve) })
	b.want("1 1.h ", "2 4.h ", `3 5.h \Seen`)
	if l := b.files("new"); len(l) > 0 {
		t.Errorf("new/ holds %q", l)
	}
}
