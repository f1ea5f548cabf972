package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"imapd/test/peer"
)

// An ending is what the log says of the end of a session.
type ending struct{ user, why, commands, in, out string }

var (
	begins = regexp.MustCompile(`\]: login: \[[^]]+\] \S+ \S+ User logged in SESSIONID=<([^>]+)>`)
	endsAs = regexp.MustCompile(`\]: session ended: \[[^]]+\] (\S+) \(([^)]*)\) commands=<(\d+)> bytes_in=<(\d+)> bytes_out=<(\d+)> SESSIONID=<([^>]+)>`)
)

// endings waits until all sessions in the log have ended, and returns how.
func endings(t *testing.T, s *peer.Server) map[string]ending {
	t.Helper()
	all := map[string]ending{}
	eventually(t, func() string { return "not all sessions have ended in\n" + s.Log() }, func() bool {
		return len(begins.FindAllString(s.Log(), -1)) == len(endsAs.FindAllString(s.Log(), -1))
	})
	for _, m := range endsAs.FindAllStringSubmatch(s.Log(), -1) {
		if _, again := all[m[6]]; again {
			t.Errorf("%s ends again", m[6])
		}
		all[m[6]] = ending{m[1], m[2], m[3], m[4], m[5]}
	}
	for _, m := range begins.FindAllStringSubmatch(s.Log(), -1) {
		if _, ended := all[m[1]]; !ended {
			t.Errorf("%s does not end", m[1])
		}
	}
	return all
}

// sessionID logs in on conn and returns the session's id, and what has been sent and got.
func sessionID(t *testing.T, conn net.Conn, user string) (id string, in, out int) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(time.Minute))
	in, _ = fmt.Fprintf(conn, "a NOOP\r\nb LOGIN %s %s\r\n", user, peer.Password)
	var got bytes.Buffer
	for !bytes.Contains(got.Bytes(), []byte("\r\nb ")) || !bytes.HasSuffix(got.Bytes(), []byte("\r\n")) {
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatalf("%q, %v", &got, err)
		}
		got.Write(b[:n])
	}
	m := regexp.MustCompile(`SESSIONID=<([^>]+)>`).FindStringSubmatch(got.String())
	if m == nil {
		t.Fatalf("%q", &got)
	}
	return m[1], in, got.Len()
}

// TestLogEnds has sessions end in different ways: the log says of each, once, why,
// whichever process it ends in.
func TestLogEnds(t *testing.T) {
	t.Parallel()
	for name, site := range map[string]func() (s *peer.Server, user string){
		"standalone": func() (*peer.Server, string) {
			s := peer.Imapd(t, basic(t), peer.Options{})
			return s, s.User
		},
		"users": func() (*peer.Server, string) { return usersSite(t, peer.Options{}), "alice" },
		"master": func() (*peer.Server, string) {
			s := peer.Master(t, basic(t), peer.Options{}, peer.Service{Name: "imap"}, peer.Service{Name: "imaps", Args: "-s"})
			return s, s.User
		},
	} {
		s, user := site()
		for dial, open := range map[string]func() (net.Conn, error){"clear": s.Dial, "TLS": s.DialTLS} {
			t.Run(name+" "+dial, func(t *testing.T) { logEnds(t, s, user, open, name) })
		}
		if name == "users" {
			for _, open := range []func() (net.Conn, error){s.Dial, s.DialTLS} {
				conn := must(open())(t)
				id, _, _ := sessionID(t, conn, user)
				must(0, syscall.Kill(processOf(t, s, aliceUID), syscall.SIGKILL))(t)
				defer conn.Close()
				logged(t, s, `session ended: .* \(the process of the user has died\) .*`+regexp.QuoteMeta(id))
				endings(t, s)
			}
		}
		if name == "standalone" { // else a process that imapctl starts serves it, with a log of its own
			c := beginSession(t, s, user)
			c.end(t)
			logged(t, s, `session ended: \[unix socket\] `+user+` \(logout\)`)
		}
		conn := must(s.Dial())(t)
		defer conn.Close()
		last, _, _ := sessionID(t, conn, user)
		if name == "master" {
			m := regexp.MustCompile(`-(\d+)-\d+-[0-9a-f]+$`).FindStringSubmatch(last)
			var pid int
			fmt.Sscan(m[1], &pid)
			must(0, syscall.Kill(pid, syscall.SIGTERM))(t)
			logged(t, s, `session ended: .*`+regexp.QuoteMeta(last))
		} else {
			s.Stop()
		}
		want := map[string]string{"master": "terminated by a signal"}[name]
		if want == "" {
			want = "server is shutting down"
		}
		if got := endings(t, s)[last]; got.why != want {
			t.Errorf("%s: %s: %+v, want %s", name, last, got, want)
		}
	}
}

