package control

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Start is how imapd was started: who brings connections.
type Start int

// The ways to be started.
const (
	StartNone      Start = iota // nobody: standard input is not a client
	StartListen                 // -l: imapd listens itself
	StartInetd                  // inetd nowait: a client's socket is on 0, or systemd left it on 3
	StartTunnel                 // a pipe, a terminal, a socket pair of our own
	StartMaster                 // Cyrus's master(8)
	StartSystemd                // systemd's socket activation: listening sockets from 3 on
	StartInetdWait              // inetd wait: a listening socket is on 0
)

// Many reports whether the process serves many clients.
func (s Start) Many() bool {
	return s == StartListen || s == StartSystemd || s == StartInetdWait
}

// Stdio is what the launcher left on the descriptors 0, 1 and 2.
type Stdio struct {
	// Start is how imapd was started, as far as standard input tells.
	Start Start
	// Hidden is true where standard error was a client's: what is written
	// there now goes nowhere.
	Hidden bool

	underTLS  bool             // -s
	socket    *os.File         // the socket that was on 0, or nil
	both      bool             // it was on 1 as well
	behind    bool             // another client's socket is on 1 or 2
	listening net.Listener     // made of socket, where that listens
	client    *passed          // the client whose socket systemd left on 3, or nil
	signals   <-chan os.Signal // those that master sends
	passed    []passed         // the listening sockets that systemd left from 3 on
	notify    *notifier        // systemd, or nil
	member    *member          // nil where no parent of ours has started this process
}

// Adopt looks at the descriptors 0, 1 and 2. A socket on 0 is moved away, and
// all three descriptors that lead to it lead to /dev/null from then on. It has
// to run before anything writes: inetd puts the client on all three, and what
// a panic prints must not reach it, nor whoever has another socket on 2. (The Go
// runtime has opened /dev/null where one of the three was closed.) No descriptor
// that the launcher left open beyond these goes on to a child.
func Adopt() (*Stdio, error) {
	s := &Stdio{}
	var err error
	if s.member, err = join(); s.member != nil || err != nil {
		return s, err
	}
	// A kernel that cannot do it leaves the launcher's mistakes as they are.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	var st unix.Stat_t
	if err := unix.Fstat(0, &st); err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO, unix.S_IFREG:
		s.Start = StartTunnel
	case unix.S_IFCHR:
		if terminal(0) {
			s.Start = StartTunnel
		}
	case unix.S_IFSOCK:
		if err := s.adoptSocket(); err != nil {
			return s, err
		}
	}
	s.behind = strange(1) || strange(2)
	if strange(2) {
		s.Hidden = true
		return s, silence(2)
	}
	return s, nil
}

func (s *Stdio) adoptSocket() error {
	s.Hidden, s.both = sameFile(0, 2), sameFile(0, 1)
	fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	s.socket = os.NewFile(uintptr(fd), "client")
	client := []int{0}
	if s.both {
		client = append(client, 1)
	}
	if s.Hidden {
		client = append(client, 2)
	}
	if err := silence(client...); err != nil {
		return err
	}
	s.Start, err = socketStart(fd)
	return err
}

// socketStart tells what kind of start the socket fd stands for.
func socketStart(fd int) (Start, error) {
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return StartNone, fmt.Errorf("standard input: %w", err)
	}
	if listens != 0 {
		return StartInetdWait, nil
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return StartNone, fmt.Errorf("standard input: a socket without a peer: %w", err)
	}
	if ownPeer(fd) && os.Getenv("PROTO") == "" {
		return StartTunnel, nil
	}
	return StartInetd, nil
}

// strange tells whether fd is a socket to somebody whom we may not know: one of
// the network, or a unix socket with a name, where a server has listened and
// accepted it. Pairs, and sockets that lead to systemd's journal, have none.
func strange(fd int) bool {
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return err != unix.ENOTSOCK && err != unix.EBADF
	}
	a, ok := addr.(*unix.SockaddrUnix)
	return !ok || a.Name != "@" // how x/sys reads no name
}

// ownPeer tells whether fd is one of a pair of unix sockets that was made by our
// own user, as mbsync's Tunnel and ssh's ProxyCommand do.
func ownPeer(fd int) bool {
	if strange(fd) {
		return false
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && cred.Pid != 0 && int(cred.Uid) == os.Getuid()
}

// FindStart returns how imapd was started: what the command line says first,
// then what the environment says, then what standard input is. It takes over
// what systemd passes, and is called once.
func (s *Stdio) FindStart(o *Options) Start {
	passed := takePassed()
	s.underTLS = o.TLS
	if s.notify = openNotifier(); s.member != nil {
		s.notify = s.member.notifier()
	}
	switch {
	case s.member != nil:
		s.Start, o.Service = s.member.start()
	case o.Listen:
		s.Start = StartListen
	case underMaster():
		s.Start, s.signals = StartMaster, catch()
	case len(passed) == 1 && passed[0].err == nil && !passed[0].listens:
		s.Start, s.client = StartInetd, &passed[0]
	case passed != nil:
		s.Start, s.passed = StartSystemd, passed
	}
	return s.Start
}

// TurnAway closes the connection of the client for whom inetd has started a
// process that cannot serve: as long as that client waits at the socket, inetd
// starts one process after the other. Nothing is read or written.
func (s *Stdio) TurnAway() {
	if s.Start != StartInetdWait {
		return
	}
	l := s.listening
	if l == nil {
		var err error
		if l, err = net.FileListener(s.socket); err != nil {
			return
		}
	}
	defer l.Close()
	if d, ok := l.(interface{ SetDeadline(time.Time) error }); !ok || d.SetDeadline(time.Now().Add(time.Second)) != nil {
		return
	}
	if c, err := l.Accept(); err == nil {
		c.Close()
	}
}

// listener returns what listens on descriptor 0.
func (s *Stdio) listener() (net.Listener, error) {
	l, err := net.FileListener(s.socket) // makes its own duplicate
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	s.socket.Close()
	s.listening = l
	return l, nil
}

// errNetwork refuses to take a network client for the caller of imapd.
var errNetwork = errors.New("a network server hands over its client without a socket on standard input: whoever it is would be served without a login")

// networkEnv are the variables by which stunnel, tcpserver, ncat, socat and
// xinetd tell of the client that they serve.
var networkEnv = []string{"REMOTE_HOST", "REMOTE_ADDR", "TCPREMOTEIP", "SSLREMOTEIP", "NCAT_REMOTE_ADDR", "SOCAT_PEERADDR", "PROTO"}

// forgetLauncher removes what launchers say in the environment, once it has been
// looked at: it is about one client, and no child needs it.
func forgetLauncher() {
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		for _, prefix := range []string{"LISTEN_", "REMOTE_", "TCPREMOTE", "TCPLOCAL", "IPCREMOTE", "IPCLOCAL", "IPCCONN", "SSLREMOTE", "SSL_CLIENT_", "NCAT_", "SOCAT_",
			"SSH_CLIENT", "SSH_CONNECTION", "SSH_ORIGINAL_COMMAND", "SSH_TTY"} {
			if name == "PROTO" || strings.HasPrefix(name, prefix) {
				os.Unsetenv(name)
			}
		}
	}
}

