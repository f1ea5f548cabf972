package test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"imapd/test/peer"
)

// A saslauthd is the real daemon, in a namespace in which /etc/passwd,
// /etc/shadow and /etc/pam.d are the test's own.
type saslauthd struct {
	t    *testing.T
	dir  string
	mech string
	cmd  *exec.Cmd
	done chan struct{}
}

// private runs a command with these files instead of the system's.
func private(dir string, files ...string) []string {
	var script strings.Builder
	for _, f := range files {
		fmt.Fprintf(&script, "mount --bind %s/%s /etc/%s && ", dir, f, f)
	}
	return []string{"unshare", "-m", "sh", "-c", script.String() + `exec "$@"`, "sh"}
}

// startSaslauthd starts the daemon for the users, whose passwords are "pw" and
// the name, and whose homes are below homes.
func startSaslauthd(t *testing.T, mech, homes string, users ...string) *saslauthd {
	t.Helper()
	peer.Need(t, "saslauthd", "unshare", "openssl")
	if os.Geteuid() != 0 {
		t.Skip("saslauthd asks PAM as root")
	}
	s := &saslauthd{t: t, dir: peer.TempDir(t), mech: mech}
	uid, gid := peer.MailUID()
	passwd, shadow := "root:x:0:0::/root:/bin/sh\n", "root:!:19000:0:99999:7:::\n"
	for _, u := range users {
		passwd += fmt.Sprintf("%s:x:%d:%d::%s/%s:/usr/sbin/nologin\n", u, uid, gid, homes, u)
		shadow += u + ":" + strings.TrimSpace(run(t, s.dir, "openssl", "passwd", "-6", "pw"+u)) + ":19000:0:99999:7:::\n"
	}
	write(t, s.dir+"/passwd", passwd)
	if err := os.Chmod(s.dir+"/passwd", 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, s.dir+"/shadow", shadow)
	for _, dir := range []string{"/pam.d", "/run"} {
		// Not mkdir: who serves must reach the socket.
		if err := os.Mkdir(s.dir+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, s.dir+"/pam.d/imap", "auth required pam_unix.so nodelay\naccount required pam_unix.so\n")
	write(t, s.dir+"/pam.d/other", "auth required pam_deny.so\naccount required pam_deny.so\n")
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *saslauthd) socket() string { return s.dir + "/run/mux" }

// start returns when the daemon listens.
func (s *saslauthd) start() {
	s.t.Helper()
	args := append(private(s.dir, "passwd", "shadow", "pam.d"), "saslauthd", "-d", "-a", s.mech, "-n", "2", "-m", s.dir+"/run")
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := s.cmd.StderrPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	listening := make(chan bool, 1)
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), "listening on socket") {
				listening <- true
			}
		}
		listening <- false
	}()
	select {
	case ok := <-listening:
		if !ok {
			s.t.Fatal("saslauthd does not start")
		}
	case <-time.After(30 * time.Second):
		s.t.Fatal("saslauthd does not listen")
	}
}

func (s *saslauthd) stop() {
	if s.cmd.ProcessState == nil {
		syscall.Kill(-s.cmd.Process.Pid, syscall.SIGTERM)
		<-s.done
		s.cmd.Wait()
	}
}

// loginLine returns a command that logs in by PLAIN; who is "login" or
// "login as user".
func loginLine(who, password string) string {
	authcid, authzid, _ := strings.Cut(who, " as ")
	return "AUTHENTICATE PLAIN " + base64.StdEncoding.EncodeToString([]byte(authzid+"\x00"+authcid+"\x00"+password))
}

// tryLogin returns the answer to a command that logs in, on a connection of its
// own.
func tryLogin(t *testing.T, s *peer.Server, line string) string {
	t.Helper()
	conn := must(s.Dial())(t)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "a %s\r\n", line)
	for r := bufio.NewScanner(conn); r.Scan(); {
		if answer, ok := strings.CutPrefix(r.Text(), "a "); ok {
			return answer
		}
	}
	t.Errorf("no answer to %.40s", line)
	return ""
}

