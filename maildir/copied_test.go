package maildir

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/faultfs"
	"imapd/maildir/index"
	"imapd/maildir/uidlist"
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

// A folder that is restored on a disk that is full gives no UID again either: not while
// its list cannot be written, and not afterwards, in this process or another.
func TestRestoredFull(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true})
	b.deliver("cur", "1.h:2,", "x\n")
	b.sync(Serve)
	b.remembering()
	b.calm()
	b.end()
	old := b.backUp()
	b = b.after(0)
	last := b.append(b.Mailbox, "since\n", FlagSet{})
	b.calm()
	b.end()
	restorers["cp"](b, old)
	b.remove("cur/" + b.files("cur")[1])
	var disk faultfs.FS
	disk.Arm(func(c faultfs.Call) error {
		if strings.HasSuffix(c.Path, uidlist.Name+".tmp") {
			return unix.ENOSPC
		}
		return nil
	})
	full := &box{t: b.t, path: b.path, clock: time.Now}
	full.start(Options{NoNotify: true, Open: disk.Open})
	full.sync(Serve)
	next := full.Snapshot().Next
	if next < last+restoredGap {
		t.Errorf("next UID %d, the last one was %d", next, last)
	}
	full.remembering()
	disk.Disarm()
	full.mendFrom = time.Time{}
	full.sync(Serve)
	if full.unlistable {
		t.Error("the list counts as one that cannot be written")
	}
	beside := b.after(0)
	for i, p := range []*box{full, beside} {
		p.sync(Serve)
		if got := p.Snapshot().Next; got < next {
			t.Errorf("process %d: next UID %d, was %d", i, got, next)
		}
	}
	if l, _, err := uidlist.ReadFile(beside.dir); err != nil || UID(l.Next) < next {
		t.Errorf("the list goes on with %d, we with %d: %v", l.Next, next, err)
	}
	if uid := beside.append(beside.Mailbox, "x\n", FlagSet{}); uid < next {
		t.Errorf("UID %d, next was %d", uid, next)
	}
}

// After a folder has been restored from a backup no UID that was told since that was
// made becomes another message's, whoever gives the next ones, and the mirror of a
// client that was there meanwhile is true again.
func TestRestoredUIDs(t *testing.T) {
	t.Parallel()
	all := maps.Clone(restorers)
	all["another folder"] = func(b *box, dir string) {
		b.run("rm", "-r", b.path)
		b.run("cp", "-a", dir, b.path)
	}
	for how, restore := range all {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, Options{NoNotify: true})
			b.deliver("cur", "1.h:2,", "x\n")
			b.sync(Serve)
			b.remembering()
			b.deliver("cur", "2.h:2,", "x\n") // which the list of the backup has, and its index has not
			b.calm()
			b.end()
			if err := appendLine(b.in(".", uidlist.Name), "2 :2.h\n"); err != nil {
				t.Fatal(err)
			}
			old := b.backUp()
			b = b.after(0)
			c, last := mirror{}, UID(0)
			for range 3 {
				last = b.append(b.Mailbox, "since\n", FlagSet{})
			}
			if err := c.reconnect(b.Mailbox); err != nil || len(c.flags) != 5 {
				t.Fatal(c.flags, err)
			}
			b.calm()
			b.end()
			restore(b, old)
			b.deliver("new", "9.h", "x\n")
			a := b.after(time.Hour)
			b = b.after(time.Hour)
			b.remembering()
			b.sync(Serve)
			for _, msg := range b.Snapshot().Range(0, b.Snapshot().Len()) {
				base := string(msg.base())
				if kept := base == "1.h" || base == "2.h"; kept != (msg.UID <= 2) || !kept && msg.UID < last+restoredGap+3000 {
					t.Errorf("%q has UID %d", base, msg.UID)
				}
			}
			if err := c.reconnect(b.Mailbox); err != nil {
				t.Error(err)
			}
			next := b.Snapshot().Next
			if l, _, err := uidlist.ReadFile(b.dir); err != nil || UID(l.Next) != next {
				t.Errorf("the list goes on with %d, we with %d: %v", l.Next, next, err)
			}
			if uid := a.append(a.Mailbox, "x\n", FlagSet{}); uid < next {
				t.Errorf("another process gives UID %d, next is %d", uid, next)
			}
			b.end()
			b = b.after(time.Hour)
			if got := b.Snapshot().Next; got > next+1 {
				t.Errorf("UIDs are skipped again: next is %d, was %d", got, next+1)
			}
		})
	}
}

// A folder that has been restored where nothing can be written is served all the same,
// and UIDs are skipped by whoever can give them.
func TestRestoredReadOnly(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"create", "write"} {
		b := newBox(t, Options{NoNotify: true})
		b.deliver("cur", "1.h:2,S", "x\n")
		b.sync(Serve)
		b.remembering()
		b.end()
		old := b.backUp()
		b.run("rm", "-r", b.path)
		b.run("cp", "-a", old, b.path)
		var sealed faultfs.FS
		sealed.Arm(faultfs.Always(op, unix.EROFS))
		b.start(Options{NoNotify: true, Open: sealed.Open})
		b.deliver("new", "2.h", "x\n")
		b.sync(Serve)
		b.want(`1 1.h \Seen`)
		b.end()
		b = b.after(0)
		b.sync(Serve)
		if s := b.Snapshot(); s.Len() != 2 || s.At(1).UID < restoredGap {
			t.Errorf("%s: %q", op, told(b.Mailbox))
		}
	}
}

func appendLine(file, line string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(line)
	return err
}

// A UID list that is older than what clients were told, and comes without its index,
// costs neither UIDs nor gives any again, whether a process has the mailbox open or not.
func TestOldList(t *testing.T) {
	t.Parallel()
	for _, open := range []bool{true, false} {
		b := newBox(t, Options{NoNotify: true})
		b.deliver("cur", "1.h:2,", "x\n")
		b.sync(Serve)
		b.remembering()
		file := b.in(".", uidlist.Name)
		old, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b.deliver("cur", "2.h:2,", "x\n")
		b.deliver("cur", "3.h:2,T", "x\n")
		b.sync(Serve)
		if _, err := b.Expunge(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		b.calm()
		if !open {
			b.end()
		}
		if err := rewritten(file, old); err != nil {
			t.Fatal(err)
		}
		if !open {
			b = b.after(0)
		}
		b.deliver("cur", "4.h:2,", "x\n")
		b.sync(Serve)
		b.want("1 1.h ", "2 2.h ", "4 4.h ")
		if l, _, err := uidlist.ReadFile(b.dir); err != nil || l.Next != 5 || len(l.Entries) != 3 {
			t.Errorf("the list is %+v, %v", l, err)
		}
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
