package maildir

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"imapd/maildir/uidlist"
)

// A line that another program adds for a base name that has one counts, also for a
// process that goes on from an index.
func TestSecondLineMeanwhile(t *testing.T) {
	t.Parallel()
	a := newBox(t, Options{})
	a.deliver("cur", "1.h:2,", "x\n")
	a.deliver("cur", "2.h:2,S", "x\n")
	a.sync(Serve)
	a.remembering().calm()
	a.end()
	f, err := os.OpenFile(a.in(uidlist.Name, ""), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("7 :1.h\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	b := a.process(Options{})
	b.want(`2 2.h \Seen`, "7 1.h ")
}

// A list that is not loaded is searched for a few names, and loaded when that is
// asked for again and again.
func TestListIsSearched(t *testing.T) {
	t.Parallel()
	a := newBox(t, Options{})
	a.deliver("cur", "1.h:2,", "x\n")
	a.deliver("cur", "2.h:2,S", "x\n")
	a.sync(Serve)
	a.remembering().calm()
	a.end()
	b := a.process(Options{NoNotify: true})
	for i, name := range []string{"3.h", "4.h", "5.h"} {
		b.deliver("new", name, "x\n")
		b.sync(Look)
		time.Sleep(2 * localSettle) // so that the next look finds a clean folder
		b.sync(Look)
		if loaded := b.list.lines != nil; loaded != (i >= fewSearches) {
			t.Errorf("after %d deliveries the list is loaded: %v", i+1, loaded)
		}
	}
	b.want("1 1.h ", `2 2.h \Seen`, "3 3.h ", "4 4.h ", "5 5.h ")
}

// Who writes to the list between our look and our line, because somebody has removed
// the lock file, and we do not give one UID to two messages.
func TestListWrittenWithoutLock(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,", "x\n")
	b.deliver("tmp", "mine", "x\n")
	b.sync(Serve)
	err := b.edit(context.Background(), func() error {
		if err := b.relist(); err != nil {
			return err
		}
		if err := os.Remove(b.in(uidlist.LockName)); err != nil {
			t.Error(err)
		}
		put := func(name string) error {
			b.deliver("cur", "2.h:2,", "x\n")
			b.listed("2 :2.h")
			return b.tmp.RenameNoReplace("mine", b.cur, name)
		}
		_, _, err := b.admit([]newcomer{{base: "mine.h", put: put}}, func() {})
		return err
	})
	if !errors.Is(err, uidlist.ErrChanged) {
		t.Errorf("%v", err)
	}
	b.sync(Serve)
	b.want("1 1.h ", "2 2.h ")
	if u := b.append(b.Mailbox, "x\n", FlagSet{}); u != 3 {
		t.Errorf("UID %d", u)
	}
}
