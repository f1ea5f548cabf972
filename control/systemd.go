package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Socket activation, as sd_listen_fds(3) has it: from descriptor 3 on lie
// sockets, LISTEN_FDS of them, and LISTEN_PID says for which process. They
// listen (Accept=no), or there is one and it is a client (Accept=yes).

const (
	firstPassed = 3    // SD_LISTEN_FDS_START
	mostPassed  = 1024 // more is a mistake in the variable
)

// A passed descriptor is one that systemd hands over.
type passed struct {
	file    *os.File
	name    string // from LISTEN_FDNAMES, or empty
	listens bool
	err     error // why it is of no use
}

// takePassed takes over what systemd passes to this process, or returns nil.
// The variables are gone then, and no child inherits the descriptors.
func takePassed() []passed {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		os.Unsetenv(v)
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > mostPassed || pid != strconv.Itoa(os.Getpid()) {
		return nil
	}
	all := make([]passed, n)
	for i := range all {
		if i < len(names) {
			all[i].name = names[i]
		}
		all[i].take(firstPassed + i)
	}
	return all
}

func (p *passed) take(fd int) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err == nil && kind != unix.SOCK_STREAM {
		err = errors.New("not a stream socket")
	}
	listens := 0
	if err == nil {
		listens, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	}
	if err != nil {
		p.err = fmt.Errorf("descriptor %d: %w", fd, err)
		return
	}
	unix.CloseOnExec(fd)
	p.file, p.listens = os.NewFile(uintptr(fd), fmt.Sprint("descriptor ", fd)), listens != 0
}

// passedDoors makes doors of what systemd passes. A socket named imaps, or on
// port 993 and not named imap, is under TLS. The files are closed.
func passedDoors(all []passed, o *Options, certs *Certificates) ([]door, error) {
	var doors []door
	var wrong error
	for _, p := range all {
		d, err := p.door(o)
		if err == nil {
			doors = append(doors, d)
			if d.tls && certs == nil {
				err = fmt.Errorf("%v: %w", d.Addr(), ErrNoCertificate)
			}
		}
		wrong = errors.Join(wrong, err)
	}
	if wrong != nil {
		closeDoors(doors)
		return nil, wrong
	}
	return doors, nil
}

func (p *passed) door(o *Options) (door, error) {
	if p.err != nil {
		return door{}, p.err
	}
	defer p.file.Close()
	if !p.listens {
		return door{}, fmt.Errorf("%s is a client's, and not alone", p.file.Name())
	}
	l, err := net.FileListener(p.file) // makes its own duplicate
	if err != nil {
		return door{}, err
	}
	return door{l, o.TLS || secure(p.name, l.Addr())}, nil
}

// secure tells whether a socket of that name and local address is under TLS
// from the first octet on.
func secure(name string, local net.Addr) bool {
	switch strings.TrimSuffix(name, ".socket") { // FileDescriptorName=, or the unit
	case "imaps":
		return true
	case "imap":
		return false
	}
	t, ok := local.(*net.TCPAddr)
	return ok && t.Port == 993
}
