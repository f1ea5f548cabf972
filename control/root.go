package control

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"imapd/control/config"
)

// identity is who a process runs as.
type identity struct {
	uid, gid int
	groups   []int
}

// become gives up root for good: the process becomes the user cyrus_user with
// that user's groups (and the group cyrus_group). It does nothing in a process
// that is not root's. file is the configuration file, for the error where
// cyrus_user is missing. warn is not empty where the process stays root because
// the configuration says so.
func become(conf *config.Config, file string) (warn string, err error) {
	if os.Geteuid() != 0 {
		return "", nil
	}
	if conf.User == "" {
		return "", errNoUser(file)
	}
	id, err := identify(conf)
	if err != nil {
		return "", err
	}
	if id.uid == 0 {
		return asRoot, nil
	}
	furnish(conf, id)
	return "", id.become()
}

// furnish makes the directories in configdirectory that id will write to, where
// configdirectory is root's alone and id could not. Elsewhere id can do it, and
// root makes nothing in what is another's. What cannot be made, or not be given
// away, costs no session; who wants to write there logs it.
func furnish(conf *config.Config, id identity) {
	var st unix.Stat_t
	if unix.Stat(conf.ConfigDirectory, &st) != nil || st.Uid != 0 || st.Mode&0o022 != 0 {
		return
	}
	for _, dir := range []string{filepath.Join(conf.ConfigDirectory, "socket"), conf.ProcPath} {
		if filepath.Dir(dir) != filepath.Clean(conf.ConfigDirectory) || os.Mkdir(dir, 0o700) != nil {
			continue
		}
		if os.Lchown(dir, id.uid, id.gid) != nil {
			_ = os.Remove(dir) // or a later start with more rights would find it made
		}
	}
}

// asRoot is the warning of a process that stays root.
const asRoot = "clients are served as root, because cyrus_user says so"

func errNoUser(file string) error {
	return fmt.Errorf(`root started this: add the line "cyrus_user: NAME" to %s, where NAME is the user who owns the mail`, file)
}

// Identify returns the user and the group that cyrus_user and cyrus_group stand
// for.
func Identify(conf *config.Config) (uid, gid int, err error) {
	id, err := identify(conf)
	return id.uid, id.gid, err
}

// identify returns what cyrus_user and cyrus_group stand for.
func identify(conf *config.Config) (identity, error) {
	id, err := lookUpUser(conf.User)
	if err != nil {
		return id, conf.At("cyrus_user", err)
	}
	if conf.Group != "" {
		if id.gid, err = lookUpGroup(conf.Group); err != nil {
			return id, conf.At("cyrus_group", err)
		}
	}
	if !slices.Contains(id.groups, id.gid) {
		id.groups = append(id.groups, id.gid)
	}
	return id, nil
}

// lookUpUser finds a user, by name or number, and the groups that belong to it.
// A number need not be in the system's list; the group has its number then.
func lookUpUser(name string) (identity, error) {
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	var id identity
	if err != nil {
		n, convErr := strconv.ParseUint(name, 10, 31)
		if convErr != nil {
			return id, fmt.Errorf("no user %q", name)
		}
		id.uid, id.gid = int(n), int(n)
		return id, nil
	}
	id.uid, _ = strconv.Atoi(u.Uid) // numbers wherever this program runs
	id.gid, _ = strconv.Atoi(u.Gid)
	groups, err := u.GroupIds()
	if err != nil {
		return id, fmt.Errorf("groups of %q: %w", name, err)
	}
	for _, g := range groups {
		if n, err := strconv.Atoi(g); err == nil {
			id.groups = append(id.groups, n)
		}
	}
	return id, nil
}

func lookUpGroup(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		n, convErr := strconv.ParseUint(name, 10, 31)
		if convErr != nil {
			return 0, fmt.Errorf("no group %q", name)
		}
		return int(n), nil
	}
	return strconv.Atoi(g.Gid)
}

// become makes the process, all its threads, run as id and checks that there
// is no way back.
func (id identity) become() error {
	if err := syscall.Setgroups(id.groups); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setgid(id.gid); err != nil {
		return fmt.Errorf("setgid %d: %w", id.gid, err)
	}
	if err := syscall.Setuid(id.uid); err != nil {
		return fmt.Errorf("setuid %d: %w", id.uid, err)
	}
	if syscall.Getuid() != id.uid || syscall.Geteuid() != id.uid || syscall.Getgid() != id.gid || syscall.Getegid() != id.gid {
		return errors.New("the system did not change the user")
	}
	if syscall.Setuid(0) == nil || syscall.Setgid(0) == nil && id.gid != 0 {
		return errors.New("root could be taken back")
	}
	return nil
}

// caller returns the user who started imapd. HOME counts before the system's
// list, as in every program that a user starts.
func caller() (*Caller, error) {
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return nil, errors.New("imapd must not be installed setuid or setgid")
	}
	u, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("who calls: %w", err)
	}
	home := os.Getenv("HOME")
	if !filepath.IsAbs(home) {
		home = u.HomeDir
	}
	if !filepath.IsAbs(home) {
		return nil, fmt.Errorf("user %s has no home directory", u.Username)
	}
	return &Caller{Name: u.Username, UID: os.Getuid(), GID: os.Getgid(), Home: filepath.Clean(home)}, nil
}
