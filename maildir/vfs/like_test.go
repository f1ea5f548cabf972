package vfs

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A foreignGroup is a folder whose group we are not in: its files get another
// one by chance, and may not change it.
type foreignGroup struct{ Dir }

type foreignFile struct{ File }

func (foreignFile) Chown(int, int) error { return unix.EPERM }

func (d foreignGroup) Create(name string, perm os.FileMode) (File, error) {
	f, err := d.Dir.Create(name, perm)
	if err == nil {
		err = f.Chown(-1, 21001)
	}
	return foreignFile{f}, err
}

func openTemp(t *testing.T, mode uint32) Dir {
	t.Helper()
	path := t.TempDir()
	if err := unix.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestCreateLike(t *testing.T) {
	t.Parallel()
	for mode, want := range map[uint32]os.FileMode{0o700: 0o600, 0o2770: 0o660, 0o755: 0o644, 0o777: 0o666} {
		d := openTemp(t, mode)
		f, err := CreateLike(d, "x")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if info, err := os.Stat(d.Path() + "/x"); err != nil || info.Mode() != want {
			t.Errorf("in a folder of %o: %v, %v; want %v", mode, info.Mode(), err, want)
		}
		if _, err := CreateLike(d, "x"); !errors.Is(err, os.ErrExist) {
			t.Errorf("a second time: %v", err)
		}
		sub, err := MkdirLike(d, "d")
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(sub.Fd(), &st); err != nil || st.Mode&0o7777 != mode {
			t.Errorf("directory in a folder of %o: %o, %v", mode, st.Mode, err)
		}
		sub.Close()
	}
}

// TestCreateLikeForeign holds that a group that a file has by chance gets no more
// than everybody.
func TestCreateLikeForeign(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file to another group")
	}
	for mode, want := range map[uint32]os.FileMode{0o770: 0o600, 0o775: 0o644, 0o707: 0o666} {
		d := openTemp(t, mode)
		f, err := CreateLike(foreignGroup{d}, "x")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if info, err := os.Stat(d.Path() + "/x"); err != nil || info.Mode() != want {
			t.Errorf("in a folder of %o: %v, %v; want %v", mode, info.Mode(), err, want)
		}
	}
}

func TestReadRegular(t *testing.T) {
	t.Parallel()
	d := openTemp(t, 0o700)
	if err := os.WriteFile(d.Path()+"/x", []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("x", d.Path()+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(d.Path()+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	if b, st, err := ReadRegular(d, "x", 4); string(b) != "text" || st.Size != 4 || err != nil {
		t.Errorf("%q, %d, %v", b, st.Size, err)
	}
	for name, want := range map[string]error{"x": unix.EFBIG, "link": unix.ELOOP, "fifo": unix.EINVAL, "none": unix.ENOENT} {
		if _, _, err := ReadRegular(d, name, 3); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}
