package test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// TestAttackTLS plays with the way into TLS: what was sent in clear must count
// for nothing, and nothing may follow the OK before the handshake.
func TestAttackTLS(t *testing.T) {
	t.Parallel()
	s := newTarget(t, basicMany(t, false), peer.Options{})
	s.run(t, []attack{
		{name: "arguments", send: say("a STARTTLS x\r\nb STARTTLS {3+}\r\nabc\r\n"), want: "a BAD, b BAD"},
		{name: "no handshake", send: say("a STARTTLS\r\nb LOGIN jane Secret-7\r\nc SELECT INBOX\r\n" + strings.Repeat("d NOOP\r\n", 1000)), want: "a OK, closed"},
		{name: "a hello of junk", send: say("a STARTTLS\r\n\x16\x03\x01\xff\xff" + strings.Repeat("x", 65535)), want: "a OK, closed"},
	})

	// Commands in the packet of STARTTLS are not run under TLS either.
	conn := must(s.Dial())(t)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	readLine(t, conn)
	io.WriteString(conn, "a STARTTLS\r\nb NOOP\r\nc LOGIN jane Secret-7\r\n")
	readLine(t, conn)
	c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "d STARTTLS\r\ne LOGIN jane Secret-7\r\nf STARTTLS\r\ng LOGOUT\r\n")
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(all)) {
		words := strings.Fields(line)
		got = append(got, strings.Join(words[:2], " "))
	}
	if want := "d BAD, e OK, f BAD, * BYE, g OK"; strings.Join(got, ", ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// readLine reads one line octet by octet, to leave the rest where it is.
func readLine(t *testing.T, r io.Reader) string {
	t.Helper()
	var b []byte
	for c := make([]byte, 1); len(b) == 0 || b[len(b)-1] != '\n'; b = append(b, c[0]) {
		if _, err := io.ReadFull(r, c); err != nil {
			t.Fatalf("after %q: %v", b, err)
		}
	}
	return string(b)
}

// TestAttackSecrets plants words where passwords and mail go, and looks for
// them in everything that the server writes about its work.
func TestAttackSecrets(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"chatty: yes", "debug: yes", "limit_login_tries: 100", "limit_preauth_bad_commands: 100", "limit_bad_commands: 100"}})
	const canary = "canary"
	mkdir(t, filepath.Join(filepath.Dir(s.ConfFile()), "log"))
	mkdir(t, filepath.Join(filepath.Dir(s.ConfFile()), "log", s.User))
	peer.Own(t, filepath.Dir(s.ConfFile()))
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	secrets := []string{canary, strings.TrimRight(encode("canary"), "="), encode("\x00jane\x00canary"), encode("\x00jane\x00" + peer.Password), peer.Password}
	conn := must(s.Dial())(t)
	defer conn.Close()
	go func() {
		for _, line := range []string{
			"LOGIN jane canary", "LOGIN jane {6+}\r\ncanary", "LOGIN \"jane\" \"canary", "LOGIN jane canary canary", "LOGIN canary", "AUTHENTICATE PLAIN " + secrets[2],
			"AUTHENTICATE LOGIN " + encode("jane") + "\r\n" + encode("canary"), "AUTHENTICATE PLAIN\r\ncanary!", "CANARY canary", "X-canary", "AUTHENTICATE X\r\n" + secrets[2] + " x", "LOGIN jane " + peer.Password,
			"CREATE &canary", "APPEND INBOX {18+}\r\nSubject: canary\r\n\r\n", "SEARCH TEXT canary", "SELECT INBOX",
			"SEARCH TEXT canary", "FETCH 5 BODY[]", "LOGOUT",
		} {
			io.WriteString(conn, "a "+line+"\r\n")
		}
	}()
	if out, err := io.ReadAll(conn); err != nil || !strings.Contains(string(out), "Subject: canary") {
		t.Fatalf("%s, %v", out, err)
	}
	for _, secret := range secrets {
		for line := range strings.Lines(s.Log()) {
			if strings.Contains(strings.ToLower(line), strings.ToLower(secret)) {
				t.Errorf("log: %s", line)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(s.ConfFile()), "log", s.User, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("telemetry: %v, %v", files, err)
	}
	if text := read(t, files[0]); strings.Contains(text, peer.Password) || !strings.Contains(text, "User logged in") {
		t.Errorf("telemetry: %s", text)
	}
}

// TestAttackLeaks begins and ends sessions in all ways there are. Nothing of
// them may stay.
func TestAttackLeaks(t *testing.T) {
	t.Parallel()
	s := newTarget(t, basicMany(t, false), peer.Options{})
	ways := []func(c *attacker){
		func(c *attacker) {},
		func(c *attacker) { c.do("SELECT INBOX") },
		func(c *attacker) { c.do("SELECT INBOX"); io.WriteString(c, "a IDLE\r\n"); c.next() },
		func(c *attacker) { io.WriteString(c, "a APPEND Work {100}\r\n"); c.next(); io.WriteString(c, "half") },
		func(c *attacker) { io.WriteString(c, "a APPEND Work {100+}\r\nhalf") },
		func(c *attacker) { io.WriteString(c, "a SELECT {100+}\r\nhalf") },
		func(c *attacker) { io.WriteString(c, "a FETCH 1:* BODY.PEEK[]\r\nb LOGOUT\r\n") },
		func(c *attacker) { c.do("SELECT Work"); c.Conn.(*net.TCPConn).SetLinger(0) },
	}
	round := func() {
		for i := range 4 * len(ways) {
			c := s.connect(t, user)
			ways[i%len(ways)](c)
			c.Close()
		}
		for range 8 {
			must(s.Dial())(t).Close()
			c := must(s.Dial())(t)
			io.WriteString(c, "a STARTTLS\r\n")
			c.Close()
		}
	}
	round()
	base := s.settled(t, 0)
	for range 8 {
		round()
	}
	// An instance of inotify that is opened late is no leak: eight rounds would leak eight.
	if now := s.settled(t, base); now > base+1 {
		t.Errorf("%d descriptors are open, after fewer sessions it was %d", now, base)
	}
	strays, err := filepath.Glob(filepath.Join(strings.Replace(s.Maildir, "%u", "jane", 1), ".Work", "tmp", "*"))
	if err != nil || len(strays) > 0 {
		t.Errorf("tmp: %v, %v", strays, err)
	}
}

// settled returns how many descriptors the server has open when they are at
// most want, or when they have not become fewer for a second.
func (s *target) settled(t *testing.T, want int) int {
	t.Helper()
	n, since := 1<<30, time.Now()
	for {
		s.bystander.Do("NOOP")
		now := len(must(os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID)))(t))
		if now < n {
			n, since = now, time.Now()
		}
		if n <= want || time.Since(since) > time.Second {
			return n
		}
	}
}

