package keywords

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
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
	return dir, path + "/" + OverflowName
}

func read(t testing.TB, o *Overflow, dir vfs.Dir) Changes {
	t.Helper()
	c, err := o.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lines returns a file with records made of bodies such as "K 0 name".
func lines(bodies ...string) string {
	b := []byte(overflowHead)
	for _, body := range bodies {
		b = vfs.AppendSealed(b, func(b []byte) []byte { return append(b, body...) })
	}
	return string(b)
}

func TestOverflowParse(t *testing.T) {
	t.Parallel()
	good := lines("K 0 blue", "K 2 red", "S 0,2 1.h,S=5", "C 77")
	bad := lines("K 0 blue", "S 0 1.h")
	for _, tt := range []struct {
		name, in string
		names    []string
		set      []uint16 // of 1.h,S=5 or 1.h
		ceiling  uint64
		damaged  bool
	}{
		{"empty", "", nil, nil, 0, true},
		{"half a first line", "imapd-key", nil, nil, 0, true},
		{"first line", overflowHead, nil, nil, 0, false},
		{"all kinds", good, []string{"blue", "", "red"}, []uint16{0, 2}, 77, false},
		{"torn", good + "12345678 S - 1.h", []string{"blue", "", "red"}, []uint16{0, 2}, 77, true},
		{"last set counts", lines("K 0 a", "S 0 1.h", "S - 1.h", "S 0 2.h"), []string{"a"}, nil, 0, false},
		{"first name counts", lines("K 0 a", "K 0 b"), []string{"a"}, nil, 0, false},
		{"lower ceiling", lines("C 9", "C 4"), nil, nil, 9, false},
		{"wrong checksum", strings.Replace(bad, "blue", "blur", 1), []string{""}, []uint16{0}, 0, false},
		{"a number keeps its place without a name", lines("S 3 1.h"), make([]string, 4), []uint16{3}, 0, false},
		{"nonsense", lines("K 99999 a", "K x a", "K 1 a b", "S 1,1 1.h", "S 2,1 1.h", "S  1.h", "S 1 a/b", "S 1 a:b", "C -1", "C 1 x", "Q 1 x", ""), nil, nil, 0, false},
		{"garbage", "\x00\xff\n\n\nimapd-keywords 1\n", nil, nil, 0, true},
		{"another's first line", strings.Replace(bad, overflowHead, "hello\n", 1), []string{"blue"}, []uint16{0}, 0, true},
		{"NULs at the end", bad + "\x00\x00\x00", []string{"blue"}, []uint16{0}, 0, true},
	} {
		dir, path := openDir(t)
		if err := os.WriteFile(path, []byte(tt.in), 0o600); err != nil {
			t.Fatal(err)
		}
		var o Overflow
		read(t, &o, dir)
		set := slices.Concat(o.Of([]byte("1.h,S=5")), o.Of([]byte("1.h")))
		if !slices.Equal(o.Names(), tt.names) || !slices.Equal(set, tt.set) || o.Ceiling() != tt.ceiling || (o.torn || o.foreign) != tt.damaged {
			t.Errorf("%s: %q %v %d, torn %v, foreign %v", tt.name, o.Names(), set, o.Ceiling(), o.torn, o.foreign)
		}
		// Whatever it was, it can be written to, and what it said stays.
		if err := o.Add(dir, []string{"new"}, []Set{{"9.h", []uint16{uint16(len(tt.names))}}}); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		var again Overflow
		read(t, &again, dir)
		set = slices.Concat(again.Of([]byte("1.h,S=5")), again.Of([]byte("1.h")))
		if !slices.Equal(again.Names(), append(tt.names, "new")) || !slices.Equal(set, tt.set) || again.Ceiling() != tt.ceiling || again.torn || again.foreign ||
			len(again.Of([]byte("9.h"))) != 1 {
			t.Errorf("%s, appended to: %q %v %d", tt.name, again.Names(), set, again.Ceiling())
		}
	}
}

// What is no file of ours is refused without a wait, and not written to.
func TestOverflowRefused(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(path string) error{
		"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"link":      func(path string) error { return os.Symlink("/dev/zero", path) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"large": func(path string) error {
			if err := os.WriteFile(path, []byte(overflowHead), 0o600); err != nil {
				return err
			}
			return os.Truncate(path, maxOverflow+1)
		},
	} {
		dir, path := openDir(t)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		var o Overflow
		if _, err := o.Read(dir); !errors.Is(err, ErrOverflow) || !o.Empty() {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir, path := openDir(t)
	later := "imapd-keywords 2 of a later version\n"
	if err := os.WriteFile(path, []byte(later), 0o600); err != nil {
		t.Fatal(err)
	}
	var o Overflow
	read(t, &o, dir)
	if err := o.Add(dir, []string{"x"}, nil); !errors.Is(err, ErrOverflow) {
		t.Errorf("a later version: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != later {
		t.Errorf("a later version was changed to %q", b)
	}
}

// A reader sees what a writer appends, and a file that took the place of another.
func TestOverflowFollow(t *testing.T) {
	t.Parallel()
	dir, path := openDir(t)
	var w, r Overflow
	read(t, &w, dir)
	read(t, &r, dir)
	add := func(names []string, sets ...Set) {
		t.Helper()
		if err := w.Add(dir, names, sets); err != nil {
			t.Fatal(err)
		}
	}
	add([]string{"a", "b"}, Set{"1", []uint16{0}}, Set{"2", []uint16{0, 1}})
	if c := read(t, &r, dir); !c.All {
		t.Errorf("a new file: %v", c)
	}
	add(nil, Set{"1", []uint16{1}})
	if c := read(t, &r, dir); c.All || !slices.Equal(c.Bases, []string{"1"}) {
		t.Errorf("a line more: %v", c)
	}
	if c := read(t, &r, dir); c.Any() {
		t.Errorf("nothing: %v", c)
	}
	if err := w.RaiseCeiling(dir, 1<<40); err != nil {
		t.Fatal(err)
	}
	add(nil, Set{"2", nil}, Set{"3", []uint16{1}})
	if err := w.Compact(dir, func(base string) bool { return base != "3" }); err != nil {
		t.Fatal(err)
	}
	if c := read(t, &r, dir); !c.All || r.Ceiling() != 1<<40 || r.Lines() != 5 || !slices.Equal(r.Of([]byte("1")), []uint16{1}) || r.Of([]byte("3")) != nil {
		t.Errorf("compacted: %v, %d lines", c, r.Lines())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if c := read(t, &r, dir); !c.All || !r.Empty() || len(r.Names()) > 0 {
		t.Errorf("removed: %v %q", c, r.Names())
	}
	if _, err := os.Stat(path + ".broken"); err == nil {
		t.Error("a good file was set aside")
	}
}

// A file that was written anew has the inode number again that it had before the last
// time, and is longer than it was: it is not that one with more lines.
func TestOverflowWithTheSameInode(t *testing.T) {
	t.Parallel()
	dir, path := openDir(t)
	var w, r Overflow
	read(t, &w, dir)
	var sets []Set
	for _, base := range []string{"1", "2", "3", "4", "5"} {
		sets = append(sets, Set{base, []uint16{0}})
	}
	if err := w.Add(dir, []string{"a"}, sets); err != nil {
		t.Fatal(err)
	}
	read(t, &r, dir)
	if err := os.Link(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	read(t, &w, dir) // for its ctime
	if err := w.Add(dir, nil, []Set{{"1", nil}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Compact(dir, func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if err := w.Add(dir, nil, []Set{{"5", nil}, {"5", []uint16{0}}, {"6", []uint16{0}}}); err != nil { // the fifth line is as it was
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err = errors.Join(err, os.WriteFile(path+".old", b, 0), os.Rename(path+".old", path)); err != nil {
		t.Fatal(err)
	}
	if c := read(t, &r, dir); !c.All || r.Of([]byte("1")) != nil || len(r.Of([]byte("6"))) != 1 {
		t.Errorf("%v, message 1 has %v", c, r.Of([]byte("1")))
	}
}

// The file says after any changes, appends cut short and compactions what a map
// says.
func TestOverflowModel(t *testing.T) {
	t.Parallel()
	dir, path := openDir(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	model := map[string][]uint16{}
	for range 2000 {
		var o Overflow
		read(t, &o, dir)
		for base, set := range model {
			if got := o.Of([]byte(base)); !slices.Equal(got, set) {
				t.Fatalf("%s: %v, want %v", base, got, set)
			}
		}
		switch rnd.IntN(10) {
		case 0:
			if err := o.Compact(dir, func(string) bool { return true }); err != nil {
				t.Fatal(err)
			}
		case 1:
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err == nil {
				f.Write([]byte("0123 S 1 " + fmt.Sprint(rnd.Int())))
				f.Close()
			}
		default:
			var names []string
			if len(o.Names()) < 40 {
				names = []string{fmt.Sprint("k", len(o.Names()))}
			}
			base := fmt.Sprint(rnd.IntN(20), ".h")
			var set []uint16
			for n := range len(o.Names()) + len(names) {
				if rnd.IntN(3) == 0 {
					set = append(set, uint16(n))
				}
			}
			if err := o.Add(dir, names, []Set{{base, set}}); err != nil {
				t.Fatal(err)
			}
			model[base] = set
		}
	}
}

// Whatever is in the file: reading it whole and as it grows gives the same, and
// writing it anew loses nothing.
func FuzzOverflow(f *testing.F) {
	f.Add([]byte(lines("K 0 a", "S 0 1.h", "C 5")), 30)
	f.Add([]byte(overflowHead), 3)
	f.Add([]byte("garbage\nmore\n"), 8)
	f.Add([]byte(strings.Replace(lines("K 7 b", "S 0,7 1.h", "S - 1.h", "S 1 2.h"), "1\n", "9\n", 1)), 40)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		cut = min(max(0, cut), len(data))
		var whole, grown Overflow
		whole.reset()
		whole.take(data)
		grown.reset()
		if grown.take(data[:cut]); grown.foreign || grown.future { // as Read does
			grown.reset()
		}
		grown.take(data[grown.size:])
		same(t, &whole, &grown)
		all := func(string) bool { return true }
		b := whole.encode(whole.listSets(data), all)
		var after Overflow
		after.reset()
		if after.take(b); after.torn || after.foreign || after.future {
			t.Errorf("unreadable: %q", b)
		}
		if !whole.future {
			same(t, &whole, &after)
		}
		b = b[len(lines("I 0123456789abcdef")):]
		if again := after.encode(after.listSets(b), all); !bytes.HasSuffix(again, b) {
			t.Errorf("%q, written again %q", b, again)
		}
	})
}

// same compares what a and b say. A number that nobody has and that has no name
// says nothing.
func same(t *testing.T, a, b *Overflow) {
	t.Helper()
	named := func(o *Overflow) []string {
		names := slices.Clone(o.Names())
		for len(names) > 0 && names[len(names)-1] == "" {
			names = names[:len(names)-1]
		}
		return names
	}
	if !slices.Equal(named(a), named(b)) || a.Ceiling() != b.Ceiling() || len(a.sets) != len(b.sets) {
		t.Fatalf("%q %d %d, and %q %d %d", a.Names(), a.Ceiling(), len(a.sets), b.Names(), b.Ceiling(), len(b.sets))
	}
	list := func(o *Overflow) (all []string) {
		for _, s := range o.sets {
			all = append(all, fmt.Sprint(s))
		}
		slices.Sort(all)
		return all
	}
	if x, y := list(a), list(b); !slices.Equal(x, y) {
		t.Fatalf("%q and %q", x, y)
	}
}
