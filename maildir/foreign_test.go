package maildir

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	gomaildir "github.com/emersion/go-maildir"
)

// A program that knows Maildir by another library delivers, flags, reads and
// removes; we see what it does, and it sees what we do.
func TestAnotherLibrary(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	dir := gomaildir.Dir(b.path)
	for i := range 3 {
		d, err := gomaildir.NewDelivery(b.path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(d, "Subject: %d\n\nbody\n", i)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b.sync(Serve)
	if n := b.Snapshot().Len(); n != 3 || b.Snapshot().Unseen() != 3 {
		t.Fatalf("%d messages after three deliveries: %q", n, told(b.Mailbox))
	}
	theirs := map[UID]*gomaildir.Message{}
	for uid := UID(1); uid <= 3; uid++ {
		m, _ := b.Snapshot().lookup(uid)
		other, err := dir.MessageByKey(string(m.base()))
		if err != nil {
			t.Fatal(err)
		}
		theirs[uid] = other
	}
	if err := theirs[1].SetFlags([]gomaildir.Flag{gomaildir.FlagSeen, gomaildir.FlagFlagged}); err != nil {
		t.Fatal(err)
	}
	if err := theirs[2].Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.SetFlags(t.Context(), []UID{3}, AddFlags, FlagSet{Answered | Draft, []string{"work"}}); err != nil {
		t.Fatal(err)
	}
	b.sync(Serve)
	s := b.Snapshot()
	if s.Len() != 2 || s.At(0).Flags != Seen|Flagged || s.At(1).UID != 3 {
		t.Fatalf("after their changes: %q", told(b.Mailbox))
	}
	ours := string(s.At(1).base())
	again, err := dir.MessageByKey(ours)
	if err != nil {
		t.Fatal(err)
	}
	if f := again.Flags(); len(f) != 3 || f[0] != gomaildir.FlagDraft || f[1] != gomaildir.FlagReplied || f[2] != 'a' {
		t.Errorf("they read the flags %q", f)
	}
	r, err := again.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if text, err := io.ReadAll(r); err != nil || string(text) != "Subject: 2\n\nbody\n" {
		t.Errorf("they read %q %v", text, err)
	}
}

// A file with two names, as programs leave it that link and unlink and die
// between the two, is one message and can be changed. The second name goes when
// it is old: else it would be a new message once the first is expunged.
func TestTwoNames(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("new", "1.h", "x\n")
	b.deliver("new", "2.h", "y\n")
	b.deliver("cur", "3.h:2,", "z\n")
	b.sync(Look)
	link := func(old, name string) {
		t.Helper()
		if err := os.Link(filepath.Join(b.path, old), filepath.Join(b.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("new/1.h", "cur/1.h:2,")
	link("new/2.h", "cur/2.h:2,S")
	link("cur/3.h:2,", "cur/3.h:2,F")
	if _, err := b.SetFlags(context.Background(), []UID{2}, AddFlags, FlagSet{System: Seen}); err != nil {
		t.Fatal(err)
	}
	b.sync(Serve)
	if l := b.files("new"); len(l) != 0 {
		t.Errorf("still in new/: %q", l)
	}
	if n := b.Snapshot().Len(); n != 3 || len(b.files("cur")) != 4 {
		t.Errorf("%d messages in %q", n, b.files("cur"))
	}
	b.mu.Lock()
	sv, err := b.survey(b.Snapshot(), stamp{})
	if err != nil || b.partTwins(&sv, time.Now()) {
		t.Errorf("a young name is gone (%v): %q", err, b.files("cur"))
	}
	if sv, err = b.survey(b.Snapshot(), stamp{}); err != nil || !b.partTwins(&sv, time.Now().Add(time.Minute)) {
		t.Errorf("an old name stays (%v): %q", err, b.files("cur"))
	}
	b.mu.Unlock()
	b.sync(Serve)
	if n := b.Snapshot().Len(); n != 3 || len(b.files("cur")) != 3 {
		t.Errorf("%d messages in %q", n, b.files("cur"))
	}
	if _, err := b.SetFlags(context.Background(), []UID{1, 2, 3}, AddFlags, FlagSet{System: Deleted}); err != nil {
		t.Fatal(err)
	}
	if gone, err := b.Expunge(context.Background(), nil); err != nil || len(gone) != 3 {
		t.Errorf("expunged %v, %v", gone, err)
	}
	b.sync(Serve)
	b.want()
}
