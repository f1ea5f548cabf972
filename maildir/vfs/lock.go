package vfs

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func (f *file) TryLock() (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err := retry(func() error { return unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &l) })
	if err == unix.EAGAIN || err == unix.EACCES {
		return false, nil
	}
	return err == nil, f.wrap("lock", err)
}

func (f *file) Unlock() error {
	l := unix.Flock_t{Type: unix.F_UNLCK, Whence: io.SeekStart}
	return f.wrap("unlock", retry(func() error { return unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &l) }))
}

// LocalLocks reports whether fd is on a file system that other hosts may have
// mounted too, but whose locks only this one sees: by its options, which mount(8) and
// nfs(5) describe. Of a file system in user space nobody can say.
func LocalLocks(fd int) bool {
	var of unix.Statfs_t
	if unix.Fstatfs(fd, &of) != nil {
		return false
	}
	switch uint32(of.Type) {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.OCFS2_SUPER_MAGIC, gfs2Magic:
	default:
		return false
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return true
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	return err != nil || locksStay(string(mounts), uint64(st.Dev))
}

const gfs2Magic = 0x01161970

// locksStay reports whether an option of the file system dev says that its locks
// stay on this host. mounts is what proc_pid_mountinfo(5) describes.
func locksStay(mounts string, dev uint64) bool {
	number := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	for line := range strings.Lines(mounts) {
		mount, super, _ := strings.Cut(line, " - ")
		if f := strings.Fields(mount); len(f) < 3 || f[2] != number {
			continue
		}
		f := strings.Fields(super) // type, source, options
		return len(f) == 3 && slices.ContainsFunc(strings.Split(f[2], ","), func(o string) bool {
			return slices.Contains([]string{"nolock", "local_lock=all", "local_lock=posix", "nobrl", "localflocks"}, o)
		})
	}
	return false
}
