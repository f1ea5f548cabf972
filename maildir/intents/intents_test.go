package intents

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

func openDir(t testing.TB) (vfs.Dir, string) {
	t.Helper()
	path := t.TempDir()
	dir, err := vfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir, path + "/" + Name
}

func all(Kind) bool { return true }

var move = Intent{Kind: Move, Target: ".A b", Steps: []Step{{From: "1.h:2,S", To: "1.h"}, {From: "2 x.h:2,", To: "7 y.h"}}}
var placed = Intent{Kind: Place, Validity: 1<<32 - 1, Steps: []Step{{To: "3.h", Dev: 5, Ino: 1 << 63}}}

func note(t *testing.T, dir vfs.Dir, i Intent) *Held {
	t.Helper()
	h, err := Begin(dir, i)
	if err == nil {
		err = h.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func claimed(t *testing.T, dir vfs.Dir) []Intent {
	t.Helper()
	h, err := Claim(dir, all)
	if err != nil {
		t.Fatal(err)
	}
	if h == nil {
		return nil
	}
	defer h.Close()
	return h.Intents
}

// Intents belong to who wrote them while he lives, then to whoever comes first,
// until somebody says that they are done.
func TestIntents(t *testing.T) {
	t.Parallel()
	dir, path := openDir(t)
	a := note(t, dir, move)
	if !a.Alone() {
		t.Error("one intent is not alone")
	}
	b := note(t, dir, placed)
	if a.Alone() || b.Alone() {
		t.Error("two intents are alone")
	}
	if got := claimed(t, dir); got != nil {
		t.Errorf("claimed %v while their owners live", got)
	}
	a.Close()
	if got := claimed(t, dir); !reflect.DeepEqual(got, []Intent{move}) {
		t.Errorf("claimed %+v", got)
	}
	b.Close()
	h, err := Claim(dir, func(k Kind) bool { return k == Place })
	if err != nil || h == nil || !reflect.DeepEqual(h.Intents, []Intent{placed}) {
		t.Fatalf("%+v, %v", h, err)
	}
	if got := claimed(t, dir); !reflect.DeepEqual(got, []Intent{move}) {
		t.Errorf("claimed %+v beside one who recovers", got)
	}
	h.Done()
	h.Done()
	if got := claimed(t, dir); !reflect.DeepEqual(got, []Intent{move}) {
		t.Errorf("claimed %+v after the other was done", got)
	}
	if h, err = Claim(dir, all); err != nil {
		t.Fatal(err)
	}
	h.Done()
	if st, err := os.Stat(path); err != nil || st.Size() != 0 || Waiting(dir) {
		t.Errorf("not empty: %v, %v", st, err)
	}
	c := note(t, dir, move)
	c.Done()
	if Waiting(dir) {
		t.Error("not empty after one came and went")
	}
	(*Held)(nil).Done()
	(*Held)(nil).Close()
}

// Who is done lets nobody else in before his octets are free: the next intent may begin
// at one of them.
func TestDoneInOne(t *testing.T) {
	t.Parallel()
	dir, _ := openDir(t)
	h := note(t, dir, move)
	h.file = closing{h.file, func() {
		next, err := dir.Append(Name)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		if own(next, mutexAt) == nil && own(next, 0) != nil {
			t.Error("another one is let in who cannot have octet 0")
		}
	}}
	h.Done()
	note(t, dir, placed).Done()
}

// closing is a file that calls before when it is closed.
type closing struct {
	vfs.File
	before func()
}

func (c closing) Close() error {
	c.before()
	return c.File.Close()
}

// An intent that was cut short is none, and does no harm to the next.
func TestTorn(t *testing.T) {
	t.Parallel()
	dir, path := openDir(t)
	note(t, dir, move).Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		h := note(t, dir, placed)
		h.Close()
		got := claimed(t, dir)
		if n == len(whole)-1 { // all but the LF
			if len(got) != 2 {
				t.Errorf("%d octets: %+v", n, got)
			}
		} else if !reflect.DeepEqual(got, []Intent{placed}) {
			t.Errorf("%d octets: %+v", n, got)
		}
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		claimed(t, dir)
		if n < len(whole)-1 && Waiting(dir) {
			t.Errorf("%d octets: what means nothing was left", n)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	dir, path := openDir(t)
	for _, bad := range []Intent{{Kind: Move, Target: "a\nb"}, {Kind: Place, Steps: []Step{{To: "a\x00"}}}, {Kind: Move, Target: strings.Repeat("x", 5000)}} {
		if _, err := Begin(dir, bad); !errors.Is(err, ErrUnusable) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Begin(dir, move); !errors.Is(err, ErrUnusable) {
		t.Errorf("a FIFO: %v", err)
	}
	if got := claimed(t, dir); got != nil {
		t.Errorf("a FIFO: %v", got)
	}
	os.Remove(path)
	if err := os.Symlink("/etc/passwd", path); err != nil {
		t.Fatal(err)
	}
	if _, err := Begin(dir, move); !errors.Is(err, ErrUnusable) {
		t.Errorf("a link: %v", err)
	}
	if got := claimed(t, dir); got != nil {
		t.Errorf("a link: %v", got)
	}
}

// Whatever is in the file: what is read of it is written as the same.
func FuzzParse(f *testing.F) {
	f.Add(move.append(placed.append(nil, 0), 100))
	f.Add(appendDone(move.append(nil, 7), 7))
	f.Add([]byte("B 0 M 1 x\n"))
	f.Add(vfs.AppendSealed(nil, func(b []byte) []byte { return append(b, "S 0 1 2 99 a b"...) }))
	f.Fuzz(func(t *testing.T, data []byte) {
		got := parse(data)
		for i := range got {
			if !got[i].possible() {
				continue
			}
			again := parse(got[i].append(nil, got[i].id))
			if len(again) != 1 || !reflect.DeepEqual(again[0], got[i]) {
				t.Errorf("%+v is read again as %+v", got[i], again)
			}
		}
	})
}
