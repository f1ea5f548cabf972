package test

import (
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/test/peer"
)

// needRoot skips a test of what only a server does that root has started.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root starts no server here")
	}
}

// status returns a field of /proc/PID/status.
func status(t *testing.T, pid int, field string) string {
	t.Helper()
	for line := range strings.Lines(read(t, fmt.Sprintf("/proc/%d/status", pid))) {
		if name, value, _ := strings.Cut(line, ":"); name == field {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	t.Fatalf("no %s of %d", field, pid)
	return ""
}

// unprivileged checks that a process is uid's with gid alone, that it has no way
// to more, and that it keeps its memory to itself.
func unprivileged(t *testing.T, pid, uid, gid int) {
	t.Helper()
	runsAs(t, pid, uid, gid)
	if got := status(t, pid, "NoNewPrivs"); got != "1" {
		t.Errorf("%d: NoNewPrivs is %q", pid, got)
	}
	if got := status(t, pid, "Name"); got != "imapd" {
		t.Errorf("%d is called %q where killall and ps look", pid, got)
	}
	closed(t, pid)
}

// runsAs checks that a process is uid's with gid alone, and has no capability.
func runsAs(t *testing.T, pid, uid, gid int) {
	t.Helper()
	four := func(n int) string { return strings.TrimSpace(strings.Repeat(strconv.Itoa(n)+" ", 4)) }
	for field, want := range map[string]string{
		"Uid": four(uid), "Gid": four(gid), "Groups": strconv.Itoa(gid),
		"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapInh": "0000000000000000", "CapAmb": "0000000000000000",
	} {
		if got := status(t, pid, field); got != want {
			t.Errorf("%d: %s is %q, want %q", pid, field, got, want)
		}
	}
}

// closed checks that a process keeps its memory to itself: it leaves no core
// dump, and others of its user cannot look into it.
func closed(t *testing.T, pid int) {
	t.Helper()
	noCoreDump(t, pid)
	// Of a process that can be dumped these belong to its user.
	info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("%d can be looked into: %v, %v", pid, info, err)
	}
}

func noCoreDump(t *testing.T, pid int) {
	t.Helper()
	if limits := read(t, fmt.Sprintf("/proc/%d/limits", pid)); !strings.Contains(limits, "Max core file size        0                    0") {
		t.Errorf("%d: limits\n%s", pid, limits)
	}
}

// allowCoreDumps has what is started from now on begin with a limit that lets it
// leave core dumps.
func allowCoreDumps(t *testing.T) {
	t.Helper()
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
		t.Fatal(err)
	}
}

// TestNoCoreDump looks at the processes that serve where no parent has made them
// so: started by their user, or become that one.
func TestNoCoreDump(t *testing.T) {
	t.Parallel()
	needRoot(t)
	allowCoreDumps(t)
	dir := basic(t)
	one := peer.Imapd(t, dir, peer.Options{Imapd: []string{"privilege_separation: none"}})
	one.Login(t, one.User)
	closed(t, one.PID)

	conn, inetd, err := one.Inetd(t)
	if err != nil {
		t.Fatal(err)
	}
	c := one.LoginOn(t, conn, one.User)
	closed(t, inetd.Process.Pid)
	c.Do("LOGOUT")
	must(0, inetd.Wait())(t)

	master := peer.Master(t, basic(t), peer.Options{}, peer.Service{Name: "imap", More: "prefork=1"})
	master.Login(t, master.User)
	closed(t, pidOf(t, master, master.User))
}

