package maildir

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"imapd/maildir/uidlist"
)

// Who holds the lock for long is not taken for dead by another host: whatever it is
// that takes long, the time of the lock file is that of a living holder.
func TestLongHoldIsAlive(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	for i := range 3 {
		b.deliver("cur", fmt.Sprintf("%d.h:2,", i+1), "x\n")
	}
	b.sync(Serve)
	ctx := context.Background()
	put := func(string) error { return os.WriteFile(b.in("cur", "9.h:2,"), nil, 0o600) }
	for what, work := range map[string]func() error{
		"STORE":   func() error { _, err := b.setFlags([]UID{1, 2}, nil, AddFlags, Marks{Flags: Flagged}); return err },
		"EXPUNGE": func() error { _, _, err := b.unlink([]UID{3}, false); return err },
		"APPEND":  func() error { _, _, err := b.admit([]newcomer{{base: "9.h", put: put}}, func() {}); return err },
	} {
		err := b.edit(ctx, func() error {
			old := time.Now().Add(-time.Minute)
			if err := os.Chtimes(b.in(uidlist.LockName), old, old); err != nil {
				return err
			}
			b.touched = old
			if err := work(); err != nil {
				return err
			}
			info, err := os.Stat(b.in(uidlist.LockName))
			if err == nil && time.Since(info.ModTime()) > 30*time.Second {
				t.Errorf("%s: the lock is of %v", what, info.ModTime())
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if b.holding != nil {
		t.Error("the lock is thought to be held")
	}
}
