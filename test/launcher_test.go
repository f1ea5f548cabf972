package test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/test/peer"
)

// A launched server has been started by a real launcher, or will be when a
// client connects.
type launched struct {
	addr string // host:port, or the path of a unix socket
	tls  bool   // from the first octet
	// enter has another client than the test come in and select INBOX, and leave has it
	// log out; nil where a client logs in at addr.
	enter func() (leave func())
	// process is what was started where that becomes the server, or ends with the
	// server's exit code; else nil.
	process *peer.Process
}

// connect connects to the server, over TCP from an address.
func (at launched) connect(t *testing.T, from string) net.Conn {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(at.addr, "/") {
		network, from = "unix", ""
	}
	conn := peer.Dial(t, network, at.addr, from)
	if at.tls {
		return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: calledName})
	}
	return conn
}

// calledName is the server's name to clients, who send it in the clear before all else.
const calledName = "imap.example.org"

// A launcher is a row of TestLaunchers.
type launcher struct {
	name  string
	start starter
	// from is the client's address; how it is logged is [from] but for host.
	from, host string
	// stays says that the process serves more clients than one, and again that
	// the launcher starts another for those who come later.
	stays, again bool
	// sockets is how many sockets the process has that serves: those of the launcher,
	// of the client, of the log where that is syslog, and in a daemon of imapctl and
	// to its parent. pipes and terminals are what else the client is on.
	sockets, pipes, terminals int
	// log says that descriptor 2 is not the client's, and left as it is.
	log bool
	// ended is what the launcher writes of the end of process %d, which it has
	// started.
	ended string
}

const (
	reaped = `\n%d reaped, status 0\n` // says inetd
	died   = `Child %d died with code 0`
	exited = `EXIT: imap status=0 pid=%d\b`
)

var launchers = []launcher{
	{name: "inetd nowait", start: inetd("nowait"), from: "127.0.0.7", sockets: 2, ended: reaped},
	{name: "inetd IPv6", start: inetd6, from: "::1", sockets: 2, ended: reaped},
	{name: "inetd wait", start: inetd("wait"), from: "127.0.0.7", sockets: 5, stays: true, again: true, ended: reaped},
	{name: "xinetd", start: xinetd("no"), from: "127.0.0.7", sockets: 2, ended: exited},
	{name: "xinetd wait", start: xinetd("yes"), from: "127.0.0.7", sockets: 5, stays: true, again: true, ended: exited},
	{name: "systemd", start: activate(plainSocket), from: "127.0.0.7", sockets: 7, stays: true, log: true},
	{name: "systemd TLS", start: activate(tlsSocket), from: "127.0.0.7", sockets: 7, stays: true, log: true},
	{name: "systemd unix", start: activate(unixSocket), host: "[unix socket]", sockets: 7, stays: true, log: true},
	{name: "systemd IPv6", start: activate(plain6Socket), from: "::1", sockets: 7, stays: true, log: true},
	{name: "systemd accept", start: activate(plainSocket, "-a"), from: "127.0.0.7", sockets: 2, log: true, ended: died},
	{name: "systemd accept unix", start: activate(unixSocket, "-a"), host: "[unix socket]", sockets: 2, log: true, ended: died},
	{name: "systemd accept IPv6", start: activate(plain6Socket, "-a"), from: "::1", sockets: 2, log: true, ended: died},
	{name: "systemd inetd", start: activate(plainSocket, "--inetd"), from: "127.0.0.7", sockets: 5, stays: true, log: true},
	{name: "systemd accept inetd", start: activate(plainSocket, "-a", "--inetd"), from: "127.0.0.7", sockets: 2, log: true, ended: died},
	{name: "systemd accept inetd unix", start: activate(unixSocket, "-a", "--inetd"), host: "[unix socket]", sockets: 2, log: true, ended: died},
	{name: "stunnel", start: stunnel, from: "127.0.0.7", sockets: 2, log: true, ended: `process %d finished with code 0`},
	{name: "tcpserver", start: tcpserver, from: "127.0.0.7", sockets: 2, log: true, ended: `end %d status 0`},
	{name: "s6-ipcserver", start: ipcserver, host: "[unix socket]", sockets: 2, log: true, ended: `end pid %d uid \d+ exitcode 0`},
	{name: "ssh", start: ssh("-T"), from: "127.0.0.7", sockets: 1, pipes: 2, log: true},
	{name: "ssh terminal", start: ssh("-tt"), from: "127.0.0.7", sockets: 1, terminals: 2},
	{name: "terminal", start: byHand, host: "[local]", sockets: 1, terminals: 2},
	{name: "mutt", start: mutt, host: "[local]", sockets: 1, pipes: 2, ended: tunnelEnded},
	{name: "mbsync", start: mbsync, host: "[local]", sockets: 2, log: true, ended: tunnelEnded},
}

// TestLaunchers starts our server with each launcher as a site does, logs in over
// it, and looks what the process has of the launcher's: descriptors, variables,
// the client's address; whose it is; and how it ends.
func TestLaunchers(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{})
	for _, l := range launchers {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			r := peer.NewRoom(t)
			l.check(t, s, r, l.start(r, t, []string{"-D", "-C", launcherConf(t, s, r)}))
		})
	}
}

// launcherConf is the configuration of s, with a debug_command that keeps the
// environment of a process and what it inherits.
func launcherConf(t *testing.T, s *peer.Server, r *peer.Room) string {
	t.Helper()
	must(0, os.Mkdir(r.Dir+"/env", 0o700))(t)
	conf := r.File("imapd.conf", read(t, s.ConfFile())+"debug_command: : %s; { env; ls -l /proc/self/fd; } >"+r.Dir+"/env/%d\n")
	peer.Own(t, r.Dir+"/env")
	peer.Own(t, conf)
	return conf
}

