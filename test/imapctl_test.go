package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"imapd/test/peer"
)

// ctl returns imapctl with some arguments, for the server s.
func ctl(t *testing.T, s *peer.Server, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(peer.Binary(t), append([]string{"-C", s.ConfFile()}, args...)...)
	c.Args[0] = "imapctl"
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.WaitDelay = time.Minute
	return c
}

// result is what a program left behind.
type result struct {
	out, err string
	code     int
}

func finish(t *testing.T, c *exec.Cmd) result {
	t.Helper()
	var out, complaints bytes.Buffer
	c.Stdout, c.Stderr = &out, &complaints
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{out.String(), complaints.String(), c.ProcessState.ExitCode()}
}

// askctl runs imapctl, which must end with the exit code want.
func askctl(t *testing.T, s *peer.Server, want int, args ...string) result {
	t.Helper()
	r := finish(t, ctl(t, s, args...))
	if r.code != want {
		t.Fatalf("imapctl %q: exit %d, want %d: %s%s", args, r.code, want, r.out, r.err)
	}
	return r
}

// A present is one session in `imapctl who --json`.
type present struct {
	PID                                                int
	ID, Service, Host, User, Mailbox, Command, Session string
	Since                                              time.Time
}

// who returns the sessions that `imapctl who` lists.
func who(t *testing.T, s *peer.Server) []present {
	t.Helper()
	var all []present
	out := askctl(t, s, 0, "who", "--json").out
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return all
}

// findOn waits for the session of a user that does command, and returns it.
func findOn(t *testing.T, s *peer.Server, user, command string) present {
	t.Helper()
	var found present
	eventually(t, func() string { return fmt.Sprintf("%s %q is not in %+v", user, command, who(t, s)) }, func() bool {
		for _, p := range who(t, s) {
			if p.User == user && p.Command == command {
				found = p
				return true
			}
		}
		return false
	})
	return found
}

var columns = regexp.MustCompile(`^\d+(\.\d+)? +imap +\[127\.0\.0\.1\] +\S+ +\S+ +\S+$`)

// TestImapctlKick lists and ends sessions of a daemon and of a process for one
// client, and leaves the others alone.
func TestImapctlKick(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basicMany(t, false), peer.Options{Users: []string{"ann", "bob"}})
	selected, idle, other := s.Login(t, "ann"), s.Login(t, "ann"), s.Login(t, "bob")
	selected.Do("SELECT INBOX")
	idle.Do("SELECT INBOX")
	idle.Send("i IDLE")
	idle.Wait("+")
	conn, process, err := s.Inetd(t)
	if err != nil {
		t.Fatal(err)
	}
	alone := s.LoginOn(t, conn, "bob")
	signals := time.After(500 * time.Millisecond) // it handles them from 100 ms on

	p := findOn(t, s, "ann", "Idle")
	if p.PID != s.PID || p.Mailbox != "INBOX" || p.Service != "imap" || p.Host != "[127.0.0.1]" || p.ID == fmt.Sprint(s.PID) ||
		time.Since(p.Since) > time.Minute || p.Session == "" {
		t.Errorf("got %+v", p)
	}
	lines := strings.Split(strings.TrimSpace(askctl(t, s, 0, "who").out), "\n")
	if len(lines) != 4 {
		t.Errorf("%d sessions, want 4: %q", len(lines), lines)
	}
	for _, line := range lines {
		if !columns.MatchString(line) {
			t.Errorf("who says %q", line)
		}
	}

	askctl(t, s, 0, "kick", p.ID)
	idle.Wait("* BYE [UNAVAILABLE] Session ended by the administrator")
	eventually(t, func() string { return p.ID + " may be kicked twice" }, func() bool {
		code := finish(t, ctl(t, s, "kick", p.ID)).code
		return code == 69 || code == 67 // it ends, or has ended
	})
	if r := askctl(t, s, 64, "kick", fmt.Sprint(s.PID)); !strings.Contains(r.err, " clients: name one as ") {
		t.Errorf("kick of the daemon: %s", r.err)
	}
	<-signals
	askctl(t, s, 0, "kick", fmt.Sprint(process.Process.Pid))
	alone.Wait("* BYE")
	if err := process.Wait(); err != nil {
		t.Errorf("the process of one client: %v", err)
	}
	other.Do("NOOP")
	if out := askctl(t, s, 0, "kick", "BOB").out; strings.Count(out, "\n") != 1 || !strings.Contains(out, "bob") {
		t.Errorf("kick says %q", out)
	}
	other.Wait("* BYE")
	askctl(t, s, 67, "kick", "carol")
	askctl(t, s, 67, "kick", "--user", fmt.Sprint(s.PID))
	selected.Do("NOOP")
}