// paths matches the paths in a line of strace, with what they are relative to.
var paths = regexp.MustCompile(`(?:(AT_FDCWD|\d+)(?:<([^>]*)>(?:\(deleted\))?)?, )?"((?:[^"\\]|\\.)*)"`)

// TestAttackPaths watches which files the server touches for a user who tries
// to get at others.
func TestAttackPaths(t *testing.T) {
	t.Parallel()
	peer.Need(t, "strace")
	dir := basicMany(t, false)
	jane := strings.Replace(dir, "%u", "jane", 1)
	file := filepath.Join(peer.TempDir(t), "strace")
	s := peer.Imapd(t, dir, peer.Options{Users: []string{"jane", "joe"}, Wrap: []string{
		"strace", "-D", "-f", "-y", "-q", "-s", "500", "-o", file, "-e", "trace=%file,mkdirat,renameat2,unlinkat,linkat,symlinkat"}})
	c := s.Login(t, "jane")
	c.Try(`STATUS "mark" (MESSAGES)`)
	started := len(read(t, file))
	for _, name := range []string{
		"../joe/Maildir", "../../joe/Maildir/.Work", "/etc/passwd", "~joe/x", "~/x", "..", ".", "x/../../joe", "&AC4ALg-/x", "&AC8-etc", "./x", "x/./y", "%u", "$HOME", "cur", "tmp", "new/x", "INBOX/../x", "", "/",
	} {
		for _, command := range []string{"SELECT \"%s\"", "CREATE \"%s\"", "RENAME Work \"%s\"", "RENAME \"%s\" Back", "STATUS \"%s\" (MESSAGES)", "SUBSCRIBE \"%s\"", "UNSUBSCRIBE \"%s\"",
			"LIST \"\" \"%s\"", "LIST \"%s\" *", "LSUB \"%s\" *", "APPEND \"%s\" {11+}\r\nSubject: x\n", "DELETE \"%s\""} {
			c.Try("%s", strings.Replace(command, "%s", name, 1))
		}
		c.Try("SELECT INBOX")
		c.Try("COPY 1 \"%s\"", name)
	}
	s.Stop()
	text := read(t, file)[started:]
	looked := 0
	for line := range strings.Lines(text) {
		for _, m := range paths.FindAllStringSubmatch(line, -1) {
			path := m[3]
			if !strings.HasPrefix(path, "/") {
				path = m[2] + "/" + path
			}
			looked++
			if clean := filepath.Clean(path); !strings.HasPrefix(clean+"/", jane+"/") && !allowed(clean, filepath.Dir(s.ConfFile())) {
				t.Errorf("outside: %s in %s", path, line)
			}
		}
	}
	if looked < 100 {
		t.Errorf("only %d paths in %s", looked, text)
	}
}

// allowed reports whether a server with this configuration directory may look
// at the path for any user.
func allowed(path, conf string) bool {
	for _, below := range []string{conf, "/proc/self", "/sys", "/dev"} {
		if strings.HasPrefix(path+"/", below+"/") {
			return true
		}
	}
	// Where the certificates are is watched, with the directories that lead there.
	return strings.HasPrefix(conf, path+"/") || path == "/etc/localtime" || path == "/proc/sys/kernel/random/boot_id"
}
