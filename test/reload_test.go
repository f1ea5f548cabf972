package test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"imapd/test/peer"
)

// notify sends sig to the server and waits until its log says what, once more.
func notify(t *testing.T, s *peer.Server, sig syscall.Signal, what string) {
	t.Helper()
	before := strings.Count(s.Log(), what)
	if err := syscall.Kill(s.PID, sig); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string { return "the log does not say " + what }, func() bool {
		return strings.Count(s.Log(), what) > before
	})
}

// edit replaces a part of the configuration that s reads when it reloads.
func edit(t *testing.T, s *peer.Server, old, text string) {
	t.Helper()
	conf := read(t, s.ConfFile())
	if !strings.Contains(conf, old) {
		t.Fatalf("no %q in %s", old, conf)
	}
	put(t, s.ConfFile(), strings.Replace(conf, old, text, 1))
}

// TestReload changes the configuration under a server with a session: what is new
// counts for those who come then, what is broken for nobody.
func TestReload(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{})
	c := s.Login(t, s.User)
	c.Do("SELECT INBOX")

	edit(t, s, "allowplaintext: yes", "allowplaintext: yes\nservername: second.example.org\nsyslog_prefix: other")
	notify(t, s, syscall.SIGHUP, "]: reloaded")
	if line := greeting(t, s, 1)[0]; !strings.Contains(line, "second.example.org") {
		t.Errorf("greeting after the reload: %s", line)
	}
	if !strings.Contains(s.Log(), "needs a restart option=syslog_prefix") {
		t.Error("an option that needs a restart is not logged")
	}
	c.Do("NOOP")

	if got := askctl(t, s, 0, "reload"); !strings.Contains(got.out, "syslog_prefix: has changed and needs a restart\n") || !strings.Contains(got.out, ": reloaded\n") {
		t.Errorf("imapctl says %q", got.out)
	}

	// Every fault is told, with its line, and nothing else changes.
	edit(t, s, "servername: second", "timuot: 5\nlimit_literals: many\nservername: third")
	notify(t, s, syscall.SIGHUP, "not reloaded: "+s.ConfFile()+":")
	for _, want := range []string{`imapd\.conf:\d+: unknown option timuot`, `imapd\.conf:\d+: limit_literals: "many"`} {
		if !regexp.MustCompile("not reloaded: .*" + want).MatchString(s.Log()) {
			t.Errorf("the log does not say %s", want)
		}
	}
	if line := greeting(t, s, 1)[0]; !strings.Contains(line, "second.example.org") {
		t.Errorf("greeting after a reload that was refused: %s", line)
	}
	edit(t, s, "timuot: 5\nlimit_literals: many\n", "")

	// An address comes and goes, a session that came in by it stays.
	socket := filepath.Join(s.Dir(), "imap")
	edit(t, s, "listen: ", "listen: unix:"+socket+" ")
	notify(t, s, syscall.SIGHUP, "]: reloaded")
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	d := s.LoginOn(t, conn, s.User)
	edit(t, s, "unix:"+socket, "")
	notify(t, s, syscall.SIGHUP, "]: reloaded")
	if conn, err := net.Dial("unix", socket); err == nil {
		conn.Close()
		t.Error("it listens still where it should not")
	}
	d.Do("NOOP")
	c.Do("NOOP")

	// New passwords.
	passwd := filepath.Join(s.Dir(), "passwd")
	put(t, passwd, strings.Replace(read(t, passwd), peer.Password, "Other-8", 1))
	notify(t, s, syscall.SIGHUP, "]: reloaded")
	if answer := welcome(t, s, 1).ask("LOGIN " + s.User + " " + peer.Password); !strings.HasPrefix(answer, "NO") {
		t.Errorf("the old password: %s", answer)
	}
}

