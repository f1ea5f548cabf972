package test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"imapd/control"
	"imapd/control/config"
	"imapd/control/privsep"
	"imapd/test/peer"
)

// Users of the system, each with a process of their own.
const (
	aliceUID = 22001
	bobUID   = 22002
	authUID  = 21001
)

// A mailUser is a user of the system.
type mailUser struct {
	name string
	uid  int
}

// usersSite starts a server with a process for each user: alice and bob have
// homes that nobody else can enter, root and daemon have ids that no mail has.
func usersSite(t *testing.T, o peer.Options) *peer.Server {
	t.Helper()
	o.Users = []string{"alice", "bob"}
	return siteOf(t, o, func(home string) { basicIn(t, home) }, []mailUser{{"alice", aliceUID}, {"bob", bobUID}, {"root", 0}, {"daemon", 1}})
}

// siteOf starts a server with a process for each of users, whose homes fill makes.
func siteOf(t *testing.T, o peer.Options, fill func(home string), users []mailUser) *peer.Server {
	t.Helper()
	needRoot(t)
	homes := peer.TempDir(t)
	var passwd strings.Builder
	for _, u := range users {
		home := filepath.Join(homes, u.name)
		fill(home)
		must(0, filepath.Walk(home, func(name string, _ os.FileInfo, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(name, u.uid, u.uid)
		}))(t)
		must(0, os.Chmod(home, 0o700))(t)
		fmt.Fprintf(&passwd, "%s:{PLAIN}%s:%d:%d::%s::\n", u.name, peer.Password, u.uid, u.uid, home)
	}
	passwdFile := filepath.Join(homes, "passwd")
	must(0, os.WriteFile(passwdFile, []byte(passwd.String()), 0o600))(t)
	o.Imapd = append(o.Imapd, "privilege_separation: user", fmt.Sprint("auth_user: ", authUID), "maildir: ~/Maildir", "sasl_passwd_file: "+passwdFile)
	s := peer.Imapd(t, peer.TempDir(t), o)
	t.Cleanup(func() {
		s.Stop()
		if strings.Contains(s.Log(), "the process that checks passwords has ended") {
			t.Error("the regular end of the server is taken for a fault")
		}
	})
	s.Maildir = homes
	for _, file := range []string{"key.pem", "imapd.conf"} {
		must(0, os.Chown(filepath.Join(s.Dir(), file), 0, 0))(t)
		must(0, os.Chmod(filepath.Join(s.Dir(), file), 0o600))(t)
	}
	must(0, syscall.Kill(s.Started(), syscall.SIGHUP))(t) // as root's they are read by the parent
	for limit := time.Now().Add(20 * time.Second); !strings.Contains(s.Log(), "reloaded"); <-time.After(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("not reloaded")
		}
	}
	return s
}

// processOf returns the child that runs as uid, 0 if there is none.
func processOf(t *testing.T, s *peer.Server, uid int) int {
	t.Helper()
	for _, pid := range peer.Children(s.Started()) {
		if strings.HasPrefix(status(t, pid, "Uid"), fmt.Sprint(uid, " ")) {
			return pid
		}
	}
	return 0
}

func loginTLS(t *testing.T, s *peer.Server, user string) *peer.Client {
	t.Helper()
	return s.LoginOn(t, must(s.DialTLS())(t), user)
}

