package maildir

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever call fails while the messages of INBOX move to a new folder, each is in
// INBOX or in the new folder, and no empty folder stays behind.
func TestRenameInboxFails(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	undone := 0
	create := &faults{at: -1}
	b := newBox(t, Options{Open: create.open})
	create.armed = true
	if err := b.st.Create(ctx, "Old/Mail"); err != nil {
		t.Fatal(err)
	}
	for call := create.n + 1; ; call++ {
		fault := &faults{at: call, err: unix.ENOSPC}
		b := newBox(t, Options{Open: fault.open})
		b.append(b.Mailbox, "one\r\n", FlagSet{})
		b.append(b.Mailbox, "two\r\n", FlagSet{System: Seen})
		fault.armed = true
		err := b.st.Rename(ctx, "INBOX", "Old/Mail")
		fault.armed = false
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
		case fault.what == "" && err == nil && inbox == 0 && moved == 2:
			if call < create.n+3 || undone == 0 {
				t.Errorf("%d and %d calls change files, %d failures were undone", create.n, call-1-create.n, undone)
			}
			return
		case inbox+moved < 2, f.Exists && moved == 0:
			t.Fatalf("call %d (%s): %v; %d messages in INBOX, %d in the new folder (it exists: %v)", call, fault.what, err, inbox, moved, f.Exists)
		case err != nil && !errors.Is(err, unix.ENOSPC):
			t.Fatalf("call %d (%s): %v", call, fault.what, err)
		case !f.Exists:
			undone++
		}
	}
}
