package uidlist

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/maildir/faultfs"
	"imapd/maildir/vfs"
)

// open returns the list of dir, open.
func open(t *testing.T, path string) (*fullDisk, *File) {
	t.Helper()
	dir := &fullDisk{room: 1 << 30}
	var err error
	if dir.Dir, err = vfs.Open(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return dir, f
}

// What is kept is kept as it is, and no UID that goes is given again.
func TestCompact(t *testing.T) {
	t.Parallel()
	_, path := folder(t)
	const head, guid = "3 V7 N3 ", "G00112233445566778899aabbccddeeff"
	var all, kept []string
	for i := 1; i <= 12000; i++ {
		line := fmt.Sprintf("%d%s :%d.M%dP1.host,S=%d\n", i, []string{"", " W17 Xy", "  Gabc "}[i%3], 1700000000+i, i, i%700)
		if all = append(all, line); i%3 > 0 {
			kept = append(kept, line)
		}
	}
	text := head + guid + " P1 Zab\n" + strings.Join(all, "")
	if len(text) < streamBuffer*3/2 {
		t.Fatal("too short for two pieces")
	}
	write(t, path+"/"+Name, text)
	dir, f := open(t, path)
	lines, st, err := f.Compact(dir, mustStat(t, dir), 12345, func(u uint32) bool { return u%3 > 0 })
	if err != nil || lines != 8000 || st != mustStat(t, dir) {
		t.Errorf("%d lines, %+v, %v", lines, st, err)
	}
	want := "3 V7 N12345 " + guid + " P1 Zab\n" + strings.Join(kept, "")
	if b, _ := os.ReadFile(path + "/" + Name); string(b) != want {
		t.Errorf("the list has %d octets, want %d; it begins %.80q", len(b), len(want), b)
	}
	if info, _ := os.Stat(path + "/" + Name); info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v in a folder of 0770", info.Mode())
	}
}

// A list that is not as it was read, and one for which there is no room, stays.
func TestCompactRefuses(t *testing.T) {
	t.Parallel()
	const text = "3 V7 N9 G00112233445566778899aabbccddeeff\n1 :a\n2 :b\n"
	for what, spoil := range map[string]func(dir *fullDisk, path string) error{
		"appended to": func(_ *fullDisk, path string) error {
			write(t, path, text+"3 :c\n")
			return ErrChanged
		},
		"replaced": func(_ *fullDisk, path string) error {
			write(t, path+"2", text)
			if err := os.Rename(path+"2", path); err != nil {
				t.Fatal(err)
			}
			return ErrChanged
		},
		"cut": func(_ *fullDisk, path string) error {
			write(t, path, text[:30])
			return ErrTorn
		},
		"disk full": func(dir *fullDisk, path string) error {
			dir.room = 45
			return unix.ENOSPC
		},
	} {
		_, path := folder(t)
		write(t, path+"/"+Name, text)
		dir, f := open(t, path)
		old := mustStat(t, dir)
		want := spoil(dir, path+"/"+Name)
		before, _ := os.ReadFile(path + "/" + Name)
		if _, _, err := f.Compact(dir, old, 9, func(u uint32) bool { return u > 1 }); !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
		if b, _ := os.ReadFile(path + "/" + Name); string(b) != string(before) {
			t.Errorf("%s: file is now %q", what, b)
		}
		if names, _ := os.ReadDir(path); len(names) != 1 {
			t.Errorf("%s: files left: %v", what, names)
		}
	}
}

// A power cut, or a kill, leaves the old list or the new one, and what was appended
// after that is in it.
func TestCompactCut(t *testing.T) {
	t.Parallel()
	const head = "3 V7 N3 G00112233445566778899aabbccddeeff\n"
	_, path := folder(t)
	write(t, path+"/"+Name, head+"1 :a\n2 :b\n")
	var fs faultfs.FS
	dir, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fs.Record(path, ""); err != nil {
		t.Fatal(err)
	}
	fs.Arm(nil)
	_, st, err := f.Compact(dir, mustStat(t, dir), 3, func(u uint32) bool { return u > 1 })
	if err != nil {
		t.Fatal(err)
	}
	replaced := fs.Recorded()
	if _, err := Append(dir, st, []Entry{{3, "c", ""}}); err != nil {
		t.Fatal(err)
	}
	end := fs.Recorded()
	seen := map[string]bool{}
	fs.Replay(func(n int, now *faultfs.State) {
		for _, tree := range now.Cuts(uint64(n)) {
			after := t.TempDir()
			if err := tree.Write(after); err != nil {
				t.Fatal(err)
			}
			b, _ := os.ReadFile(after + "/" + Name)
			text := strings.TrimPrefix(string(b), head)
			seen[text] = true
			l, err := Parse(b)
			old := text == "1 :a\n2 :b\n"
			if err != nil || old && n >= replaced || !old && l.Entries[0] != (Entry{2, "b", ""}) || n == end && text != "2 :b\n3 :c\n" {
				t.Errorf("after %d calls, %s: %q", n, tree.Name, b)
			}
		}
	})
	if len(seen) < 3 {
		t.Errorf("only %v were found", seen)
	}
}