func TestUserProcesses(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{})
	alice, again, bob := s.Login(t, "alice"), loginTLS(t, s, "alice"), loginTLS(t, s, "bob")
	front, gid := peer.MailUID()
	children := peer.Children(s.Started())
	if len(children) != 4 {
		t.Errorf("children %v: want front, auth, one for alice, one for bob", children)
	}
	unprivileged(t, processOf(t, s, front), front, gid)
	for _, uid := range []int{authUID, aliceUID, bobUID} {
		unprivileged(t, processOf(t, s, uid), uid, uid)
	}
	// The session is a whole one, in the clear and under TLS.
	for _, c := range []*peer.Client{alice, again, bob} {
		c.Do("SELECT INBOX")
		c.Do(`APPEND INBOX (\Seen) %s`, peer.Literal("Subject: x\r\n\r\ntext\r\n"))
		c.Do("FETCH 1:* (FLAGS BODY.PEEK[])")
	}
	alice.Send("i IDLE")
	alice.Wait("+ ")
	alice.Send("DONE")
	for user, uid := range map[string]uint32{"alice": aliceUID, "bob": bobUID} {
		info := must(os.Stat(filepath.Join(s.Maildir, user, "Maildir/dovecot-uidlist")))(t)
		if st := info.Sys().(*syscall.Stat_t); st.Uid != uid || st.Gid != uid {
			t.Errorf("%s's list belongs to %d:%d", user, st.Uid, st.Gid)
		}
	}
	// Who has no process gets in nowhere, and the log says why, once.
	passwd := filepath.Join(s.Maildir, "passwd")
	write(t, passwd, string(must(os.ReadFile(passwd))(t))+"ghost:{PLAIN}"+peer.Password+"\n")
	for user, why := range map[string]string{
		"root": "", "daemon": "user daemon has uid 1, which is below first_valid_uid ",
		"ghost": "user ghost has no uid in " + passwd + " nor in /etc/passwd",
	} {
		conn := must(s.Dial())(t)
		conn.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintf(conn, "a LOGIN %s %s\r\nb LOGOUT\r\n", user, peer.Password)
		if text := string(must(remainder(conn))(t)); !strings.Contains(text, "\r\na NO ") {
			t.Errorf("%s: %q", user, text)
		}
		conn.Close()
		if lines := linesWith(s.Log(), user); why != "" && (len(lines) != 2 || !strings.Contains(lines[0], why) || !strings.Contains(lines[1], "badlogin: ")) {
			t.Errorf("%s: the log says %q, and should that %s", user, lines, why)
		}
	}
	// Nor does one whose mail cannot be opened.
	must(0, errors.Join(os.RemoveAll(filepath.Join(s.Maildir, "bob/Maildir")), os.WriteFile(filepath.Join(s.Maildir, "bob/Maildir"), nil, 0o644)))(t)
	before := len(s.Log())
	conn := must(s.Dial())(t)
	conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "a LOGIN bob %s\r\nb LOGOUT\r\n", peer.Password)
	if text := string(must(remainder(conn))(t)); !strings.Contains(text, "\r\na NO [UNAVAILABLE] ") {
		t.Errorf("%q", text)
	}
	conn.Close()
	if lines := linesWith(s.Log()[before:], "bob"); len(lines) != 1 || !strings.Contains(lines[0], "cannot open the user's mail") {
		t.Errorf("the log says %q", lines)
	}
}

// linesWith returns the lines of text that have word in them.
func linesWith(text, word string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestUserPipelined has everything arrive at once: what lies behind the login
// is for the other process.
func TestUserPipelined(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{})
	for name, dial := range map[string]func() (net.Conn, error){"clear": s.Dial, "TLS": s.DialTLS} {
		conn := must(dial())(t)
		conn.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintf(conn, "a LOGIN alice %s\r\nb SELECT INBOX\r\nc FETCH 1 BODY.PEEK[]\r\nd LOGOUT\r\n", peer.Password)
		text := string(must(remainder(conn))(t))
		for _, want := range []string{"\r\na OK ", "\r\nb OK ", "\r\nc OK ", "\r\n* BYE ", "\r\nd OK "} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in %q", name, want, text)
			}
		}
		conn.Close()
	}
}

// TestUserCrash kills processes of users.
func TestUserCrash(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{})
	bob, bobTLS := s.Login(t, "bob"), loginTLS(t, s, "bob")
	for _, dial := range []func() (net.Conn, error){s.Dial, s.DialTLS} {
		conn := must(dial())(t)
		alice := s.LoginOn(t, conn, "alice")
		alice.Do("SELECT INBOX")
		pid := processOf(t, s, aliceUID)
		must(0, syscall.Kill(pid, syscall.SIGKILL))(t)
		// What it had open is open until all its threads are gone, and the parent
		// knows when.
		dead := fmt.Sprintf("that user's sessions are gone user=alice pid=%d ", pid)
		eventually(t, func() string { return "the parent does not say that it has died" }, func() bool { return strings.Contains(s.Log(), dead) })
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		left, err := remainder(conn)
		if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
			t.Errorf("alice's client does not hear that her process is gone: %q, %v", left, err)
		}
	}
	s.Login(t, "alice").Do("SELECT INBOX")
	bob.Do("NOOP")
	bobTLS.Do("NOOP")
}