// TestSaslauthd logs in through the real saslauthd and PAM, as every site that
// comes from Cyrus does: users, administrators, servers in front, and all of
// them while the daemon is away.
func TestSaslauthd(t *testing.T) {
	t.Parallel()
	d := startSaslauthd(t, "pam", "/nonexistent", "alice", "boss", "gate")
	root := peer.TempDir(t)
	s := peer.Imapd(t, root+"/%u/Maildir", peer.Options{Users: []string{"carol"}, Imapd: []string{
		"sasl_pwcheck_method: saslauthd passwd-file", "sasl_saslauthd_path: " + d.socket(),
		"admins: boss", "proxyservers: gate", "loginrealms: example.org",
	}})
	const ok, wrong, forbidden, later = "OK [CAPABILITY", "NO [AUTHENTICATIONFAILED]", "NO [AUTHORIZATIONFAILED]", "NO [UNAVAILABLE]"
	for _, tt := range []struct{ who, password, want string }{
		{"alice", "pwalice", ok}, {"Alice", "pwalice", ok}, {"alice as alice", "pwalice", ok},
		{"alice", "pwalic", wrong}, {"alice", "pwboss", wrong}, {"nobody", "x", wrong}, {"root", "x", wrong},
		{"alice", strings.Repeat("x", 300), wrong}, {"alice", strings.Repeat("x", 256), wrong},
		{"alice@example.org", "pwalice", ok}, {"alice@example.net", "pwalice", wrong}, {"alice@", "pwalice", wrong},
		{"carol", peer.Password, ok}, {"carol", "pwcarol", wrong},
		{"boss as alice", "pwboss", ok}, {"boss as nobody", "pwboss", ok}, {"boss as alice", "pwalice", wrong},
		{"gate as alice", "pwgate", ok}, {"gate as boss", "pwgate", ok}, {"gate as alice@example.net", "pwgate", forbidden},
		{"alice as boss", "pwalice", forbidden}, {"alice as gate", "pwalice", forbidden}, {"carol as alice", peer.Password, forbidden},
	} {
		if got := tryLogin(t, s, loginLine(tt.who, tt.password)); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s with %.20s: %s, want %s", tt.who, tt.password, got, tt.want)
		}
	}
	d.stop()
	for _, who := range []string{"alice", "carol"} {
		if got := tryLogin(t, s, loginLine(who, "pw"+who)); !strings.HasPrefix(got, later) {
			t.Errorf("without saslauthd, %s: %s", who, got)
		}
	}
	if got := tryLogin(t, s, loginLine("carol", peer.Password)); !strings.HasPrefix(got, ok) {
		t.Errorf("without saslauthd, carol: %s", got)
	}
	d.start()
	if got := tryLogin(t, s, "LOGIN alice pwalice"); !strings.HasPrefix(got, ok) {
		t.Errorf("with saslauthd again: %s", got)
	}
	log := s.Log()
	for _, want := range []string{
		"login: [127.0.0.1] alice PLAIN User logged in SESSIONID=<",
		"login: [127.0.0.1] alice plaintext User logged in SESSIONID=<",
		"badlogin: [127.0.0.1] PLAIN (alice) [SASL(-13): authentication failure: checkpass failed]",
		"badlogin: [127.0.0.1] PLAIN (boss) [SASL(-13): authentication failure: user alice is not allowed to proxy]",
		"badlogin: [127.0.0.1] PLAIN (alice) [SASL(-1): generic failure: checkpass failed]",
		"authorized as another user login=gate user=boss",
		"cannot connect to saslauthd server: ",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("not logged: %s", want)
		}
	}
	if strings.Contains(log, "pwalice") || strings.Contains(log, peer.Password) {
		t.Error("a password is in the log")
	}
}

// TestSaslauthdHomes has the mail of system users in their homes, which only
// the system's list knows.
func TestSaslauthdHomes(t *testing.T) {
	t.Parallel()
	homes := peer.TempDir(t)
	d := startSaslauthd(t, "shadow", homes, "alice", "boss")
	mkdir(t, filepath.Join(homes, "alice"))
	peer.Own(t, homes)
	s := peer.Imapd(t, homes+"/%u/Maildir", peer.Options{Wrap: private(d.dir, "passwd"), Imapd: []string{
		"maildir: ~/Maildir", "sasl_pwcheck_method: saslauthd", "sasl_saslauthd_path: " + d.socket(), "admins: boss",
	}})
	for _, tt := range []struct{ who, password, want string }{
		{"alice", "pwalice", "OK [CAPABILITY"}, {"boss as alice", "pwboss", "OK [CAPABILITY"},
		{"boss as nobody", "pwboss", "NO [AUTHORIZATIONFAILED]"}, {"boss as root", "pwboss", "NO [AUTHORIZATIONFAILED]"},
		{"alice", "wrong", "NO [AUTHENTICATIONFAILED]"},
	} {
		if got := tryLogin(t, s, loginLine(tt.who, tt.password)); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.who, got, tt.want)
		}
	}
	if _, err := os.Stat(filepath.Join(homes, "alice", "Maildir", "cur")); err != nil {
		t.Error(err)
	}
}
