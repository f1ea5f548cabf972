package test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/test/peer"
)

// A launched server has been started by a real launcher, or will be when a
// client connects.
type launched struct {
	network, addr string
	tls           bool // from the first octet
}

// A launcher is a row of TestLaunchers.
type launcher struct {
	name string
	// start starts the launcher for imapd with the command line imapd, in the
	// room r.
	start func(r *peer.Room, t *testing.T, imapd []string) launched
	// from is the client's address, and host how it is logged.
	from, host string
	// stays says that the process serves more clients than one, and again that
	// the launcher starts another for those who come later.
	stays, again bool
	// sockets is how many sockets the process has that serves: those of the launcher,
	// of the client, of the log where that is syslog, and in a daemon of imapctl and
	// to its parent.
	sockets int
	// ended is what the launcher writes of the end of process %d, which it has
	// started.
	ended string
}

var launchers = []launcher{
	{name: "inetd nowait", start: inetd("nowait"), from: "127.0.0.7", host: "[127.0.0.7]", sockets: 2},
	{name: "inetd wait", start: inetd("wait"), from: "127.0.0.7", host: "[127.0.0.7]", sockets: 5, stays: true, again: true},
	{name: "xinetd", start: xinetd("no"), from: "127.0.0.7", host: "[127.0.0.7]", sockets: 2, ended: `EXIT: imap status=0 pid=%d\b`},
	{name: "xinetd wait", start: xinetd("yes"), from: "127.0.0.7", host: "[127.0.0.7]", sockets: 5, stays: true, again: true, ended: `EXIT: imap status=0 pid=%d\b`},
	{name: "systemd", start: activate("tcp", 0), from: "127.0.0.7", host: "[127.0.0.7]", sockets: 6, stays: true},
	{name: "systemd TLS", start: activate("tcp", 1), from: "127.0.0.7", host: "[127.0.0.7]", sockets: 6, stays: true},
	{name: "systemd unix", start: activate("unix", 2), host: "[unix socket]", sockets: 6, stays: true},
	{name: "systemd accept", start: activate("tcp", 0, "-a"), from: "127.0.0.7", host: "[127.0.0.7]", sockets: 2, ended: `Child %d died with code 0`},
	{name: "systemd accept unix", start: activate("unix", 0, "-a"), host: "[unix socket]", sockets: 2, ended: `Child %d died with code 0`},
	{name: "systemd inetd", start: activate("tcp", 0, "--inetd"), from: "127.0.0.7", host: "[127.0.0.7]", sockets: 5, stays: true},
	{name: "systemd accept inetd", start: activate("tcp", 0, "-a", "--inetd"), from: "127.0.0.7", host: "[127.0.0.7]", sockets: 2, ended: `Child %d died with code 0`},
	{name: "systemd accept inetd unix", start: activate("unix", 0, "-a", "--inetd"), host: "[unix socket]", sockets: 2, ended: `Child %d died with code 0`},
	{name: "stunnel", start: stunnel, from: "127.0.0.7", host: "[127.0.0.7]", sockets: 2, ended: `process %d finished with code 0`},
	{name: "tcpserver", start: tcpserver, from: "127.0.0.7", host: "[127.0.0.7]", sockets: 2, ended: `end %d status 0`},
	{name: "s6-ipcserver", start: ipcserver, host: "[unix socket]", sockets: 2, ended: `end pid %d uid \d+ exitcode 0`},
}