// TestServerNames holds that clients get the certificate of the name that they
// ask for, and a new one soon after its file has changed, without a signal.
func TestServerNames(t *testing.T) {
	t.Parallel()
	names := filepath.Join(peer.TempDir(t), "names")
	mkdir(t, names)
	mkdir(t, names+"/b.example.org")
	pair := func(name string) (cert, key string) {
		dir := t.TempDir()
		return read(t, peer.Certificate(t, dir, name)), read(t, dir+"/key.pem")
	}
	cert, key := pair("a.example.org")
	write(t, names+"/A.example.org.pem", cert+key)
	cert, key = pair("b.example.org")
	write(t, names+"/b.example.org/fullchain.pem", cert)
	write(t, names+"/b.example.org/privkey.pem", key)
	cert, key = pair("*.example.net")
	write(t, names+"/_.example.net.pem", cert+key)
	write(t, names+"/README", "nothing of ours")
	peer.Own(t, names)
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"tls_server_names_dir: " + names}})
	shown := func(name string) []byte {
		conn, err := tls.Dial("tcp", s.TLSAddr, &tls.Config{InsecureSkipVerify: true, ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Raw
	}
	leaf := func(name string) string {
		conn, err := tls.Dial("tcp", s.TLSAddr, &tls.Config{InsecureSkipVerify: true, ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].DNSNames[0]
	}
	for name, want := range map[string]string{
		"a.example.org": "a.example.org", "B.EXAMPLE.org": "b.example.org", "x.example.net": "*.example.net",
		"x.y.example.net": "localhost", "example.net": "localhost", "localhost": "localhost", "": "localhost",
	} {
		if got := leaf(name); got != want {
			t.Errorf("%q gets the certificate of %s, want %s", name, got, want)
		}
	}
	old := shown("b.example.org")
	cert, key = pair("b.example.org")
	put(t, names+"/b.example.org/fullchain.pem", cert)
	put(t, names+"/b.example.org/privkey.pem", key)
	peer.Own(t, names)
	eventually(t, func() string { return "no event brings the new certificate" }, func() bool {
		return strings.Contains(s.Log(), "certificate reloaded")
	})
	if bytes.Equal(shown("b.example.org"), old) {
		t.Error("the old certificate is shown still")
	}

	// One that is broken stands for itself, whoever has the files read.
	cert, key = pair("c.example.org")
	put(t, names+"/bad.example.org.pem", "broken")
	put(t, names+"/c.example.org.pem", cert+key)
	peer.Own(t, names)
	eventually(t, func() string { return "a new name waits for a broken one" }, func() bool { return leaf("c.example.org") == "c.example.org" })
	cert, key = pair("d.example.org")
	put(t, names+"/d.example.org.pem", cert+key)
	peer.Own(t, names)
	if got := askctl(t, s, 0, "reload"); !strings.Contains(got.out, names+"/bad.example.org.pem") {
		t.Errorf("imapctl says %q", got.out)
	}
	if got := leaf("d.example.org"); got != "d.example.org" {
		t.Errorf("after a reload d.example.org gets the certificate of %s", got)
	}
	if got := leaf("bad.example.org"); got != "localhost" {
		t.Errorf("bad.example.org gets the certificate of %s", got)
	}
	if n := strings.Count(s.Log(), "certificate not reloaded file="+names+"/bad.example.org.pem"); n != 1 {
		t.Errorf("the broken file is logged %d times", n)
	}
}

// successor waits for the process that took over from s, which ends with the
// test.
func successor(t *testing.T, s *peer.Server) int {
	t.Helper()
	pid := 0
	eventually(t, func() string { return "nobody took over" }, func() bool {
		m := regexp.MustCompile(`handed over pid=(\d+)`).FindStringSubmatch(s.Log())
		if m != nil {
			pid, _ = strconv.Atoi(m[1])
		}
		return m != nil
	})
	t.Cleanup(func() {
		syscall.Kill(pid, syscall.SIGTERM)
		eventually(t, func() string { return "the new process does not end" }, func() bool {
			return syscall.Kill(pid, 0) != nil
		})
	})
	return pid
}

// TestHandOver has a new process take the doors over, and one that cannot start.
func TestHandOver(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(peer.TempDir(t), "imap")
	peer.Own(t, filepath.Dir(socket))
	s := peer.Imapd(t, basic(t), peer.Options{})
	edit(t, s, "listen: ", "listen: unix:"+socket+" ")
	notify(t, s, syscall.SIGHUP, "]: reloaded")
	c := s.Login(t, s.User)
	c.Do("SELECT INBOX")

	edit(t, s, "allowplaintext: yes", "allowplaintext: maybe")
	notify(t, s, syscall.SIGUSR2, "]: not handed over")
	s.Login(t, s.User).Do("LOGOUT")
	c.Do("NOOP")

	edit(t, s, "allowplaintext: maybe", "allowplaintext: yes\nservername: new.example.org")
	notify(t, s, syscall.SIGUSR2, "]: handed over")
	successor(t, s)
	if line := greeting(t, s, 1)[0]; !strings.Contains(line, "new.example.org") {
		t.Errorf("greeting after the hand-over: %s", line)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s.LoginOn(t, conn, s.User).Do("NOOP")
	c.Do("SELECT INBOX") // still with the old one
	c.Do("LOGOUT")
	if err := s.Wait(); err != nil {
		t.Errorf("the old process ends with %v", err)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the old process took the socket with it: %v", err)
	}
	welcome(t, s, 1).login(s)
}

// TestHandOverProgram installs another program in the ways that there are: the new
// process is of that one, whatever has become of the file that we run from.
func TestHandOverProgram(t *testing.T) {
	t.Parallel()
	text := []byte(read(t, peer.Binary(t)))
	add := func(t *testing.T, name, version string) {
		must(0, os.MkdirAll(filepath.Dir(name), 0o755))(t)
		must(0, peer.Program(name, append(text[:len(text):len(text)], version...)))(t) // what is behind an ELF file does no harm
	}
	for _, tt := range []struct {
		name, conf string
		before     func(t *testing.T, program string)
		install    func(t *testing.T, program string)
	}{
		{name: "renamed over", install: func(t *testing.T, program string) {
			add(t, program+".new", "2")
			must(0, os.Rename(program+".new", program))(t)
		}},
		{name: "moved away", install: func(t *testing.T, program string) { // install -b
			must(0, os.Rename(program, program+".old"))(t)
			add(t, program, "2")
		}},
		{name: "moved away, one process", conf: "privilege_separation: none", install: func(t *testing.T, program string) {
			must(0, os.Rename(program, program+".old"))(t)
			add(t, program, "2")
		}},
		{name: "a link is turned", before: func(t *testing.T, program string) {
			must(0, os.Rename(program, program+"-1"))(t)
			must(0, os.Symlink("imapd-1", program))(t)
		}, install: func(t *testing.T, program string) {
			add(t, program+"-2", "2")
			must(0, os.Symlink("imapd-2", program+".new"))(t)
			must(0, os.Rename(program+".new", program))(t)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			program := filepath.Join(peer.TempDir(t), "imapd")
			add(t, program, "1")
			if tt.before != nil {
				tt.before(t, program)
			}
			o := peer.Options{Program: program}
			if tt.conf != "" {
				o.Imapd = []string{tt.conf}
			}
			s := peer.Imapd(t, basic(t), o)
			tt.install(t, program)
			notify(t, s, syscall.SIGUSR2, "handed over")
			runs := must(os.Stat(fmt.Sprintf("/proc/%d/exe", successor(t, s))))(t)
			if !os.SameFile(runs, must(os.Stat(program))(t)) {
				t.Error("the new process is not of the new program")
			}
			s.Login(t, s.User).Do("NOOP")
		})
	}
}

// TestHandOverBroken installs what is no imapd, or none that serves: the old process
// says so and goes on.
func TestHandOverBroken(t *testing.T) {
	t.Parallel()
	text := read(t, peer.Binary(t))
	for name, program := range map[string]string{
		"nothing":   "",
		"garbage":   strings.Repeat("\x7fELF", 100),
		"cut short": text[:len(text)/2],
		"ends":      "#!/bin/sh\nexit 0\n",
		"fails":     "#!/bin/sh\nexit 3\n",
		"killed":    "#!/bin/sh\nkill -SEGV $$\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(peer.TempDir(t), "imapd")
			run(t, "/", "cp", peer.Binary(t), file)
			s := peer.Imapd(t, basic(t), peer.Options{Program: file})
			old := s.Login(t, s.User)
			must(0, os.Remove(file))(t)
			if program != "" {
				put(t, file, program)
				must(0, os.Chmod(file, 0o755))(t)
			}
			notify(t, s, syscall.SIGUSR2, "]: not handed over")
			old.Do("NOOP")
			s.Login(t, s.User).Do("NOOP")
			if strings.Contains(s.Log(), "no child processes") {
				t.Error("the log tells of processes that nobody has asked for")
			}
		})
	}
}

// TestReloadUnderLoad changes certificates and options of a server with many
// sessions at work, twenty times, then replaces it: no session may be lost, no
// command fail, no connection be refused.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	sessions, reloads := 60, 8
	if soaking() {
		sessions, reloads = 1000, 20
	}
	raiseFiles(t)
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"limit_preauth_per_address: 5000", "servername: n0.example.org"}})
	var over atomic.Bool
	var commands, connections atomic.Int64
	var all sync.WaitGroup
	fail := make(chan error, sessions+2)
	for i := range sessions {
		c := dialLoad(t, s, i%2 == 1)
		all.Go(func() {
			for n := 0; !over.Load(); n++ {
				if err := c.command([]string{"NOOP", "SELECT INBOX", "FETCH 1:* (FLAGS RFC822.SIZE)", "STATUS Sent (MESSAGES)"}[n%4]); err != nil {
					fail <- err
					return
				}
				commands.Add(1)
			}
		})
	}
	for i := range 2 {
		all.Go(func() {
			for !over.Load() {
				c, err := newLoad(s, i == 1)
				if err == nil {
					err = c.command("NOOP")
				}
				if err != nil {
					fail <- fmt.Errorf("a new connection: %w", err)
					return
				}
				c.conn.Close()
				connections.Add(1)
			}
		})
	}
	for n := range reloads {
		renew(t, s)
		edit(t, s, fmt.Sprintf("servername: n%d.", n), fmt.Sprintf("servername: n%d.", n+1))
		notify(t, s, syscall.SIGHUP, "]: reloaded")
	}
	before := connections.Load()
	notify(t, s, syscall.SIGUSR2, "]: handed over")
	successor(t, s)
	eventually(t, func() string { return "nobody comes in any more" }, func() bool { return connections.Load() > before+4 })
	over.Store(true)
	all.Wait()
	close(fail)
	for err := range fail {
		t.Error(err)
	}
	t.Logf("%d sessions, %d commands, %d new connections", sessions, commands.Load(), connections.Load())
}

