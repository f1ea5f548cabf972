package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"imapd/test/peer"
)

// The program is tested as a whole: the test binary starts itself as imapd,
// with childEnv set to the words of the command line.
const childEnv = "IMAPD_TEST_CHILD"

// mailUser is who the server becomes where root runs the tests.
const mailUser = 65534

func TestMain(m *testing.M) {
	if what, ok := os.LookupEnv(childEnv); ok {
		os.Args = strings.Fields(what)
		main()
	}
	os.Exit(m.Run())
}

// A site is a configuration directory, a Maildir and a configuration.
type site struct {
	t    *testing.T
	dir  string
	addr string
	log  bytes.Buffer
}

// newSite makes a site with the users alice and, as an admin, root@example.org.
func newSite(t *testing.T, lines ...string) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), addr: freePort(t)}
	for d := s.dir; d != filepath.Dir(os.TempDir()) && d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	for _, d := range []string{"msg", "log", "Maildir/cur", "Maildir/new", "Maildir/tmp"} {
		must(t, os.MkdirAll(filepath.Join(s.dir, d), 0o755))
	}
	s.write("passwd", "alice:{PLAIN}secret::::::\nroot@example.org:{PLAIN}secret::::::\n")
	lines = append(lines,
		"configdirectory: "+s.dir,
		"listen: imap://"+s.addr,
		"maildir: "+s.dir+"/Maildir",
		"sasl_pwcheck_method: passwd-file",
		"sasl_passwd_file: "+s.dir+"/passwd",
		"admins: root@example.org",
		"allowplaintext: yes",
		"failedloginpause: 0",
		"cyrus_user: "+fmt.Sprint(mailUser))
	s.write("imapd.conf", strings.Join(lines, "\n")+"\n")
	if os.Getuid() == 0 {
		must(t, filepath.Walk(s.dir, func(name string, _ os.FileInfo, err error) error {
			if err != nil {
				return err
			}
			return os.Chown(name, mailUser, mailUser)
		}))
	}
	return s
}

// write writes a file of the site in one step.
func (s *site) write(name, text string) {
	s.t.Helper()
	name = filepath.Join(s.dir, name)
	must(s.t, os.WriteFile(name+".new", []byte(text), 0o644))
	must(s.t, os.Rename(name+".new", name))
}

// command returns imapd with some options.
func (s *site) command(options string, env ...string) *exec.Cmd {
	self, err := os.Executable()
	must(s.t, err)
	c := exec.Command(self)
	c.Dir = s.dir
	c.Env = append([]string{childEnv + "=imapd " + options, "HOME=" + s.dir, "GORACE=atexit_sleep_ms=0"}, env...)
	return c
}

// listen starts imapd -l and waits until it answers.
func (s *site) listen() *exec.Cmd {
	s.t.Helper()
	c := s.command("-l -C " + s.dir + "/imapd.conf")
	r, w, err := os.Pipe()
	must(s.t, err)
	c.Stderr = w
	must(s.t, c.Start())
	w.Close()
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		s.log.WriteString(line)
		if err != nil {
			s.t.Fatalf("imapd did not start: %s", s.log.String())
		}
		if strings.Contains(line, "]: ready") {
			break
		}
	}
	drained := make(chan struct{})
	go func() { io.Copy(&s.log, lines); close(drained) }()
	s.t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		<-drained
		r.Close()
	})
	return c
}

// A client speaks IMAP a line at a time.
type client struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func (s *site) dial() *client {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	must(s.t, err)
	return newClient(s.t, c)
}

func newClient(t *testing.T, c net.Conn) *client {
	t.Cleanup(func() { c.Close() })
	return &client{c, t, bufio.NewReader(c)}
}

// login greets and logs in.
func (s *site) login(user string) *client {
	s.t.Helper()
	c := s.dial()
	c.want("* OK ")
	c.send("l LOGIN %s secret", user)
	c.want("l OK ")
	return c
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	_, err := fmt.Fprintf(c, format+"\r\n", args...)
	must(c.t, err)
}

// want reads lines until one starts with prefix; others must be untagged.
func (c *client) want(prefix string) string {
	c.t.Helper()
	must(c.t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
	for {
		line, err := c.r.ReadString('\n')
		if strings.HasPrefix(line, prefix) {
			return line
		}
		if err != nil || !strings.HasPrefix(line, "* ") || strings.HasPrefix(line, "* BYE") {
			c.t.Fatalf("got %q, %v, want %q", line, err, prefix)
		}
	}
}

func (c *client) logout() {
	c.t.Helper()
	c.send("z LOGOUT")
	c.want("* BYE ")
	c.want("z OK ")
	c.end()
}

// end checks that nothing more comes.
func (c *client) end() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); len(rest) != 0 || err != nil {
		c.t.Errorf("at the end: %q, %v", rest, err)
	}
}

