// Package vfs is the one seam through which mail files change.
//
// Every create, write, sync, link, rename, unlink, mkdir, truncate and change
// of times below a Maildir goes through Dir and File, so that a test can make
// any one of them fail, or lose what was not synced, without touching the code
// above. Reading does not come through here: readers use the descriptor that
// Fd returns.
//
// Names are single path components relative to an open directory. A folder
// that another program renames meanwhile stays the same folder for us, and no
// component is ever followed through a symbolic link when something is made.
package vfs

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Dir is an open directory. It is safe for use by several goroutines, but
// not beyond Close. Errors are *os.PathError or *os.LinkError and match
// fs.ErrNotExist and its siblings with errors.Is.
type Dir interface {
	// Fd returns the descriptor for reading calls (openat, fstatat,
	// getdents). It belongs to the Dir.
	Fd() int
	// Path returns the path that the directory was opened by, for messages.
	Path() string
	// OpenDir opens the directory name below this one. Symbolic links are
	// followed: sites link folders, and the kernel's rights hold anyway.
	OpenDir(name string) (Dir, error)
	// Create makes the file name, which must not exist, and opens it for
	// reading and writing.
	Create(name string, perm os.FileMode) (File, error)
	// Append opens the existing regular file name so that every write goes
	// to its end.
	Append(name string) (File, error)
	// Update opens the existing file name for reading and writing in place.
	// The caller looks what it is.
	Update(name string) (File, error)
	// Rename replaces whatever has the name newname in to.
	Rename(name string, to Dir, newname string) error
	// RenameNoReplace fails with fs.ErrExist where newname exists. Where the
	// file system cannot do that in one step, it looks first: the caller
	// holds the lock that makes this safe.
	RenameNoReplace(name string, to Dir, newname string) error
	Link(name string, to Dir, newname string) error
	Unlink(name string) error
	Mkdir(name string, perm os.FileMode) error
	Rmdir(name string) error
	// SetTime sets the access and modification times of name.
	SetTime(name string, t time.Time) error
	// Sync makes the names in the directory durable.
	Sync() error
	Close() error
}

// A File is an open file that is being written.
type File interface {
	io.Writer
	io.WriterAt // for what Append has not opened
	io.ReaderAt
	// Fd returns the descriptor for reading calls. It belongs to the File.
	Fd() int
	Sync() error     // data, size and times
	Datasync() error // data and size
	Truncate(size int64) error
	SetTime(t time.Time) error // access and modification time
	Chmod(mode os.FileMode) error
	Chown(uid, gid int) error // -1 leaves one as it is
	// TryLock takes the exclusive lock of the file (an open file description
	// lock, see fcntl(2)), which goes with the process, with Close or by Unlock. It
	// reports false where somebody else has it. An error of the system says that
	// the file system has no locks.
	TryLock() (bool, error)
	Unlock() error
	Close() error
}

// Open opens the directory at path on the real file system.
func Open(path string) (Dir, error) {
	return openDir(unix.AT_FDCWD, path, path)
}

type dir struct {
	fd   int
	path string
}

