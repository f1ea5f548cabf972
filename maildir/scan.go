package maildir

import (
	"bytes"
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// One getdents64 call whose buffer takes the whole directory sees every file
// on ext4, xfs and tmpfs, however many are renamed meanwhile: the kernel holds
// the directory's lock for the call. A loop over a small buffer, as readdir(3)
// does, misses files: that is how other servers lose UIDs.

const (
	minScan = 64 << 10
	maxScan = 32 << 20

	largestKept = 1 << 20
)

// scanBuffers keeps the buffers of small scans. That of a large one goes back to the
// kernel.
var scanBuffers = sync.Pool{New: func() any { b := make([]byte, minScan); return &b }}

// A reading is a directory as it was read, until free is called.
type reading struct {
	dir    []byte
	atomic bool
	rest   func() ([]byte, error) // what is behind dir, piece by piece, in the same memory; nil: nothing
	free   func()
}

// scanDir calls yield with the name of each file of the open directory fd that
// may be a message. The slice is valid during the call. It reports whether the scan
// was atomic.
func scanDir(fd int, yield func(name []byte)) (atomic bool, err error) {
	r, err := readWhole(fd, 0)
	if err != nil {
		return false, err
	}
	defer r.free()
	return r.atomic, r.pieces(func(piece []byte) error {
		return eachFile(piece, func(_ int, name []byte) {
			if messageName(name) {
				yield(name)
			}
		})
	})
}

// pieces calls yield with what was read, piece by piece. Each is valid until the
// next.
func (r *reading) pieces(yield func(piece []byte) error) error {
	err := yield(r.dir)
	for err == nil && r.rest != nil {
		var piece []byte
		if piece, err = r.rest(); err != nil || len(piece) == 0 {
			return err
		}
		err = yield(piece)
	}
	return err
}

// readWhole reads the directory fd with one call, if there is a buffer for that.
// expect is about how many octets it has, 0: nobody knows.
func readWhole(fd int, expect int64) (r reading, err error) {
	size := int(min(maxScan, max(minScan, expect+expect/16+4096)))
	for {
		b, free := scanBuffer(size)
		n, whole, err := readDir(fd, b)
		if err != nil {
			free()
			return r, err
		}
		if whole || size >= maxScan {
			r = reading{dir: b[:n], atomic: whole, free: free}
			if !whole {
				r.rest = func() ([]byte, error) {
					n, err := getdents(fd, b)
					return b[:max(0, n)], err
				}
			}
			return r, nil
		}
		free()
		size = min(maxScan, 4*size)
	}
}

func scanBuffer(size int) (b []byte, free func()) {
	if size > largestKept {
		return vfs.Buffer[byte](size)
	}
	bp := scanBuffers.Get().(*[]byte)
	if len(*bp) < size {
		*bp = make([]byte, size)
		vfs.Prefault(*bp)
	}
	return *bp, func() { scanBuffers.Put(bp) }
}

// readDir fills b from the start of the directory with one call and reports
// whether that was all.
func readDir(fd int, b []byte) (n int, whole bool, err error) {
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return 0, false, err
	}
	if n, err = getdents(fd, b); err != nil || n == 0 {
		return n, err == nil, err
	}
	var probe [4096]byte
	more, err := getdents(fd, probe[:])
	if err != nil {
		return 0, false, err
	}
	if more > 0 && len(b) >= maxScan {
		// The probe has taken entries away: begin again, for the rest.
		if _, err := unix.Seek(fd, 0, 0); err != nil {
			return 0, false, err
		}
		n, err = getdents(fd, b)
	}
	return n, more == 0, err
}

func getdents(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Getdents(fd, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// eachFile walks linux_dirent64 records: u64 inode, i64 offset, u16 length, u8
// type, name, NUL. It calls yield with each regular file that no dot begins, and
// where its record is.
func eachFile(piece []byte, yield func(at int, name []byte)) error {
	for at := 0; len(piece)-at > direntName; {
		size := int(binary.NativeEndian.Uint16(piece[at+16:]))
		if size <= direntName || size > len(piece)-at {
			return unix.EIO
		}
		kind, name := piece[at+18], direntOf(piece[at:at+size])
		if (kind == unix.DT_REG || kind == unix.DT_UNKNOWN) && len(name) > 0 && name[0] != '.' {
			yield(at, name)
		}
		at += size
	}
	return nil
}

// In a linux_dirent64 the name begins behind direntName octets; direntOctets is what
// it takes besides a name, with the padding and a few flags.
const (
	direntName   = 19
	direntOctets = direntName + 1 + 4 + 4
)

// direntOf returns the name in a record. Its NUL is one of the last eight octets:
// the record is padded to that.
func direntOf(record []byte) []byte {
	pad := max(direntName, len(record)-8)
	if i := bytes.IndexByte(record[pad:], 0); i >= 0 {
		return record[direntName : pad+i]
	}
	return record[direntName:]
}

// nameAt returns the name of the file whose record is at at.
func nameAt(piece []byte, at int) []byte {
	return direntOf(piece[at : at+int(binary.NativeEndian.Uint16(piece[at+16:]))])
}

// messageName reports whether a file of this name can be a message: dot files
// are not, nor names that no line of the UID list can hold.
func messageName(name []byte) bool {
	return len(name) > 0 && len(name) <= 255 && name[0] != '.' && bytes.IndexByte(name, '\n') < 0 && bytes.IndexByte(name, '\r') < 0
}

// File systems on which one call is atomic against rename. See fstatfs(2).
func atomicScans(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	switch int64(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}

// localFiles reports whether the files of fd's file system are this machine's: their
// times come from its clock, their inode numbers stay, and the kernel tells of every
// change. How fine their times are it does not say.
func localFiles(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	switch int64(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.BTRFS_SUPER_MAGIC:
		return true
	}
	return false
}