func TestTunnel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if os.Getuid() == 0 { // whose end of the sockets it is
		conf, err := os.ReadFile(s.dir + "/imapd.conf")
		must(t, err)
		s.write("imapd.conf", strings.Replace(string(conf), "cyrus_user: "+fmt.Sprint(mailUser), "cyrus_user: root", 1))
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	conn, err := net.FileConn(ours)
	must(t, err)
	ours.Close()
	cmd := s.command("-C " + s.dir + "/imapd.conf")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	must(t, cmd.Start())
	theirs.Close()
	c := newClient(t, conn)
	c.want("* PREAUTH ")
	c.send("a LOGIN alice secret")
	c.want("a BAD ")
	c.send("b SELECT INBOX")
	c.want("b OK ")
	c.logout()
	must(t, cmd.Wait())
	if _, err := os.Stat(s.dir + "/Maildir/dovecot-uidlist"); err != nil {
		t.Errorf("not the Maildir of the caller: %v", err)
	}
}

func TestInetd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	l, err := net.Listen("tcp", s.addr)
	must(t, err)
	defer l.Close()
	c := s.dial()
	conn, err := l.Accept()
	must(t, err)
	fd, err := conn.(*net.TCPConn).File()
	must(t, err)
	conn.Close()
	cmd := s.command("-C" + s.dir + "/imapd.conf")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = fd, fd, fd
	must(t, cmd.Start())
	fd.Close()
	c.want("* OK ")
	c.send("a LOGIN alice wrong")
	c.want("a NO ")
	c.send("b LOGIN alice secret")
	c.want("b OK ")
	c.send("c SELECT INBOX")
	c.want("c OK ")
	if os.Getuid() == 0 {
		info, err := os.Stat(s.dir + "/Maildir/dovecot-uidlist")
		must(t, err)
		if uid := info.Sys().(*syscall.Stat_t).Uid; uid != mailUser {
			t.Errorf("the UID list belongs to %d", uid)
		}
	}
	c.logout()
	must(t, cmd.Wait())
}

// A configuration that is wrong tells an inetd client nothing.
func TestInetdWrong(t *testing.T) {
	t.Parallel()
	s := newSite(t, "no_such_option: 1")
	l, err := net.Listen("tcp", s.addr)
	must(t, err)
	defer l.Close()
	c := s.dial()
	conn, err := l.Accept()
	must(t, err)
	fd, err := conn.(*net.TCPConn).File()
	must(t, err)
	conn.Close()
	cmd := s.command("-C " + s.dir + "/imapd.conf")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = fd, fd, fd
	_ = cmd.Run() // the exit code tells
	fd.Close()
	if code := cmd.ProcessState.ExitCode(); code != 78 {
		t.Errorf("exit code %d", code)
	}
	c.end()
}

// The notices, while sessions run.
func TestNotices(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.listen()
	s.write("msg/motd", "[drink] water\n")
	c := s.dial()
	c.want("* OK ")
	if got := c.want("* OK [ALERT] "); got != "* OK [ALERT] drink] water\r\n" {
		t.Errorf("got %q", got)
	}
	idle, waiting, admin := s.login("alice"), s.login("alice"), s.login("root@example.org")
	idle.send("a SELECT INBOX")
	idle.want("a OK ")
	idle.send("b IDLE")
	idle.want("+ ")

	s.write("msg/shutdown", "back at noon\nnot this\n")
	for _, c := range []*client{idle, waiting, c, s.dial()} {
		if got := c.want("* BYE "); got != "* BYE [ALERT] back at noon\r\n" {
			t.Errorf("got %q", got)
		}
		c.end()
	}
	admin.send("a NOOP")
	admin.want("a OK ")

	must(t, os.Remove(s.dir+"/msg/shutdown"))
	s.login("alice")
	s.write("msg/shutdown.imap", "")
	s.dial().want("* BYE [ALERT] ")
}

