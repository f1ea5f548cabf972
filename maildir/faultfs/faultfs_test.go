package faultfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// do makes what the letters say in the directory x, with y beside it:
//
//	c create a    w write "text" to a   s sync a      d datasync a
//	D sync x      r rename a to b       m rename x/a to y/a
//	Y sync y      l link a to b         u unlink a    t cut a to one octet
//	T set a's time
func do(t *testing.T, root vfs.Dir, letters string) {
	t.Helper()
	x, err := root.OpenDir("x")
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	y, err := root.OpenDir("y")
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	var a vfs.File
	for _, c := range letters {
		switch c {
		case 'c':
			if a, err = x.Create("a", 0o600); err == nil {
				defer a.Close()
			}
		case 'w':
			_, err = a.Write([]byte("text"))
		case 's':
			err = a.Sync()
		case 'd':
			err = a.Datasync()
		case 'D':
			err = x.Sync()
		case 'Y':
			err = y.Sync()
		case 'r':
			err = x.Rename("a", x, "b")
		case 'm':
			err = x.RenameNoReplace("a", y, "a")
		case 'l':
			err = x.Link("a", x, "b")
		case 'u':
			err = x.Unlink("a")
		case 't':
			err = a.Truncate(1)
		case 'T':
			err = a.SetTime(time.Unix(1e9, 0))
		}
		if err != nil {
			t.Fatalf("%c of %s: %v", c, letters, err)
		}
	}
}

// inodes returns the inode numbers of what is below path.
func inodes(t *testing.T, path string) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	err := filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(name, &st)
		}
		all[name] = st.Ino
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// tell describes the files below path: their names, text, and whether their time
// was set.
func tell(t *testing.T, path string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		info, err := e.Info()
		rel, _ := filepath.Rel(path, name)
		word := fmt.Sprintf("%s=%s", rel, strings.ReplaceAll(string(text), "\x00", "0"))
		if err == nil && info.ModTime().Unix() == 1e9 {
			word += "@"
		}
		all = append(all, word)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func place(t *testing.T) string {
	t.Helper()
	path := t.TempDir()
	for _, sub := range []string{"x", "y"} {
		if err := os.Mkdir(filepath.Join(path, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestCuts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		calls string
		want  []string // all that may be found
	}{
		{"c", []string{"", "x/a="}},
		{"cw", []string{"", "x/a=", "x/a=0000", "x/a=te", "x/a=text"}},
		{"cwd", []string{"", "x/a=text"}},
		{"cwD", []string{"x/a=", "x/a=0000", "x/a=te", "x/a=text"}},
		{"cwdD", []string{"x/a=text"}},
		{"cwTdD", []string{"x/a=text", "x/a=text@"}},
		{"cwTsD", []string{"x/a=text@"}},
		{"cwsDr", []string{"x/a=text", "x/b=text"}},
		{"cwsDrD", []string{"x/b=text"}},
		{"cwsDl", []string{"x/a=text", "x/a=text x/b=text"}},
		{"cwsDlu", []string{"x/a=text", "x/a=text x/b=text", "x/b=text", ""}},
		{"cwsDlDu", []string{"x/a=text x/b=text", "x/b=text"}},
		{"cwsDu", []string{"", "x/a=text"}},
		{"cwsDuD", []string{""}},
		{"cwsDm", []string{"x/a=text", "x/a=text y/a=text", "y/a=text"}},
		{"cwsDmY", []string{"x/a=text y/a=text", "y/a=text"}},
		{"cwsDmD", []string{"y/a=text"}},
		{"cwsDwt", []string{"x/a=t", "x/a=text"}},
	} {
		path := place(t)
		var f FS
		root, err := f.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Record(path, t.TempDir()); err != nil {
			t.Fatal(err)
		}
		do(t, root, tt.calls)
		root.Close()
		found, everything := map[string]bool{}, tell(t, path)
		f.Replay(func(n int, s *State) {
			if n < len(tt.calls) {
				return
			}
			for seed := range uint64(50) {
				for _, tree := range s.Cuts(seed) {
					to := t.TempDir()
					if err := tree.Write(to); err != nil {
						t.Fatal(err)
					}
					found[tell(t, to)] = true
					if seed < 5 {
						before := inodes(t, path)
						if err := tree.Return(path); err != nil {
							t.Fatal(err)
						}
						if tell(t, path) != tell(t, to) {
							t.Errorf("%s: %q has returned, and %q is written", tt.calls, tell(t, path), tell(t, to))
						}
						for name, ino := range inodes(t, path) {
							if old, ok := before[name]; ok && old != ino {
								t.Errorf("%s: %s had the inode number %d and has %d", tt.calls, name, old, ino)
							}
						}
					}
					if tree.Name == "everything" && tell(t, to) != everything {
						t.Errorf("%s: everything is %q, and there is %q", tt.calls, tell(t, to), everything)
					}
				}
			}
		})
		for word := range found {
			if !slices.Contains(tt.want, word) {
				t.Errorf("%s: found %q", tt.calls, word)
			}
		}
		for _, word := range tt.want {
			// Which of two unsynced changes of one directory survives alone is
			// left to the lots; all of them are drawn.
			if !found[word] {
				t.Errorf("%s: never found %q", tt.calls, word)
			}
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	var f FS
	path := place(t)
	root, err := f.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f.Arm(At(2, unix.EIO))
	a, err := root.Create("a", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := a.Write([]byte("text")); n != 2 || !errors.Is(err, unix.EIO) {
		t.Errorf("write that fails: %d, %v", n, err)
	}
	if c := f.Hit(); c.N != 2 || c.Op != "write" || f.Count() != 2 {
		t.Errorf("failed at %v of %d", c, f.Count())
	}
	f.Arm(Always("close", unix.EDQUOT))
	fd := a.Fd()
	if err := a.Close(); !errors.Is(err, unix.EDQUOT) || unix.Close(fd) == nil {
		t.Errorf("close that fails: %v, or it is still open", err)
	}
	f.Arm(Full(1, unix.ENOSPC))
	if err := root.Mkdir("d", 0o700); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("mkdir on a full disk: %v", err)
	}
	if err := root.Rename("a", root, "b"); err != nil {
		t.Errorf("rename on a full disk: %v", err)
	}
	f.Arm(At(1, ErrKilled))
	if err := root.Unlink("b"); !errors.Is(err, ErrKilled) || !f.Dead() {
		t.Errorf("unlink of the dead: %v", err)
	}
	f.Disarm()
	if err := root.Rename("b", root, "c"); !errors.Is(err, ErrKilled) {
		t.Errorf("rename after death: %v", err)
	}
	if got := tell(t, path); got != "b=te" {
		t.Errorf("in the end there is %q", got)
	}
}

func TestTornKill(t *testing.T) {
	t.Parallel()
	var f FS
	path := place(t)
	root, err := f.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	a, err := root.Create("a", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	f.Arm(At(1, ErrTorn))
	if _, err := a.Write([]byte("text")); !errors.Is(err, ErrKilled) {
		t.Error(err)
	}
	if _, err := a.Write([]byte("more")); !errors.Is(err, ErrKilled) {
		t.Error(err)
	}
	if got := tell(t, path); got != "a=te" {
		t.Errorf("a write that was killed in its middle leaves %q", got)
	}
}