// TestParent looks at the two processes of a server that root has started, with
// files that only root can read.
func TestParent(t *testing.T) {
	t.Parallel()
	needRoot(t)
	allowCoreDumps(t)
	s := peer.Imapd(t, basic(t), peer.Options{})
	uid, gid := peer.MailUID()
	if s.PID == s.Started() {
		t.Fatal("no parent")
	}
	unprivileged(t, s.PID, uid, gid)
	if got := status(t, s.Started(), "Uid"); got != "0 0 0 0" {
		t.Errorf("the parent is %s", got)
	}
	noCoreDump(t, s.Started())
	for _, file := range []string{"key.pem", "passwd", "imapd.conf"} {
		must(0, os.Chown(filepath.Join(s.Dir(), file), 0, 0))(t)
		must(0, os.Chmod(filepath.Join(s.Dir(), file), 0o600))(t)
	}
	session, before := s.Login(t, s.User), serial(t, s)
	s.Renew(t)
	must(0, os.Chown(s.Dir()+"/key.pem", 0, 0))(t)
	line := s.User + ":{PLAIN}" + peer.Password + "::::::\nnew:{PLAIN}" + peer.Password + "::::::\n"
	must(0, os.WriteFile(s.Dir()+"/passwd", []byte(line), 0o600))(t)
	must(0, syscall.Kill(s.Started(), syscall.SIGHUP))(t)
	for limit := time.Now().Add(20 * time.Second); serial(t, s) == before; {
		if time.Now().After(limit) {
			t.Fatal("the certificate is not read again")
		}
	}
	s.Login(t, "new")
	session.Do("NOOP")

	must(0, syscall.Kill(s.Started(), syscall.SIGKILL))(t)
	for limit := time.Now().Add(10 * time.Second); alive(s.PID); <-time.After(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the server lives on without its parent")
		}
	}
}

// TestParentEarlySignals sends signals while the child starts: it must not die of
// them, and hear of them when it can.
func TestParentEarlySignals(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := peer.TempDir(t)
	write(t, dir+"/imapd.conf", fmt.Sprintf("configdirectory: %s\nlisten: unix:%[1]s/imap\nmaildir: %[1]s/Maildir\ncyrus_user: 65534\n", dir))
	log := must(os.Create(dir + "/log"))(t)
	defer log.Close()
	c := exec.Command(peer.Binary(t), "-l", "-C", dir+"/imapd.conf")
	c.Stderr = log
	must(0, c.Start())(t)
	for born := false; !born; { // peer.Children looks at all processes, which takes too long
		tasks := must(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", c.Process.Pid)))(t)
		if len(tasks) == 0 {
			t.Fatal("no child: " + read(t, log.Name()))
		}
		for _, task := range tasks {
			text, _ := os.ReadFile(task) // the thread may have ended
			born = born || len(text) > 0
		}
	}
	must(0, c.Process.Signal(syscall.SIGHUP))(t)
	eventually(t, func() string { return "not reloaded: " + read(t, log.Name()) }, func() bool {
		return strings.Contains(read(t, log.Name()), "]: reloaded") || !alive(c.Process.Pid)
	})
	must(0, c.Process.Signal(syscall.SIGTERM))(t)
	if err := c.Wait(); err != nil {
		t.Errorf("%v: %s", err, read(t, log.Name()))
	}
}

// TestParentCertificates has certificates renewed where only root can look, as
// in certbot's directories: no signal is needed there either.
func TestParentCertificates(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s := peer.Imapd(t, basic(t), peer.Options{})
	live := filepath.Join(s.Dir(), "live")
	must(0, os.Mkdir(live, 0o700))(t)
	peer.Certificate(t, live)
	edit(t, s, "tls_server_cert: "+s.Dir(), "tls_server_cert: "+live)
	edit(t, s, "tls_server_key: "+s.Dir(), "tls_server_key: "+live)
	notify(t, s, syscall.SIGHUP, "]: reloaded")
	before := serial(t, s)
	peer.Certificate(t, live)
	eventually(t, func() string { return "the certificate is not read again" }, func() bool { return serial(t, s) != before })
}

// TestParentSockets has servers that get their listening sockets from a launcher
// read a key again that only root can read. Their parents have no client.
func TestParentSockets(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for name, start := range map[string]starter{"systemd": activate(tlsSocket), "inetd wait": inetd("wait")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := peer.Imapd(t, basic(t), peer.Options{})
			r := peer.NewRoom(t)
			for _, file := range []string{"key.pem", "passwd", "imapd.conf"} {
				must(0, os.Chown(filepath.Join(s.Dir(), file), 0, 0))(t)
				must(0, os.Chmod(filepath.Join(s.Dir(), file), 0o600))(t)
			}
			at := start(r, t, []string{"-s", "-T", "60", "-C", s.ConfFile()})
			session := s.LoginOn(t, tls.Client(peer.Dial(t, "tcp", at.addr, ""), &tls.Config{InsecureSkipVerify: true}), s.User)
			parent := number(status(t, number(r.Told(`imapd\[(\d+)\]: login: `)[1]), "PPid"))
			if clients := connected(t, parent); len(clients) > 0 || len(connected(t, onlyChild(t, parent))) == 0 {
				t.Errorf("the parent has connections: %v", clients)
			}
			before := serialOn(t, at.addr)
			s.Renew(t)
			must(0, os.Chown(s.Dir()+"/key.pem", 0, 0))(t)
			must(0, os.Chmod(s.Dir()+"/key.pem", 0o600))(t)
			must(0, syscall.Kill(parent, syscall.SIGHUP))(t)
			r.Told(`imapd\[\d+\]: reloaded`)
			eventually(t, func() string { return "the certificate is not read again" }, func() bool { return serialOn(t, at.addr) != before })
			session.Do("NOOP")
			must(0, syscall.Kill(parent, syscall.SIGTERM))(t)
			session.Wait("* BYE")
			eventually(t, func() string { return "the parent lives on" }, func() bool { return !alive(parent) })
		})
	}
}

