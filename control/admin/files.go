package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"imapd/control"
)

// What root makes below the configuration directory may lie in a directory of
// the user who serves, and that user must not be able to aim it elsewhere. So
// all of it is done within an os.Root, whose own name may be a symbolic link
// only where root, or whoever runs imapctl, has made it.

// owner returns who has to own what the server writes to: whom it becomes, or
// else the owner of the configuration directory.
func (c *call) owner() (uid, gid int, err error) {
	if c.conf.User != "" {
		return control.Identify(c.conf)
	}
	info, err := os.Stat(c.conf.ConfigDirectory)
	if err != nil {
		return 0, 0, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid), nil
}

// subdir opens the directory name below the configuration directory, which is
// made if it is missing.
func (c *call) subdir(name string, mode fs.FileMode) (*os.Root, error) {
	top, err := os.OpenRoot(c.conf.ConfigDirectory)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	if err := c.mkdir(top, name, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	path := filepath.Join(c.conf.ConfigDirectory, name)
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; info.Mode()&fs.ModeSymlink != 0 && uid != 0 && int(uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s is a symbolic link that uid %d has made", path, uid)
	}
	return os.OpenRoot(path)
}

// mkdir makes a directory of the server's, in one step: a server that finds it
// before it may read it would not look again.
func (c *call) mkdir(in *os.Root, name string, mode fs.FileMode) error {
	if _, err := in.Lstat(name); err == nil {
		return fs.ErrExist
	}
	aside := asideName(name)
	if err := in.Mkdir(aside, mode); err != nil {
		return err
	}
	err := in.Chmod(aside, mode) // whatever the umask
	if err == nil && os.Geteuid() == 0 {
		var uid, gid int
		if uid, gid, err = c.owner(); err == nil {
			err = in.Lchown(aside, uid, gid)
		}
	}
	if err == nil {
		err = in.Rename(aside, name)
	}
	if err != nil {
		_ = in.Remove(aside)
	}
	return err
}

// asideName returns under which name the file name is prepared.
func asideName(name string) string { return fmt.Sprintf(".%s.%d", name, os.Getpid()) }

// put writes a file in one step, readable by all.
func put(in *os.Root, name, text string) error {
	aside := asideName(name)
	f, err := in.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Chmod(0o644) // whatever the umask
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = in.Rename(aside, name)
	}
	if err != nil {
		_ = in.Remove(aside)
	}
	return err
}