// log/USER turns the log of a session on and off while it runs.
func TestTelemetry(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cmd := s.listen()
	c := s.login("alice")
	dir := filepath.Join(s.dir, "log", "alice")
	must(t, os.Mkdir(dir+".new", 0o700))
	must(t, os.Chown(dir+".new", ownerOf(t, s.dir), -1))
	must(t, os.Rename(dir+".new", dir))
	pid := cmd.Process.Pid
	if serving := peer.Children(pid); len(serving) == 1 {
		pid = serving[0] // root's tests: it has a parent
	}
	name := filepath.Join(dir, fmt.Sprint(pid))
	want := regexp.MustCompile(`^---------- alice .*\n\n(>\d+>[ln] OK .*\r\n)?(<\d+<n NOOP\r\n>\d+>n OK .*\r\n)+$`)
	var got []byte
	for deadline := time.Now().Add(20 * time.Second); !want.Match(got); {
		c.send("n NOOP")
		c.want("n OK ")
		got, _ = os.ReadFile(name)
		if time.Now().After(deadline) {
			t.Fatalf("got %q", got)
		}
	}
	c2 := s.login("alice")
	c2.logout()
	if b, err := os.ReadFile(name + ".1"); err != nil || bytes.Contains(b, []byte("secret")) || !bytes.Contains(b, []byte("<z LOGOUT\r\n>")) {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cmd := s.listen()
	c := s.login("alice")
	must(t, cmd.Process.Signal(syscall.SIGHUP))
	c.send("a NOOP")
	c.want("a OK ")
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	c.want("* BYE ")
	c.end()
	must(t, cmd.Wait())
}

// What is said without serving anybody.
func TestAnswers(t *testing.T) {
	t.Parallel()
	good, bad := newSite(t), newSite(t, "timeuot: 5", "umask: 9", "tls_server_cert: /nonexistent", "tls_server_key: /nonexistent")
	for _, tt := range []struct {
		s            *site
		words        string
		code         int
		stdout, errs []string
	}{
		{good, "imapd -V", 0, []string{"imapd devel"}, nil},
		{good, "imapd -t -C CONF", 0, []string{"configdirectory: " + good.dir, "allowplaintext: yes"}, []string{"warning", "all users would have one"}},
		{bad, "imapd -tCCONF", 78, nil, []string{"imapd.conf:1: ", "timeout", "imapd.conf:2: ", "imapd.conf:3: "}},
		{bad, "imapd -l -C CONF", 78, nil, []string{"imapd.conf:1: ", "imapd.conf:2: "}},
		{good, "imapd -x", 64, nil, []string{"-x", "usage: imapd"}},
		{good, "imapd -lHCCONF", 78, nil, []string{"haproxy_trusted_networks"}},
		{good, "imapd -C CONF", 64, nil, []string{"imapd -l"}},
		{good, "imapctl -C CONF who", 0, nil, nil},
		{good, "imapctl version", 0, []string{"imapctl devel"}, nil},
		{good, "imapctl -C CONF frobnicate", 64, nil, []string{"frobnicate", "usage: imapctl"}},
		{good, "imapd -l -C /nonexistent", 78, nil, []string{"/nonexistent: configuration file: no such file"}},
	} {
		c := tt.s.command("")
		c.Env[0] = childEnv + "=" + strings.ReplaceAll(tt.words, "CONF", tt.s.dir+"/imapd.conf")
		var out, errs bytes.Buffer
		c.Stdout, c.Stderr = &out, &errs
		_ = c.Run() // the exit code tells
		if code := c.ProcessState.ExitCode(); code != tt.code {
			t.Errorf("%s: exit code %d, want %d; %s", tt.words, code, tt.code, errs.String())
		}
		for _, w := range tt.stdout {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s: output %q lacks %q", tt.words, out.String(), w)
			}
		}
		for _, w := range tt.errs {
			if !strings.Contains(errs.String(), w) {
				t.Errorf("%s: errors %q lack %q", tt.words, errs.String(), w)
			}
		}
		if tt.stdout == nil && out.Len() != 0 || tt.errs == nil && errs.Len() != 0 {
			t.Errorf("%s: output %q, errors %q", tt.words, out.String(), errs.String())
		}
	}
}

// start starts imapd -l with log as its standard error, and waits until it
// greets.
func (s *site) start(log *os.File, env ...string) *exec.Cmd {
	s.t.Helper()
	c := s.command("-l -C "+s.dir+"/imapd.conf", env...)
	c.Stderr = log
	must(s.t, c.Start())
	log.Close()
	s.t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c
}

// firstLine reads the log until imapd is ready, and returns that line.
func firstLine(t *testing.T, log io.Reader) string {
	t.Helper()
	line, err := bufio.NewReader(log).ReadString('\n')
	must(t, err)
	return line
}

// TestJournal looks at the form of the log where systemd's journal reads it, and
// where something else does although the variable is there.
func TestJournal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		shift uint64 // between the inode and what the variable says
		want  string
	}{
		{0, `^<6>ready version=devel\n$`},
		{1, `^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ imapd\[\d+\]: ready version=devel\n$`},
	} {
		s := newSite(t)
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		must(t, err)
		ours, theirs := os.NewFile(uintptr(fds[0]), "journal"), os.NewFile(uintptr(fds[1]), "stderr")
		defer ours.Close()
		info, err := theirs.Stat()
		must(t, err)
		st := info.Sys().(*syscall.Stat_t)
		s.start(theirs, fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino+tt.shift))
		if line := firstLine(t, ours); !regexp.MustCompile(tt.want).MatchString(line) {
			t.Errorf("got %q, want %s", line, tt.want)
		}
	}
}

// TestLogReaderHangs holds that a program which reads the log and stops, or
// ends, costs no session: neither its life nor more than a moment.
func TestLogReaderHangs(t *testing.T) {
	t.Parallel()
	s := newSite(t, "chatty: yes")
	r, w, err := os.Pipe()
	must(t, err)
	s.start(w)
	firstLine(t, r)
	c := s.login("alice")
	// More lines than a pipe and the client's own buffers hold.
	for range 3000 {
		c.send("n NOOP with much too much behind it, for the log to be long")
		c.want("n BAD")
		c.send("o NOOP")
		c.want("o OK")
	}
	r.Close()
	d := s.login("alice")
	for range 10 {
		d.send("n NOOP")
		d.want("n OK")
	}
	c.logout()
}

// freePort returns an address of this machine where nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func ownerOf(t *testing.T, name string) int {
	t.Helper()
	info, err := os.Stat(name)
	must(t, err)
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