func logEnds(t *testing.T, s *peer.Server, user string, open func() (net.Conn, error), name string) {
	want := map[string]ending{}
	octets := func(n int) string { return fmt.Sprint(n) }

	conn := must(open())(t)
	id, in, out := sessionID(t, conn, user)
	conn.Close()
	want[id] = ending{user, "closed by client", "2", octets(in), octets(out)}
	if name == "users" || name == "master" {
		logged(t, s, `session ended: .*`+regexp.QuoteMeta(id)) // before the next comes
	}

	conn = must(open())(t)
	id, in, out = sessionID(t, conn, user)
	more, _ := io.WriteString(conn, "c NOOP\r\nd LOGOUT\r\n")
	rest := must(remainder(conn))(t)
	want[id] = ending{user, "logout", "4", octets(in + more), octets(out + len(rest))}

	if name != "master" {
		conn = must(open())(t)
		id, in, out = sessionID(t, conn, user)
		askctl(t, s, 0, "kick", user)
		rest = must(remainder(conn))(t)
		want[id] = ending{user, "session ended by the administrator", "2", octets(in), octets(out + len(rest))}
	}
	for id := range want { // the log of a process comes when it comes
		logged(t, s, `session ended: .*`+regexp.QuoteMeta(id))
	}
	got := endings(t, s)
	for id, e := range want {
		if e.why == "closed by client" && got[id].why == "connection lost: connection reset by peer" {
			e.why = got[id].why
		}
		e.commands = got[id].commands // of the last one a part may have been read
		if got[id] != e {
			t.Errorf("%s: got %+v, want %+v", id, got[id], e)
		}
	}
}

// uniqueKeys reads one line of a log of JSON objects, in which no key may be twice.
func uniqueKeys(t *testing.T, line string) map[string]any {
	t.Helper()
	all := map[string]any{}
	d := json.NewDecoder(strings.NewReader(line))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		t.Errorf("no object: %q, %v", line, err)
		return nil
	}
	for d.More() {
		key, err := d.Token()
		var value any
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil {
			t.Errorf("%q: %v", line, err)
			return nil
		}
		if _, twice := all[key.(string)]; twice {
			t.Errorf("%s twice: %s", key, line)
		}
		all[key.(string)] = value
	}
	if _, err := d.Token(); err != nil || d.More() {
		t.Errorf("no end: %q, %v", line, err)
	}
	return all
}

