package maildir

import (
	"context"
	"runtime"
	"testing"
	"time"

	"imapd/maildir/vfs"
)

// bursting is a directory from which nothing can be renamed without a panic.
type bursting struct{ vfs.Dir }

func (bursting) RenameNoReplace(string, vfs.Dir, string) error { panic("a bug") }

// A session that ends by a bug while it appends for others leaves none waiting, and
// none with the belief that its message is there.
func TestAppendsTogetherBurst(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	lock, err := b.lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	const n = 3
	ended := make(chan error, n)
	for range n {
		d, err := b.NewMessage(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Abort)
		go func() {
			defer func() {
				if recover() != nil {
					ended <- errCutShort
				}
			}()
			_, _, err := b.Append(context.Background(), []Appending{{Delivery: d}})
			ended <- err
		}()
	}
	for waiting := 0; waiting < n; runtime.Gosched() {
		b.joint.mu.Lock()
		waiting = len(b.joint.queue)
		b.joint.mu.Unlock()
	}
	tmp := b.tmp
	b.tmp = bursting{tmp}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	for range n {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a message is said to be there")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a session waits for ever")
		}
	}
	b.tmp = tmp
	if u := b.append(b.Mailbox, "x\n", FlagSet{}); u != 1 {
		t.Errorf("UID %d afterwards", u)
	}
}
