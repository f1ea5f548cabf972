package maildir

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// edited ends a command that has changed files.
func (b *box) edited() {
	b.t.Helper()
	if err := b.SyncEdited(context.Background(), Serve); err != nil {
		b.t.Fatal(err)
	}
}

// looked reports whether fn looked at the folder.
func (b *box) looked(fn func()) bool {
	b.track.last.cur.mtime = -1
	fn()
	return b.track.last.cur.mtime != -1
}

// seesInTime ends commands that change files until message i is told as line, and
// fails where one does not that ends when what was known is not fresh any more.
func (b *box) seesInTime(i int, line string) {
	b.t.Helper()
	if b.edited(); told(b.Mailbox)[i] == line {
		return
	}
	time.Sleep(freshFor)
	if b.edited(); told(b.Mailbox)[i] != line {
		b.t.Fatalf("message %d: %q, want %q", i+1, told(b.Mailbox)[i], line)
	}
}

// A command that changes files sees what others did before it, at the latest freshFor
// later, and does not look where they did nothing.
func TestSyncEdited(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{Fsync: FsyncNever})
	const n = 60
	for i := range n {
		b.deliver("cur", fmt.Sprintf("%d.h:2,", i+1), "x")
	}
	b.followed()
	for i := range n / 2 {
		if b.looked(func() { b.flag(UID(i + 1)); b.edited() }) {
			t.Fatalf("change %d was looked for", i)
		}
	}
	b.quietScans("a file renamed before each STORE", func() {
		for i := n / 2; i < n-2; i += 2 {
			b.renamed(fmt.Sprintf("%d.h:2,", i+2), fmt.Sprintf("%d.h:2,S", i+2))
			b.flag(UID(i + 1))
			b.seesInTime(i+1, fmt.Sprintf(`%d %d.h \Seen`, i+2, i+2))
		}
	})
	// The same message, by them and by us.
	b.renamed("1.h:2,F", "1.h:2,FS")
	b.flag(2)
	b.renamed("1.h:2,FS", "1.h:2,S")
	if _, err := b.SetFlags(context.Background(), []UID{1}, AddFlags, FlagSet{System: Draft}); err != nil {
		t.Fatal(err)
	}
	b.seesInTime(0, `1 1.h \Seen \Draft`)
}

// What makes no event is looked for, and what is done long after what was heard is
// told as well.
func TestSyncEditedBlind(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,", "x")
	b.deliver("cur", "2.h:2,", "x")
	b.followed()
	b.flag(1)
	b.edited()
	b.deliver("new", "3.h", "x")
	if err := os.Remove(b.in("cur", "2.h:2,")); err != nil {
		t.Fatal(err)
	}
	b.flag(1) // which has the flag already
	b.sync(Serve)
	b.want(`1 1.h \Flagged`, `3 3.h `)
	many := make([]string, 30)
	for i := range many {
		many[i] = fmt.Sprint("kw", i)
	}
	if _, err := b.SetFlags(context.Background(), []UID{1}, AddFlags, FlagSet{Keywords: many[:28]}); err != nil {
		t.Fatal(err)
	}
	b.sync(Serve)
	if !b.looked(func() {
		if _, err := b.SetFlags(context.Background(), []UID{1}, AddFlags, FlagSet{Keywords: many[28:29]}); err != nil {
			t.Fatal(err)
		}
		b.edited()
	}) {
		t.Error("a keyword that makes no event was not looked behind")
	}
	// An event of ours that does not come.
	time.Sleep(freshFor)
	b.track.own(moved, inCur, "9.h:2,")
	start := time.Now()
	b.flag(3)
	b.edited()
	if d := time.Since(start); d > 5*time.Second || len(b.track.ours) > 0 {
		t.Errorf("waited %v, left %v", d, b.track.ours)
	}
	if got := b.files("cur"); !slices.Contains(got, "3.h:2,F") {
		t.Errorf("files %q", got)
	}
}