// TestUserNotices shows the shutdown notice to sessions in processes of users,
// and the list of who is on where they are.
func TestUserNotices(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{Imapd: []string{"admins: bob"}})
	clear, secret, admin := s.Login(t, "alice"), loginTLS(t, s, "alice"), s.Login(t, "bob")
	clear.Do("SELECT INBOX")
	secret.Do("SELECT INBOX")
	secret.Send("i IDLE")
	secret.Wait("+ ")
	listed := func() (n int) {
		for _, file := range must(filepath.Glob(s.Dir() + "/proc/[^.]*"))(t) {
			if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), "\talice\tINBOX\t") {
				n++
			}
		}
		return n
	}
	for limit := time.Now().Add(10 * time.Second); listed() != 2; <-time.After(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d sessions of alice's are listed in INBOX, want 2", listed())
		}
	}
	must(0, os.MkdirAll(s.Dir()+"/msg", 0o755))(t)
	write(t, s.Dir()+"/msg/new", "back at noon\n")
	peer.Own(t, s.Dir()+"/msg")
	must(0, os.Rename(s.Dir()+"/msg/new", s.Dir()+"/msg/shutdown"))(t)
	for _, c := range []*peer.Client{clear, secret} {
		if got := c.Wait("* BYE ").Text; !strings.Contains(got, "[ALERT] back at noon") {
			t.Errorf("got %q", got)
		}
	}
	admin.Do("NOOP")
	must(0, os.Remove(s.Dir()+"/msg/shutdown"))(t)
	s.Login(t, "alice").Do("NOOP")
	for limit := time.Now().Add(10 * time.Second); listed() != 0; <-time.After(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("sessions that have ended are listed")
		}
	}
}

// TestUserKick has imapctl end sessions that are in processes of users: at the
// second time those too that do not come to the end of a command.
func TestUserKick(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{})
	clear, secret, bob := s.Login(t, "alice"), loginTLS(t, s, "alice"), s.Login(t, "bob")
	stuck, stuckSecret := s.Login(t, "alice"), loginTLS(t, s, "alice")
	clear.Do("SELECT INBOX")
	secret.Send("i IDLE")
	secret.Wait("+ ")
	for _, c := range []*peer.Client{stuck, stuckSecret} {
		c.Send("a APPEND INBOX {1000}")
		c.Wait("+ ")
	}
	askctl(t, s, 0, "kick", "alice")
	clear.Wait("* BYE ")
	secret.Wait("* BYE ")
	finish(t, ctl(t, s, "kick", "alice")) // of some it may say that they have ended
	for _, c := range []*peer.Client{stuck, stuckSecret} {
		if got := c.Wait("* BYE ").Text; !strings.Contains(got, "Session ended by the administrator") {
			t.Errorf("got %q", got)
		}
	}
	bob.Do("NOOP")
}

// TestUserTelemetry makes and removes log/USER while sessions run in a process
// that cannot look there.
func TestUserTelemetry(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{})
	clear, secret := s.Login(t, "alice"), loginTLS(t, s, "alice")
	dir := filepath.Join(s.Dir(), "log/alice")
	must(0, os.MkdirAll(dir+".new", 0o700))(t)
	peer.Own(t, filepath.Dir(dir))
	must(0, os.Rename(dir+".new", dir))(t)
	logs := func(want string) (n int) {
		clear.Do("NOOP")
		secret.Do("NOOP")
		for _, file := range must(filepath.Glob(dir + "/*"))(t) {
			if strings.Contains(read(t, file), want) {
				n++
			}
		}
		return n
	}
	eventually(t, func() string { return "no log of both sessions" }, func() bool { return logs(" NOOP\r\n") == 2 })
	third := s.Login(t, "alice")
	third.Do("NOOP")
	third.Do("SELECT INBOX")
	// (What the others were told of their login may be logged too: a log sees what has
	// been sent, and that may have been on its way when the directory came.)
	whole := func() bool {
		return slices.ContainsFunc(must(filepath.Glob(dir+"/*"))(t), func(file string) bool {
			text := read(t, file)
			return strings.Contains(text, "t1 OK") && strings.Contains(text, " SELECT INBOX\r\n")
		})
	}
	eventually(t, func() string { return "no log of a session from its login on" }, whole)
	for _, file := range must(filepath.Glob(dir + "/*"))(t) {
		info := must(os.Stat(file))(t)
		if uid, _ := peer.MailUID(); info.Mode().Perm() != 0o600 || int(info.Sys().(*syscall.Stat_t).Uid) != uid {
			t.Errorf("%v", info)
		}
		if strings.Contains(read(t, file), peer.Password) {
			t.Errorf("a password in %s", file)
		}
	}
	must(0, os.Rename(dir, dir+".old"))(t)
	quiet := func() bool {
		size := func() (n int64) {
			for _, file := range must(filepath.Glob(dir + ".old/*"))(t) {
				n += must(os.Stat(file))(t).Size()
			}
			return n
		}
		before := size()
		for _, c := range []*peer.Client{clear, secret, third} {
			c.Do("NOOP")
		}
		return size() == before
	}
	eventually(t, func() string { return "the log goes on" }, quiet)
}

