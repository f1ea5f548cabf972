package maildir

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/maildir/faultfs"
	"imapd/maildir/intents"
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

// The new folder of a RENAME of INBOX that fails is removed, also for a client that has
// gone, but not with what others have put into it meanwhile.
func TestRenameInboxTakesBackItsOwn(t *testing.T) {
	t.Parallel()
	for what, theirs := range map[string]bool{"nobody has used it": false, "another process has": true} {
		var fault faultfs.FS
		b := newBox(t, Options{Open: fault.Open})
		b.append(b.Mailbox, "one\r\n", FlagSet{})
		other := *b
		other.start(Options{})
		ctx, cancel := context.WithCancel(context.Background())
		fault.Arm(func(c faultfs.Call) error {
			switch {
			case c.Op == "link" && strings.Contains(c.Path, "/cur/"):
				cancel()
				return unix.ENOSPC
			case c.Op == "truncate" && filepath.Base(c.Path) == intents.Name && theirs: // Old is locked no more
				other.append(other.open("Old"), "theirs\r\n", FlagSet{})
			}
			return nil
		})
		err := b.st.Rename(ctx, "INBOX", "Old")
		fault.Disarm()
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v", what, err)
		}
		f, err := b.st.Look("Old")
		if err != nil || f.Exists != theirs {
			t.Errorf("%s: %+v, %v", what, f, err)
			continue
		}
		if !theirs {
			continue
		}
		if got := bodies(t, b.open("Old")); !slices.Equal(got, []string{"theirs\n"}) {
			t.Errorf("%s: Old has %q", what, got)
		}
	}
}
