package maildir

import (
	"fmt"
	"io"
	"testing"

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
