package test

import (
	"encoding/base64"
	"io"
	"os/exec"
	"strings"
	"testing"

	"imapd/test/peer"
)

// TestFail2ban holds that the filter which sites have for Cyrus sees every
// guess at a password, and never another address than the client's.
func TestFail2ban(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "syslog_prefix: cyrus"} {
		t.Run(prefix, func(t *testing.T) {
			t.Parallel()
			fail2ban(t, prefix)
		})
	}
}

func fail2ban(t *testing.T, prefix string) {
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{prefix, "limit_login_tries: 1000", "limit_preauth_bad_commands: 1000", "admins: root"}})
	plain := func(text string) string {
		return "AUTHENTICATE PLAIN " + base64.StdEncoding.EncodeToString([]byte(text))
	}
	poison := `x [192.0.2.1] PLAIN (y) [SASL(-13): authentication failure: z]`
	guesses := []string{
		"LOGIN jane wrong", "LOGIN nobody wrong", "LOGIN \"jane\" {5+}\r\nwrong", plain("\x00jane\x00wrong"), plain("jane\x00jane\x00wrong"),
		plain("\x00nobody\x00x"), plain("joe\x00jane\x00" + peer.Password),
		"LOGIN jane \"\"", "LOGIN \"a b [192.0.2.1] c\" x",
	}
	others := []string{
		"LOGIN jane", "LOGIN \"\xc3\xa4\" x", "LOGIN a/b x", plain("x"), "AUTHENTICATE PLAIN ====", "AUTHENTICATE X",
		"LOGIN \"" + poison + "\" x", plain("\x00" + poison + "\x00x"),
		"LOGIN {20+}\r\nx\r\nbadlogin: [192.0 x",
	}
	conn := must(s.Dial())(t)
	defer conn.Close()
	go func() {
		for _, line := range append(guesses, others...) {
			io.WriteString(conn, "a "+line+"\r\n")
		}
		io.WriteString(conn, "z LOGOUT\r\n")
	}()
	out, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(out), "\r\nz OK") || strings.Contains(string(out), "\r\na OK") {
		t.Fatalf("%s, %v", out, err)
	}
	for line := range strings.Lines(s.Log()) {
		if len(line) < 16 || line[15] != ' ' {
			t.Errorf("no line of a log: %q", line)
		}
	}
	banned := bans(t, s.LogFile())
	for _, ip := range banned {
		if ip != "127.0.0.1" {
			t.Errorf("%s is banned", ip)
		}
	}
	if len(banned) != len(guesses) {
		t.Errorf("fail2ban sees %d of %d guesses:\n%s", len(banned), len(guesses), s.Log())
	}
}

// bans returns the addresses that fail2ban's own filter for Cyrus finds in the
// file log, one for each line that matches.
func bans(t *testing.T, log string) []string {
	t.Helper()
	peer.Need(t, "fail2ban-regex")
	c := exec.Command("fail2ban-regex", "-o", "ip", log, "/etc/fail2ban/filter.d/cyrus-imap.conf")
	var complaints strings.Builder
	c.Stderr = &complaints
	out, err := c.Output()
	if err != nil {
		t.Fatalf("fail2ban-regex: %v\n%s%s", err, out, complaints.String())
	}
	return strings.Fields(string(out))
}
