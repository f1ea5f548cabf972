package isync

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text              string
		validity, highest uint32
		err               error
	}{
		{"1795454518\n21\n", 1795454518, 21, nil},
		{"1795454518\n0\n", 1795454518, 0, nil},
		{"7\n4294967295", 7, 4294967295, nil},
		{"", 0, 0, ErrDamaged},
		{"7\n", 0, 0, ErrDamaged},
		{"0\n1\n", 0, 0, ErrDamaged},
		{"-1\n1\n", 0, 0, ErrDamaged},
		{"7\n4294967296\n", 0, 0, ErrDamaged},
		{"7\n1" + string(make([]byte, 100)), 0, 0, ErrDamaged},
	} {
		dir := folder(t)
		if err := os.WriteFile(filepath.Join(dir.Path(), name), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Open(dir)
		if !errors.Is(err, tt.err) {
			t.Errorf("%q: %v", tt.text, err)
		}
		if err != nil {
			continue
		}
		if f.Validity != tt.validity || f.Highest != tt.highest {
			t.Errorf("%q: %d, %d", tt.text, f.Validity, f.Highest)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestNotThere(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	if _, err := Open(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	path := filepath.Join(dir.Path(), name)
	for _, make := range []func() error{
		func() error { return unix.Mkfifo(path, 0o600) },
		func() error { return os.Symlink("/etc/passwd", path) },
		func() error { return os.Mkdir(path, 0o700) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBusy holds that the lock is respected and held.
func TestBusy(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	if err := os.WriteFile(filepath.Join(dir.Path(), name), []byte("7\n2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	f.Close()
	if f, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestUID(t *testing.T) {
	t.Parallel()
	f := &Folder{Highest: 21}
	for base, want := range map[string]uint32{
		"1795454518.5632_11.vm,U=11":        11,
		"1.2.vm,S=33,U=21,W=5":              21,
		"1.2.vm,U=22":                       0,
		"1.2.vm,U=0":                        0,
		"1.2.vm,U=":                         0,
		"1.2.vm,U=7x":                       0,
		"1.2.vm,U=99999999999999999999":     0,
		"1.2.vm,FMD5=abc,U=3":               3,
		"1795454518.5632_11.vm":             0,
		"U=4":                               0,
		"1795454518.5632_11.vm,U=4,FMD5=ab": 4,
	} {
		if uid, ok := f.UID(base); uid != want || ok != (want != 0) {
			t.Errorf("%q: %d, want %d", base, uid, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("7\n2\n", "1.2.vm,U=2")
	f.Fuzz(func(t *testing.T, text, base string) {
		v, h, err := parse(text)
		if err == nil && v == 0 {
			t.Errorf("%q: UIDVALIDITY 0", text)
		}
		if uid, ok := (&Folder{Highest: h}).UID(base); ok && (uid == 0 || uid > h) {
			t.Errorf("%q: UID %d of %d", base, uid, h)
		}
	})
}

func folder(t *testing.T) vfs.Dir {
	t.Helper()
	dir, err := vfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}
