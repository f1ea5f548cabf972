package vfs

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// A file that is given stays open as long as it is used every now and then.
func TestKept(t *testing.T) {
	dir, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	open := func(name string) File {
		f, err := dir.Create(name, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	closed := func(f File) bool {
		_, err := f.Write([]byte("x"))
		return errors.Is(err, os.ErrClosed) || err != nil
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
			if k.Take() != a || closed(a) {
				t.Fatal("not kept while it is in use")
			}
		}
		time.Sleep(3 * keptFor) // whoever has it has it for as long as it takes
		synctest.Wait()
		if closed(a) {
			t.Fatal("closed under its owner")
		}
		k.Give(a)
		time.Sleep(2 * keptFor)
		synctest.Wait()
		if k.Take() != nil || !closed(a) {
			t.Error("still open after two seconds")
		}
		b, c := open("b"), open("c")
		k.Give(b)
		k.Give(c)
		if !closed(b) || closed(c) {
			t.Error("one is kept, the last")
		}
		k.Close()
		if !closed(c) || k.Take() != nil {
			t.Error("open after Close")
		}
	})
}