// TestImapctlKickStranger holds that a number that another program has got
// meanwhile is left alone.
func TestImapctlKickStranger(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{})
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleep.Wait()
	defer sleep.Process.Kill()
	put(t, filepath.Join(s.Dir(), "proc", strconv.Itoa(sleep.Process.Pid)), "imap\t[192.0.2.1]\tjane\t\t\n")
	if r := askctl(t, s, 71, "kick", "jane"); !strings.Contains(r.err, "left alone") {
		t.Errorf("got %q", r.err)
	}
	if err := sleep.Process.Signal(syscall.Signal(0)); err != nil {
		t.Error(err)
	}
}

// TestImapctlNotices greets with a message of the day, shuts the door, lets an
// administrator in all the same, and opens it again.
func TestImapctlNotices(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{})
	c := s.Login(t, s.User)
	c.Send("i IDLE")
	c.Wait("+")
	askctl(t, s, 0, "motd", "Hello,", "world")
	if got := greeting(t, s, 2)[1]; got != "* OK [ALERT] Hello, world" {
		t.Errorf("got %q", got)
	}
	askctl(t, s, 0, "motd")
	askctl(t, s, 0, "motd", "--off")
	askctl(t, s, 64, "motd", "two\nlines")
	askctl(t, s, 64, "shutdown", "--off", "x")

	askctl(t, s, 0, "shutdown", "Back", "at noon")
	c.Wait("* BYE [ALERT] Back at noon")
	if got := greeting(t, s, 1)[0]; got != "* BYE [ALERT] Back at noon" {
		t.Errorf("got %q", got)
	}
	session := ctl(t, s, "session", s.User)
	session.Stdin = strings.NewReader("a SELECT INBOX\r\nb LOGOUT\r\n")
	r := finish(t, session)
	if r.code != 0 || !strings.HasPrefix(r.out, "* PREAUTH ") || !strings.Contains(r.out, "\r\na OK ") || !strings.Contains(r.out, "\r\nb OK ") {
		t.Errorf("session: %+v", r)
	}
	if r := askctl(t, s, 69, "session", "nobody-of-that-name"); !strings.Contains(r.err, "no user") || r.out != "" {
		t.Errorf("session of nobody: %+v", r)
	}
	askctl(t, s, 0, "shutdown")
	if got := greeting(t, s, 1)[0]; !strings.HasPrefix(got, "* OK") {
		t.Errorf("got %q", got)
	}
	askctl(t, s, 0, "-S", "imap", "shutdown", "This service")
	if got := greeting(t, s, 1)[0]; got != "* BYE [ALERT] This service" {
		t.Errorf("got %q", got)
	}
	askctl(t, s, 0, "-Simap", "shutdown", "--off")
	if r := askctl(t, s, 69, "-S", "imaps", "shutdown", "Not this one"); !strings.Contains(r.err, fmt.Sprintf("process %d serves imap", s.PID)) {
		t.Errorf("shutdown of another service: %+v", r)
	}
	s.Login(t, s.User).Do("NOOP")
}

