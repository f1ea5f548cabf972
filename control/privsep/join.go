package privsep

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Member is a process that a parent has started, as that process sees itself.
type Member struct {
	*Channel
	// Role is what it is for, and Detail what the parent has said about it.
	Role, Detail string
	// Files are what the parent has given besides the Channel.
	Files []*os.File
}

// errNotOurs refuses an environment that no parent of ours has made.
var errNotOurs = errors.New(environment + " is set, but not by a parent of this program")

// Join returns what this process is to a parent, or nil where it has none. A
// parent is a process of root's, or of the user whose this one is, that has left
// a Channel of its own making on the descriptor 3; whoever else sets the
// environment gains nothing by it.
//
// Join makes sure that the process is what it should be: not root's, with no
// way back, and closed to others.
func Join() (*Member, error) {
	text := os.Getenv(environment)
	if text == "" {
		return nil, nil
	}
	os.Unsetenv(environment)
	kind, err := unix.GetsockoptInt(channelFD, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		return nil, errNotOurs
	}
	cred, err := unix.GetsockoptUcred(channelFD, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || cred.Uid != 0 && int(cred.Uid) != os.Getuid() || int(cred.Pid) != os.Getppid() {
		return nil, errNotOurs
	}
	if err := dropped(); err != nil {
		return nil, err
	}
	// The kernel has called it by the end of self's path. Where it cannot be said, no
	// more is lost than that.
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0)
	if err := Harden(); err != nil {
		return nil, err
	}
	m := &Member{}
	role, rest, _ := strings.Cut(text, " ")
	count, detail, _ := strings.Cut(rest, " ")
	m.Role, m.Detail = role, detail
	nfiles, err := strconv.Atoi(count)
	if err != nil {
		return nil, errNotOurs
	}
	for fd := channelFD; fd <= channelFD+nfiles; fd++ {
		unix.CloseOnExec(fd)
		m.Files = append(m.Files, os.NewFile(uintptr(fd), "passed"))
	}
	m.Channel, err = NewChannel(m.Files[0])
	m.Files = m.Files[1:]
	return m, err
}

// dropped makes sure that root is given up.
func dropped() error {
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 || os.Geteuid() != uid || os.Getegid() != gid {
		return fmt.Errorf("started as %d, effectively %d", uid, os.Geteuid())
	}
	if syscall.Setuid(0) == nil || gid != 0 && syscall.Setgid(0) == nil {
		return errors.New("root could be taken back")
	}
	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil || nnp != 1 {
		return errors.New("no_new_privs is not set")
	}
	return nil
}