// TestLogJSON reads all lines of a busy server as a strict program does.
func TestLogJSON(t *testing.T) {
	t.Parallel()
	options := peer.Options{Imapd: []string{"log_format: json", "debug: yes", "chatty: yes", "allowplaintext: no", "maxlogins_per_user: 3", "limit_login_tries: 9"}}
	for name, site := range map[string]func() (s *peer.Server, user string){
		"standalone": func() (*peer.Server, string) {
			s := peer.Imapd(t, basic(t), options)
			return s, s.User
		},
		"users": func() (*peer.Server, string) { return usersSite(t, options), "alice" },
	} {
		s, user := site()
		conn := must(s.Dial())(t)
		fmt.Fprintf(conn, "a LOGIN %s hush-hush\r\nb AUTHENTICATE PLAIN AGh1c2gtaHVzaA==\r\nc LOGOUT\r\n", user)
		must(io.ReadAll(conn))(t)
		conn = must(s.DialTLS())(t)
		fmt.Fprintf(conn, "a ID (\"name\" \"x\\\"\" \"session\" \"y\")\r\nb LOGIN %s hush-hush\r\nc LOGIN \"a\\\"b\" {9+}\r\nhush-hush\r\nd AUTHENTICATE PLAIN AGh1c2gtaHVzaA==\r\n"+
			"e LOGIN %s %s\r\nf CREATE \"x\\\"y\"\r\ng SELECT \"x\\\"y\"\r\nh FETCH\r\ni LOGOUT\r\n", user, user, peer.Password)
		must(io.ReadAll(conn))(t)
		var all []*peer.Client
		for range 3 {
			all = append(all, s.LoginOn(t, must(s.DialTLS())(t), user))
		}
		conn = must(s.DialTLS())(t)
		fmt.Fprintf(conn, "a LOGIN %s %s\r\nb LOGOUT\r\n", user, peer.Password)
		must(io.ReadAll(conn))(t)
		all[0].Do("LOGOUT")
		must(0, syscall.Kill(s.Started(), syscall.SIGHUP))(t)
		askctl(t, s, 0, "kick", user)
		for _, c := range all[1:] {
			c.Wait("* BYE")
		}
		s.Stop()
		count := map[string]int{}
		for line := range strings.Lines(s.Log()) {
			fields := uniqueKeys(t, line)
			if strings.Contains(line, "hush") {
				t.Errorf("a secret: %s", line)
			}
			if pid, _ := fields["pid"].(float64); pid < 2 || fields["ident"] != "imapd" {
				t.Errorf("whose is it? %s", line)
			}
			message, _ := fields["msg"].(string)
			kind, _, _ := strings.Cut(message, ":")
			count[kind]++
			switch kind {
			case "login", "session ended", "badlogin", "starttls", "command", "client id":
				if fields["host"] != "[127.0.0.1]" || fields["session"] == nil {
					if fields["host"] != "[unix socket]" || fields["session"] == nil {
						t.Errorf("whose is it? %s", line)
					}
				}
			}
		}
		for kind, least := range map[string]int{"login": 4, "session ended": 4, "badlogin": 4, "starttls": 5, "command": 10, "client id": 1} {
			if count[kind] < least {
				t.Errorf("%s: %d lines of %s, want %d:\n%s", name, count[kind], kind, least, s.Log())
			}
		}
	}
}

// TestLogProxyTLS has a proxy speak TLS with the client: the login line says so.
func TestLogProxyTLS(t *testing.T) {
	t.Parallel()
	options := peer.Options{Imapd: []string{"haproxy_trusted_networks: 127.0.0.7", "allowplaintext: no"}}
	for name, site := range map[string]func() (s *peer.Server, user string){
		"standalone": func() (*peer.Server, string) {
			s := peer.Imapd(t, basic(t), options)
			return s, s.User
		},
		"users": func() (*peer.Server, string) { return usersSite(t, options), "alice" },
	} {
		s, user := site()
		conn := peer.Dial(t, "tcp", s.Addr, "127.0.0.7")
		// PP2_TYPE_SSL with PP2_CLIENT_SSL, not verified.
		io.WriteString(conn, "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x14\xc0\x00\x02\x09\xc0\x00\x02\x09\x10\x00\x00\x8f\x20\x00\x05\x01\x00\x00\x00\x01")
		s.LoginOn(t, conn, user).Do("LOGOUT")
		eventually(t, func() string { return name + ": no TLS in the login line of\n" + s.Log() }, func() bool {
			return strings.Contains(s.Log(), "login: [192.0.2.9] "+user+" plaintext+TLS User logged in")
		})
	}
}
