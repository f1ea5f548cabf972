package maildir

import (
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
