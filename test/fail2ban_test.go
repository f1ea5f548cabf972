package test

import (
	"encoding/base64"
	"io"
	"regexp"
	"strings"
	"testing"

	"imapd/test/peer"
)

// What fail2ban 1.0 makes of its filter cyrus-imap, for lines from which it has
// cut the date. The name is that of the host, the number is the process's.
var cyrusFilter = regexp.MustCompile(`^\S+ (?:cyrus/)?(?:imap(?:d|s)?|pop3(?:d|s)?)\[\d+\]: badlogin: [^\[]*\[([\d.]+)\] \S+ .*?\[?SASL\(-13\): (?:authentication failure|user not found): .*\]?$`)

// TestFail2ban holds that the filter which sites have for Cyrus sees every
// guess at a password, and never another address than the client's.
func TestFail2ban(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"limit_login_tries: 1000", "limit_preauth_bad_commands: 1000", "admins: root"}})
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
	found := 0
	for line := range strings.Lines(s.Log()) {
		line = strings.TrimSuffix(line, "\n")
		if len(line) < 16 || line[15] != ' ' {
			t.Errorf("no line of a log: %q", line)
			continue
		}
		m := cyrusFilter.FindStringSubmatch(line[16:])
		switch {
		case m == nil:
		case m[1] != "127.0.0.1":
			t.Errorf("%s is banned for %q", m[1], line)
		default:
			found++
		}
	}
	if found != len(guesses) {
		t.Errorf("fail2ban sees %d of %d guesses:\n%s", found, len(guesses), s.Log())
	}
}