// TestUserReload has signals reach the processes that they are for.
func TestUserReload(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{})
	alice := s.Login(t, "alice")
	before, first := processOf(t, s, aliceUID), serial(t, s)
	s.Renew(t)
	notify(t, s, syscall.SIGHUP, "]: reloaded")
	if serial(t, s) == first {
		t.Error("the certificate is not read again")
	}
	// She has a new process for new sessions, and the old one for the old.
	s.Login(t, "alice").Do("NOOP")
	alice.Do("NOOP")
	var hers []int
	for _, pid := range peer.Children(s.Started()) {
		if strings.HasPrefix(status(t, pid, "Uid"), fmt.Sprint(aliceUID, " ")) {
			hers = append(hers, pid)
		}
	}
	if len(hers) != 2 || !slices.Contains(hers, before) {
		t.Errorf("alice's processes are %v, with %d", hers, before)
	}
	s.Stop()
	if got := alice.Wait("* BYE ").Text; !strings.Contains(got, "shutting down") {
		t.Errorf("got %q", got)
	}
	if code := s.Code(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, pid := range hers {
		if alive(pid) {
			t.Errorf("%d lives on", pid)
		}
	}
}

// TestInsideWorker tries what a worker can open, from a process that is as
// confined as one: of its user, and with the rights that a worker has.
func TestInsideWorker(t *testing.T) {
	if flag.NArg() == 4 { // no test but that process: its rights, and what to try
		inside(flag.Arg(0), flag.Arg(1), flag.Arg(2), flag.Arg(3))
	}
	t.Parallel()
	s := usersSite(t, peer.Options{})
	s.Login(t, "alice")
	home := filepath.Join(s.Maildir, "alice")
	loose := []string{filepath.Join(peer.TempDir(t), "loose"), filepath.Join(s.Maildir, "beside"), filepath.Join(home, "notes")}
	for _, file := range loose {
		must(0, os.WriteFile(file, []byte("x"), 0o644))(t) // may be read by all
	}
	self := filepath.Join(peer.TempDir(t), "inside")
	must(0, peer.Program(self, must(os.ReadFile(os.Args[0]))(t)))(t)
	own := filepath.Join(home, "Maildir")
	conf, _, err := config.Load(s.ConfFile(), control.Service, nil)
	must(0, err)(t)
	rights := string(must(json.Marshal(must(control.WorkerRights(conf, "alice", home))(t)))(t))
	for name, confined := range map[string]string{"confined": rights, "free": ""} {
		c := exec.Command(self, "-test.run=^TestInsideWorker$", "--", confined, own, filepath.Join(s.Maildir, "bob/Maildir"), s.Dir()+"/key.pem:"+s.Maildir+"/passwd:"+s.ConfFile()+":"+strings.Join(loose, ":"))
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: aliceUID, Gid: aliceUID}}
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := "own true\nother false\nkey.pem false\npasswd false\nimapd.conf false\n"
		// Without landlock what all may read can be read, and programs run: the
		// test can see the difference.
		if name == "free" {
			want += "loose true\nbeside true\nnotes true\nexec true\n"
		} else {
			want += "loose false\nbeside false\nnotes false\nexec false\n"
		}
		if got := string(out); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

