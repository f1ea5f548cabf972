package control

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/control/config"
)

// Root makes directories for the user that it becomes in what is its own, and
// nothing in what another user could have changed.
func TestFurnish(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can")
	}
	id := identity{uid: 65534, gid: 65534}
	for name, tt := range map[string]struct {
		mode  os.FileMode
		owner int
		made  bool
	}{"root's": {0o755, 0, true}, "everybody's": {0o777, 0, false}, "another's": {0o755, 65534, false}} {
		dir := filepath.Join(t.TempDir(), "etc")
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			err = os.Chmod(dir, tt.mode)
		}
		if err == nil {
			err = os.Chown(dir, tt.owner, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		conf := &config.Config{ConfigDirectory: dir, ProcPath: dir + "/proc"}
		furnish(conf, id)
		furnish(conf, id)
		for _, sub := range []string{"socket", "proc"} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(dir, sub), &st); (err == nil) != tt.made || tt.made && (st.Uid != 65534 || st.Mode&0o777 != 0o700) {
				t.Errorf("%s, %s: %v, mode %o of %d", name, sub, err, st.Mode, st.Uid)
			}
		}
	}
}

// A root that may not give files away leaves nothing that would stay root's.
func TestFurnishNothing(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can")
	}
	dir := filepath.Join(t.TempDir(), "etc")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := &config.Config{ConfigDirectory: dir, ProcPath: dir + "/proc"}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with what it has lost
		err := drop(unix.CAP_CHOWN)
		if err == nil {
			furnish(conf, identity{uid: 65534, gid: 65534})
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// drop takes a capability from this thread.
func drop(capability int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[capability/32].Effective &^= 1 << (capability % 32)
	return unix.Capset(&header, &data[0])
}
