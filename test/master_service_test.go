package test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// TestMasterList has Cyrus's programs look at our list of who is on, and keep one of
// them out.
func TestMasterList(t *testing.T) {
	t.Parallel()
	s := peer.Master(t, basicFor(t, "jane", "john"), peer.Options{Users: []string{"jane", "john"}}, peer.Service{Name: "imap"})
	jane, john := s.Login(t, "jane"), s.Login(t, "john")
	jane.Do("SELECT INBOX")
	jane.Send("i IDLE")
	jane.Wait("+")
	run := func(c *exec.Cmd) string {
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v\n%s", c.Args, err, out)
		}
		return string(out)
	}
	text := run(s.Cyrus(t, "cyr_info", "proc"))
	for user, rest := range map[string]string{"jane": "INBOX Idle", "john": " "} {
		want := fmt.Sprintf("%d imap [127.0.0.1] %s %s\n", pidOf(t, s, user), user, rest)
		if !strings.Contains(text, want) {
			t.Errorf("cyr_info proc says %q, want %q", text, want)
		}
	}
	login := func(want string) {
		t.Helper()
		if got := loginReply(t, s, "jane", peer.Password); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	login("a OK ")
	run(s.Cyrus(t, "cyr_deny", "-s", "pop3,ima?", "-m", "unpaid\tsince June", "jane"))
	jane.WaitEnd()
	john.Do("NOOP")
	login("a NO [AUTHORIZATIONFAILED] unpaid since June\r\n")
	if got, want := loginReply(t, s, "jane", "wrong"), "a NO [AUTHENTICATIONFAILED] "; !strings.HasPrefix(got, want) {
		t.Errorf("with a wrong password: %q, want %q", got, want)
	}
	logged(t, s, `<21>.* imap\[\d+\]: badlogin: \[127.0.0.1\] plaintext \(jane\) \[SASL\(-14\): authorization failure: user 'jane' is denied access to service 'imap'\]\n`)
	run(s.Cyrus(t, "cyr_deny", "-s", "*,!imap", "jane"))
	login("a OK ")
	run(s.Cyrus(t, "cyr_deny", "jane"))
	login("a NO [AUTHORIZATIONFAILED] Access to this service has been blocked\r\n")
	run(s.Cyrus(t, "cyr_deny", "-a", "jane"))
	login("a OK ")
	logged(t, s, "graceful shutdown")
	if got := complaints(s); len(got) > 0 {
		t.Errorf("master complains:\n%s", strings.Join(got, ""))
	}
}

