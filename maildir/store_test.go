package maildir

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/maildir/faultfs"
)

// Whatever call fails while the messages of INBOX move to a new folder, each is in
// INBOX or in the new folder, and no empty folder stays behind.
func TestRenameInboxFails(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	undone := 0
	var create faultfs.FS
	b := newBox(t, Options{Open: create.Open})
	create.Arm(nil)
	if err := b.st.Create(ctx, "Old/Mail"); err != nil {
		t.Fatal(err)
	}
	for call := create.Count() + 1; ; call++ {
		var fault faultfs.FS
		b := newBox(t, Options{Open: fault.Open})
		b.append(b.Mailbox, "one\r\n", FlagSet{})
		b.append(b.Mailbox, "two\r\n", FlagSet{System: Seen})
		fault.Arm(faultfs.At(call, unix.ENOSPC))
		err := b.st.Rename(ctx, "INBOX", "Old/Mail")
		fault.Disarm()
		b.sync(Serve)
		inbox, moved := b.Snapshot().Len(), 0
		f, lerr := b.st.Look("Old/Mail")
		if lerr != nil {
			t.Fatal(lerr)
		}
		if f.Exists {
			moved = b.open("Old/Mail").Snapshot().Len()
		}
		switch {
		case fault.Hit().N == 0 && err == nil && inbox == 0 && moved == 2:
			if call < create.Count()+3 || undone == 0 {
				t.Errorf("%d and %d calls change files, %d failures were undone", create.Count(), call-1-create.Count(), undone)
			}
			return
		case inbox+moved < 2, f.Exists && moved == 0:
			t.Fatalf("call %d (%v): %v; %d messages in INBOX, %d in the new folder (it exists: %v)", call, fault.Hit(), err, inbox, moved, f.Exists)
		case err != nil && !errors.Is(err, unix.ENOSPC):
			t.Fatalf("call %d (%v): %v", call, fault.Hit(), err)
		case !f.Exists:
			undone++
		}
	}
}
