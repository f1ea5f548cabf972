package test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

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
		names, err := filepath.Glob(s.Dir() + "/proc/[^.]*")
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

// A header is what a proxy sends first, and who the client is then.
type header struct{ text, host string }

// headers are of both versions, and of IPv4, IPv6 and IPv4 in IPv6.
var headers = []header{
	{"PROXY TCP4 192.0.2.9 127.0.0.1 4096 143\r\n", "192.0.2.9"},
	{"PROXY TCP6 2001:db8:0:0::a ::1 4096 143\r\n", "2001:db8::a"},
	{"PROXY TCP6 ::ffff:192.0.2.10 ::1 4096 143\r\n", "192.0.2.10"},
	{version2("192.0.2.11"), "192.0.2.11"},
	{version2("2001:DB8::B"), "2001:db8::b"},
}

// version2 is a header of version 2 for a client that has connected to itself.
func version2(client string) string {
	ip := netip.MustParseAddr(client)
	kind, both := byte(0x11), append(ip.AsSlice(), ip.AsSlice()...)
	if ip.Is6() {
		kind = 0x21
	}
	both = append(both, 0x10, 0, 0, 143) // the ports
	return "\r\n\r\n\x00\r\nQUIT\n\x21" + string([]byte{kind, 0, byte(len(both))}) + string(both)
}

// TestOnlyProxies has launchers start the server with -H: a client is who the header
// says, and without one, or from elsewhere, it is not answered.
func TestOnlyProxies(t *testing.T) {
	t.Parallel()
	needRoot(t)
	trusted := []string{"haproxy_trusted_networks: 127.0.0.7 ::1"}
	one, each := peer.Imapd(t, basic(t), peer.Options{Imapd: trusted}), usersSite(t, peer.Options{Imapd: trusted})
	for _, tt := range []struct {
		name  string
		site  *peer.Server
		start starter
		from  string // the proxy's address
	}{
		{"standalone", one, standalone, "127.0.0.7"},
		{"inetd", one, inetd("nowait"), "127.0.0.7"},
		{"inetd IPv6", one, inetd6, "::1"},
		{"inetd, users", each, inetd("nowait"), "127.0.0.7"},
		{"inetd wait", one, inetd("wait"), "127.0.0.7"},
		{"systemd", one, activate(plainSocket), "127.0.0.7"},
		{"systemd TLS", one, activate(tlsSocket), "127.0.0.7"},
		{"systemd IPv6", one, activate(plain6Socket), "::1"},
		{"systemd, users", each, activate(plainSocket), "127.0.0.7"},
		{"systemd accept", one, activate(plainSocket, "-a"), "127.0.0.7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := peer.NewRoom(t)
			at := tt.start(r, t, []string{"-H", "-C", tt.site.ConfFile()})
			onlyProxies(t, tt.site, at, tt.from, r.Told)
		})
	}
	t.Run("master", func(t *testing.T) {
		t.Parallel()
		s := peer.Master(t, basic(t), peer.Options{Imapd: trusted}, peer.Service{Name: "imap", Args: "-H", More: "maxchild=1"}, peer.Service{Name: "imaps", Args: "-H -s"})
		told := func(pattern string) []string { return logged(t, s, pattern) }
		onlyProxies(t, s, launched{addr: s.Addr}, "127.0.0.7", told)
		onlyProxies(t, s, launched{addr: s.TLSAddr, tls: true}, "127.0.0.7", told)
		if got := complaints(s); len(got) > 0 {
			t.Errorf("master complains:\n%s", strings.Join(got, ""))
		}
	})
}

// onlyProxies comes in as a proxy does that has the address from, and as others do.
func onlyProxies(t *testing.T, s *peer.Server, at launched, from string, told func(pattern string) []string) {
	t.Helper()
	connect := func(from, first string) net.Conn {
		conn := peer.Dial(t, "tcp", at.addr, from)
		must(io.WriteString(conn, first))(t)
		return conn
	}
	refused := func(from, first, why string) {
		t.Helper()
		conn := connect(from, first)
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if out, err := remainder(conn); len(out) > 0 || err != nil {
			t.Errorf("%q from %s: the answer is %q, %v", first, from, out, err)
		}
		told(why + ` host=\[` + from + `\]`)
	}
	refused(from, "a CAPABILITY\r\n", "PROXY protocol")
	if from != "::1" { // this machine has no other
		refused("127.0.0.8", headers[0].text, "connection past the proxy")
	}
	for _, h := range headers {
		conn, mech := connect(from, h.text), "plaintext"
		if at.tls {
			mech = `plaintext\+TLS`
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		}
		c := s.LoginOn(t, conn, s.User)
		m := told(`login: \[` + h.host + `\] ` + s.User + ` ` + mech + ` .*SESSIONID=<(.*)>`)
		listedFrom(t, s, m[1], "["+h.host+"]")
		c.Do("LOGOUT")
	}
}

// TestProbes looks as proxies and monitors do whether the server lives: nothing
// of it is worth a line in the log. What is no header is, and gets no answer.
func TestProbes(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"haproxy_trusted_networks: 127.0.0.7"}})
	before := s.Log()
	for i := range 3 {
		peer.Dial(t, "tcp", s.Addr, "").Close()
		peer.Dial(t, "tcp", s.TLSAddr, "").Close()
		peer.Dial(t, "tcp", s.Addr, "127.0.0.7").Close()
		peer.Dial(t, "tcp", s.TLSAddr, "127.0.0.7").Close()
		secret := tls.Client(peer.Dial(t, "tcp", s.TLSAddr, ""), &tls.Config{InsecureSkipVerify: true})
		must(0, secret.Handshake())(t)
		if i > 0 { // it waits for the greeting
			must(bufio.NewReader(secret).ReadString('\n'))(t)
		}
		secret.Close()
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