// renew gives s another certificate, file by file as an admin's script does.
func renew(t *testing.T, s *peer.Server) {
	t.Helper()
	dir := filepath.Join(s.Dir(), "fresh")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	peer.Certificate(t, dir)
	peer.Own(t, dir)
	for _, file := range []string{"cert.pem", "key.pem"} {
		if err := os.Rename(filepath.Join(dir, file), filepath.Join(s.Dir(), file)); err != nil {
			t.Fatal(err)
		}
	}
}

// A load is a client that keeps a server busy. Unlike others it may be used by any
// goroutine of a test.
type load struct {
	conn net.Conn
	r    *bufio.Reader
	n    int
}

func dialLoad(t *testing.T, s *peer.Server, secret bool) *load {
	t.Helper()
	c, err := newLoad(s, secret)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close() })
	return c
}

// newLoad connects and logs in.
func newLoad(s *peer.Server, secret bool) (*load, error) {
	dial := s.Dial
	if secret {
		dial = s.DialTLS
	}
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	c := &load{conn: conn, r: bufio.NewReader(conn)}
	conn.SetDeadline(time.Now().Add(answerTime))
	if line, err := c.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "* OK") {
		return nil, fmt.Errorf("greeting %q: %w", line, err)
	}
	return c, c.command("LOGIN " + s.User + " " + peer.Password)
}