// TestMasterLogins bounds the sessions of a user and of a host, across
// processes.
func TestMasterLogins(t *testing.T) {
	t.Parallel()
	s := peer.Master(t, basicFor(t, "jane", "john"), peer.Options{Users: []string{"jane", "john"},
		Imapd: []string{"maxlogins_per_user: 2", "maxlogins_per_host: 3"}}, peer.Service{Name: "imap"})
	first, second, other := s.Login(t, "jane"), s.Login(t, "jane"), s.Login(t, "john")
	conn := must(s.Dial())(t)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(conn)
	must(r.ReadString('\n'))(t)
	login := func(user, want string) {
		t.Helper()
		fmt.Fprintf(conn, "a LOGIN %s %s\r\n", user, peer.Password)
		if got := must(r.ReadString('\n'))(t); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	login("jane", "a NO [LIMIT] Too many open connections (3 of 3 from [127.0.0.1], 2 of 2 for jane)\r\n")
	logged(t, s, `<19>.* imap\[\d+\]: Too many open connections \(3 of 3 from \[127.0.0.1\], 2 of 2 for jane\)`)
	other.Do("LOGOUT")
	eventually(t, func() string { return "john stays on" }, func() bool { return len(must(os.ReadDir(s.Dir()+"/proc"))(t)) == 3 })
	login("jane", "a NO [LIMIT] Too many open connections (2 of 3 from [127.0.0.1], 2 of 2 for jane)\r\n")
	login("john", "a OK ")
	first.Do("NOOP")
	second.Do("NOOP")
}

// TestMasterService has a service of another name: its options, its notices, its
// name in the log; and the options -s, -p and -D.
func TestMasterService(t *testing.T) {
	t.Parallel()
	mark := filepath.Join(peer.TempDir(t), "mark")
	if err := os.Chmod(filepath.Dir(mark), 0o777); err != nil {
		t.Fatal(err)
	}
	s := peer.Master(t, basic(t), peer.Options{Imapd: []string{
		"allowplaintext: no", "syslog_prefix: cyrus", "imaps_serverinfo: off", "plain_servername: plain.example",
		"debug_command: echo %s %d %s >" + mark,
	}}, peer.Service{Name: "plain", Args: "-p 2"}, peer.Service{Name: "imaps", Args: "-s -D"})

	// An external layer of strength 2 keeps passwords private.
	lines := greeting(t, s, 1)
	if strings.Contains(lines[0], "LOGINDISABLED") || !strings.Contains(lines[0], "STARTTLS") || !strings.Contains(lines[0], "AUTH=PLAIN") || !strings.Contains(lines[0], "plain.example") {
		t.Errorf("-p 2: %s", lines)
	}
	s.Login(t, s.User).Do("LOGOUT")
	logged(t, s, `cyrus/plain\[\d+\]: login: \[127.0.0.1\] jane plaintext User`)

	secure := func() string {
		conn := must(s.DialTLS())(t)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintf(conn, "a LOGIN %s %s\r\nb LOGOUT\r\n", s.User, peer.Password)
		return string(must(io.ReadAll(conn))(t))
	}
	if got := secure(); !strings.Contains(got, "] server ready\r\n") || strings.Contains(got, "STARTTLS") || !strings.Contains(got, "a OK") {
		t.Errorf("-s: %s", got)
	}
	m := logged(t, s, `cyrus/imaps\[(\d+)\]: login: \[127.0.0.1\] jane plaintext\+TLS User`)
	if got, want := read(t, mark), s.Program+" "+m[1]+" imaps\n"; got != want {
		t.Errorf("debug_command was told %q, want %q", got, want)
	}

	put(t, s.Dir()+"/msg/shutdown.imaps", "Not now\n")
	eventually(t, func() string { return "imaps is served" }, func() bool { return secure() == "* BYE [ALERT] Not now\r\n" })
	s.Login(t, s.User).Do("LOGOUT")
	// A client that was turned away was a client: its process serves the next.
	if err := os.Remove(s.Dir() + "/msg/shutdown.imaps"); err != nil {
		t.Fatal(err)
	}
	if got := secure(); !strings.Contains(got, "a OK") {
		t.Errorf("after the shutdown: %s", got)
	}
	if got := complaints(s); len(got) > 0 {
		t.Errorf("master complains:\n%s", strings.Join(got, ""))
	}
}

// TestMasterExample starts the cyrus.conf that sites copy, with other paths and
// ports.
func TestMasterExample(t *testing.T) {
	t.Parallel()
	s := peer.MasterOf(t, basic(t), peer.Options{}, func(s *peer.Server) string {
		text := read(t, "../contrib/cyrus.conf")
		for from, to := range map[string]string{
			`"/usr/local/sbin/imapd `: fmt.Sprintf(`"%s -C %s `, s.Program, s.ConfFile()),
			`listen="imap"`:           fmt.Sprintf(`listen="%s" proto="tcp4"`, s.Addr),
			`listen="imaps"`:          fmt.Sprintf(`listen="%s" proto="tcp4"`, s.TLSAddr),
		} {
			if !strings.Contains(text, from) {
				t.Fatalf("no %s", from)
			}
			text = strings.ReplaceAll(text, from, to)
		}
		return text
	})
	s.Login(t, s.User).Do("SELECT INBOX")
	s.LoginOn(t, must(s.DialTLS())(t), s.User).Do("SELECT INBOX")
	eventually(t, func() string { return fmt.Sprintf("waiting are %v", waiting(t, s)) }, func() bool { return len(waiting(t, s)) == 6 })
	if got := complaints(s); len(got) > 0 {
		t.Errorf("master complains:\n%s", strings.Join(got, ""))
	}
}
