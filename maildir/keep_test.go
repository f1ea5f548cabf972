package maildir

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"imapd/maildir/index"
)

// TestKeep leaves a mailbox and comes back to it, after what may have happened
// to it meanwhile.
func TestKeep(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		do    func(b *box) error
		same  bool   // it was kept and was good
		opens string // "": the same name
		want  []string
	}{
		{"nothing", func(b *box) error { return nil }, true, "", []string{"1 1.h "}},
		{"a delivery", func(b *box) error { return os.WriteFile(b.in("new", "2.h"), nil, 0o600) }, true, "", []string{"1 1.h ", "2 2.h "}},
		{"flags", func(b *box) error { return os.Rename(b.in("cur", "1.h:2,"), b.in("cur", "1.h:2,S")) }, true, "", []string{`1 1.h \Seen`}},
		{"an expunge", func(b *box) error { return os.Remove(b.in("cur", "1.h:2,")) }, true, "", nil},
		{"a new list", func(b *box) error {
			return os.WriteFile(b.in("dovecot-uidlist"), []byte("3 V77 N9\n8 :1.h\n"), 0o600)
		}, true, "", []string{"8 1.h "}},
		{"another name", func(b *box) error { return b.st.Rename(context.Background(), "a", "b") }, false, "b", []string{"1 1.h "}},
		{"another cur", func(b *box) error {
			if err := os.Rename(b.in("cur"), b.in("old")); err != nil {
				return err
			}
			if err := os.Mkdir(b.in("cur"), 0o700); err != nil {
				return err
			}
			return os.WriteFile(b.in("cur", "5.h:2,F"), nil, 0o600)
		}, false, "", []string{`2 5.h \Flagged`}},
		{"deleted and made again", func(b *box) error {
			return errors.Join(b.st.Delete(context.Background(), "a"), b.st.Create(context.Background(), "a"))
		}, false, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, Options{})
			if err := b.st.Create(context.Background(), "a"); err != nil {
				t.Fatal(err)
			}
			b.path = filepath.Join(b.path, ".a")
			b.deliver("cur", "1.h:2,", "")
			b.Mailbox = b.open("a")
			b.want("1 1.h ")
			first := b.Mailbox
			b.Mailbox.Release()
			if err := tt.do(b); err != nil {
				t.Fatal(err)
			}
			name := "a"
			if tt.opens != "" {
				name = tt.opens
			}
			b.Mailbox = b.open(name)
			b.want(tt.want...)
			if same := b.Mailbox == first; same != tt.same {
				t.Errorf("the same mailbox: %v, want %v", same, tt.same)
			}
		})
	}
}

// in returns a path in the mailbox.
func (b *box) in(names ...string) string {
	return filepath.Join(append([]string{b.path}, names...)...)
}

func TestKeepIsBounded(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	h := b.host
	h.mostKept = 3
	var all []*Mailbox
	for i := range 5 {
		name := fmt.Sprint(i)
		if err := b.st.Create(context.Background(), name); err != nil {
			t.Fatal(err)
		}
		m := b.open(name)
		b.append(m, "x\r\n", FlagSet{})
		m.Release()
		m.Release() // once too often does no harm
		all = append(all, m)
	}
	kept := func(want int) {
		t.Helper()
		if len(h.kept) != want || h.keptOctets != want*(messageOctets+lineOctets) || len(h.boxes) != 1+want {
			t.Fatalf("%d kept with %d octets, %d open or kept; want %d", len(h.kept), h.keptOctets, len(h.boxes), want)
		}
	}
	kept(3)
	if m := b.open("0"); m == all[0] {
		t.Error("what was dropped is back")
	} else {
		m.Release()
	}
	kept(3)
	if m := b.open("4"); m != all[4] {
		t.Error("what was kept last is gone")
	}
	h.mu.Lock()
	for _, m := range h.kept {
		m.released = m.released.Add(-keepFor)
	}
	h.mu.Unlock()
	h.expire()
	if len(h.kept) != 0 || len(h.boxes) != 2 { // INBOX and "4", which are open
		t.Fatalf("%d kept for too long, %d in all", len(h.kept), len(h.boxes))
	}
	h.Close()
	all[4].Release()
	if len(h.kept) != 0 || h.keptOctets != 0 || len(h.boxes) != 1 {
		t.Errorf("a closed host keeps %d, %d in all", len(h.kept), len(h.boxes))
	}
}

// Kept mailboxes are bounded by what they take, whatever it is: one without a message
// may know of many that were expunged.
func TestMemoryKeptIsBounded(t *testing.T) {
	t.Parallel()
	for what, fill := range map[string]func(m *Mailbox, octets int){
		"messages": func(m *Mailbox, n int) { m.snap.Store(&Snapshot{sum: summary{n: n / messageOctets}}) },
		"expunges": func(m *Mailbox, n int) { m.past.gone = make([]index.Range, n/rangeOctets) },
		"lines":    func(m *Mailbox, n int) { m.list.lines = &lines{uids: make([]UID, n/lineOctets)} },
	} {
		h := NewHost(Options{})
		h.mostKept = 10
		keep := func(octets int) int {
			m := &Mailbox{host: h, store: &Store{}}
			fill(m, octets)
			m.weight = m.octets()
			h.mu.Lock()
			defer h.mu.Unlock()
			return len(h.keep(m, time.Now()))
		}
		for i, octets := range []int{keepOctets / 2, keepOctets / 2, messageOctets} {
			if dropped := keep(octets); dropped != i/2 {
				t.Errorf("%s: %d dropped for mailbox %d", what, dropped, i)
			}
		}
		if dropped := keep(keepOctets + messageOctets); dropped != 3 {
			t.Errorf("%s: %d dropped for a mailbox that is too large, it among them", what, dropped)
		}
		h.Close()
	}
}