// command sends a command and reads its answer, which must be OK.
func (c *load) command(text string) error {
	c.n++
	tag := fmt.Sprintf("x%d ", c.n)
	c.conn.SetDeadline(time.Now().Add(answerTime))
	if _, err := c.conn.Write([]byte(tag + text + "\r\n")); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		if answer, ok := strings.CutPrefix(line, tag); ok {
			if !strings.HasPrefix(answer, "OK") {
				return fmt.Errorf("%s: %s", text, answer)
			}
			return nil
		}
		if strings.HasPrefix(line, "* BYE") {
			return fmt.Errorf("%s: %s", text, line)
		}
	}
}

// TestHandOverFails holds that a new process which does not come to serve leaves
// the doors of the old one as they are, at whatever moment it fails.
func TestHandOverFails(t *testing.T) {
	t.Parallel()
	for what, wrong := range map[string][2]string{
		"an address that nobody has": {"listen: ", "listen: imap://192.0.2.1:143 "},
		"a certificate that is none": {"cert.pem", "imapd.conf"},
	} {
		socket := filepath.Join(peer.TempDir(t), "imap")
		peer.Own(t, filepath.Dir(socket))
		s := peer.Imapd(t, basic(t), peer.Options{})
		edit(t, s, "listen: ", "listen: unix:"+socket+" ")
		notify(t, s, syscall.SIGHUP, "]: reloaded")
		edit(t, s, wrong[0], wrong[1])
		if what == "an address that nobody has" { // bound in the order of the list
			edit(t, s, wrong[1]+"unix:"+socket, "listen: unix:"+socket+" imap://192.0.2.1:143")
		}
		notify(t, s, syscall.SIGUSR2, "]: not handed over")
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		s.LoginOn(t, conn, s.User).Do("NOOP")
	}
}

