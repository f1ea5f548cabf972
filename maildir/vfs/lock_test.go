package vfs

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestLocksStay(t *testing.T) {
	t.Parallel()
	const mounts = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,nolock,errors=remount-ro
40 22 0:44 / /srv/mail\0401 rw,relatime shared:20 - nfs4 nas:/mail rw,vers=4.2,proto=tcp,local_lock=none,addr=192.0.2.1
41 22 0:45 / /srv/old rw,relatime - nfs nas:/old rw,vers=3,nolock,proto=tcp,local_lock=all,addr=192.0.2.1
42 22 0:46 / /srv/part rw - nfs nas:/part rw,vers=3,local_lock=flock,addr=192.0.2.1
43 22 0:47 / /srv/posix rw - nfs nas:/posix rw,vers=3,local_lock=posix,addr=192.0.2.1
44 22 0:48 / /srv/win rw - cifs //win/mail rw,vers=3.0,nobrl,cache=strict
45 22 0:49 / /srv/nolock rw - nfs4 nas:/nolock rw,noatime
46 22 0:50 / /srv/odd rw - nfs4
`
	for minor, want := range map[uint32]bool{44: false, 45: true, 46: false, 47: true, 48: true, 49: false, 50: false, 4: false, 51: false} {
		if got := locksStay(mounts, unix.Mkdev(0, minor)); got != want {
			t.Errorf("0:%d: %v, want %v", minor, got, want)
		}
	}
	// There other hosts cannot come.
	if dir := openTemp(t, 0o700); LocalLocks(dir.Fd()) {
		t.Error("a file system of this machine is taken for a shared one")
	}
}
