package maildir

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/index"
	"imapd/maildir/keywords"
)

// keeps has c be the client of a session that has b selected: it has been told all.
func (c *mirror) keeps(b *box) {
	s := b.Snapshot()
	c.flags = map[UID]string{}
	for _, m := range s.Range(0, s.Len()) {
		c.flags[m.UID] = flagsOf(s, m)
	}
	c.modseq = s.ModSeq
}

func (b *box) unflag(u UID) {
	b.t.Helper()
	if _, err := b.SetFlags(b.t.Context(), []UID{u}, RemoveFlags, FlagSet{System: Flagged}); err != nil {
		b.t.Fatal(err)
	}
}

// What a client was told while the index could not be written, and what became of it,
// the client is told again though the process was killed: by the next one, and by one
// that had the index open all the time.
func TestKilledWithoutIndex(t *testing.T) {
	t.Parallel()
	for what, tt := range map[string]struct {
		spares    func(what, name string) bool
		forgetful bool
	}{
		"the disk is full":         {func(what, name string) bool { return what != "write" && what != "create" }, false},
		"the lock file is damaged": {func(what, name string) bool { return what == "unlink" || what == "truncate" }, false},
		"nothing can be written":   {func(string, string) bool { return false }, true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			x := &trip{at: 1, stay: true, err: unix.ENOSPC, spares: tt.spares}
			b := newBox(t, Options{Open: x.open, NoNotify: true})
			for _, f := range []string{"1.h:2,", "2.h:2,"} {
				b.deliver("cur", f, "x\n")
			}
			b.sync(Serve)
			b.remembering()
			beside := b.process(Options{NoNotify: true}).remembering()
			c := mirror{}
			if err := c.reconnect(b.Mailbox); err != nil {
				t.Fatal(err)
			}
			x.armed = true
			b.flag(1)
			if got := b.Forgetful(); got != tt.forgetful {
				t.Fatalf("forgetful: %v", got)
			}
			if tt.forgetful {
				return
			}
			c.keeps(b)
			b.unflag(1)
			x.armed = false // it is killed, and there is room again
			next := b.process(Options{NoNotify: true}).remembering()
			for _, p := range []*box{beside, next, beside} {
				p.sync(Serve)
				again := c
				again.keeps(b)
				again.flags[1], again.modseq = `\Flagged`, c.modseq
				if err := again.reconnect(p.Mailbox); err != nil {
					t.Error(err)
				}
			}
			sameHistory(t, next, beside)
		})
	}
}

// The same where the lock of the index could not be had.
func TestKilledWithoutLock(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true})
	b.deliver("cur", "1.h:2,", "x\n")
	b.sync(Serve)
	b.remembering()
	beside := b.process(Options{NoNotify: true}).remembering()
	c := mirror{}
	if err := c.reconnect(b.Mailbox); err != nil {
		t.Fatal(err)
	}
	stopped := index.File{Dir: b.dir}
	defer stopped.Close()
	if err := stopped.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.flag(1)
	c.keeps(b)
	b.unflag(1)
	stopped.Unlock()
	beside.sync(Serve)
	if err := c.reconnect(beside.Mailbox); err != nil {
		t.Error(err)
	}
	high := beside.Snapshot().ModSeq
	beside.remembering()
	if h := beside.Snapshot().ModSeq; h != high {
		t.Errorf("HIGHESTMODSEQ %d, and nothing has happened since %d", h, high)
	}
}

// A fault of a moment costs nobody his history: the index is written anew with the next
// change, or when modseqs are asked for, once; then not until some time has passed.
func TestIndexAgainAtOnce(t *testing.T) {
	t.Parallel()
	x := &trip{at: 1, err: unix.EIO}
	b := newBox(t, Options{Open: x.open, NoNotify: true})
	b.deliver("cur", "1.h:2,", "x\n")
	b.sync(Serve)
	b.remembering()
	x.armed = true
	b.flag(1)
	x.armed = false
	if !b.past.lost {
		t.Fatal("the index is not lost")
	}
	if !b.ModSeqs() {
		t.Error("no modseqs after a fault of a moment")
	}
	b.lose(unix.EIO)
	if b.ModSeqs() {
		t.Error("tried again at once, for the second time")
	}
}

// Keywords that no file name can say are not what the index says that missed them.
func TestBeyondWithoutIndex(t *testing.T) {
	t.Parallel()
	x := &trip{at: 1, err: unix.ENOSPC, spares: func(what, name string) bool { return what != "write" || name != index.Name }}
	b := newBox(t, Options{Open: x.open, NoNotify: true})
	var all strings.Builder
	for i := range keywords.Letters {
		fmt.Fprintf(&all, "%d k%d\n", i, i)
	}
	b.letters(all.String())
	b.deliver("cur", "1.h:2,", "x\n")
	b.deliver("cur", "2.h:2,", "x\n")
	b.sync(Serve)
	b.remembering()
	b.calm()
	b.end()
	b.start(Options{Open: x.open, NoNotify: true})
	b.sync(Serve)
	beyond := FlagSet{Keywords: []string{"beyond"}}
	for _, step := range []struct {
		op   FlagOp
		want string
	}{{AddFlags, "beyond"}, {RemoveFlags, ""}} {
		x.armed, x.n = true, 0
		if _, err := b.SetFlags(t.Context(), []UID{1}, step.op, beyond); err != nil {
			t.Fatal(err)
		}
		if x.armed = false; !b.past.lost {
			t.Fatal("the index is not lost")
		}
		b.past.retry = time.Time{}
		b.flag(2) // has an index again
		if b.past.lost {
			t.Fatal("the index is lost")
		}
		next := b.process(Options{NoNotify: true})
		for who, p := range map[string]*box{"this process": b, "the next": next} {
			msg, _ := p.Snapshot().lookup(1)
			if got := flagsOf(p.Snapshot(), msg); got != step.want {
				t.Errorf("%s: flags %q, want %q", who, got, step.want)
			}
		}
		b.unflag(2)
	}
}

// A process that ends before it has had an index again makes one.
func TestEndWithoutIndex(t *testing.T) {
	t.Parallel()
	x := &trip{at: 1, stay: true, err: unix.EIO}
	b := newBox(t, Options{Open: x.open, NoNotify: true})
	b.deliver("cur", "1.h:2,", "x\n")
	b.sync(Serve)
	b.remembering()
	x.armed = true
	b.flag(1)
	x.armed = false
	if !b.past.lost {
		t.Fatal("the index is not lost")
	}
	b.past.retry = time.Now().Add(time.Hour)
	b.end()
	if _, err := (&index.File{Dir: b.process(Options{}).dir}).Load(); err != nil || b.past.lost {
		t.Errorf("no index was made: %v", err)
	}
}