// sshClient returns the address that sshd(8) says it serves, in brackets, or
// what is to be logged without. The user could have made it up, but who may run
// imapd may write to syslog as well.
func sshClient() string {
	from, _, _ := strings.Cut(os.Getenv("SSH_CONNECTION"), " ")
	if ip, err := netip.ParseAddr(from); err == nil {
		return "[" + ip.Unmap().WithZone("").String() + "]"
	}
	return "[local]"
}

// mayTunnel returns why the client of a StartTunnel cannot be the caller.
func (s *Stdio) mayTunnel() error {
	for _, name := range networkEnv {
		if os.Getenv(name) != "" {
			return fmt.Errorf("%w (%s is set)", errNetwork, name)
		}
	}
	if s.behind {
		return fmt.Errorf("%w (its socket is on standard output or error)", errNetwork)
	}
	return nil
}

// tunnel takes the client of a StartTunnel from the descriptors 0 and 1, which
// lead to /dev/null from then on, as does 2 where it is the same file.
func (s *Stdio) tunnel() (net.Conn, error) {
	if s.socket != nil && s.both {
		return s.connection()
	}
	hide := mixed()
	var in reader
	var err error
	if s.socket != nil {
		in, err = s.connection()
	} else {
		in, err = reopen(0, unix.O_RDONLY)
	}
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	out, err := reopen(1, unix.O_WRONLY)
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("standard output: %w", err)
	}
	client := []int{0, 1}
	if hide {
		client = append(client, 2)
	}
	if err := silence(client...); err != nil {
		return nil, err
	}
	s.Hidden = s.Hidden || hide
	return &stream{in: in, out: out}, nil
}

// mixed tells whether standard error is the client's as well.
func mixed() bool { return sameFile(0, 2) || sameFile(1, 2) }

// Remark tells the caller of a tunnel something, on standard error, where that is
// not what the client reads. A person at a terminal of this machine reads both.
func (s *Stdio) Remark(text string) {
	if !s.Hidden && (!mixed() || person()) {
		fmt.Fprintln(os.Stderr, "imapd:", text)
	}
}

// connection returns the client whose socket was on descriptor 0.
func (s *Stdio) connection() (net.Conn, error) {
	c, err := net.FileConn(s.socket) // makes its own duplicate
	s.socket.Close()
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return c, nil
}

// reopen returns a file of our own for what descriptor fd leads to: the launcher
// shares fd's, and must not find its terminal non-blocking when we are gone.
// What has no name in /proc (a socket, another user's pipe) is shared.
func reopen(fd, flags int) (*os.File, error) {
	name := fmt.Sprintf("/proc/self/fd/%d", fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	regular := st.Mode&unix.S_IFMT == unix.S_IFREG // has an offset, and never blocks
	if !regular {
		if f, err := os.OpenFile(name, flags|unix.O_NONBLOCK|unix.O_NOCTTY, 0); err == nil {
			return f, nil
		}
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	if !regular {
		if err := unix.SetNonblock(dup, true); err != nil {
			unix.Close(dup)
			return nil, err
		}
	}
	return os.NewFile(uintptr(dup), name), nil
}

// silence makes descriptors lead to /dev/null.
func silence(descriptors ...int) error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	defer unix.Close(null)
	for _, n := range descriptors {
		if err := unix.Dup3(null, n, 0); err != nil {
			return fmt.Errorf("descriptor %d: %w", n, err)
		}
	}
	return nil
}

// terminal tells whether the descriptor n is a terminal.
func terminal(n int) bool {
	_, err := unix.IoctlGetTermios(n, unix.TCGETS)
	return err == nil
}

// person tells whether a person is at a terminal of this machine. Through ssh it
// may be a program that reads what we say.
func person() bool { return terminal(0) && terminal(2) && os.Getenv("SSH_CONNECTION") == "" }

// hint tells a person at a terminal what this is.
func hint(who *Caller) {
	if person() {
		fmt.Fprintf(os.Stderr, "imapd: this is IMAP with the mail of %s; \"a LOGOUT\" ends it\r\n", who.Name)
	}
}

// sameFile tells whether two descriptors lead to the same file or socket.
func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}
