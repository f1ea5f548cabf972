package tree

import (
	"bytes"
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// Folders are found by reading directories, not by a call for each entry: the
// kernel says with each name what it is.

// A subdir is an entry of a directory that is a directory or may be one.
type subdir struct {
	name string
	sure bool // it is a directory; else a link, or the file system does not say
}

// readDirs returns those entries of dir, which must be at its start, that are or
// may be directories and for which want returns true. buf is for its use.
func readDirs(dir vfs.Dir, buf []byte, want func(name []byte) bool) (found []subdir, err error) {
	for {
		n, err := unix.Getdents(dir.Fd(), buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, &os.PathError{Op: "readdir", Path: dir.Path(), Err: err}
		case n == 0:
			return found, nil
		}
		for b := buf[:n]; len(b) > 0; {
			var kind byte
			var name []byte
			if kind, name, b = entry(b); b == nil {
				return nil, &os.PathError{Op: "readdir", Path: dir.Path(), Err: unix.EIO}
			}
			if kind != unix.DT_DIR && kind != unix.DT_LNK && kind != unix.DT_UNKNOWN {
				continue
			}
			if string(name) != "." && string(name) != ".." && want(name) {
				found = append(found, subdir{string(name), kind == unix.DT_DIR})
			}
		}
	}
}

// entry takes one linux_dirent64 record off b: u64 inode, i64 offset, u16
// length, u8 type, name, NUL. rest is nil if it is none.
func entry(b []byte) (kind byte, name, rest []byte) {
	const header = 19
	if len(b) < header {
		return 0, nil, nil
	}
	size := int(binary.NativeEndian.Uint16(b[16:]))
	if size < header || size > len(b) {
		return 0, nil, nil
	}
	name = b[header:size]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return b[18], name, b[size:]
}

// is reports whether the entry s of dir is a directory or a link to one.
func (s subdir) is(dir vfs.Dir) bool { return s.sure || isDir(dir, s.name) }
