package test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"imapd/test/peer"
)

// A syslogd keeps what it gets as syslog daemons store it.
type syslogd struct {
	conn *net.UnixConn
	path string

	mu   sync.Mutex
	text bytes.Buffer
}

var syslogHeader = regexp.MustCompile(`^<(\d+)>([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) (imapd\[\d+\]: .*)$`)

// startSyslogd listens on path until stop. Priorities are written before the
// host's name.
func startSyslogd(t *testing.T, path string) *syslogd {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	d := &syslogd{conn: c, path: path}
	go func() {
		b := make([]byte, 10000)
		for {
			n, err := c.Read(b)
			if err != nil || n == 0 {
				return
			}
			m := syslogHeader.FindStringSubmatch(string(b[:n]))
			if m == nil {
				t.Errorf("no line for syslog: %q", b[:n])
				continue
			}
			d.mu.Lock()
			fmt.Fprintf(&d.text, "%s p%s %s\n", m[2], m[1], m[3])
			d.mu.Unlock()
		}
	}()
	t.Cleanup(d.stop)
	return d
}

func (d *syslogd) stop() {
	d.conn.CloseRead()
	d.conn.Close()
	os.Remove(d.path)
}

func (d *syslogd) got() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.String()
}

// TestSyslog has the real /dev/log of a server, in a file system of its own, and
// a daemon there that comes late, goes and comes again.
func TestSyslog(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount")
	}
	peer.Need(t, "unshare", "mount", "mknod")
	dev := filepath.Join(peer.TempDir(t), "dev")
	if err := os.Mkdir(dev, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mknod", "-m", "666", dev+"/null", "c", "1", "3").CombinedOutput(); err != nil {
		t.Fatalf("mknod: %v: %s", err, out)
	}
	s := peer.Imapd(t, basic(t), peer.Options{
		Wrap:  []string{"unshare", "-m", "sh", "-c", `mount --bind "$0" /dev && exec "$@" 2>/dev/null`, dev},
		Imapd: []string{"limit_login_tries: 1000", "limit_preauth_bad_commands: 1000"},
	})
	c := s.Login(t, s.User)
	path := filepath.Join(dev, "log")
	first := startSyslogd(t, path)
	// fails makes bad logins until the daemon has got one: what is logged
	// after a line was lost is dropped for a second.
	fails := func(d *syslogd) {
		t.Helper()
		conn := must(s.Dial())(t)
		defer conn.Close()
		eventually(t, func() string { return "nothing in syslog: " + d.got() }, func() bool {
			fmt.Fprintf(conn, "a LOGIN jane wrong\r\n")
			return strings.Contains(d.got(), " p21 imapd")
		})
	}
	fails(first)
	if !regexp.MustCompile(`p20 imapd\[\d+\]: \d+ log lines were lost\n`).MatchString(first.got()) {
		t.Errorf("got %s", first.got())
	}
	c.Do("NOOP")
	first.stop()
	s.Login(t, s.User).Do("NOOP")

	second := startSyslogd(t, path)
	fails(second)
	c.Do("NOOP")
	log := filepath.Join(t.TempDir(), "mail.log")
	text := regexp.MustCompile(`p\d+ `).ReplaceAllString(second.got(), "mail.example.org ")
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if banned := bans(t, log); len(banned) == 0 || banned[0] != "127.0.0.1" {
		t.Errorf("fail2ban sees %q in\n%s", banned, text)
	}
}
