package uidlist

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// folder opens a new directory whose mode is 02770.
func folder(t testing.TB) (vfs.Dir, string) {
	t.Helper()
	path := t.TempDir()
	if err := unix.Chmod(path, 0o2770); err != nil {
		t.Fatal(err)
	}
	dir, err := vfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir, path
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	dir, path := folder(t)
	if _, _, err := ReadFile(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no list: %v", err)
	}
	write(t, path+"/"+tmpName, "left over from a crash")
	l := New(7)
	st, err := Rewrite(dir, &l)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path + "/" + Name); info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v in a folder of 0770", info.Mode())
	}
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if was, err := StatFile(dir); err != nil || was != st {
		t.Errorf("stat %+v, %v; Rewrite said %+v", was, err, st)
	}
	after, err := Append(dir, st, []Entry{{1, "a", ""}, {2, "b", " W5"}})
	if err != nil || after == st || after.Ino != st.Ino {
		t.Fatalf("append: %+v, %v", after, err)
	}
	var got []Entry
	tail, now, err := f.ReadTail(l.Size, 0, keep(&got))
	if want := []Entry{{1, "a", ""}, {2, "b", " W5"}}; err != nil || now != after || tail.Damage.Any() || !slices.Equal(got, want) {
		t.Errorf("tail %+v, %+v, %+v, %v", tail, got, now, err)
	}
	if err := Sync(dir); err != nil {
		t.Error(err)
	}
	read, _, err := ReadFile(dir)
	if err != nil || read.Next != 3 || read.GUID != l.GUID || read.Size != after.Size {
		t.Errorf("%+v, %v", read, err)
	}
	read.Entries = append(read.Entries, Entry{9, "c", ""})
	if _, err := Rewrite(dir, &read); err != nil || read.Next != 10 {
		t.Errorf("rewrite: %+v, %v", read, err)
	}
	if old, err := f.Stat(); err != nil || old.Ino == mustStat(t, dir).Ino {
		t.Errorf("the open file became the new one: %+v, %v", old, err)
	}
	names, _ := os.ReadDir(path)
	if len(names) != 1 {
		t.Errorf("files left: %v", names)
	}
}

func mustStat(t *testing.T, dir vfs.Dir) Stat {
	t.Helper()
	st, err := StatFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	for i, content := range []string{"", "3 V1 N1", "3 V1 N1\n5 :a\n6 :to"} {
		dir, path := folder(t)
		write(t, path+"/"+Name, content)
		if _, err := Append(dir, mustStat(t, dir), []Entry{{7, "b", ""}}); !errors.Is(err, ErrTorn) {
			t.Errorf("%d: %v, want ErrTorn", i, err)
		}
		if b, _ := os.ReadFile(path + "/" + Name); string(b) != content {
			t.Errorf("%d: file is now %q", i, b)
		}
	}
	dir, path := folder(t)
	const head = "3 V1 N1\n"
	write(t, path+"/"+Name, head)
	for _, e := range []Entry{
		{0, "a", ""}, {MaxUID + 1, "a", ""}, {1, "", ""}, {1, "a\nb", ""}, {1, "a:2,S", ""}, {1, "a/b", ""}, {1, ".a", ""},
		{1, "a", "W5"}, {1, "a", " W5\n2"}, {1, "a", " W5 :x"},
	} {
		if _, err := Append(dir, mustStat(t, dir), []Entry{e}); err == nil {
			t.Errorf("%+v was appended", e)
		}
	}
	if b, _ := os.ReadFile(path + "/" + Name); string(b) != head {
		t.Errorf("file is now %q", b)
	}
}

// TestOddFiles holds that nothing but a regular file is read.
func TestOddFiles(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(path string) error{
		"link": func(path string) error { return os.Symlink("/dev/zero", path) },
		"fifo": func(path string) error { return unix.Mkfifo(path, 0o600) },
		"dir":  func(path string) error { return os.Mkdir(path, 0o700) },
		"large": func(path string) error {
			write(t, path, "")
			return os.Truncate(path, maxSize+1)
		},
	} {
		dir, path := folder(t)
		if err := make(filepath.Join(path, Name)); err != nil {
			t.Fatal(err)
		}
		if l, _, err := ReadFile(dir); err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrHeader) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
}

// A fullDisk lets a file take so many octets more.
type fullDisk struct {
	vfs.Dir
	room int
}

type fullFile struct {
	vfs.File
	disk *fullDisk
}

func (d *fullDisk) Create(name string, perm os.FileMode) (vfs.File, error) {
	f, err := d.Dir.Create(name, perm)
	return fullFile{f, d}, err
}

func (d *fullDisk) Append(name string) (vfs.File, error) {
	f, err := d.Dir.Append(name)
	return fullFile{f, d}, err
}

func (f fullFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b[:min(len(b), f.disk.room)])
	f.disk.room -= n
	if err == nil && n < len(b) {
		err = unix.ENOSPC
	}
	return n, err
}

func (f fullFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(b[:min(len(b), f.disk.room)], off)
	f.disk.room -= n
	if err == nil && n < len(b) {
		err = unix.ENOSPC
	}
	return n, err
}

// TestFullDisk holds that a list is whole whatever part of a write fits.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for room := range 40 {
		dir, path := folder(t)
		l := New(1)
		if _, err := Rewrite(dir, &l); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(path + "/" + Name)
		entries := []Entry{{1, "first", ""}, {2, "second", ""}, {3, fmt.Sprint("third", room), ""}}
		if _, err := Append(&fullDisk{dir, room}, mustStat(t, dir), entries); err == nil && room < 27 {
			t.Fatalf("%d octets took the entries", room)
		} else if err == nil {
			continue
		}
		more := l
		more.Entries = entries
		if _, err := Rewrite(&fullDisk{dir, room}, &more); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("rewrite with room for %d: %v", room, err)
		}
		if b, _ := os.ReadFile(path + "/" + Name); string(b) != string(before) {
			t.Errorf("room for %d: file is now %q", room, b)
		}
		if names, _ := os.ReadDir(path); len(names) != 1 {
			t.Errorf("files left: %v", names)
		}
	}
}

// A list that somebody has written to since it was read is left alone.
func TestAppendRefusesChanged(t *testing.T) {
	t.Parallel()
	dir, path := folder(t)
	const head = "3 V1 N1\n"
	for what, change := range map[string]string{"appended to": head + "1 :a\n", "cut": "3 V1\n"} {
		write(t, path+"/"+Name, head)
		old := mustStat(t, dir)
		write(t, path+"/"+Name, change)
		if _, err := Append(dir, old, []Entry{{1, "b", ""}}); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v", what, err)
		}
		if b, _ := os.ReadFile(path + "/" + Name); string(b) != change {
			t.Errorf("%s: file is now %q", what, b)
		}
	}
	write(t, path+"/new", head)
	write(t, path+"/"+Name, head)
	old := mustStat(t, dir)
	if err := os.Rename(path+"/new", path+"/"+Name); err != nil {
		t.Fatal(err)
	}
	if _, err := Append(dir, old, []Entry{{1, "b", ""}}); !errors.Is(err, ErrChanged) {
		t.Errorf("replaced: %v", err)
	}
}
