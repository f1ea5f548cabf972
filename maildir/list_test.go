package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
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

// A list that was written anew while nobody had it open may have the inode number of the
// one that was read, and be longer. It is not taken for that one with more lines.
func TestListWithTheSameInode(t *testing.T) {
	t.Parallel()
	for what, tt := range map[string]struct {
		more  string // appended
		anew  bool
		want  []string
		scans bool
	}{
		"more lines":      {more: "6 :6.h\n", want: []string{"1 1.h ", "2 2.h ", "3 3.h ", "4 4.h ", "5 5.h "}},
		"more mail":       {more: "6 :6.h\n7 :7.h\n", want: []string{"1 1.h ", "2 2.h ", "3 3.h ", "4 4.h ", "5 5.h ", "7 7.h "}, scans: true},
		"another list":    {anew: true, want: []string{"1 1.h ", "3 3.h ", "4 4.h ", "5 5.h ", "6 2.h "}, scans: true},
		"and appended to": {anew: true, more: "7 :7.h\n", want: []string{"1 1.h ", "3 3.h ", "4 4.h ", "5 5.h ", "6 2.h ", "7 7.h "}, scans: true},
	} {
		b := newBox(t, Options{NoNotify: true})
		for i := range 5 {
			b.deliver("cur", fmt.Sprintf("%d.h:2,", i+1), "x\n")
		}
		b.sync(Serve)
		b.remembering().calm()
		list := b.uidList()
		b.end()
		path := b.in(uidlist.Name)
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if tt.anew { // a scan of another server missed the second message
			moved := list.Entries[1]
			moved.UID = 6
			list.Entries = append(slices.Delete(list.Entries, 1, 2), moved)
			list.Next, list.Extra = 7, " P1"
			old = list.Encode()
		}
		if err := os.WriteFile(path, append(old, tt.more...), 0o600); err != nil { // which keeps the inode
			t.Fatal(err)
		}
		if strings.Contains(tt.more, "7.h") {
			b.deliver("cur", "7.h:2,", "x\n")
		}
		p := b.process(Options{NoNotify: true})
		if got := told(p.Mailbox); !slices.Equal(got, tt.want) {
			t.Errorf("%s: mailbox holds %q, want %q", what, got, tt.want)
		}
		if n := p.host.scans.Load(); (n > 0) != tt.scans {
			t.Errorf("%s: %d directories were read", what, n)
		}
	}
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
		return b.admit([]*adding{{add: []newcomer{{base: "mine.h", put: put}}}})
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