// inside says what can be opened with rights, if there are any, and ends the process.
func inside(rights, own, other, files string) {
	if rights != "" {
		var r privsep.Rights
		err := json.Unmarshal([]byte(rights), &r)
		if err == nil {
			err = privsep.Confine(r)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	_, err := os.ReadDir(own + "/cur")
	f, err2 := os.CreateTemp(own+"/tmp", "")
	if err2 == nil {
		err2 = os.Rename(f.Name(), own+"/new/x")
	}
	fmt.Println("own", err == nil && err2 == nil)
	_, err = os.ReadDir(other + "/cur")
	fmt.Println("other", err == nil)
	for _, file := range strings.Split(files, ":") {
		_, err := os.ReadFile(file)
		fmt.Println(filepath.Base(file), err == nil)
	}
	fmt.Println("exec", exec.Command("/bin/true").Run() == nil)
	os.Exit(0)
}

// TestUserRefused starts what cannot work.
func TestUserRefused(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := peer.TempDir(t)
	base := fmt.Sprintf("configdirectory: %s\nlisten: unix:%[1]s/socket\nmaildir: %[1]s/Maildir\nprivilege_separation: user\n", dir)
	for _, tt := range []struct {
		lines string
		args  []string
		want  string
	}{
		{"cyrus_user: 21000\n", []string{"-l"}, `add the line "auth_user: NAME"`},
		{"cyrus_user: 21000\nauth_user: 21000\n", []string{"-l"}, "auth_user: must be neither"},
		{"cyrus_user: 21000\nauth_user: 0\n", []string{"-l"}, "auth_user: must be neither"},
		{"auth_user: 21001\n", []string{"-l"}, `add the line "cyrus_user: NAME"`},
		{"cyrus_user: root\nauth_user: 21001\n", []string{"-l"}, "a cyrus_user that is not root"},
	} {
		write(t, dir+"/imapd.conf", base+tt.lines)
		out, err := exec.Command(peer.Binary(t), append(tt.args, "-C", dir+"/imapd.conf")...).CombinedOutput()
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 78 || !strings.Contains(string(out), tt.want) {
			t.Errorf("%q: %v, %s", tt.lines, err, out)
		}
	}
	// The environment alone makes nobody anything.
	for _, role := range []string{"server 1", "worker 1", "auth 1"} {
		c := exec.Command(peer.Binary(t), "-V")
		c.Env = append(os.Environ(), "IMAPD_ROLE="+role)
		if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "not by a parent") {
			t.Errorf("%s: %v, %s", role, err, out)
		}
	}
}

// remainder reads what comes until the end, or until the other side is gone.
func remainder(conn net.Conn) (text []byte, err error) {
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		text = append(text, buffer[:n]...)
		if err != nil {
			if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
				return text, err
			}
			return text, nil
		}
	}
}

// serial returns the number of the certificate that the server shows now.
func serial(t *testing.T, s *peer.Server) string {
	t.Helper()
	return serialOn(t, s.TLSAddr)
}

// serialOn is serial for what listens at an address.
func serialOn(t *testing.T, addr string) string {
	t.Helper()
	c := must(tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}))(t)
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// TestCheckerDies kills the process that checks passwords, more than once: who is in
// notices nothing, and who comes is let in by another one.
func TestCheckerDies(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{})
	in := s.Login(t, "alice")
	for round := range 3 {
		checker := processOf(t, s, authUID)
		if checker == 0 {
			t.Fatal("no process checks passwords")
		}
		must(0, syscall.Kill(checker, syscall.SIGKILL))(t)
		eventually(t, func() string { return "nobody can log in any more:\n" + s.Log() }, func() bool {
			conn, err := s.Dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "a LOGIN bob %s\r\nb LOGIN alice wrong\r\nc LOGOUT\r\n", peer.Password)
			text, _ := io.ReadAll(conn)
			return strings.Contains(string(text), "\r\na OK ")
		})
		in.Do("NOOP")
		if got := strings.Count(s.Log(), "checks passwords has died, another is started"); got != round+1 {
			t.Errorf("the log tells of %d that have died:\n%s", got, s.Log())
		}
	}
	// What it reads when it starts is what a reload has it read.
	s.Login(t, "bob").Do("SELECT INBOX")
	notify(t, s, syscall.SIGHUP, "]: reloaded")
	s.Login(t, "bob").Do("SELECT INBOX")
}