// TestImapctlTelemetry follows what two processes log of a user, as it comes.
func TestImapctlTelemetry(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{})
	c := s.Login(t, s.User)
	askctl(t, s, 66, "telemetry", s.User, "tail")
	askctl(t, s, 64, "telemetry", "../x", "on")
	askctl(t, s, 64, "telemetry", s.User, "maybe")
	askctl(t, s, 0, "telemetry", s.User, "on")
	askctl(t, s, 0, "telemetry", s.User, "on")
	tail := ctl(t, s, "telemetry", s.User, "tail")
	pipe, err := tail.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for r := bufio.NewScanner(pipe); r.Scan(); {
			lines <- r.Text()
		}
	}()
	// sees waits for a line that c causes again and again: its log begins a
	// moment after the directory is there.
	sees := func(c *peer.Client, command, want string) {
		t.Helper()
		pattern := regexp.MustCompile(want)
		var got []string
		late := time.After(time.Minute)
		c.Do("%s", command)
		again := time.NewTicker(100 * time.Millisecond)
		defer again.Stop()
		for {
			select {
			case line := <-lines:
				if got = append(got, line); pattern.MatchString(line) {
					return
				}
			case <-again.C:
				c.Do("%s", command)
			case <-late:
				t.Fatalf("no %s in\n%s", want, strings.Join(got, "\n"))
			}
		}
	}
	sees(c, "NOOP", `^\d\d:\d\d:\d\d C: t\d+ NOOP$`)
	sees(c, "NOOP", `^\d\d:\d\d:\d\d S: t\d+ OK `)
	conn, process, err := s.Inetd(t)
	if err != nil {
		t.Fatal(err)
	}
	d := s.LoginOn(t, conn, s.User)
	sees(d, "NAMESPACE", fmt.Sprintf(`^==> %d <==$`, process.Process.Pid))
	sees(d, "NAMESPACE", ` S: \* NAMESPACE `)

	kept := strings.TrimSpace(askctl(t, s, 0, "telemetry", s.User, "off").out)
	for range lines {
	}
	if err := tail.Wait(); err != nil {
		t.Errorf("tail, when it is turned off: %v", err)
	}
	if text := read(t, filepath.Join(kept, fmt.Sprint(process.Process.Pid))); !strings.Contains(text, "NAMESPACE") {
		t.Errorf("kept in %s: %q", kept, text)
	}
	log := filepath.Join(s.Dir(), "log", s.User)
	if _, err := os.Stat(log); !os.IsNotExist(err) {
		t.Errorf("%s: %v", log, err)
	}
	d.Send("z LOGOUT")
	d.Wait("z OK")
	process.Wait()
	askctl(t, s, 0, "telemetry", s.User, "on")
	if uid, _ := peer.MailUID(); must(os.Stat(log))(t).Sys().(*syscall.Stat_t).Uid != uint32(uid) {
		t.Errorf("%s does not belong to %d", log, uid)
	}
	askctl(t, s, 0, "telemetry", s.User, "off", "--delete")
	askctl(t, s, 0, "telemetry", s.User, "off")
}

