package maildir

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imapd/maildir/index"
	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
)

// process is another process, or the same one after a restart.
func (b *box) process(o Options) *box {
	b.t.Helper()
	p := &box{t: b.t, path: b.path}
	p.start(o)
	return p
}

// remembering has b keep an index.
func (b *box) remembering() *box {
	b.t.Helper()
	if !b.ModSeqs() {
		b.t.Fatal("no index can be made")
	}
	return b
}

// end closes b as a process that ends.
func (b *box) end() {
	b.t.Helper()
	b.Release()
	if err := b.host.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// modseqs returns what a client is told of the age of messages.
func modseqs(m *Mailbox) (highest ModSeq, each []ModSeq) {
	s := m.Snapshot()
	for _, msg := range s.Range(0, s.Len()) {
		each = append(each, msg.ModSeq)
	}
	return s.ModSeq, each
}

// calm lets time pass until the last change is old enough for a stamp.
func (b *box) calm() {
	b.t.Helper()
	time.Sleep(2 * localSettle)
	b.sync(Look)
}

func (b *box) remove(name string) {
	b.t.Helper()
	if err := os.Remove(filepath.Join(b.path, name)); err != nil {
		b.t.Fatal(err)
	}
}

// A UID list that somebody deletes or empties comes back with the UIDs that
// clients know, whether a process has the mailbox open, has read the list or not,
// or comes later and has only the index.
func TestListIsRestored(t *testing.T) {
	t.Parallel()
	ruin := map[string]func(b *box){
		"deleted": func(b *box) { b.remove(uidlist.Name) },
		"emptied": func(b *box) {
			if err := os.Truncate(filepath.Join(b.path, uidlist.Name), 0); err != nil {
				b.t.Fatal(err)
			}
		},
	}
	for what, put := range noLists() {
		ruin["replaced by "+what] = func(b *box) { b.putForList(put) }
	}
	for how, ruin := range ruin {
		for _, when := range []string{"open", "resumed", "closed"} {
			t.Run(how+" "+when, func(t *testing.T) {
				t.Parallel()
				b := newBox(t, Options{})
				for _, f := range []string{"1.h:2,", "2.h:2,S", "3.h:2,F"} {
					b.deliver("cur", f, "x\n")
				}
				b.sync(Serve)
				if _, err := b.SetFlags(t.Context(), []UID{2}, AddFlags, FlagSet{System: Deleted}); err != nil {
					t.Fatal(err)
				}
				if _, err := b.Expunge(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				validity, next := b.Snapshot().Validity, b.Snapshot().Next
				b.remembering().calm()
				switch when {
				case "resumed":
					b.end()
					b = b.process(Options{})
				case "closed":
					b.end()
				}
				ruin(b)
				if when == "closed" {
					b = b.process(Options{})
				}
				b.deliver("new", "4.h", "x\n")
				b.sync(Serve)
				got := told(b.Mailbox)
				if len(got) != 3 || got[0] != "1 1.h " || got[1] != `3 3.h \Flagged` {
					t.Fatalf("mailbox holds %q", got)
				}
				s := b.Snapshot()
				if s.Validity != validity || s.At(2).UID < next {
					t.Errorf("UIDVALIDITY %d, was %d; new UID %d, next was %d", s.Validity, validity, s.At(2).UID, next)
				}
				list, err := os.ReadFile(filepath.Join(b.path, uidlist.Name))
				if l, perr := uidlist.Parse(list); err != nil || perr != nil || len(l.Entries) != 3 || l.Validity != validity {
					t.Errorf("the list holds %q: %v %v", list, err, perr)
				}
			})
		}
	}
}

// A process that makes its index when another has one already, and has recorded
// more than it has seen, does not take that for expunged.
func TestIndexMadeByTwo(t *testing.T) {
	t.Parallel()
	a := newBox(t, Options{NoNotify: true})
	a.deliver("cur", "1.h:2,", "x\n")
	a.deliver("cur", "2.h:2,", "x\n")
	a.sync(Serve)
	b := a.process(Options{NoNotify: true}).remembering()
	b.append(b.Mailbox, "three\r\n", FlagSet{})
	b.flag(2)
	a.flag(1)
	if !a.ModSeqs() {
		t.Fatal("no index")
	}
	for range 2 {
		a.sync(Serve)
		b.sync(Serve)
	}
	sameHistory(t, a, b)
	if s := a.Snapshot(); s.Len() != 3 || s.At(0).Flags != Flagged || s.At(1).Flags != Flagged || s.At(2).UID != 3 {
		t.Errorf("mailbox holds %q", told(a.Mailbox))
	}
}

// sameHistory fails the test unless all tell clients the same.
func sameHistory(t *testing.T, boxes ...*box) {
	t.Helper()
	want, wantMods := told(boxes[0].Mailbox), []ModSeq(nil)
	high, wantMods := modseqs(boxes[0].Mailbox)
	for i, b := range boxes[1:] {
		got := told(b.Mailbox)
		h, mods := modseqs(b.Mailbox)
		if !slices.Equal(got, want) || h != high || !slices.Equal(mods, wantMods) {
			t.Fatalf("process %d tells %q %d %d\nprocess 0 tells %q %d %d", i+1, got, h, mods, want, high, wantMods)
		}
	}
}

// Who has looked too early does not record over who has looked later: the file
// decides. And what one has told is not told with another modseq by the other.
func TestStaleLook(t *testing.T) {
	t.Parallel()
	a := newBox(t, Options{})
	a.deliver("cur", "1.h:2,", "x\n")
	a.sync(Serve)
	a.remembering()
	a.followed()
	b := a.process(Options{NoNotify: true}).remembering()
	early := b.Snapshot()
	a.renamed("1.h:2,", "1.h:2,S")
	seen, _ := early.lookup(1)
	e := entryOf(seen)
	e.name, e.marks.Flags = "1.h:2,S", Seen // what b finds, and then it is descheduled
	a.flag(1)
	high := a.Snapshot().ModSeq
	b.mu.Lock()
	mod, err := b.record(early, []change{{uid: 1, entry: e}}, nil, early.Next)
	b.mu.Unlock()
	if err != nil || mod > high {
		t.Errorf("recorded at %d, the last change was at %d: %v", mod, high, err)
	}
	b.want(`1 1.h \Seen \Flagged`)
	a.sync(Serve)
	b.sync(Serve)
	a.want(`1 1.h \Seen \Flagged`)
	sameHistory(t, a, b)
}

// A message that was expunged before its writer could record it stays dead.
func TestDeadBeforeRecorded(t *testing.T) {
	t.Parallel()
	a := newBox(t, Options{NoNotify: true})
	a.deliver("cur", "1.h:2,", "x\n")
	a.sync(Serve)
	a.remembering()
	b := a.process(Options{NoNotify: true}).remembering()
	early := b.Snapshot()
	a.deliver("cur", "2.h:2,", "x\n")
	a.sync(Serve)
	a.remove("cur/2.h:2,")
	a.sync(Serve)
	b.mu.Lock()
	err := b.list.read(b.control)
	if err == nil {
		_, err = b.record(early, nil, []entry{newEntry(2, inCur, "2.h:2,", Marks{})}, 3)
	}
	b.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	b.want("1 1.h ")
	if n := b.Snapshot().Next; n != 3 {
		t.Errorf("UIDNEXT %d after UID 2 was expunged", n)
	}
	a.sync(Serve)
	b.sync(Serve)
	sameHistory(t, a, b)
}

// What another process recorded of a file that has changed since is not believed,
// though its events have come and gone.
func TestHearsay(t *testing.T) {
	t.Parallel()
	a := newBox(t, Options{})
	a.deliver("cur", "1.h:2,", "x\n")
	a.deliver("cur", "2.h:2,", "x\n")
	a.sync(Serve)
	a.remembering()
	a.followed()
	b := a.process(Options{NoNotify: true}).remembering()
	early := b.Snapshot()
	seen, _ := early.lookup(1)
	e := entryOf(seen)
	e.name, e.marks.Flags = "1.h:2,S", Seen
	a.renamed("1.h:2,", "1.h:2,S") // b sees this, and its process is stopped
	a.renamed("1.h:2,S", "1.h:2,")
	a.sync(Serve)
	b.mu.Lock()
	if _, err := b.record(early, []change{{uid: 1, entry: e}, {uid: 2, remove: true}}, nil, early.Next); err != nil {
		t.Error(err)
	}
	b.mu.Unlock()
	a.sync(Serve)
	if got := told(a.Mailbox); len(got) != 2 || got[0] != "1 1.h " || got[1] != "3 2.h " {
		t.Errorf("mailbox holds %q", got)
	}
}

// An index that is deleted, or replaced by an older one, while processes have it
// open costs nothing but that it is written anew: no modseq goes back, and what
// one process recorded last is not lost to the others.
func TestIndexIsReplacedUnderUs(t *testing.T) {
	t.Parallel()
	for how, replace := range map[string]func(path string, old []byte) error{
		"deleted":      func(path string, _ []byte) error { return os.Remove(path) },
		"renamed over": func(path string, old []byte) error { return rewritten(path, old) },
		"overwritten":  func(path string, old []byte) error { return os.WriteFile(path, old, 0o600) },
		"all is gone":  func(path string, _ []byte) error { os.Remove(path + ".lock"); return os.Remove(path) },
		"cut to half":  func(path string, old []byte) error { return os.Truncate(path, int64(len(old)/2)) },
		"made longer": func(path string, old []byte) error {
			return os.WriteFile(path, slices.Concat(old, make([]byte, 1<<16)), 0o600)
		},
		"not an index":  func(path string, _ []byte) error { return os.WriteFile(path, []byte("hello"), 0o600) },
		"a directory":   func(path string, _ []byte) error { os.Remove(path); return os.Mkdir(path, 0o700) },
		"a broken link": func(path string, _ []byte) error { os.Remove(path); return os.Symlink("nowhere", path) },
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			a := newBox(t, Options{NoNotify: true})
			for _, f := range []string{"1.h:2,", "2.h:2,", "3.h:2,T"} {
				a.deliver("cur", f, "x\n")
			}
			a.sync(Serve)
			a.remembering()
			path := filepath.Join(a.path, index.Name)
			old, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b := a.process(Options{NoNotify: true}).remembering()
			a.flag(1)
			b.sync(Serve)
			a.flag(2) // b has not heard of this
			a.append(a.Mailbox, "four\r\n", FlagSet{})
			if _, err := a.Expunge(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			want := told(a.Mailbox)
			high, each := modseqs(a.Mailbox)
			if err := replace(path, old); err != nil {
				t.Fatal(err)
			}
			b.sync(Serve)
			a.sync(Serve)
			for i, p := range []*box{b, a} {
				if got := told(p.Mailbox); !slices.Equal(got, want) {
					t.Errorf("process %d: mailbox holds %q, want %q", i, got, want)
				}
				h, mods := modseqs(p.Mailbox)
				if h < high || len(mods) != len(each) {
					t.Fatalf("process %d: HIGHESTMODSEQ %d, was %d", i, h, high)
				}
				for k := range mods {
					if mods[k] < each[k] {
						t.Errorf("process %d: modseq %d went back to %d", i, each[k], mods[k])
					}
				}
			}
			b.flag(1)
			a.flag(4)
			if h := a.Snapshot().ModSeq; h <= high {
				t.Errorf("a change at %d, the last one was at %d", h, high)
			}
		})
	}
}

// rewritten puts another file in the place of path.
func rewritten(path string, data []byte) error {
	if err := os.WriteFile(path+".old", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".old", path)
}

// Where the index cannot be written the mailbox goes on, and has a history again,
// above all that was told, when it can.
func TestIndexIsLostAndFound(t *testing.T) {
	t.Parallel()
	a := newBox(t, Options{})
	a.deliver("cur", "1.h:2,", "x\n")
	a.deliver("cur", "2.h:2,", "x\n")
	a.sync(Serve)
	a.remembering()
	b := a.process(Options{NoNotify: true}).remembering()
	a.mu.Lock()
	a.lose(os.ErrPermission)
	a.past.retry = time.Now().Add(time.Hour)
	a.mu.Unlock()
	a.flag(1)
	told1 := a.Snapshot().ModSeq
	if a.ModSeqs() {
		t.Error("modseqs are told without an index")
	}
	b.flag(2)
	b.append(b.Mailbox, "three\r\n", FlagSet{})
	a.mu.Lock()
	a.past.retry = time.Time{}
	a.mu.Unlock()
	if !a.ModSeqs() {
		t.Fatal("no index")
	}
	if got := a.Snapshot().At(0).ModSeq; got <= told1 {
		t.Errorf("modseq %d after the index was lost at %d", got, told1)
	}
	for range 2 {
		a.sync(Serve)
		b.sync(Serve)
	}
	a.want(`1 1.h \Flagged`, `2 2.h \Flagged`, told(b.Mailbox)[2])
	sameHistory(t, a, b)
}

// After another boot every message counts as changed, for whoever reads the index
// then, whatever stood in its journal; but not if it was closed well.
func TestFloor(t *testing.T) {
	t.Parallel()
	for _, clean := range []bool{false, true} {
		b := newBox(t, Options{NoNotify: true})
		b.deliver("cur", "1.h:2,", "x\n")
		b.sync(Serve)
		b.remembering()
		b.append(b.Mailbox, "two\r\n", FlagSet{})
		b.flag(1)
		high, each := modseqs(b.Mailbox)
		if clean {
			b.end()
		}
		b.reboot()
		for range 2 {
			b = b.process(Options{NoNotify: true})
			h, mods := modseqs(b.Mailbox)
			switch lifted := mods[0] > high && mods[1] > high && h > high; {
			case lifted == clean:
				t.Errorf("closed well: %v; modseqs %d before and %d after, highest %d and %d", clean, each, mods, high, h)
			case !b.ModSeqs():
				t.Error("no index")
			}
		}
	}
}

// A process that opens a mailbox while another writes does not take for torn what it
// sees of a batch: under the lock it is whole.
func TestOpenedDuringWrite(t *testing.T) {
	t.Parallel()
	a := newBox(t, Options{NoNotify: true}).remembering()
	a.append(a.Mailbox, "x\r\n", FlagSet{})
	before := len(a.indexFile())
	a.flag(1)
	since, whole := a.Snapshot().ModSeq, a.indexFile()
	half := (before + len(whole)) / 2
	writer := index.File{Dir: a.indexDir}
	if err := errors.Join(writer.Lock(t.Context()), os.Truncate(a.in(index.Name), int64(half))); err != nil {
		t.Fatal(err)
	}
	waits, opened := make(chan struct{}), make(chan struct{})
	wait := sync.OnceFunc(func() { close(waits) })
	x := &trip{armed: true, spares: func(_, name string) bool {
		if name == index.LockName {
			wait()
		}
		return true
	}}
	c := &box{t: t, path: a.path}
	go func() {
		defer close(opened)
		c.start(Options{NoNotify: true, Open: x.open})
	}()
	<-waits
	f, err := os.OpenFile(a.in(index.Name), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.Write(whole[half:])
		err = errors.Join(err, f.Close(), writer.Unlock())
	}
	if err != nil {
		t.Fatal(err)
	}
	<-opened
	for _, msg := range c.Snapshot().RangeSince(0, c.Snapshot().Len(), since) {
		t.Errorf("UID %d counts as changed", msg.UID)
	}
	if _, complete := c.Expunged(since); !complete {
		t.Error("expunges are not known")
	}
}

// While a process writes the index anew, however long that takes, others go on, and the
// new one has what they have recorded.
func TestRecordedDuringRewrite(t *testing.T) {
	t.Parallel()
	writing, free := make(chan struct{}), make(chan struct{})
	hang := sync.OnceFunc(func() {
		close(writing)
		<-free
	})
	x := &trip{spares: func(what, name string) bool {
		if what == "fdatasync" && name == index.Name+".tmp" {
			hang()
		}
		return true
	}}
	o := Options{NoNotify: true, Lock: LockNewUIDs}
	a := newBox(t, Options{NoNotify: true, Lock: LockNewUIDs, Open: x.open}).remembering()
	uids := a.appendAtOnce(3, FlagSet{})
	c := a.others(1, o)[1].remembering()
	since := a.Snapshot().ModSeq
	var long index.Batch
	for range 4000 {
		long.Learned(uint32(uids[0]), index.NoFacts)
	}
	if err := errors.Join(a.past.file.Lock(t.Context()), a.past.file.Append(&long, false), a.past.file.Unlock()); err != nil {
		t.Fatal(err)
	}
	x.armed = true
	done := make(chan error)
	go func() {
		_, err := a.SetFlags(context.Background(), uids[:1], AddFlags, FlagSet{System: Flagged})
		done <- err
	}()
	<-writing
	c.flag(uids[1])
	if c.past.lost {
		t.Error("the index is lost")
	}
	close(free)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := len(a.indexFile()); n > 4000 {
		t.Errorf("the index has %d octets: it was not written anew", n)
	}
	a.sync(Look)
	p := a.process(o).remembering()
	sameHistory(t, a, p)
	var changed []UID
	for _, msg := range p.Snapshot().RangeSince(0, p.Snapshot().Len(), since) {
		changed = append(changed, msg.UID)
	}
	if _, complete := p.Expunged(since); !slices.Equal(changed, uids[:2]) || !complete {
		t.Errorf("%v have changed, expunges are known: %v", changed, complete)
	}
}

// A message that came and went of which the index never knew, because what was
// recorded last was lost in a power cut, is not believed to be there still.
func TestFloorForgets(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true})
	b.deliver("cur", "1.h:2,", "x\n")
	b.sync(Serve)
	b.remembering()
	b.flag(1)
	durable := int64(len(b.indexFile()))
	b.append(b.Mailbox, "two\r\n", FlagSet{})
	c := mirror{}
	if err := c.reconnect(b.Mailbox); err != nil {
		t.Fatal(err)
	}
	s := b.Snapshot()
	b.remove("cur/" + string(s.At(1).name()))
	if err := os.Truncate(b.in(".", index.Name), durable); err != nil {
		t.Fatal(err)
	}
	b.reboot()
	b = b.process(Options{NoNotify: true})
	b.sync(Serve)
	if err := c.reconnect(b.Mailbox); err != nil {
		t.Error(err)
	}
}