// TestLaunchers starts our server with each launcher as a site does, logs in over
// it, and looks what the process has of the launcher's: descriptors, variables,
// the client's address; and how it ends.
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
// environment of a process.
func launcherConf(t *testing.T, s *peer.Server, r *peer.Room) string {
	t.Helper()
	text, err := os.ReadFile(s.ConfFile())
	if err == nil {
		err = os.Mkdir(r.Dir+"/env", 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	peer.Own(t, r.Dir+"/env")
	return r.File("imapd.conf", string(text)+"debug_command: : %s; env >"+r.Dir+"/env/%d\n")
}

func (l launcher) check(t *testing.T, s *peer.Server, r *peer.Room, at launched) {
	connect := func() net.Conn {
		conn := peer.Dial(t, at.network, at.addr, l.from)
		if at.tls {
			return tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		}
		return conn
	}
	c := s.LoginOn(t, connect(), s.User)
	c.Do("SELECT INBOX")
	m := r.Told(`imapd\[(\d+)\]: login: (\[[^]]*\]) jane plaintext(?:\+TLS)? User logged in`)
	if m[2] != l.host {
		t.Errorf("logged as %s, want %s", m[2], l.host)
	}
	pid := number(m[1])
	checkDescriptors(t, pid, l)
	noCoreDump(t, pid)
	checkEnvironment(t, filepath.Join(r.Dir, "env", m[1]))
	started := pid // by the launcher
	if l.stays {
		started = number(status(t, pid, "PPid"))
		if got := status(t, started, "Uid"); got != "0 0 0 0" {
			t.Errorf("the parent of the server is %s", got)
		}
		uid, gid := peer.MailUID()
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
	c.Do("LOGOUT")
	if l.stays {
		// The next client is served by the same process, and then it has had
		// nobody for as long as -T says.
		s.LoginOn(t, connect(), s.User).Do("LOGOUT")
		again := r.Told(`(?s)imapd\[\d+\]: login: .*imapd\[(\d+)\]: login: `)
		if again[1] != m[1] {
			t.Errorf("process %s serves the next client", again[1])
		}
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(ended), Events: unix.POLLIN}}, 20000); n != 1 {
		t.Fatalf("process %d has not ended: %v", started, err)
	}
	if l.again {
		s.LoginOn(t, connect(), s.User).Do("LOGOUT")
	}
	if l.ended != "" {
		r.Told(fmt.Sprintf(l.ended, started))
	}
	// inetd says so of what ends otherwise.
	if text := r.Syslog(); strings.Contains(text, "exit status") || strings.Contains(text, "panic") {
		t.Error("see the log")
	}
}

// checkDescriptors looks what process pid has open: what it opened itself, and the
// sockets that it is to have.
func checkDescriptors(t *testing.T, pid int, l launcher) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for _, e := range list {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		switch {
		case strings.HasPrefix(to, "socket:") && number(e.Name()) > 2:
			got++
		case strings.HasPrefix(to, "anon_inode:"), strings.HasPrefix(to, "/sys/fs/cgroup"), to == "/dev/null", strings.Contains(to, "/Maildir"):
		case number(e.Name()) <= 2 && strings.HasSuffix(to, ".out"): // the launcher's own log
		case strings.HasPrefix(to, "/tmp/imapd-"): // the configuration, the mail
		default:
			t.Errorf("descriptor %s leads to %s", e.Name(), to)
		}
	}
	if got != l.sockets {
		t.Errorf("%d sockets are open, want %d", got, l.sockets)
	}
}

// checkEnvironment looks that a child of the server, whose environment is in
// file, knows nothing of the launcher's client.
func checkEnvironment(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "PWD=") {
		t.Errorf("environment: %q, %v", text, err)
	}
	for line := range strings.Lines(string(text)) {
		if m := launcherVariable.FindString(line); m != "" {
			t.Errorf("%s is in the environment", m)
		}
	}
}

var launcherVariable = regexp.MustCompile(`^(LISTEN_\w+|REMOTE_\w+|TCP\w+|IPC\w+|PROTO|NOTIFY_SOCKET|WATCHDOG_\w+)=`)

