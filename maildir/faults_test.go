package maildir

import (
	"os"
	"time"

	"imapd/maildir/vfs"
)

// faults fails the at-th call that changes a file, counted while it is armed;
// or each write, when the disk is full.
type faults struct {
	armed bool
	full  bool
	deny  string // each call of this kind fails
	at    int
	err   error
	n     int
	what  string // the call that failed
}

func (f *faults) open(path string) (vfs.Dir, error) {
	d, err := vfs.Open(path)
	if err != nil {
		return nil, err
	}
	return faultDir{d, f}, nil
}

func (f *faults) try(what string) error {
	if !f.armed {
		return nil
	}
	if f.n++; f.n != f.at && !(f.full && what == "write") && what != f.deny {
		return nil
	}
	f.what = what
	return f.err
}

type faultDir struct {
	vfs.Dir
	f *faults
}

func (d faultDir) OpenDir(name string) (vfs.Dir, error) {
	sub, err := d.Dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return faultDir{sub, d.f}, nil
}

func (d faultDir) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return faultFile{f, d.f}, nil
}

func (d faultDir) Create(name string, perm os.FileMode) (vfs.File, error) {
	if err := d.f.try("create"); err != nil {
		return nil, err
	}
	return d.file(d.Dir.Create(name, perm))
}

func (d faultDir) Append(name string) (vfs.File, error) { return d.file(d.Dir.Append(name)) }

func (d faultDir) Rename(name string, to vfs.Dir, newname string) error {
	if err := d.f.try("rename"); err != nil {
		return err
	}
	return d.Dir.Rename(name, to, newname)
}

func (d faultDir) RenameNoReplace(name string, to vfs.Dir, newname string) error {
	if err := d.f.try("rename"); err != nil {
		return err
	}
	return d.Dir.RenameNoReplace(name, to, newname)
}

func (d faultDir) Sync() error {
	if err := d.f.try("fsync directory"); err != nil {
		return err
	}
	return d.Dir.Sync()
}

type faultFile struct {
	vfs.File
	f *faults
}

func (f faultFile) Write(p []byte) (int, error) {
	if err := f.f.try("write"); err != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}

func (f faultFile) Sync() error {
	if err := f.f.try("fsync"); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f faultFile) Datasync() error {
	if err := f.f.try("fdatasync"); err != nil {
		return err
	}
	return f.File.Datasync()
}

func (f faultFile) SetTime(t time.Time) error {
	if err := f.f.try("utimes"); err != nil {
		return err
	}
	return f.File.SetTime(t)
}
