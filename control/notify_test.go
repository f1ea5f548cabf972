package control

import (
	"net"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A daemon tells systemd that it serves, that it lives, that it reads its
// configuration again and that it ends; over a socket with a path or without.
func TestNotify(t *testing.T) {
	t.Parallel()
	for _, name := range []string{t.TempDir() + "/notify", "@imapd-test-" + jsonNumber(int(time.Now().UnixNano()))} {
		systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer systemd.Close()
		if !strings.HasPrefix(name, "@") {
			if err := syscall.Chmod(name, 0o600); err != nil { // root's only, as is systemd's where it can be
				t.Fatal(err)
			}
		}
		heard := func(pattern string) {
			t.Helper()
			b := make([]byte, 1000)
			for { // a sign of life may come at any time
				if err := systemd.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
					t.Fatal(err)
				}
				n, err := systemd.Read(b)
				if err != nil {
					t.Fatalf("%s: %v", pattern, err)
				}
				if got := string(b[:n]); regexp.MustCompile(`^` + pattern + `$`).MatchString(got) {
					return
				} else if got != "WATCHDOG=1" {
					t.Fatalf("systemd hears %q, want %s", got, pattern)
				}
			}
		}
		s := startListening(t, testConfig(t, "listen: imap://127.0.0.1:1", "cyrus_user: 65534"), "NOTIFY_SOCKET="+name, "WATCHDOG_USEC=20000")
		heard("READY=1\nMAINPID=" + jsonNumber(s.Process.Pid))
		heard("WATCHDOG=1")
		if got := greeted(t, dial(t, s.addr)); got.Start != StartListen {
			t.Errorf("got %+v", got)
		}
		if err := s.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		heard(`RELOADING=1\nMONOTONIC_USEC=\d+`)
		heard("READY=1")
		if err := s.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		heard("STOPPING=1")
		if err := s.Wait(); err != nil {
			t.Errorf("%v: %s", err, s.stderr)
		}
	}
}