// TestSSH reads mail as root does through sshd: without a login, with and without
// a terminal.
func TestSSH(t *testing.T) {
	t.Parallel()
	peer.Need(t, "ssh", "ssh-keygen", "sshd")
	s := peer.Imapd(t, basic(t), peer.Options{})
	r := peer.NewRoom(t)
	addr := peer.FreeAddr(t)
	host, port, _ := net.SplitHostPort(addr)
	for _, key := range []string{"host", "mine"} {
		run(t, r.Dir, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", r.Dir+"/"+key)
	}
	conf := r.File("sshd_config", fmt.Sprintf("ListenAddress %s\nHostKey %s/host\nAuthorizedKeysFile %s/mine.pub\nStrictModes no\nPermitRootLogin yes\nUsePAM no\nPidFile none\n", addr, r.Dir, r.Dir))
	r.Start("sshd", "/usr/sbin/sshd", "-D", "-e", "-f", conf)
	peer.Dial(t, "tcp", addr, "").Close()
	for _, terminal := range []string{"-T", "-tt"} {
		c := exec.Command("ssh", terminal, "-q", "-p", port, "-i", r.Dir+"/mine", "-b", "127.0.0.7", "-F", "none", "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile="+r.Dir+"/known", "root@"+host, "exec "+peer.Binary(t)+" -C "+s.ConfFile())
		c.Stdin = strings.NewReader("a SELECT INBOX\nb LOGOUT\n")
		out, err := c.CombinedOutput()
		for _, want := range []string{"* PREAUTH ", "\na OK ", "\nb OK "} {
			if !strings.Contains("\n"+string(out), want) {
				t.Errorf("%s: no %q in %q, %v", terminal, want, out, err)
			}
		}
		if err != nil {
			t.Errorf("%s: %v", terminal, err)
		}
	}
}

// TestTerminal talks to the server by hand.
func TestTerminal(t *testing.T) {
	t.Parallel()
	peer.Need(t, "script")
	s := peer.Imapd(t, basic(t), peer.Options{})
	c := exec.Command("script", "-qec", peer.Binary(t)+" -C "+s.ConfFile(), "/dev/null")
	c.Stdin = strings.NewReader("a SELECT INBOX\nb LOGOUT\n")
	out, err := c.CombinedOutput()
	if !regexp.MustCompile(`(?s)imapd: this is IMAP with the mail of \w+; .*\* PREAUTH .*\na OK .*\nb OK `).Match(out) || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
}

// inetd is openbsd-inetd.
func inetd(wait string) func(*peer.Room, *testing.T, []string) launched {
	return func(r *peer.Room, t *testing.T, imapd []string) launched {
		addr := peer.FreeAddr(t)
		host, port, _ := net.SplitHostPort(addr)
		conf := r.File("inetd.conf", fmt.Sprintf("%s:%s stream tcp %s root %s imapd -T1 %s\n", host, port, wait, peer.Binary(t), strings.Join(imapd, " ")))
		r.Start("inetd", "/usr/sbin/inetd", "-d", conf)
		return launched{network: "tcp", addr: addr}
	}
}

// xinetd is not installed beside inetd: its package is unpacked.
func xinetd(wait string) func(*peer.Room, *testing.T, []string) launched {
	return func(r *peer.Room, t *testing.T, imapd []string) launched {
		addr := peer.FreeAddr(t)
		host, port, _ := net.SplitHostPort(addr)
		conf := r.File("xinetd.conf", fmt.Sprintf(`service imap
{
	type = UNLISTED
	socket_type = stream
	protocol = tcp
	bind = %s
	port = %s
	wait = %s
	user = root
	server = %s
	server_args = -T1 %s
	log_type = SYSLOG daemon
	log_on_success = PID HOST EXIT
}
`, host, port, wait, peer.Binary(t), strings.Join(imapd, " ")))
		r.Start("xinetd", peer.Unpacked(t, "xinetd", "usr/sbin/xinetd"), "-dontfork", "-f", conf)
		return launched{network: "tcp", addr: addr}
	}
}

// activate is systemd-socket-activate with a TCP socket named imap, one named
// imaps and a unix socket, of which the client takes number which.
func activate(network string, which int, options ...string) func(*peer.Room, *testing.T, []string) launched {
	return func(r *peer.Room, t *testing.T, imapd []string) launched {
		addrs := []string{peer.FreeAddr(t), peer.FreeAddr(t), r.Dir + "/imap"}
		// So that the log goes where it goes under systemd.
		args := []string{"systemd-socket-activate", "-E", "JOURNAL_STREAM=1:1"}
		args = append(args, options...)
		if len(options) == 0 {
			args = append(args, "--fdname=imap:imaps:local")
		} else { // one socket only
			addrs = map[string][]string{"tcp": addrs[:1], "unix": addrs[2:]}[network]
		}
		for _, a := range addrs {
			args = append(args, "-l", a)
		}
		r.Start("activate", append(append(args, peer.Binary(t), "-T1"), imapd...)...)
		return launched{network: network, addr: addrs[which], tls: which == 1}
	}
}

func stunnel(r *peer.Room, t *testing.T, imapd []string) launched {
	addr := peer.FreeAddr(t)
	cert := peer.Certificate(t, r.Dir)
	conf := r.File("stunnel.conf", fmt.Sprintf(`foreground = yes
debug = 7
pid =
cert = %s
key = %s
[imaps]
accept = %s
exec = %s
execArgs = imapd -p 128 %s
`, cert, r.Dir+"/key.pem", addr, peer.Binary(t), strings.Join(imapd, " ")))
	r.Start("stunnel", "stunnel4", conf)
	return launched{network: "tcp", addr: addr, tls: true}
}

func tcpserver(r *peer.Room, t *testing.T, imapd []string) launched {
	addr := peer.FreeAddr(t)
	host, port, _ := net.SplitHostPort(addr)
	r.Start("tcpserver", append([]string{"tcpserver", "-v", "-R", "-H", "-l0", host, port, peer.Binary(t)}, imapd...)...)
	return launched{network: "tcp", addr: addr}
}

func ipcserver(r *peer.Room, t *testing.T, imapd []string) launched {
	addr := r.Dir + "/imap"
	r.Start("s6-ipcserver", append([]string{"s6-ipcserver", "-v", "-a", "0666", addr, peer.Binary(t)}, imapd...)...)
	return launched{network: "unix", addr: addr}
}

// TestNoTunnel starts our server so that a network client looks like a tunnel's:
// it must not be served without a login.
func TestNoTunnel(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{})
	r := peer.NewRoom(t)
	addr := peer.FreeAddr(t)
	cert := peer.Certificate(t, r.Dir)
	conf := r.File("stunnel.conf", fmt.Sprintf("foreground = yes\npid =\ncert = %s\nkey = %s/key.pem\n[imaps]\naccept = %s\npty = yes\nexec = %s\nexecArgs = imapd -C %s\n",
		cert, r.Dir, addr, peer.Binary(t), s.ConfFile()))
	r.Start("stunnel", "stunnel4", conf)
	other := peer.FreeAddr(t)
	r.Start("socat", "socat", "TCP-LISTEN:"+port(other)+",bind=127.0.0.1,fork", "EXEC:"+peer.Binary(t)+" -C "+s.ConfFile()+",pipes")
	third := peer.FreeAddr(t)
	// Neither a socket on standard input nor a word in the environment.
	script := r.File("logged", "#!/bin/sh\ntee "+r.Dir+"/input | "+peer.Binary(t)+" -C "+s.ConfFile()+"\n")
	must(0, os.Chmod(script, 0o755))(t)
	host, number, _ := net.SplitHostPort(third)
	r.Start("inetd", "/usr/sbin/inetd", "-d", r.File("inetd.conf", fmt.Sprintf("%s:%s stream tcp nowait root %s logged\n", host, number, script)))
	for name, conn := range map[string]net.Conn{
		"stunnel": tls.Client(peer.Dial(t, "tcp", addr, ""), &tls.Config{InsecureSkipVerify: true}),
		"socat":   peer.Dial(t, "tcp", other, ""),
		"tee":     peer.Dial(t, "tcp", third, ""),
	} {
		if name == "tee" { // it waits for us to end as well
			fmt.Fprint(conn, "a CAPABILITY\r\n")
			must(0, conn.(*net.TCPConn).CloseWrite())(t)
		}
		got, err := io.ReadAll(conn)
		if strings.Contains(string(got), "PREAUTH") || strings.Contains(string(got), "* OK") {
			t.Errorf("%s: the client got %q, %v", name, got, err)
		}
	}
	r.Told(`imapd\[\d+\]: a network server hands over its client without a socket`)
}

// TestNoStorm has inetd start a server that cannot start, with wait: for each
// client it does so once, and the client sees its connection closed.
func TestNoStorm(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ conf, logged string }{
		"nothing can be read": {"configdirectory: nowhere\n", `configdirectory: "nowhere"`},
		// The parent never looks at that.
		"no certificate": {"configdirectory: /tmp\ncyrus_user: 65534\ntls_server_cert: /dev/null\ntls_server_key: /dev/null\n", `tls_server_cert`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := peer.NewRoom(t)
			at := inetd("wait")(r, t, []string{"-C", r.File("imapd.conf", tt.conf)})
			const clients = 5
			for range clients {
				conn := peer.Dial(t, at.network, at.addr, "")
				if out, err := untilEnd(conn); err != nil || out != "" {
					t.Errorf("the client gets %q, %v", out, err)
				}
			}
			r.Logged(`imapd\[\d+\]: .*/imapd\.conf:\d+: ` + tt.logged)
			out, err := os.ReadFile(r.Dir + "/inetd.out")
			if n := strings.Count(string(out), " execv "); err != nil || n != clients {
				t.Errorf("%d processes for %d clients, %v", n, clients, err)
			}
		})
	}
}