// TestHandOverEnd has the old process told to end while the new one starts, as by
// who sends SIGUSR2 and SIGTERM one after the other.
func TestHandOverEnd(t *testing.T) {
	t.Parallel()
	needRoot(t) // else nobody but the process that serves opens doors
	dir := peer.TempDir(t)
	socket, included := filepath.Join(dir, "imap"), filepath.Join(dir, "included")
	peer.Own(t, dir)
	s := peer.Imapd(t, basic(t), peer.Options{})
	edit(t, s, "listen: ", "listen: unix:"+socket+" ")
	notify(t, s, syscall.SIGHUP, "]: reloaded")
	// The new process cannot go on before it has read this.
	must(0, syscall.Mkfifo(included, 0o644))(t)
	writer := must(os.OpenFile(included, os.O_RDWR, 0))(t)
	defer writer.Close()
	edit(t, s, "allowplaintext: yes", "allowplaintext: yes\n@include: "+included)
	must(0, syscall.Kill(s.PID, syscall.SIGUSR2))(t)
	eventually(t, func() string { return "no new process" }, func() bool { return len(peer.Children(s.Started())) > 1 })
	must(0, syscall.Kill(s.Started(), syscall.SIGTERM))(t)
	eventually(t, func() string { return "SIGTERM is not heard" }, func() bool { return strings.Contains(s.Log(), "graceful shutdown") })
	put(t, included+".file", "")
	must(0, os.Rename(included+".file", included))(t)
	writer.Close()
	successor(t, s)
	conn := must(net.Dial("unix", socket))(t)
	s.LoginOn(t, conn, s.User).Do("NOOP")
}

// TestHandOverNever has the old process told to end while the new one does not come
// to serve: it does not wait for that as long as it would else, and ends it.
func TestHandOverNever(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"shared", "none"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"privilege_separation: " + way}})
			included := filepath.Join(peer.TempDir(t), "included")
			must(0, syscall.Mkfifo(included, 0o644))(t)
			defer must(os.OpenFile(included, os.O_RDWR, 0))(t).Close()
			edit(t, s, "allowplaintext: yes", "allowplaintext: yes\n@include: "+included)
			before := len(peer.Children(s.Started()))
			must(0, syscall.Kill(s.Started(), syscall.SIGUSR2))(t)
			eventually(t, func() string { return "no new process" }, func() bool { return len(peer.Children(s.Started())) > before || len(peer.Children(s.PID)) > 0 })
			must(0, syscall.Kill(s.Started(), syscall.SIGTERM))(t)
			eventually(t, func() string { return "it does not end" }, func() bool { return syscall.Kill(s.Started(), 0) != nil })
			if err := s.Wait(); err != nil {
				t.Errorf("it ends with %v", err)
			}
			if conn, err := net.Dial("tcp", s.Addr); err == nil {
				conn.Close()
				t.Error("somebody listens still")
			}
		})
	}
}

// TestHandOverSlow has a new process that does not get ready: meanwhile users log
// in to processes of their own, and who tells the server to end is heard, behind
// SIGHUP too, which has to wait.
func TestHandOverSlow(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{})
	c := s.Login(t, "alice")
	included := filepath.Join(peer.TempDir(t), "included")
	must(0, syscall.Mkfifo(included, 0o644))(t)
	writer := must(os.OpenFile(included, os.O_RDWR, 0))(t)
	defer writer.Close()
	edit(t, s, "allowplaintext: yes", "allowplaintext: yes\n@include: "+included)
	before := len(peer.Children(s.Started()))
	must(0, syscall.Kill(s.Started(), syscall.SIGUSR2))(t)
	eventually(t, func() string { return "no new process" }, func() bool { return len(peer.Children(s.Started())) > before })
	s.Login(t, "bob").Do("NOOP") // the parent starts his process
	must(0, syscall.Kill(s.Started(), syscall.SIGHUP))(t)
	c.Do("NOOP")
	must(0, syscall.Kill(s.Started(), syscall.SIGTERM))(t)
	eventually(t, func() string { return "SIGTERM is not heard" }, func() bool { return strings.Contains(s.Log(), "graceful shutdown") })
	put(t, included+".file", "")
	must(0, os.Rename(included+".file", included))(t)
	writer.Close()
	successor(t, s)
	s.Login(t, "bob").Do("NOOP")
	if err := s.Wait(); err != nil {
		t.Errorf("the old process ends with %v", err)
	}
	if strings.Contains(s.Log(), "answer to a child") {
		t.Error("the parent complains")
	}
}