func openDir(at int, name, path string) (Dir, error) {
	fd, err := retryFd(func() (int, error) {
		return unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &dir{fd, path}, nil
}

func (d *dir) Fd() int      { return d.fd }
func (d *dir) Path() string { return d.path }
func (d *dir) Close() error { return unix.Close(d.fd) }

func (d *dir) join(name string) string { return d.path + "/" + name }

func (d *dir) OpenDir(name string) (Dir, error) { return openDir(d.fd, name, d.join(name)) }

func (d *dir) open(name string, flags int, perm os.FileMode) (File, error) {
	fd, err := retryFd(func() (int, error) {
		return unix.Openat(d.fd, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, uint32(perm.Perm()))
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: d.join(name), Err: err}
	}
	return &file{fd, d.join(name)}, nil
}

func (d *dir) Create(name string, perm os.FileMode) (File, error) {
	return d.open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, perm)
}

func (d *dir) Append(name string) (File, error) {
	f, err := d.open(name, unix.O_RDWR|unix.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.Fd(), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, &os.PathError{Op: "open", Path: d.join(name), Err: unix.EINVAL}
	}
	return f, nil
}

func (d *dir) Update(name string) (File, error) { return d.open(name, unix.O_RDWR, 0) }

func (d *dir) link(op, name string, to Dir, newname string, call func() error) error {
	if err := retry(call); err != nil {
		return &os.LinkError{Op: op, Old: d.join(name), New: to.Path() + "/" + newname, Err: err}
	}
	return nil
}

func (d *dir) Rename(name string, to Dir, newname string) error {
	return d.link("rename", name, to, newname, func() error {
		return unix.Renameat(d.fd, name, to.Fd(), newname)
	})
}

func (d *dir) RenameNoReplace(name string, to Dir, newname string) error {
	return d.link("rename", name, to, newname, func() error {
		err := unix.Renameat2(d.fd, name, to.Fd(), newname, unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstatat(to.Fd(), newname, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
			return unix.EEXIST
		} else if err != unix.ENOENT {
			return err
		}
		return unix.Renameat(d.fd, name, to.Fd(), newname)
	})
}

func (d *dir) Link(name string, to Dir, newname string) error {
	return d.link("link", name, to, newname, func() error {
		return unix.Linkat(d.fd, name, to.Fd(), newname, 0)
	})
}

func (d *dir) one(op, name string, call func() error) error {
	if err := retry(call); err != nil {
		return &os.PathError{Op: op, Path: d.join(name), Err: err}
	}
	return nil
}

func (d *dir) Unlink(name string) error {
	return d.one("unlink", name, func() error { return unix.Unlinkat(d.fd, name, 0) })
}

func (d *dir) Mkdir(name string, perm os.FileMode) error {
	return d.one("mkdir", name, func() error { return unix.Mkdirat(d.fd, name, uint32(perm.Perm())) })
}

func (d *dir) Rmdir(name string) error {
	return d.one("rmdir", name, func() error { return unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR) })
}

func (d *dir) SetTime(name string, t time.Time) error {
	ts := []unix.Timespec{unix.NsecToTimespec(t.UnixNano()), unix.NsecToTimespec(t.UnixNano())}
	return d.one("utimes", name, func() error {
		return unix.UtimesNanoAt(d.fd, name, ts, unix.AT_SYMLINK_NOFOLLOW)
	})
}

func (d *dir) Sync() error {
	return d.one("fsync", "", func() error { return unix.Fsync(d.fd) })
}

type file struct {
	fd   int
	path string
}

func (f *file) Fd() int { return f.fd }

func (f *file) wrap(op string, err error) error {
	if err != nil {
		return &os.PathError{Op: op, Path: f.path, Err: err}
	}
	return nil
}

func (f *file) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(f.fd, p[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, f.wrap("write", err)
		}
		done += n
	}
	return done, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(f.fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, f.wrap("write", err)
		}
		done += n
	}
	return done, nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pread(f.fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, f.wrap("read", err)
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

func (f *file) Sync() error {
	return f.wrap("fsync", retry(func() error { return unix.Fsync(f.fd) }))
}

func (f *file) Datasync() error {
	return f.wrap("fdatasync", retry(func() error { return unix.Fdatasync(f.fd) }))
}

func (f *file) Truncate(size int64) error {
	return f.wrap("truncate", retry(func() error { return unix.Ftruncate(f.fd, size) }))
}

func (f *file) SetTime(t time.Time) error {
	// utimensat(fd, "", AT_EMPTY_PATH): x/sys has no futimens, and Futimes goes
	// through /proc, which a sandbox may not have.
	ts := []unix.Timespec{unix.NsecToTimespec(t.UnixNano()), unix.NsecToTimespec(t.UnixNano())}
	return f.wrap("utimes", retry(func() error { return unix.UtimesNanoAt(f.fd, "", ts, unix.AT_EMPTY_PATH) }))
}

func (f *file) Chmod(mode os.FileMode) error {
	return f.wrap("chmod", unix.Fchmod(f.fd, uint32(mode.Perm())))
}

func (f *file) Chown(uid, gid int) error { return f.wrap("chown", unix.Fchown(f.fd, uid, gid)) }

// Close reports what a network file system tells only now: that the data did
// not fit.
func (f *file) Close() error { return f.wrap("close", unix.Close(f.fd)) }

func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func retryFd(call func() (int, error)) (int, error) {
	for {
		fd, err := call()
		if err != unix.EINTR {
			return fd, err
		}
	}
}
