package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/test/peer"
)

// mounts skips a test where nothing may be mounted, as in most containers.
func mounts(t *testing.T, source, dir, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, dir, kind, flags, data); err != nil {
		if os.IsPermission(err) {
			t.Skipf("NOT TESTED, for want of the right to mount: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// volumes are the file systems that a Maildir is raced on. What a scan of a
// directory sees that changes meanwhile is another thing on btrfs. The inodes of an
// ext4-128 have 128 octets, as those of ext3 have, and times in whole seconds.
var volumes = []string{"tmpfs", "ext4", "xfs", "btrfs", "ext4-128"}

// makers make the file systems that need a disk.
var makers = map[string][]string{
	"ext4":     {"mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096"},
	"ext4-128": {"mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", "-I", "128"},
	"xfs":      {"mkfs.xfs", "-q", "-f"},
	"btrfs":    {"mkfs.btrfs", "-q", "-f"},
}

// volume mounts a new file system of its own and returns where. Those that need
// a disk have a file for one, which takes up what is written.
func volume(t *testing.T, kind string, size int64) (dir string) {
	t.Helper()
	dir = peer.TempDir(t) + "/disk"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if kind == "tmpfs" {
		uid, gid := peer.MailUID()
		mounts(t, "tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700,uid=%d,gid=%d", size, uid, gid))
		return dir
	}
	maker := makers[kind]
	peer.Need(t, maker[0], "mount", "umount")
	image := filepath.Join(peer.TempDir(t), "image")
	err := os.WriteFile(image, nil, 0o600)
	if err == nil {
		err = os.Truncate(image, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{append(maker[:len(maker):len(maker)], image), {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Skipf("NOT TESTED, for want of a loop device or of %s: %q: %v\n%s", kind, c, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	peer.Own(t, dir)
	return dir
}
