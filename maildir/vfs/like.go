package vfs

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// CreateLike makes the file name in d, as Create does, with the mode and group
// that d itself has: the read and write bits of the folder, always readable
// and writable for its owner. So other uids of a shared folder, and other
// programs, can work with what we make whatever our umask is.
func CreateLike(d Dir, name string) (File, error) { return CreateAs(d, name, d) }

// CreateAs is CreateLike with the mode and group that like has.
func CreateAs(d Dir, name string, like Dir) (File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(like.Fd(), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: like.Path(), Err: err}
	}
	mode, gid := likeMode(st, 0o666)
	f, err := d.Create(name, mode)
	if err != nil {
		return nil, err
	}
	if err := fit(f, mode|0o600, gid); err != nil {
		f.Close()
		d.Unlink(name)
		return nil, err
	}
	return f, nil
}

// fit gives the new file f mode and gid where the kernel did not do so itself.
// Where we may not set the group, its rights are those of everybody else: the
// group that the file has by chance gets nothing through us.
func fit(f File, mode os.FileMode, gid int) error {
	var st unix.Stat_t
	if err := unix.Fstat(f.Fd(), &st); err != nil {
		return fmt.Errorf("stat of a new file: %w", err)
	}
	if int(st.Gid) != gid {
		if err := f.Chown(-1, gid); err != nil {
			mode = mode&^0o070 | mode&0o007<<3
		}
	}
	if os.FileMode(st.Mode).Perm() == mode {
		return nil
	}
	return f.Chmod(mode)
}

// MkdirLike makes the directory name in d with the mode (set-group-ID bit
// included) and group that d has, and opens it.
func MkdirLike(d Dir, name string) (Dir, error) { return MkdirAs(d, name, d) }

// MkdirAs is MkdirLike with the mode and group that like has.
func MkdirAs(d Dir, name string, like Dir) (Dir, error) {
	var st unix.Stat_t
	if err := unix.Fstat(like.Fd(), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: like.Path(), Err: err}
	}
	mode, gid := likeMode(st, 0o777)
	if err := d.Mkdir(name, mode|0o700); err != nil {
		return nil, err
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		d.Rmdir(name)
		return nil, err
	}
	if err := fitDir(sub, uint32(mode|0o700)|st.Mode&unix.S_ISGID, gid); err != nil {
		sub.Close()
		d.Rmdir(name)
		return nil, err
	}
	return sub, nil
}

func fitDir(d Dir, mode uint32, gid int) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.Fd(), &st); err != nil {
		return &os.PathError{Op: "stat", Path: d.Path(), Err: err}
	}
	if int(st.Gid) != gid {
		if err := unix.Fchown(d.Fd(), -1, gid); err != nil {
			mode = mode&^(0o070|unix.S_ISGID) | mode&0o007<<3
		}
	}
	if st.Mode&0o7777 == mode {
		return nil
	}
	if err := unix.Fchmod(d.Fd(), mode); err != nil {
		return &os.PathError{Op: "chmod", Path: d.Path(), Err: err}
	}
	return nil
}

// likeMode returns the bits of a folder that a new file or directory in it
// shares, and the group that it should have.
func likeMode(st unix.Stat_t, mask uint32) (os.FileMode, int) {
	return os.FileMode(st.Mode & mask), int(st.Gid)
}

// ReadRegular reads the whole regular file name in d, which must not be larger
// than limit octets, and returns what fstat said of it before the read. A
// symbolic link, FIFO, device or directory is an error (EINVAL or ELOOP), a
// larger file EFBIG. A file that grows meanwhile is read as far as it was.
func ReadRegular(d Dir, name string, limit int64) ([]byte, unix.Stat_t, error) {
	fd, st, err := OpenRegular(d, name)
	if err != nil {
		return nil, st, err
	}
	defer unix.Close(fd)
	if st.Size > limit {
		return nil, st, &os.PathError{Op: "read", Path: d.Path() + "/" + name, Err: unix.EFBIG}
	}
	b := make([]byte, st.Size)
	n, err := ReadFullAt(fd, b, 0)
	if err != nil && err != io.EOF {
		return nil, st, &os.PathError{Op: "read", Path: d.Path() + "/" + name, Err: err}
	}
	return b[:n], st, nil
}

// DirentBuffer returns a buffer for the entries of directories, which free takes back.
// Each login reads one: what is made anew for that is most of what it makes.
func DirentBuffer() (buf []byte, free func()) {
	b := direntBuffers.Get().(*[]byte)
	return *b, func() { direntBuffers.Put(b) }
}

var direntBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// ReadNames returns the entries of dir but "." and "..".
func ReadNames(dir Dir) ([]string, error) {
	d, err := dir.OpenDir(".") // its own offset
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var names []string
	buf, free := DirentBuffer()
	defer free()
	for {
		n, err := unix.ReadDirent(d.Fd(), buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "readdir", Path: dir.Path(), Err: err}
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// OpenRegular opens the regular file name in d for reading, without following
// a symbolic link and without ever blocking on a FIFO. The caller closes the
// descriptor.
func OpenRegular(d Dir, name string) (int, unix.Stat_t, error) {
	var st unix.Stat_t
	path := d.Path() + "/" + name
	fd, err := retryFd(func() (int, error) {
		return unix.Openat(d.Fd(), name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	})
	if err != nil {
		return -1, st, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, st, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, st, &os.PathError{Op: "open", Path: path, Err: unix.EINVAL}
	}
	return fd, st, nil
}

// ReadFullAt fills b from offset off of fd. It returns io.EOF where the file
// ends first, with the count of octets read.
func ReadFullAt(fd int, b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Pread(fd, b[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}
