package test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// The files of contrib are started as they are, but for the ports and paths,
// which are the test's. Each replacement must find something to replace.

// contrib returns a file of contrib, with replacements of old and new.
func contrib(t *testing.T, name string, replace ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(top, "contrib", name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("contrib/%s has no %q", name, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	return text
}

// site is a room with a configuration for what is started there.
func site(t *testing.T, lines ...string) (s *peer.Server, r *peer.Room, conf string) {
	t.Helper()
	s = peer.Imapd(t, basic(t), peer.Options{})
	r = peer.NewRoom(t)
	text, err := os.ReadFile(s.ConfFile())
	if err != nil {
		t.Fatal(err)
	}
	all := peer.MergeOptions(strings.Split(strings.TrimSpace(string(text)), "\n"), lines)
	return s, r, r.File("imapd.conf", strings.Join(all, "\n")+"\n")
}

// comeIn logs in at addr as a client that is 127.0.0.7, and sees that the log
// says so.
func comeIn(t *testing.T, s *peer.Server, r *peer.Room, addr string, secure bool) {
	t.Helper()
	conn := peer.Dial(t, "tcp", addr, "127.0.0.7")
	if secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"imap"}})
	}
	c := s.LoginOn(t, conn, s.User)
	c.Do("SELECT INBOX")
	c.Do("LOGOUT")
	r.Told(`login: \[127\.0\.0\.7\] jane plaintext(\+TLS)? User logged in`)
}

func TestContribInetd(t *testing.T) {
	t.Parallel()
	for _, wait := range []bool{false, true} {
		s, r, conf := site(t)
		plain, secure := peer.FreeAddr(t), peer.FreeAddr(t)
		text := contrib(t, "inetd.conf", "/usr/local/sbin/imapd", peer.Binary(t), "/etc/imapd.conf", conf, "\tvmail\t", "\troot\t")
		if wait { // the other two lines
			text = strings.NewReplacer("\nimap", "\n# imap", "\n#imap", "\nimap", "-T 600", "-T 1").Replace(text)
		}
		r.Start("inetd", "/usr/sbin/inetd", "-d", r.File("inetd.conf", strings.NewReplacer("\nimap\t", "\n"+plain+"\t", "\nimaps\t", "\n"+secure+"\t").Replace(text)))
		comeIn(t, s, r, plain, false)
		comeIn(t, s, r, secure, true)
	}
}

func TestContribXinetd(t *testing.T) {
	t.Parallel()
	s, r, conf := site(t)
	plain, secure := peer.FreeAddr(t), peer.FreeAddr(t)
	at := func(addr string) string { return "{\n\ttype = UNLISTED\n\tbind = 127.0.0.1\n\tport = " + port(addr) }
	text := contrib(t, "xinetd.conf", "/usr/local/sbin/imapd", peer.Binary(t), "/etc/imapd.conf", conf, "= vmail", "= root",
		"service imap\n{", "service imap\n"+at(plain), "service imaps\n{", "service imaps\n"+at(secure))
	r.Start("xinetd", peer.Unpacked(t, "xinetd", "usr/sbin/xinetd"), "-dontfork", "-f", r.File("xinetd.conf", text))
	comeIn(t, s, r, plain, false)
	comeIn(t, s, r, secure, true)
}

func TestContribStunnel(t *testing.T) {
	t.Parallel()
	s, r, conf := site(t, "allowplaintext: no")
	addr, cert := peer.FreeAddr(t), peer.Certificate(t, peer.TempDir(t))
	text := contrib(t, "stunnel.conf", "/usr/local/sbin/imapd", peer.Binary(t), "/etc/imapd.conf", conf, "accept = 993", "accept = "+addr,
		"/etc/ssl/certs/imapd.pem", cert, "/etc/ssl/private/imapd.key", strings.Replace(cert, "cert.pem", "key.pem", 1))
	r.Start("stunnel", "stunnel4", r.File("stunnel.conf", "foreground = yes\npid =\n"+text))
	comeIn(t, s, r, addr, true)
}

