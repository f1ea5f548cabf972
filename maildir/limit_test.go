package maildir

import (
	"os"
	"testing"
	"time"

	"imapd/maildir/index"
)

// after is the next process on the folder of b, whose clock is late ahead of that of
// the machine.
func (b *box) after(late time.Duration) *box {
	b.t.Helper()
	p := &box{t: b.t, path: b.path, clock: func() time.Time { return time.Now().Add(late) }}
	p.start(Options{NoNotify: true})
	return p
}

// An index that is lost while modseqs are ahead of the clock, after a crash of the
// machine or because the clock was set back, is followed by one that goes on above
// them: a client that comes back much later is told of what happened at once.
func TestIndexLostAheadOfClock(t *testing.T) {
	t.Parallel()
	for what, tt := range map[string]struct {
		ahead  func(b *box) *box
		ruin   func(b *box)
		passes time.Duration // until the client comes back
	}{
		"a boot, then the index": {func(b *box) *box {
			b.reboot()
			return b.after(0)
		}, func(b *box) { b.remove(index.Name) }, 4 * time.Minute},
		"a boot, then both": {func(b *box) *box {
			b.reboot()
			return b.after(0)
		}, func(b *box) {
			b.remove(index.Name)
			b.remove(index.LockName)
		}, 4 * time.Minute},
		"a boot, then the index is garbage": {func(b *box) *box {
			b.reboot()
			return b.after(0)
		}, func(b *box) {
			if err := os.WriteFile(b.in(".", index.Name), []byte("hello"), 0o600); err != nil {
				b.t.Fatal(err)
			}
		}, 4 * time.Minute},
		"the clock is set back": {func(b *box) *box { return b.after(48 * time.Hour) }, func(b *box) { b.remove(index.Name) }, 72 * time.Hour},
		"two losses": {func(b *box) *box {
			b.reboot()
			b = b.after(0)
			b.remembering()
			b.remove(index.Name)
			return b.after(0)
		}, func(b *box) { b.remove(index.Name) }, 5 * time.Hour},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, Options{NoNotify: true})
			for _, f := range []string{"1.h:2,", "2.h:2,", "3.h:2,"} {
				b.deliver("cur", f, "x\n")
			}
			b.sync(Serve)
			b.remembering()
			b.flag(1)
			b = tt.ahead(b)
			c := mirror{}
			if err := c.reconnect(b.Mailbox); err != nil {
				t.Fatal(err)
			}
			if _, err := b.SetFlags(t.Context(), []UID{1}, AddFlags, FlagSet{System: Answered}); err != nil {
				t.Fatal(err)
			}
			if err := c.reconnect(b.Mailbox); err != nil {
				t.Fatal(err)
			}
			high := c.modseq
			b.end()
			tt.ruin(b)
			b = b.after(20 * time.Second)
			b.remembering()
			b.flag(2)
			b.remove("cur/3.h:2,")
			b.sync(Serve)
			if h := b.Snapshot().ModSeq; h <= high {
				t.Errorf("HIGHESTMODSEQ %d, %d was told", h, high)
			}
			b.end()
			b = b.after(tt.passes)
			if _, err := b.SetFlags(t.Context(), []UID{1}, AddFlags, FlagSet{System: Seen}); err != nil {
				t.Fatal(err)
			}
			if err := c.reconnect(b.Mailbox); err != nil {
				t.Error(err)
			}
		})
	}
}

// A lock file that was deleted alone says its limit again with the next change that
// writes one.
func TestLockFileIsReplaced(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true})
	b.deliver("cur", "1.h:2,", "x\n")
	b.sync(Serve)
	b.remembering()
	limit := (&index.File{Dir: b.dir}).ReadLimit()
	b.end()
	b.remove(index.LockName)
	b = b.after(0)
	b.remembering()
	b.flag(1)
	if n := (&index.File{Dir: b.dir}).ReadLimit(); n < limit || limit == 0 {
		t.Errorf("the limit is %d, was %d", n, limit)
	}
}
