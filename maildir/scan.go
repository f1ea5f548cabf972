package maildir

import (
	"bytes"
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
)

// One getdents64 call whose buffer takes the whole directory sees every file
// on ext4, xfs and tmpfs, however many are renamed meanwhile: the kernel holds
// the directory's lock for the call. A loop over a small buffer, as readdir(3)
// does, misses files: that is how other servers lose UIDs.

const (
	minScan = 64 << 10
	maxScan = 32 << 20
)

// scanBuffers keeps the buffers of scans; a large one is not kept.
var scanBuffers = sync.Pool{New: func() any { b := make([]byte, minScan); return &b }}

// scanDir calls yield with the name of each file of the open directory fd that
// may be a message. The slice is valid during the call. expect is about how
// many entries there are. It reports whether the scan was atomic.
func scanDir(fd, expect int, yield func(name []byte)) (atomic bool, err error) {
	bp := scanBuffers.Get().(*[]byte)
	defer func() {
		if len(*bp) <= 1<<20 {
			scanBuffers.Put(bp)
		}
	}()
	// 24 octets of header and padding, and names of about 70.
	want := min(maxScan, max(minScan, expect*104+expect*104/8))
	if len(*bp) < want {
		*bp = make([]byte, want)
	}
	for {
		n, whole, err := readDir(fd, *bp)
		if err != nil {
			return false, err
		}
		if whole || len(*bp) >= maxScan {
			if err := parseDir((*bp)[:n], yield); err != nil || whole {
				return whole, err
			}
			return false, readRest(fd, *bp, yield)
		}
		*bp = make([]byte, min(maxScan, 4*len(*bp)))
	}
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
		// The probe has taken entries away: begin again for readRest.
		if _, err := unix.Seek(fd, 0, 0); err != nil {
			return 0, false, err
		}
		n, err = getdents(fd, b)
	}
	return n, more == 0, err
}

// readRest goes on behind the first n octets of a directory that is larger than
// the largest buffer.
func readRest(fd int, b []byte, yield func([]byte)) error {
	for {
		n, err := getdents(fd, b)
		if err != nil || n == 0 {
			return err
		}
		if err := parseDir(b[:n], yield); err != nil {
			return err
		}
	}
}

func getdents(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Getdents(fd, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// parseDir walks linux_dirent64 records: u64 inode, i64 offset, u16 length, u8
// type, name, NUL.
func parseDir(b []byte, yield func([]byte)) error {
	for len(b) > 19 {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size < 19 || size > len(b) {
			return unix.EIO
		}
		kind, name := b[18], b[19:size]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if (kind == unix.DT_REG || kind == unix.DT_UNKNOWN) && messageName(name) {
			yield(name)
		}
		b = b[size:]
	}
	return nil
}

// messageName reports whether a file of this name can be a message: dot files
// are not, nor names that no line of the UID list can hold.
func messageName(name []byte) bool {
	return len(name) > 0 && name[0] != '.' && bytes.IndexByte(name, '\n') < 0 && bytes.IndexByte(name, '\r') < 0
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

// localClock reports whether times of the file system of fd come from this
// machine's clock, with at most 4 ms between ticks.
func localClock(fd int) bool {
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
