package vfs

import (
	"testing"
	"testing/synctest"
	"time"
)

// A noted is a file that knows whether it has been closed. Its descriptor cannot be
// asked: it may be another file's by then.
type noted struct {
	File
	closed bool
}

func (n *noted) Close() error {
	n.closed = true
	return n.File.Close()
}

// A file that is given stays open as long as it is used every now and then.
func TestKept(t *testing.T) {
	dir, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	open := func(name string) *noted {
		f, err := dir.Create(name, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return &noted{File: f}
	}
	synctest.Test(t, func(t *testing.T) {
		var k Kept
		if f := k.Take(); f != nil {
			t.Fatal("something is kept")
		}
		a := open("a")
		for range 10 { // in use for much longer than a second
			k.Give(a)
			time.Sleep(keptFor * 2 / 3)
			synctest.Wait()
			if k.Take() != File(a) || a.closed {
				t.Fatal("not kept while it is in use")
			}
		}
		time.Sleep(3 * keptFor) // whoever has it has it for as long as it takes
		synctest.Wait()
		if a.closed {
			t.Fatal("closed under its owner")
		}
		k.Give(a)
		time.Sleep(2 * keptFor)
		synctest.Wait()
		if k.Take() != nil || !a.closed {
			t.Error("still open after two seconds")
		}
		b, c := open("b"), open("c")
		k.Give(b)
		k.Give(c)
		if !b.closed || c.closed {
			t.Error("one is kept, the last")
		}
		k.Close()
		if !c.closed || k.Take() != nil {
			t.Error("open after Close")
		}
	})
}
