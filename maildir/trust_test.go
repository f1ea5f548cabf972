package maildir

import (
	"context"
	"os"
	"testing"
	"time"
)

// costly makes a scan of b seem to have cost much, and to have ended ago before
// now. It returns a function that reports whether there has been one since.
func (b *box) costly(ago time.Duration) (scanned func() bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := time.Now().Add(-ago)
	b.trust.scanned, b.trust.cost = at, time.Second
	return func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.trust.scanned != at
	}
}

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

// notYet is far enough ahead that no test reaches it.
const notYet = -time.Hour

func newTrusted(t *testing.T) *box {
	b := newBox(t, Options{})
	for _, name := range []string{"1.h:2,", "2.h:2,", "3.h:2,T"} {
		b.deliver("cur", name, "x\n")
	}
	b.sync(Serve)
	if b.settle != localSettle {
		t.Skip("nothing is put off on this file system")
	}
	return b
}

func TestOwnChangesNeedNoScan(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(b *box){
		"flags":   func(b *box) { b.flag(1) },
		"append":  func(b *box) { b.append(b.Mailbox, "y\r\n", FlagSet{}) },
		"keyword": func(b *box) { b.append(b.Mailbox, "y\r\n", FlagSet{Keywords: []string{"k"}}) },
		"expunge": func(b *box) {
			if gone, err := b.Expunge(context.Background(), nil); err != nil || len(gone) != 1 {
				b.t.Fatal(gone, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTrusted(t)
			scanned := b.costly(notYet)
			for range 3 {
				change(b)
				b.sync(Serve)
				if name == "expunge" {
					break
				}
			}
			if scanned() {
				t.Error("scanned after our own change")
			}
			was := told(b.Mailbox)
			b.costly(time.Hour)
			b.sync(Serve)
			b.want(was...)
		})
	}
}

// A change of another program is seen by the next look, unless it hides behind
// our own stamp: then a little later.
func TestForeignChangesBesideOurs(t *testing.T) {
	t.Parallel()
	seen := []string{`1 1.h \Flagged`, `2 2.h \Seen`, `3 3.h \Deleted`}
	t.Run("after", func(t *testing.T) {
		t.Parallel()
		b := newTrusted(t)
		b.costly(notYet)
		b.flag(1)
		b.touchLater()
		b.renamed("2.h:2,", "2.h:2,S")
		b.sync(Serve)
		b.want(seen...)
	})
	t.Run("before", func(t *testing.T) {
		t.Parallel()
		b := newTrusted(t)
		b.touchLater()
		b.renamed("2.h:2,", "2.h:2,S")
		b.costly(notYet)
		b.flag(1)
		b.sync(Serve)
		b.want(seen...)
	})
	t.Run("delivery during", func(t *testing.T) {
		t.Parallel()
		b := newTrusted(t)
		b.costly(notYet)
		b.touchLater()
		err := b.edit(context.Background(), func() error {
			b.deliver("new", "4.h", "x\n")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		b.sync(Serve)
		if n := b.Snapshot().Len(); n != 4 {
			t.Errorf("%d messages after a delivery during our change", n)
		}
	})
	t.Run("hidden", func(t *testing.T) {
		t.Parallel()
		b := newTrusted(t)
		b.costly(notYet)
		b.flag(1)
		mtime := time.Unix(0, b.trust.stamp.cur.mtime)
		b.renamed("2.h:2,", "2.h:2,S")
		if err := os.Chtimes(b.in("cur"), mtime, mtime); err != nil {
			t.Fatal(err)
		}
		b.sync(Serve)
		b.want(`1 1.h \Flagged`, "2 2.h ", `3 3.h \Deleted`)
		b.costly(time.Hour)
		b.sync(Serve)
		b.want(seen...)
	})
}

// touchLater waits until the clock of files has gone on: the change that follows
// has a time of its own.
func (b *box) touchLater() {
	b.t.Helper()
	f, err := os.CreateTemp(b.t.TempDir(), "clock")
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	first, err := f.Stat()
	if err != nil {
		b.t.Fatal(err)
	}
	for {
		if _, err := f.WriteString("x"); err != nil {
			b.t.Fatal(err)
		}
		now, err := f.Stat()
		if err != nil {
			b.t.Fatal(err)
		}
		if now.ModTime().After(first.ModTime()) {
			return
		}
	}
}

// What is in new/ and known is moved without looking for it.
func TestReceiveKnown(t *testing.T) {
	t.Parallel()
	b := newTrusted(t)
	b.deliver("new", "4.h", "x\n")
	b.deliver("new", "5.h:2,S", "x\n")
	b.sync(Look)
	scanned := b.costly(notYet)
	b.sync(Serve)
	b.want("1 1.h ", "2 2.h ", `3 3.h \Deleted`, "4 4.h ", `5 5.h \Seen`)
	if scanned() {
		t.Error("scanned to move what was known")
	}
	if l := b.files("new"); len(l) > 0 {
		t.Errorf("new/ holds %q", l)
	}
	if err := os.WriteFile(b.in("cur", "4.h:2,F"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(b.in("cur", "4.h:2,")); err != nil {
		t.Fatal(err)
	}
	b.sync(Serve)
	b.want("1 1.h ", "2 2.h ", `3 3.h \Deleted`, `4 4.h \Flagged`, `5 5.h \Seen`)
}

func TestCheapScansAreNotPutOff(t *testing.T) {
	t.Parallel()
	b := newTrusted(t)
	scanned := b.costly(0)
	b.mu.Lock()
	b.trust.cost = cheapScan - 1
	b.mu.Unlock()
	b.flag(1)
	b.sync(Serve)
	if !scanned() {
		t.Error("not scanned")
	}
}
