package maildir

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A process that the kernel does not tell of a folder any more does not go on as
// if it did.
func TestNotBlind(t *testing.T) {
	t.Parallel()
	for what, blind := range map[string]func(b *box){
		"the watch is gone": func(b *box) {
			b.host.hub.mu.Lock()
			defer b.host.hub.mu.Unlock()
			if err := b.host.hub.watcher.Remove(watchPath(b.cur)); err != nil {
				b.t.Fatal(err)
			}
		},
		"the hub has another folder": func(b *box) {
			b.host.hub.mu.Lock()
			defer b.host.hub.mu.Unlock()
			b.host.hub.removeLocked(b.Mailbox)
		},
		"events are on their way for too long": func(b *box) {
			old := b.host.hub.fence
			b.watch.mu.Lock() // the reader stops here
			b.watch.calls = map[*func()]Access{new(func()): Look}
			b.watch.looking = true
			b.renamed("1.h:2,", "1.h:2,D")
			begin := time.Now()
			var waits sync.WaitGroup
			for range 5 {
				waits.Go(func() {
					if b.host.hub.catchUp() {
						b.t.Error("the fence was reached past a reader that stands still")
					}
				})
			}
			waits.Wait()
			if time.Since(begin) > 3*fenceWait {
				b.t.Errorf("five have waited for %v, one after the other", time.Since(begin))
			}
			b.watch.calls, b.watch.looking, b.watch.again = nil, false, false
			b.watch.mu.Unlock()
			if !b.host.hub.catchUp() || b.host.hub.fence == old {
				b.t.Error("no new fence after one that came late")
			}
			b.sync(Serve)
			b.renamed("1.h:2,D", "1.h:2,")
			b.sync(Serve)
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, Options{})
			b.deliver("cur", "1.h:2,", "x\n")
			b.followed()
			blind(b)
			for _, to := range []string{"1.h:2,S", "1.h:2,FS", "1.h:2,"} {
				b.renamed(b.files("cur")[0], to)
				b.sync(Serve)
				if got := b.Snapshot().At(0).Flags; got != parseFlags(to) {
					t.Fatalf("file %q, flags %b", to, got)
				}
			}
		})
	}
}

// A folder that is renamed while it is open, and another one in its place: each
// hears of its own files.
func TestRenamedAndReplaced(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	if err := b.st.Create(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	old := b.open("a")
	dir := func(name string) *box { return &box{t: t, path: filepath.Join(b.path, name), host: b.host, st: b.st} }
	dir(".a").deliver("cur", "1.h:2,", "x\n")
	for _, followed := range []bool{false, true} {
		if followed {
			old.follow()
		}
		if err := os.Rename(filepath.Join(b.path, ".a"), filepath.Join(b.path, ".b")); err != nil {
			t.Fatal(err)
		}
		if err := b.st.Create(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		fresh := b.open("a")
		for _, m := range []*Mailbox{old, fresh} {
			m.follow()
			if err := m.Sync(t.Context(), Serve); err != nil {
				t.Fatal(err)
			}
		}
		at, now := dir(".b"), dir(".a")
		at.Mailbox, now.Mailbox = old, fresh
		now.deliver("cur", "9.h:2,", "x\n")
		now.sync(Serve)
		now.want("1 9.h ")
		for _, to := range []string{"1.h:2,S", "1.h:2,FS", "1.h:2,"} {
			at.renamed(at.files("cur")[0], to)
			now.renamed(now.files("cur")[0], "9.h:2,"+parseInfo(to))
			at.sync(Serve)
			now.sync(Serve)
			if f := old.Snapshot().At(0).Flags; f != parseFlags(to) {
				t.Fatalf("followed before: %v; the renamed folder: file %q, flags %b", followed, to, f)
			}
			if f := fresh.Snapshot().At(0).Flags; f != parseFlags(to) {
				t.Fatalf("followed before: %v; the new folder: file %q, flags %b", followed, to, f)
			}
		}
		if err := os.RemoveAll(filepath.Join(b.path, ".a")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(b.path, ".b"), filepath.Join(b.path, ".a")); err != nil {
			t.Fatal(err)
		}
	}
}

func parseInfo(name string) string {
	from, to := flagLetters(name)
	return name[from:to]
}