func (l launcher) check(t *testing.T, s *peer.Server, r *peer.Room, at launched) {
	enter := at.enter
	if enter == nil {
		enter = func() (leave func()) {
			c := s.LoginOn(t, at.connect(t, l.from), s.User)
			c.Do("SELECT INBOX")
			return func() { c.Do("LOGOUT") }
		}
	}
	leave := enter()
	m := r.Told(`imapd\[(\d+)\]: login: (\[[^]]*\]) jane (plaintext|plaintext\+TLS|preauth) User logged in`)
	if m[2] != l.host && m[2] != "["+l.from+"]" || (m[3] == "preauth") != (at.enter != nil) {
		t.Errorf("logged as %s with %s", m[2], m[3])
	}
	pid := number(m[1])
	l.checkDescriptors(t, pid)
	checkInherited(t, filepath.Join(r.Dir, "env", m[1]))
	uid, gid := peer.MailUID()
	runsAs(t, pid, uid, gid)
	if at.enter == nil { // it serves others than who has started it
		noCoreDump(t, pid)
	}
	started := pid // by the launcher
	if l.stays {
		started = number(status(t, pid, "PPid"))
		if got := status(t, started, "Uid"); got != "0 0 0 0" {
			t.Errorf("the parent of the server is %s", got)
		}
		unprivileged(t, pid, uid, gid)
		if clients := connected(t, started); len(clients) > 0 {
			t.Errorf("root's process has the client: %v", clients)
		}
	}
	ended, err := unix.PidfdOpen(started, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ended)
	leave()
	if l.stays {
		// The next client is served by the same process, and then it has had
		// nobody for as long as -T says.
		enter()()
		again := r.Told(`(?s)imapd\[\d+\]: login: .*imapd\[(\d+)\]: login: `)
		if again[1] != m[1] {
			t.Errorf("process %s serves the next client", again[1])
		}
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(ended), Events: unix.POLLIN}}, 20000); n != 1 {
		t.Fatalf("process %d has not ended: %v", started, err)
	}
	if l.again {
		enter()()
	}
	switch {
	case l.ended != "":
		r.Told(strings.Replace(l.ended, "%d", strconv.Itoa(started), 1))
	case at.process == nil:
		t.Error("nobody says with which code it ends")
	}
	if at.process != nil && at.process.Code() != 0 {
		t.Errorf("exit code %d", at.process.Code())
	}
	if text := r.Syslog(); strings.Contains(text, "panic") {
		t.Error("see the log")
	}
}

// checkDescriptors looks what process pid has open: what it opened itself, what is
// the client's, and what the launcher has left.
func (l launcher) checkDescriptors(t *testing.T, pid int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	got := launcher{}
	for _, e := range must(os.ReadDir(dir))(t) {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		switch n := number(e.Name()); {
		case n == 2 && to != "/dev/null":
			got.log = true
		case n == 1 && strings.HasSuffix(to, ".out") && l.log: // beside it
		case n <= 2:
			if to != "/dev/null" {
				t.Errorf("descriptor %d leads to %s", n, to)
			}
		case strings.HasPrefix(to, "socket:"):
			got.sockets++
		case strings.HasPrefix(to, "pipe:"):
			got.pipes++
		case strings.HasPrefix(to, "/dev/pts/"):
			got.terminals++
		case strings.HasPrefix(to, "anon_inode:"), strings.HasPrefix(to, "/sys/fs/cgroup"), to == "/dev/null", strings.Contains(to, "/Maildir"):
		case to == peer.Left: // it is no child's
		case strings.HasPrefix(to, os.TempDir()+"/imapd-"): // the configuration, the mail
		default:
			t.Errorf("descriptor %d leads to %s", n, to)
		}
	}
	if got.sockets != l.sockets || got.pipes != l.pipes || got.terminals != l.terminals || got.log != l.log {
		t.Errorf("open are %d sockets, %d pipes, %d terminals, standard error %v; want %d, %d, %d, %v", got.sockets, got.pipes, got.terminals, got.log,
			l.sockets, l.pipes, l.terminals, l.log)
	}
}

// checkInherited looks that a child of the server, which has listed its environment
// and its descriptors in file, knows nothing of the launcher's client and has no more
// open than it needs.
func checkInherited(t *testing.T, file string) {
	t.Helper()
	text := read(t, file)
	if !strings.Contains(text, "PWD=") || !strings.Contains(text, " 0 -> /dev/null\n") {
		t.Errorf("a child has inherited %q", text)
	}
	for line := range strings.Lines(text) {
		if m := launcherVariable.FindString(line); m != "" {
			t.Errorf("%s is in the environment", m)
		}
		// It has opened 1, the file, and 3, the directory that it lists.
		if m := listedDescriptor.FindStringSubmatch(line); m != nil && (number(m[1]) > 3 || strings.HasPrefix(m[2], "/dev/pts") || strings.HasPrefix(m[2], "socket:")) {
			t.Errorf("a child has the descriptor %s, which leads to %s", m[1], m[2])
		}
	}
}

var (
	launcherVariable = regexp.MustCompile(`^(LISTEN_\w+|REMOTE_\w+|TCP\w+|IPC\w+|PROTO|NOTIFY_SOCKET|WATCHDOG_\w+|SSH_(?:C\w+|TTY|ORIGINAL_COMMAND))=`)
	listedDescriptor = regexp.MustCompile(`(\d+) -> (.*)\n$`)
)