// TestImapctlReload has a daemon read its certificate again, which it refuses
// while that is broken, and drains it.
func TestImapctlReload(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{})
	c := s.Login(t, s.User)
	if r := askctl(t, s, 0, "reload"); r.out != fmt.Sprintf("process %d: reloaded\n", s.PID) {
		t.Errorf("got %+v", r)
	}
	good := read(t, s.CertFile)
	put(t, s.CertFile, "garbage")
	peer.Own(t, s.Dir())
	if r := askctl(t, s, 69, "reload"); !strings.Contains(r.err, s.CertFile) {
		t.Errorf("got %+v", r)
	}
	put(t, s.CertFile, good)
	peer.Own(t, s.Dir())
	askctl(t, s, 0, "reload")
	c.Do("NOOP")
	// A session that began before is still in reach.
	old := findOn(t, s, s.User, "")
	d := s.Login(t, s.User)
	askctl(t, s, 0, "kick", old.ID)
	c.Wait("* BYE [UNAVAILABLE] Session ended by the administrator")
	d.Do("NOOP")
	if uid := os.Geteuid(); uid == 0 {
		tryStranger(t, s)
	}
	askctl(t, s, 0, "drain")
	d.Wait("* BYE")
	eventually(t, func() string { return "the daemon does not end" }, func() bool {
		return finish(t, ctl(t, s, "drain")).code == 69
	})
	sockets := must(filepath.Glob(s.Dir() + "/socket/imapctl*"))(t)
	eventually(t, func() string { return fmt.Sprintf("left %q", sockets) }, func() bool {
		sockets = must(filepath.Glob(s.Dir() + "/socket/imapctl*"))(t)
		return len(sockets) == 0
	})
	beginSession(t, s, s.User).client.Do("SELECT INBOX") // without one
}