// What was lost while the index could not be written is not believed to be known,
// when there is one again.
func TestLossForgets(t *testing.T) {
	t.Parallel()
	a := newBox(t, Options{NoNotify: true})
	a.deliver("cur", "1.h:2,", "x\n")
	a.sync(Serve)
	a.remembering()
	b := a.process(Options{NoNotify: true}).remembering()
	a.mu.Lock()
	a.lose(os.ErrPermission)
	a.mu.Unlock()
	a.append(a.Mailbox, "two\r\n", FlagSet{})
	s := a.Snapshot()
	c := mirror{s.Validity, s.ModSeq, map[UID]string{1: "", 2: ""}}
	a.remove("cur/" + string(s.At(1).name()))
	a.sync(Serve)
	a.past.retry = time.Time{}
	a.remembering()
	for _, p := range []*box{a, b} {
		p.sync(Serve)
		again := mirror{c.validity, c.modseq, maps.Clone(c.flags)}
		if err := again.reconnect(p.Mailbox); err != nil {
			t.Error(err)
		}
	}
}

// reboot has the index say that it was written in another boot.
func (b *box) reboot() {
	b.t.Helper()
	dir, err := vfs.Open(b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer dir.Close()
	f := index.File{Dir: dir}
	defer f.Close()
	if err := f.Lock(context.Background()); err != nil {
		b.t.Fatal(err)
	}
	img, err := f.Load()
	if err != nil {
		b.t.Fatal(err)
	}
	st := img.State
	for _, e := range img.Tail {
		if e.Kind == index.Stated {
			st = *e.State
		}
	}
	st.Boot[0]++
	var batch index.Batch
	batch.State(&st)
	if err := f.Append(&batch, false); err != nil {
		b.t.Fatal(err)
	}
}

// A process that is stopped while it records holds up another one for seconds,
// once, and what that one does is in the history in the end.
func TestStoppedWriter(t *testing.T) {
	t.Parallel()
	a := newBox(t, Options{NoNotify: true})
	a.deliver("cur", "1.h:2,", "x\n")
	a.deliver("cur", "2.h:2,", "x\n")
	a.sync(Serve)
	a.remembering()
	client := mirror{}
	if err := client.reconnect(a.Mailbox); err != nil {
		t.Fatal(err)
	}
	stopped := index.File{Dir: a.dir}
	defer stopped.Close()
	if err := stopped.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := stopped.Load(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	a.flag(1)
	first := time.Since(begin)
	for range 20 {
		a.flag(2)
		a.sync(Serve)
	}
	if all := time.Since(begin); all > first+5*time.Second {
		t.Errorf("the first change took %v, twenty more %v", first, all-first)
	}
	// It goes on: with a modseq that it had given before.
	rec := a.Snapshot().At(1)
	e := entryOf(rec)
	e.modseq, e.name, e.marks.Flags = ModSeq(a.past.state.Ceiling)-1, "2.h:2,S", Seen
	r := e.record()
	var batch index.Batch
	batch.Put(&r, []byte(e.name))
	a.renamed("2.h:2,F", "2.h:2,S")
	if err := stopped.Append(&batch, false); err != nil {
		t.Fatal(err)
	}
	stopped.Unlock()
	high := a.Snapshot().ModSeq
	a.past.retry = time.Time{}
	a.sync(Serve)
	a.remembering()
	a.sync(Serve)
	a.want(`1 1.h \Flagged`, `2 2.h \Seen`)
	if h := a.Snapshot().ModSeq; h <= max(high, e.modseq) {
		t.Errorf("HIGHESTMODSEQ %d after %d here and %d there", h, high, e.modseq)
	}
	if err := client.reconnect(a.Mailbox); err != nil {
		t.Error(err)
	}
	b := a.process(Options{NoNotify: true})
	b.remembering()
	a.sync(Serve)
	sameHistory(t, a, b)
}

// Whoever opens an index has to go through its journal: a process that leaves a long one
// writes the index anew, one that stays does so much later.
func TestJournalForTheNext(t *testing.T) {
	t.Parallel()
	const messages, changed = 17000, 400
	b := newBox(t, Options{})
	pad := strings.Repeat("x", 220)
	for i := range messages {
		if err := os.WriteFile(b.in("cur", fmt.Sprint(1_600_000_000+i, ".", pad, ":2,")), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.sync(Serve)
	b.remembering().end()
	size := func() int { return len(b.indexFile()) }
	base := size()
	var uids []UID
	for i := range UID(changed) {
		uids = append(uids, 1+i*(messages/changed))
	}
	first := b.process(Options{})
	first.sync(Serve)
	if _, err := first.SetFlags(t.Context(), uids, AddFlags, FlagSet{System: Flagged}); err != nil {
		t.Fatal(err)
	}
	if size() < base+changed*len(pad) {
		t.Fatal("it was written anew while in use, or nothing was changed")
	}
	first.end()
	if got := size(); got > base+changed*len(pad)/4 {
		t.Errorf("it leaves %d octets, the one before left %d", got, base)
	}
}
