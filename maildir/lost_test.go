package maildir

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"
)

// Where times are whole seconds it takes one until it is proven that a file has gone.
// Who wants something of its message meanwhile is told that it has gone, not that
// somebody else is at work on it.
func TestGoneBeforeItIsProven(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBox(t, Options{NoNotify: true})
	for _, name := range []string{"1.h:2,", "2.h:2,", "3.h:2,T", "4.h:2,"} {
		b.deliver("cur", name, "x\n")
	}
	b.sync(Serve)
	if err := b.st.Create(ctx, "Other"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"1.h:2,", "3.h:2,T"} {
		if err := os.Remove(b.in("cur", name)); err != nil {
			t.Fatal(err)
		}
	}
	// As cp -p and tar leave it.
	now := time.Now().Truncate(time.Second)
	if err := os.Chtimes(b.in("new", ""), now, now); err != nil {
		t.Fatal(err)
	}
	done, err := b.SetFlags(ctx, []UID{1, 2}, AddFlags, FlagSet{System: Flagged})
	if err != nil || !slices.Equal(done.Gone, []UID{1}) || done.ModSeq == 0 {
		t.Errorf("STORE: %+v %v", done, err)
	}
	if f, err := b.OpenMessage(ctx, b.Snapshot().At(0)); err == nil {
		f.Close()
		t.Error("FETCH found it")
	} else if !errors.Is(err, ErrGone) {
		t.Errorf("FETCH: %v", err)
	}
	if _, err := b.Copy(ctx, []UID{1}, b.open("Other")); !errors.Is(err, ErrGone) {
		t.Errorf("COPY: %v", err)
	}
	if gone, err := b.Expunge(ctx, nil); err != nil || len(gone) > 0 {
		t.Errorf("EXPUNGE: %v %v", gone, err)
	}
	if done, err := b.Move(ctx, []UID{4}, b.open("Other")); err != nil || len(done.To) != 1 {
		t.Errorf("MOVE of another: %+v %v", done, err)
	}
}