// setting returns the values of a setting of a systemd unit.
func setting(unit, name string) []string {
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^`+name+`=(.*)$`).FindAllStringSubmatch(unit, -1) {
		all = append(all, m[1])
	}
	return all
}

// TestContribUnits lets systemd judge the units, and starts what they start.
func TestContribUnits(t *testing.T) {
	t.Parallel()
	peer.Need(t, "systemd-analyze", "systemd-socket-activate")
	s, r, conf := site(t)
	units := map[string]string{}
	var files []string
	for _, pattern := range []string{"*.service", "*.socket"} {
		names, _ := filepath.Glob(filepath.Join(top, "contrib", pattern))
		for _, name := range names {
			name = filepath.Base(name)
			replace := []string{}
			if strings.HasSuffix(name, ".service") {
				replace = []string{"/usr/local/sbin/imapd", peer.Binary(t), "/etc/imapd.conf", conf}
			}
			units[name] = contrib(t, name, replace...)
			files = append(files, r.File(name, units[name]))
		}
	}
	if len(files) != 6 {
		t.Errorf("%d units", len(files))
	}
	if out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, files...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	words := func(unit, name string) []string { return strings.Fields(setting(units[unit], name)[0]) }

	// Listening sockets of systemd's.
	plain, secure := peer.FreeAddr(t), peer.FreeAddr(t)
	names := setting(units["imap.socket"]+units["imaps.socket"], "FileDescriptorName")
	r.Start("sockets", append([]string{"systemd-socket-activate", "-E", "JOURNAL_STREAM=1:1", "-l", plain, "-l", secure, "--fdname=" + strings.Join(names, ":")},
		words("imapd-sockets.service", "ExecStart")...)...)
	comeIn(t, s, r, plain, false)
	comeIn(t, s, r, secure, true)

	// A process for each connection.
	if got := setting(units["imapd.socket"], "Accept"); len(got) != 1 || got[0] != "yes" {
		t.Errorf("Accept=%v", got)
	}
	plain = peer.FreeAddr(t)
	r.Start("accept", append([]string{"systemd-socket-activate", "-a", "-l", plain}, words("imapd@.service", "ExecStart")...)...)
	comeIn(t, s, r, plain, false)
}

// TestContribService starts imapd.service's program as systemd does, which waits
// for its word.
func TestContribService(t *testing.T) {
	t.Parallel()
	peer.Need(t, "env")
	plain, tlsAddr := peer.FreeAddr(t), peer.FreeAddr(t)
	s, r, conf := site(t, "listen: imap://"+plain+" imaps://"+tlsAddr)
	unit := contrib(t, "imapd.service", "/usr/local/sbin/imapd", peer.Binary(t), "/etc/imapd.conf", conf)
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.Dir + "/notify", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	if got := setting(unit, "Type"); len(got) != 1 || got[0] != "notify" {
		t.Fatalf("Type=%v", got)
	}
	p := r.Start("imapd", append([]string{"env", "NOTIFY_SOCKET=" + r.Dir + "/notify", "WATCHDOG_USEC=60000000"}, strings.Fields(setting(unit, "ExecStart")[0])...)...)
	hear := func(want string) {
		t.Helper()
		b := make([]byte, 1000)
		if err := systemd.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := systemd.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), want) {
			t.Fatalf("systemd hears %q, %v; want %s", b[:n], err, want)
		}
	}
	hear("READY=1")
	comeIn(t, s, r, plain, false)
	comeIn(t, s, r, tlsAddr, true)
	p.Stop()
	hear("STOPPING=1")
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

// TestContribS6 has the real s6-supervise run contrib's file run. s6-svwait -U
// waits until the server says that it serves; without notify_fd for ever.
func TestContribS6(t *testing.T) {
	t.Parallel()
	peer.Need(t, "s6-supervise", "s6-svwait", "s6-svc", "s6-svstat")
	for _, lines := range [][]string{{"notify_fd: 3"}, {"notify_fd: 7", "privilege_separation: none"}, {"notify_fd: 0"}} {
		t.Run(strings.Join(lines, " "), func(t *testing.T) {
			t.Parallel()
			addr := peer.FreeAddr(t)
			s, r, conf := site(t, append(lines, "listen: imap://"+addr)...)
			fd := strings.Fields(lines[0])[1]
			service := filepath.Join(r.Dir, "service")
			must(0, os.Mkdir(service, 0o755))(t)
			text := contrib(t, "s6-run", "/usr/local/sbin/imapd", peer.Binary(t), "/etc/imapd.conf", conf)
			must(0, peer.Program(service+"/run", []byte(text)))(t)
			waits, limit := fd, "20000"
			if fd == "0" {
				waits, limit = "3", "500"
			}
			write(t, service+"/notification-fd", waits+"\n")
			r.Start("s6", "s6-supervise", service)
			eventually(t, func() string { return "s6 does not supervise" }, func() bool {
				return exec.Command("s6-svstat", service).Run() == nil
			})
			out, err := exec.Command("s6-svwait", "-U", "-t", limit, service).CombinedOutput()
			if fd == "0" {
				// It serves, but nobody says so.
				r.Told("ready version")
				if err == nil {
					t.Error("s6 hears that it serves")
				}
				return
			}
			if err != nil {
				t.Fatalf("s6-svwait: %v, %s", err, out)
			}
			comeIn(t, s, r, addr, false)
			if warned := r.Syslog(); strings.Contains(warned, "notify_fd") {
				t.Errorf("the log says %s", warned)
			}
			// s6 starts it anew, and hears of that one too.
			run(t, r.Dir, "s6-svc", "-wR", "-T", "20000", "-r", service)
			comeIn(t, s, r, addr, false)
		})
	}
}

// TestContribHAProxy has a haproxy in front of two servers, of which one is not
// there. The other gets to know the clients, and that they came by TLS; the
// looks at it leave nothing in its log.
func TestContribHAProxy(t *testing.T) {
	t.Parallel()
	peer.Need(t, "haproxy")
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"haproxy_trusted_networks: 127.0.0.9", "allowplaintext: no"}})
	r := peer.NewRoom(t)
	cert := peer.Certificate(t, r.Dir)
	both := ""
	for _, file := range []string{cert, r.Dir + "/key.pem"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		both += string(text)
	}
	plain, secure := peer.FreeAddr(t), peer.FreeAddr(t)
	text := contrib(t, "haproxy.cfg", "bind :143", "bind "+plain, "bind :993", "bind "+secure, "/etc/ssl/private/imapd.both.pem", r.File("both.pem", both),
		"192.0.2.11:143", s.Addr+" source 127.0.0.9", "192.0.2.12:143", peer.FreeAddr(t)+" source 127.0.0.9", "inter 2s", "inter 50ms")
	r.Start("haproxy", "haproxy", "-db", "-f", r.File("haproxy.cfg", text))
	r.Told(`imapd/node2 is DOWN`)
	for _, line := range strings.Split(s.Log(), "\n") {
		if line != "" && !strings.Contains(line, "ready version") {
			t.Errorf("haproxy's look left %q in the log", line)
		}
	}
	c := s.LoginOn(t, tls.Client(peer.Dial(t, "tcp", secure, "127.0.0.7"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"imap"}}), s.User)
	c.Do("SELECT INBOX")
	if !strings.Contains(s.Log(), "login: [127.0.0.7] jane plaintext+TLS User logged in") {
		t.Errorf("the log says\n%s", s.Log())
	}
	conn := peer.Dial(t, "tcp", plain, "127.0.0.7")
	fmt.Fprintf(conn, "a LOGIN jane %s\r\nb LOGOUT\r\n", peer.Password)
	if out, err := untilEnd(conn); err != nil || !strings.Contains(out, "a NO [PRIVACYREQUIRED]") {
		t.Errorf("without TLS: %q, %v", out, err)
	}
	r.Told(`imapd/node2 is DOWN`)
	if out, err := os.ReadFile(r.Dir + "/haproxy.out"); err != nil || strings.Contains(string(out), "node1 is DOWN") {
		t.Errorf("haproxy says %s, %v", out, err)
	}
}

// TestContribNginx has nginx's mail module in front, with a site's auth_http.
func TestContribNginx(t *testing.T) {
	t.Parallel()
	peer.Need(t, "nginx")
	at := peer.FreeAddr(t)
	s, r, conf := site(t, "listen: imap://"+at, "haproxy_trusted_networks: 127.0.0.1")
	r.Start("imapd", peer.Binary(t), "-lH", "-C", conf)
	r.Told(`ready version`)
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Auth-User") != s.User || q.Header.Get("Auth-Pass") != peer.Password || q.Header.Get("Client-IP") != "127.0.0.7" {
			w.Header().Set("Auth-Status", "Invalid login or password")
			return
		}
		w.Header().Set("Auth-Status", "OK")
		w.Header().Set("Auth-Server", "127.0.0.1")
		w.Header().Set("Auth-Port", port(at))
	}))
	defer auth.Close()
	plain, secure := peer.FreeAddr(t), peer.FreeAddr(t)
	cert := peer.Certificate(t, r.Dir)
	text := contrib(t, "nginx.conf", "listen 143", "listen "+plain, "listen 993", "listen "+secure, "127.0.0.1:8143/auth", strings.TrimPrefix(auth.URL, "http://")+"/auth",
		"/etc/ssl/certs/imapd.pem", cert, "/etc/ssl/private/imapd.key", r.Dir+"/key.pem", "worker_processes auto", "worker_processes 1")
	r.Start("nginx", "nginx", "-g", "daemon off;", "-c", r.File("nginx.conf", text))
	comeIn(t, s, r, plain, false)
	comeIn(t, s, r, secure, true)
}

// untilEnd reads to the end, but not for ever.
func untilEnd(conn net.Conn) (string, error) {
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	out, err := io.ReadAll(conn)
	return string(out), err
}
