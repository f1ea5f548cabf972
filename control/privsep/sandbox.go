package privsep

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Harden keeps the memory of this process to itself: it leaves no core dump,
// and no process of the same user can look into it.
func Harden() error {
	if err := NoCoreDumps(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("not dumpable: %w", err)
	}
	return nil
}

// NoCoreDumps has this process, and what it starts, leave no core dump.
func NoCoreDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("no core dumps: %w", err)
	}
	return nil
}

// Rights are what landlock(7) leaves to a process. Nothing can be executed, and
// no device be used but the few that every program needs.
type Rights struct {
	Read, Write []string // files, and directories with all below
	Offline     bool     // no TCP ports, no signals to others
}

// What programs of the system read, and devices that they write to. Missing
// ones do no harm.
var (
	common  = []string{"/etc", "/usr", "/proc", "/sys", "/run", "/dev"}
	devices = []string{"/dev/null", "/dev/log"}
)

const (
	readFile landlock.AccessFSSet = ll.AccessFSReadFile
	readDir  landlock.AccessFSSet = readFile | ll.AccessFSReadDir
	// RWDirs without the right to execute; sockets, as of imapctl, can be made.
	writeDir landlock.AccessFSSet = readDir | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSRefer |
		ll.AccessFSRemoveDir | ll.AccessFSRemoveFile | ll.AccessFSMakeDir | ll.AccessFSMakeReg | ll.AccessFSMakeSock | ll.AccessFSMakeSym
	writeFile landlock.AccessFSSet = readFile | ll.AccessFSWriteFile | ll.AccessFSTruncate
)

// Confine takes everything but r from this process, for good, as far as the
// kernel can: one without landlock takes nothing.
func Confine(r Rights) error {
	rules := []landlock.Rule{
		landlock.PathAccess(readDir, common...).IgnoreIfMissing(),
		landlock.PathAccess(writeFile, devices...).IgnoreIfMissing(),
	}
	for _, path := range r.Read {
		rules = append(rules, rule(path, readDir, readFile))
	}
	for _, path := range r.Write {
		rules = append(rules, rule(path, writeDir, writeFile))
	}
	// In one go: a second ruleset, whatever it is about, would keep files from
	// being renamed into other directories.
	restrict := landlock.V6.BestEffort().RestrictPaths
	if r.Offline {
		restrict = landlock.V6.BestEffort().Restrict
	}
	if err := restrict(rules...); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return nil
}

// rule grants dir on a directory and file on anything else.
func rule(path string, dir, file landlock.AccessFSSet) landlock.Rule {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		dir = file
	}
	return landlock.PathAccess(dir, path).IgnoreIfMissing()
}

// Fixed returns the directory that holds all that the template of a path can
// stand for, or "" where that cannot be said: it is a home directory's, it is
// not there, or links in it may lead elsewhere.
func Fixed(template string) string {
	if !strings.HasPrefix(template, "/") {
		return ""
	}
	dir, varies := template, false
	if i := strings.IndexByte(template, '%'); i >= 0 {
		dir, varies = template[:strings.LastIndexByte(template[:i], '/')], true
	}
	if dir = filepath.Clean(dir); dir == "/" || dir == "." {
		return ""
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	// Users whose mail lies on another disk are behind links here.
	if varies && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Type()&os.ModeSymlink != 0 }) {
		return ""
	}
	return dir
}