// connected returns the TCP connections that a process holds, as lines of the
// kernel's.
func connected(t *testing.T, pid int) (all []string) {
	t.Helper()
	for line := range strings.Lines(read(t, "/proc/net/tcp")) {
		f := strings.Fields(line)
		const established = "01"
		if len(f) < 10 || f[3] != established {
			continue
		}
		for _, fd := range must(filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)))(t) {
			if to, err := os.Readlink(fd); err == nil && to == "socket:["+f[9]+"]" {
				all = append(all, strings.TrimSpace(line))
			}
		}
	}
	return all
}

// alive tells whether a process runs. One that has ended and that nobody has
// waited for does not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// TestParentExit holds that a parent ends as its child does, and starts it once.
func TestParentExit(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: 0, syscall.SIGKILL: 137} {
		s := peer.Imapd(t, basic(t), peer.Options{})
		pid := s.PID
		if sig == syscall.SIGTERM {
			pid = s.Started()
		}
		must(0, syscall.Kill(pid, sig))(t)
		if got := s.Code(); got != code {
			t.Errorf("%v: exit code %d, want %d", sig, got, code)
		}
	}
	// Told again and again, as by a supervisor and the parent.
	s := peer.Imapd(t, basic(t), peer.Options{})
	for must(0, syscall.Kill(s.Started(), syscall.SIGTERM))(t); syscall.Kill(s.PID, syscall.SIGTERM) == nil; {
	}
	if got := s.Code(); got != 0 {
		t.Errorf("exit code %d, want 0", got)
	}
	// A certificate that is none: the parent never looks at it.
	dir := peer.TempDir(t)
	write(t, dir+"/cert.pem", "none")
	write(t, dir+"/imapd.conf", fmt.Sprintf("configdirectory: %s\nlisten: unix:%[1]s/socket\nmaildir: %[1]s/Maildir\n"+
		"tls_server_cert: %[1]s/cert.pem\ncyrus_user: 65534\n", dir))
	out, err := exec.Command(peer.Binary(t), "-l", "-C", dir+"/imapd.conf").CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 78 || !strings.Contains(string(out), "tls_server_cert") {
		t.Errorf("%v, %s", err, out)
	}
	if _, err := os.Stat(dir + "/socket"); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func onlyChild(t *testing.T, pid int) int {
	t.Helper()
	all := peer.Children(pid)
	if len(all) != 1 {
		t.Fatalf("children of %d: %v", pid, all)
	}
	return all[0]
}
