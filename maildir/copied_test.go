package maildir

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"imapd/maildir/index"
)

// An index that is written over the one that is there, while nobody has it open, with
// or without the rest of the folder, is known for an old one.
func TestRestoredIndex(t *testing.T) {
	t.Parallel()
	all := maps.Clone(restorers)
	all["the index alone"] = func(b *box, dir string) {
		b.run("cp", "-a", filepath.Join(dir, index.Name), b.in(".", index.Name))
	}
	all["without its times"] = func(b *box, dir string) {
		data, err := os.ReadFile(filepath.Join(dir, index.Name))
		if err == nil {
			time.Sleep(2100 * time.Millisecond) // the clock tells an old one from a new one
			err = os.WriteFile(b.in(".", index.Name), data, 0o600)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
	for how, restore := range all {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, Options{NoNotify: true})
			for _, f := range []string{"1.h:2,", "2.h:2,"} {
				b.deliver("cur", f, "x\n")
			}
			b.sync(Serve)
			b.remembering()
			b.calm()
			b.end()
			old := b.backUp()
			b = b.after(0)
			b.remembering()
			b.flag(1)
			c := mirror{}
			if err := c.reconnect(b.Mailbox); err != nil {
				t.Fatal(err)
			}
			if _, err := b.SetFlags(t.Context(), []UID{1}, RemoveFlags, FlagSet{System: Flagged}); err != nil {
				t.Fatal(err)
			}
			b.calm()
			b.end()
			restore(b, old)
			b = b.after(0)
			b.remembering()
			b.flag(2)
			if err := c.reconnect(b.Mailbox); err != nil {
				t.Error(err)
			}
		})
	}
}

// What clients are told once more because of a backup program that has set the times of
// the index they are told once. A folder in which nobody but us does anything has them
// told nothing, whatever becomes of our processes.
func TestNotRestored(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true})
	for _, f := range []string{"1.h:2,", "2.h:2,", "3.h:2,T"} {
		b.deliver("cur", f, "x\n")
	}
	b.sync(Serve)
	b.remembering()
	first := func() ModSeq {
		_, each := modseqs(b.Mailbox)
		return each[0]
	}
	was := first()
	again := func(what string) {
		t.Helper()
		b = b.after(0)
		b.sync(Serve)
		b.remembering()
		if now := first(); now != was {
			t.Errorf("after %s: modseq %d, was %d", what, now, was)
			was = now
		}
	}
	again("a kill")
	b.flag(2)
	again("a kill after a change")
	b.calm()
	b.end()
	again("an end")
	if err := b.swell(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Expunge(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	again("a kill after the index was written anew")
	b.end()
	again("an end without a change")
	now := time.Now()
	if err := os.Chtimes(b.in(".", index.Name), now, now); err != nil {
		t.Fatal(err)
	}
	b = b.after(0)
	b.remembering()
	if now := first(); now == was {
		t.Error("times that were set are not noticed")
	}
	was = first()
	again("a kill after the times were set")
	b.end()
	again("an end after the times were set")
}