// What is remembered of folders that nobody has open is bounded: in a loop of CREATE,
// APPEND and DELETE each is another one.
func TestRememberedIsBounded(t *testing.T) {
	t.Parallel()
	h := NewHost(Options{Log: slog.New(slog.DiscardHandler)})
	defer h.Close()
	for i := range uint64(mostRemembered + 10) {
		m := &Mailbox{host: h, id: folderID{1, i}, recentFrom: 1}
		m.snap.Store(&Snapshot{Next: 2})
		h.mu.Lock()
		h.boxes[m.id] = m
		h.forget(m)
		h.mu.Unlock()
		m.blame("nothing", nil)
	}
	if len(h.unclaimed) != mostRemembered || len(h.blamed) != mostRemembered {
		t.Errorf("%d with mail that is not claimed, %d with a bad index", len(h.unclaimed), len(h.blamed))
	}
	if _, ok := h.unclaimed[folderID{1, mostRemembered + 9}]; !ok {
		t.Error("the last one is forgotten")
	}
}

// A cur/ that was put in place of another one while the folder is open, from a backup
// say, is the folder: nothing is added to the other, and who opens it has that one.
func TestOtherCurInPlace(t *testing.T) {
	t.Parallel()
	for what, o := range map[string]Options{"watched": {}, "not watched": {NoNotify: true}} {
		b := newBox(t, o)
		b.deliver("cur", "1.h:2,", "x\n")
		b.sync(Serve)
		b.follow()
		if err := os.Rename(b.in("cur"), b.in("cur.bad")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(b.in("cur"), 0o700); err != nil {
			t.Fatal(err)
		}
		b.deliver("cur", "2.h:2,", "x\n")
		if !o.NoNotify && !b.host.hub.catchUp() {
			t.Fatal("no fence")
		}
		d, err := b.NewMessage(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		d.Write([]byte("x\n"))
		if _, _, err := b.Append(context.Background(), []Appending{{Delivery: d}}); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: APPEND: %v", what, err)
		}
		d.Abort()
		if l := b.files("cur.bad"); len(l) != 1 {
			t.Errorf("%s: the old cur/ has %q", what, l)
		}
		old := b.Mailbox
		b.Mailbox = b.open("INBOX")
		b.sync(Serve)
		b.want("2 2.h ")
		if err := old.Sync(context.Background(), Serve); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: who had it open is not told: %v", what, err)
		}
		if b.append(b.Mailbox, "x\n", FlagSet{}) != 3 || len(b.files("cur")) != 2 {
			t.Errorf("%s: APPEND to the new one: %q", what, b.files("cur"))
		}
	}
}

// A process that changes a folder leaves it to the next one as known, at whatever
// moment it ends, unless another program has changed it too. What that did it does not
// hear in time where the machine is too busy: then it is tried again.
func TestChangesAreKnownAfterwards(t *testing.T) {
	t.Parallel()
	const n = 5000
	b := newBox(t, Options{Fsync: FsyncNever})
	for i := range n {
		if err := os.WriteFile(b.in("cur", fmt.Sprintf("17%08d.h:2,", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.sync(Serve)
	b.remembering()
	fresh, foreign := UID(1), UID(1000) // the messages that were changed last
	seen := func() {
		foreign++
		name := fmt.Sprintf("17%08d.h:2,", foreign-1)
		b.renamed(name, name+"S")
	}
	for _, tt := range []struct {
		name string
		do   func()
		read bool // by the next process
		most int  // tries
	}{
		{"a flag", func() { b.flag(fresh) }, false, 1},
		{"a message", func() { b.append(b.Mailbox, "x\n", FlagSet{}) }, false, 1},
		{"an expunge", func() {
			ctx := context.Background()
			if _, err := b.SetFlags(ctx, []UID{fresh}, AddFlags, FlagSet{System: Deleted}); err != nil {
				t.Fatal(err)
			}
			if gone, err := b.Expunge(ctx, nil); len(gone) != 1 || err != nil {
				t.Fatal(gone, err)
			}
		}, false, 1},
		{"a flag that another program changes", seen, false, 3},
		{"the same, and events are lost", func() {
			seen()
			b.track.lose()
		}, true, 1},
	} {
		for tries := 1; ; tries++ {
			fresh++
			b.flag(fresh) // the process follows what it changes
			b.sync(Serve)
			fresh++
			tt.do()
			b.end()
			b.start(Options{Fsync: FsyncNever})
			b.sync(Serve)
			scans := b.host.scans.Load()
			if (scans > 0) == tt.read {
				break
			}
			if tries == tt.most {
				t.Errorf("%s: %d directories read", tt.name, scans)
				break
			}
		}
	}
	for uid := UID(1001); uid <= foreign; uid++ { // which those files have
		if msg, ok := b.Snapshot().lookup(uid); !ok || msg.Flags != Seen {
			t.Errorf("UID %d: %v, %v", uid, ok, msg.Flags)
		}
	}
}
