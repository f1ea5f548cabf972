package faultfs

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// dir is a directory whose calls are counted. It embeds no vfs.Dir: a method
// that is added there must be added here.
type dir struct {
	d  vfs.Dir
	f  *FS
	id key
}

// key is what identifies a file or directory while something keeps it alive.
type key struct{ dev, ino uint64 }

// in returns the path of the file with the key in the directory keep.
func (k key) in(keep string) string { return fmt.Sprintf("%s/%d", keep, k.ino) }

func keyOf(fd int) (key, unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return key{uint64(st.Dev), st.Ino}, st, err
}

func (f *FS) wrap(d vfs.Dir) (vfs.Dir, error) {
	id, _, err := keyOf(d.Fd())
	if err != nil {
		d.Close()
		return nil, err
	}
	return &dir{d, f, id}, nil
}

func (d *dir) Fd() int      { return d.d.Fd() }
func (d *dir) Path() string { return d.d.Path() }
func (d *dir) Close() error { return d.d.Close() }

func (d *dir) try(op, name string, changes bool) error {
	return d.f.try(op, d.d.Path()+"/"+name, changes)
}

func (d *dir) OpenDir(name string) (vfs.Dir, error) {
	if err := d.try("opendir", name, false); err != nil {
		return nil, err
	}
	sub, err := d.d.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return d.f.wrap(sub)
}

func (d *dir) Create(name string, perm os.FileMode) (vfs.File, error) {
	if err := d.try("create", name, true); err != nil {
		return nil, err
	}
	f, err := d.d.Create(name, perm)
	if err != nil {
		return nil, err
	}
	id, st, err := keyOf(f.Fd())
	if err != nil {
		f.Close()
		return nil, err
	}
	if err := d.f.kept(d.d, name, id); err != nil {
		f.Close()
		return nil, err
	}
	d.f.note(func(k *State) { k.make(d.id, name, id, st.Mode) })
	return &file{v: f, f: d.f, id: id, path: d.d.Path() + "/" + name}, nil
}

func (d *dir) Append(name string) (vfs.File, error) {
	if err := d.try("append", name, false); err != nil {
		return nil, err
	}
	f, err := d.d.Append(name)
	if err != nil {
		return nil, err
	}
	id, _, err := keyOf(f.Fd())
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{v: f, f: d.f, id: id, path: d.d.Path() + "/" + name, atEnd: true}, nil
}

func (d *dir) Update(name string) (vfs.File, error) {
	if err := d.try("update", name, false); err != nil {
		return nil, err
	}
	f, err := d.d.Update(name)
	if err != nil {
		return nil, err
	}
	id, _, err := keyOf(f.Fd())
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{v: f, f: d.f, id: id, path: d.d.Path() + "/" + name}, nil
}

// real returns the directory behind to, which is one of ours.
func real(to vfs.Dir) (vfs.Dir, key) {
	w := to.(*dir)
	return w.d, w.id
}

func (d *dir) two(op, name string, to vfs.Dir, newname string, call func(vfs.Dir) error, apply func(*State, key)) error {
	if err := d.try(op, name, true); err != nil {
		return &os.LinkError{Op: op, Old: d.d.Path() + "/" + name, New: to.Path() + "/" + newname, Err: err}
	}
	target, id := real(to)
	if err := call(target); err != nil {
		return err
	}
	d.f.note(func(k *State) { apply(k, id) })
	return nil
}

func (d *dir) Rename(name string, to vfs.Dir, newname string) error {
	return d.two("rename", name, to, newname,
		func(t vfs.Dir) error { return d.d.Rename(name, t, newname) },
		func(k *State, id key) { k.rename(d.id, name, id, newname) })
}

func (d *dir) RenameNoReplace(name string, to vfs.Dir, newname string) error {
	return d.two("rename", name, to, newname,
		func(t vfs.Dir) error { return d.d.RenameNoReplace(name, t, newname) },
		func(k *State, id key) { k.rename(d.id, name, id, newname) })
}

func (d *dir) Link(name string, to vfs.Dir, newname string) error {
	return d.two("link", name, to, newname,
		func(t vfs.Dir) error { return d.d.Link(name, t, newname) },
		func(k *State, id key) { k.link(d.id, name, id, newname) })
}

func (d *dir) one(op, name string, call func() error, apply func(*State)) error {
	if err := d.try(op, name, true); err != nil {
		return &os.PathError{Op: op, Path: d.d.Path() + "/" + name, Err: err}
	}
	if err := call(); err != nil {
		return err
	}
	d.f.note(apply)
	return nil
}

