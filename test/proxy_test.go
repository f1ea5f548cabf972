package test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imapd/test/peer"
)

// TestForwardedClient has a webmail server say for whom it logs in: that is what
// the log and the list of who is on name, if the server is trusted.
func TestForwardedClient(t *testing.T) {
	t.Parallel()
	for trusted, host := range map[string]string{"127.0.0.1": "[192.0.2.9]", "192.0.2.1": "[127.0.0.1]"} {
		s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"login_trusted_networks: " + trusted, "limit_login_tries: 9"}})
		conn := must(s.Dial())(t)
		defer conn.Close()
		fmt.Fprintf(conn, `a ID ("name" "webmail" "X-Originating-IP" "192.0.2.9" "x-originating-port" "4096" "x-session-id" "x" "x-proxy-ttl" "4")`+"\r\n"+
			"b LOGIN jane wrong\r\nc LOGIN jane %s\r\nd ID (\"x-originating-ip\" \"192.0.2.10\")\r\ne NOOP\r\n", peer.Password)
		var out strings.Builder
		for !strings.Contains(out.String(), "\r\ne OK") {
			b := make([]byte, 4096)
			n, err := conn.Read(b)
			if err != nil {
				t.Fatalf("%q, %v", &out, err)
			}
			out.Write(b[:n])
		}
		for _, want := range []string{"badlogin: " + host + " plaintext (jane)", "login: " + host + " jane plaintext"} {
			if !strings.Contains(s.Log(), want) {
				t.Errorf("no %q in the log:\n%s", want, s.Log())
			}
		}
		names, err := filepath.Glob(s.Dir() + "/proc/*")
		if err != nil {
			t.Fatal(err)
		}
		all := ""
		for _, name := range names {
			text, _ := os.ReadFile(name) // gone, if it is that of the first look at the server
			all += string(text)
		}
		if !strings.Contains(all, "\t"+host+"\tjane\t") {
			t.Errorf("who is on: %q", all)
		}
	}
}

// TestProbes looks as proxies and monitors do whether the server lives: nothing
// of it is worth a line in the log. What is no header is, and gets no answer.
func TestProbes(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"haproxy_trusted_networks: 127.0.0.7"}})
	before := s.Log()
	for range 3 {
		peer.Dial(t, "tcp", s.Addr, "").Close()
		peer.Dial(t, "tcp", s.TLSAddr, "").Close()
		peer.Dial(t, "tcp", s.Addr, "127.0.0.7").Close()
		peer.Dial(t, "tcp", s.TLSAddr, "127.0.0.7").Close()
		local := peer.Dial(t, "tcp", s.Addr, "127.0.0.7")
		io.WriteString(local, "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00a CAPABILITY\r\nb LOGOUT\r\n")
		if out, err := io.ReadAll(local); err != nil || !strings.HasPrefix(string(out), "* OK ") || !strings.Contains(string(out), "\r\nb OK") {
			t.Errorf("a proxy that looks whether we live gets %q, %v", out, err)
		}
	}
	junk := peer.Dial(t, "tcp", s.Addr, "127.0.0.7")
	io.WriteString(junk, "GET / HTTP/1.0\r\n\r\n")
	if out, _ := io.ReadAll(junk); len(out) > 0 {
		t.Errorf("no header, and the answer is %q", out)
	}
	// That line comes after all others that there might be.
	log := strings.TrimPrefix(s.Log(), before)
	if !regexp.MustCompile(`^\S+ +\S+ \S+ \S+ imapd\[\d+\]: PROXY protocol host=\[127\.0\.0\.7\] err="no PROXY header"\n$`).MatchString(log) {
		t.Errorf("the log has %q", log)
	}
}