// tryStranger tries the socket as a user who is neither root nor the server's, who
// gets in only where somebody opens it to all.
func tryStranger(t *testing.T, s *peer.Server) {
	t.Helper()
	socket := filepath.Join(s.Dir(), "socket", "imapctl")
	if mode := must(os.Lstat(socket))(t).Mode(); mode != os.ModeSocket|0o600 {
		t.Errorf("%s: mode %v", socket, mode)
	}
	try := func() result {
		c := ctl(t, s, "session", s.User)
		c.SysProcAttr.Credential = &syscall.Credential{Uid: 21001, Gid: 21001}
		return finish(t, c)
	}
	if r := try(); r.code != 77 {
		t.Errorf("a stranger: %+v", r)
	}
	for path, mode := range map[string]os.FileMode{filepath.Dir(socket): 0o755, socket: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if r := try(); r.code != 69 || !strings.Contains(r.err, "for root") || r.out != "" {
		t.Errorf("a stranger at an open socket: %+v", r)
	}
}

// TestImapctlCheck lints a file with every kind of fault.
func TestImapctlCheck(t *testing.T) {
	t.Parallel()
	conf := filepath.Join(peer.TempDir(t), "imapd.conf")
	put(t, conf, `configdirectory: /nonexistent
alowplaintext: yes
timeout: soon
sasl_passwd_file: /nonexistent
sievedir: /var/sieve
mboxlist_db: twoskip
imaps_timeout: 1h
quota_db_path: /x
reject8bit: no
cyrus_user: 12345
listen: unix:/x
`)
	c := exec.Command(peer.Binary(t), "check", conf)
	c.Args[0] = "imapctl"
	r := finish(t, c)
	if r.code != 78 || r.err != "" {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
	for _, want := range []string{
		"error: " + conf + ":1: configdirectory: stat /nonexistent: no such file or directory\n",
		"error: " + conf + ":2: unknown option alowplaintext; did you mean allowplaintext?\n",
		"error: " + conf + ":3: timeout: ",
		"error: " + conf + ":4: sasl_passwd_file: ",
		"note: " + conf + ":5: sievedir has no effect: it belongs to Sieve",
		"note: " + conf + ":6: mboxlist_db has no effect: Cyrus keeps a database there",
		"note: " + conf + ":7: imaps_timeout has no effect: it is for the service imaps\n",
		"warning: " + conf + ":9: option reject8bit is ignored: ",
		"\n" + conf + ": 4 errors, 1 warnings\n",
	} {
		if !strings.Contains("\n"+r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
}

// TestImapctlCheckStranger holds that what root alone may read is no fault for who looks
// at a configuration without being root, and that all else is looked at still.
func TestImapctlCheckStranger(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := peer.TempDir(t)
	must(0, os.Chmod(dir, 0o755))(t)
	conf, cert, key, passwd := dir+"/imapd.conf", peer.Certificate(t, dir), dir+"/key.pem", dir+"/passwd"
	put(t, passwd, "jane:{PLAIN}x\n")
	must(0, os.Chmod(cert, 0o644))(t)
	must(0, os.Chmod(key, 0o600))(t)
	must(0, os.Chmod(passwd, 0o600))(t)
	put(t, conf, "configdirectory: "+dir+"\ncyrus_user: 12345\nlisten: unix:/x\nmaildir: "+dir+"/%u\nsasl_passwd_file: "+passwd+"\ntls_server_cert: "+cert+"\ntls_server_key: "+key+"\n")
	run := func(uid uint32, name string, args ...string) result {
		c := exec.Command(peer.Binary(t), args...)
		c.Args[0] = name
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return finish(t, c)
	}
	for _, uid := range []uint32{54321, 12345} {
		notes := "note: " + conf + ":5: sasl_passwd_file: " + passwd + ": not checked: may not be read by uid " + fmt.Sprint(uid) + "\n"
		notes = "note: " + conf + ":6: tls_server_cert: " + key + ": not checked: may not be read by uid " + fmt.Sprint(uid) + "\n" + notes
		if r := run(uid, "imapctl", "check", conf); r.code != 0 || r.err != "" || r.out != notes+conf+": 0 errors, 0 warnings\n" {
			t.Errorf("uid %d: exit %d, %q, %q", uid, r.code, r.out, r.err)
		}
		if r := run(uid, "imapd", "-t", "-C", conf); r.code != 0 || r.err != notes {
			t.Errorf("uid %d: exit %d, %q", uid, r.code, r.err)
		}
	}
	// Who starts it himself has to be able to.
	if r := run(12345, "imapd", "-l", "-C", conf); r.code != 78 || !strings.Contains(r.err, "permission denied") {
		t.Errorf("the server: exit %d, %q", r.code, r.err)
	}
	must(0, os.Chown(conf, 12345, 12345))(t)
	if r := run(12345, "imapctl", "check", conf); r.code != 78 || !strings.Contains(r.out, "error: "+conf+":5: ") || !strings.Contains(r.out, "error: "+conf+":6: ") {
		t.Errorf("his own: exit %d, %q", r.code, r.out)
	}
	// A fault in what can be read is one.
	must(0, os.Chown(conf, 0, 0))(t)
	put(t, cert, "broken")
	if r := run(54321, "imapctl", "check", conf); r.code != 78 || !strings.Contains(r.out, "error: "+conf+":6: tls_server_cert: certificate "+cert+": ") {
		t.Errorf("a broken certificate: exit %d, %q", r.code, r.out)
	}
}

// TestImapctlCheckServes holds that what keeps users out is told of, with its line,
// though imapd would start.
func TestImapctlCheckServes(t *testing.T) {
	t.Parallel()
	dir := peer.TempDir(t)
	conf := filepath.Join(dir, "imapd.conf")
	put(t, conf, "configdirectory: "+dir+"\ncyrus_user: 12345\nlisten: unix:/x\nmaildir: "+dir+"\nsasl_passwd_file: "+dir+"/passwd\n")
	put(t, dir+"/passwd", "jane:{PLAIN}x\nBob:{PLAIN}x\nina:{NOPE}x\n")
	c := exec.Command(peer.Binary(t), "check", conf)
	c.Args[0] = "imapctl"
	r := finish(t, c)
	for _, want := range []string{
		"warning: " + dir + `/passwd:2: user "Bob": username_tolower makes what clients send bob; write it so` + "\n",
		"warning: " + dir + `/passwd:3: user "ina": `,
		"warning: " + conf + ":4: maildir: all users would have one " + dir + ";",
		"\n" + conf + ": 0 errors, 3 warnings\n",
	} {
		if !strings.Contains("\n"+r.out, want) || r.code != 0 {
			t.Errorf("exit %d, no %q in\n%s", r.code, want, r.out)
		}
	}
}