func (d *dir) Unlink(name string) error {
	return d.one("unlink", name, func() error { return d.d.Unlink(name) }, func(k *State) { k.unlink(d.id, name) })
}

func (d *dir) Rmdir(name string) error {
	return d.one("rmdir", name, func() error { return d.d.Rmdir(name) }, func(k *State) { k.unlink(d.id, name) })
}

func (d *dir) Mkdir(name string, perm os.FileMode) error {
	var id key
	var mode uint32
	return d.one("mkdir", name, func() error {
		if err := d.d.Mkdir(name, perm); err != nil {
			return err
		}
		var st unix.Stat_t
		err := unix.Fstatat(d.d.Fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		id, mode = key{uint64(st.Dev), st.Ino}, st.Mode
		return err
	}, func(k *State) { k.make(d.id, name, id, mode) })
}

func (d *dir) SetTime(name string, t time.Time) error {
	return d.one("settime", name, func() error { return d.d.SetTime(name, t) }, func(k *State) { k.setTimeAt(d.id, name, t) })
}

func (d *dir) Sync() error {
	return d.one("sync", "", d.d.Sync, func(k *State) { k.syncDir(d.id) })
}

// file is a file whose calls are counted.
type file struct {
	v     vfs.File
	f     *FS
	id    key
	path  string
	atEnd bool  // each write goes to the end
	pos   int64 // where the next one goes otherwise
}

func (f *file) Fd() int                                 { return f.v.Fd() }
func (f *file) ReadAt(p []byte, off int64) (int, error) { return f.v.ReadAt(p, off) }
func (f *file) TryLock() (bool, error)                  { return f.v.TryLock() }
func (f *file) Unlock() error                           { return f.v.Unlock() }

func (f *file) Write(p []byte) (int, error) {
	pos := f.pos
	if f.atEnd {
		pos = -1
	}
	n, err := f.write(p, pos, f.v.Write)
	f.pos += int64(n)
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, off, func(p []byte) (int, error) { return f.v.WriteAt(p, off) })
}

// write writes p at pos, at the end where that is negative.
func (f *file) write(p []byte, pos int64, write func([]byte) (int, error)) (int, error) {
	fault := f.f.try("write", f.path, true)
	if fault != nil && (errors.Is(fault, ErrKilled) && !errors.Is(fault, ErrTorn)) {
		return 0, &os.PathError{Op: "write", Path: f.path, Err: fault}
	}
	if fault != nil {
		p = p[:len(p)/2]
	}
	n, err := write(p)
	data := append([]byte(nil), p[:n]...)
	f.f.note(func(k *State) { k.write(f.id, data, pos) })
	if err == nil && fault != nil {
		err = &os.PathError{Op: "write", Path: f.path, Err: fault}
	}
	return n, err
}

func (f *file) one(op string, call func() error, apply func(*State)) error {
	if err := f.f.try(op, f.path, true); err != nil {
		return &os.PathError{Op: op, Path: f.path, Err: err}
	}
	if err := call(); err != nil {
		return err
	}
	f.f.note(apply)
	return nil
}

func (f *file) Sync() error {
	return f.one("sync", f.v.Sync, func(k *State) { k.syncFile(f.id, true) })
}

func (f *file) Datasync() error {
	return f.one("datasync", f.v.Datasync, func(k *State) { k.syncFile(f.id, false) })
}

func (f *file) Truncate(size int64) error {
	return f.one("truncate", func() error { return f.v.Truncate(size) }, func(k *State) { k.truncate(f.id, size) })
}

func (f *file) SetTime(t time.Time) error {
	return f.one("settime", func() error { return f.v.SetTime(t) }, func(k *State) { k.setTime(f.id, t) })
}

func (f *file) Chmod(mode os.FileMode) error {
	return f.one("chmod", func() error { return f.v.Chmod(mode) }, func(k *State) { k.chmod(f.id, mode) })
}

func (f *file) Chown(uid, gid int) error {
	return f.one("chown", func() error { return f.v.Chown(uid, gid) }, func(*State) {})
}

// Close always closes, and says so unless it is to fail: a file server may tell
// only now that the data did not fit.
func (f *file) Close() error {
	fault := f.f.try("close", f.path, false)
	if err := f.v.Close(); err != nil {
		return err
	}
	if fault != nil {
		return &os.PathError{Op: "close", Path: f.path, Err: fault}
	}
	return nil
}
