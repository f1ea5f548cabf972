package admin

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

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
	return ownerOf(c.conf.ConfigDirectory)
}

func ownerOf(name string) (uid, gid int, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return 0, 0, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid), nil
}

// as calls do, which starts no goroutine, with the rights to files of who owns what
// the server writes to: what dead processes left in the list is removed, and root
// must not remove what that user could not.
func (c *call) as(do func()) error {
	if os.Geteuid() != 0 {
		do()
		return nil
	}
	uid, gid, err := c.owner()
	if err != nil { // a name that is misspelt now; the server may run all the same
		uid, gid, err = ownerOf(c.conf.ConfigDirectory)
	}
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the rights are this thread's
	defer runtime.UnlockOSThread()
	defer unix.Setfsgid(0)
	defer unix.Setfsuid(0)
	if err := errors.Join(unix.Setfsgid(gid), unix.Setfsuid(uid)); err != nil {
		return err
	}
	do()
	return nil
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
		return nil, named(err, top, c.conf.ConfigDirectory)
	}
	return openDir(top, name)
}

// openDir opens the directory name in top. Where name is a symbolic link root, or
// who runs imapctl, has made it. What is looked at and what is opened are the same
// thing, whatever somebody puts in its place meanwhile.
func openDir(top *os.Root, name string) (*os.Root, error) {
	dir, err := top.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	at := int(dir.Fd())
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	fd, err := unix.Openat(at, name, flags|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		var target string
		if target, err = linkOf(at, name); err == nil {
			fd, err = unix.Openat(at, target, flags, 0)
		}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(top.Name(), name), Err: err}
	}
	defer unix.Close(fd)
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// named returns err, of something done in the directory in, with the names that
// files have below dir, where an administrator finds them; see openDir.
func named(err error, in *os.Root, dir string) error {
	to := func(path string) string {
		if rest, ok := strings.CutPrefix(path, in.Name()); ok {
			return dir + rest
		}
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(dir, path)
	}
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		path.Path = to(path.Path)
	case errors.As(err, &link):
		link.Old, link.New = to(link.Old), to(link.New)
	}
	return err
}

// linkOf returns where the symbolic link name leads to.
func linkOf(at int, name string) (string, error) {
	fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFLNK:
		return "", unix.ENOTDIR
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return "", fmt.Errorf("a symbolic link that uid %d has made", st.Uid)
	}
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", target)
	if err != nil {
		return "", err
	}
	return string(target[:n]), nil
}

// mkdir makes a directory of the server's, in one step: a server that finds it
// before it may read it would not look again.
func (c *call) mkdir(in *os.Root, name string, mode fs.FileMode) error {
	if _, err := in.Lstat(name); err == nil {
		return fs.ErrExist
	}
	aside := asideName(name)
	if err := in.Mkdir(aside, 0o700); err != nil {
		return err
	}
	err := c.give(in, aside, mode)
	if err == nil {
		err = in.Rename(aside, name)
	}
	if err != nil {
		_ = in.Remove(aside)
	}
	return err
}

// errReplaced is the answer to who plays tricks.
var errReplaced = errors.New("somebody has put something else in its place")

// give gives a directory that has just been made to whom it is for. Who may rename
// things in its parent could have put a directory of root's there meanwhile, to
// become its owner; one that is empty gains nobody anything.
func (c *call) give(in *os.Root, name string, mode fs.FileMode) error {
	made, err := openDir(in, name)
	if err != nil {
		return err
	}
	defer made.Close()
	dir, err := made.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	if _, err := dir.Readdirnames(1); err != io.EOF || int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		return &fs.PathError{Op: "make", Path: filepath.Join(in.Name(), name), Err: errReplaced}
	}
	if err := dir.Chmod(mode); err != nil || os.Geteuid() != 0 { // whatever the umask
		return err
	}
	uid, gid, err := c.owner()
	if err != nil {
		return err
	}
	return dir.Chown(uid, gid)
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
