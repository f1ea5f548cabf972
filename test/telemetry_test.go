package test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imapd/test/peer"
)

// TestTelemetryRemoved turns the log of a user on with mkdir and off with rmdir,
// twice, while one session runs: in a daemon, in a process for one client, and in
// the process of a user, which sees neither.
func TestTelemetryRemoved(t *testing.T) {
	t.Parallel()
	t.Run("daemon", func(t *testing.T) {
		t.Parallel()
		s := peer.Imapd(t, basic(t), peer.Options{})
		switchTelemetry(t, s, s.User, s.Login(t, s.User))
	})
	t.Run("inetd", func(t *testing.T) {
		t.Parallel()
		s := peer.Imapd(t, basic(t), peer.Options{})
		conn, process, err := s.Inetd(t)
		if err != nil {
			t.Fatal(err)
		}
		c := s.LoginOn(t, conn, s.User)
		switchTelemetry(t, s, s.User, c)
		c.Do("LOGOUT")
		if err := process.Wait(); err != nil {
			t.Error(err)
		}
	})
	for name, login := range map[string]func(*testing.T, *peer.Server, string) *peer.Client{
		"worker":     func(t *testing.T, s *peer.Server, user string) *peer.Client { return s.Login(t, user) },
		"worker TLS": loginTLS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := usersSite(t, peer.Options{})
			switchTelemetry(t, s, "alice", login(t, s, "alice"))
		})
	}
}

// TestTelemetrySecrets sends commands in one packet with the login: the log has
// them, and no password that stands in the wrong place.
func TestTelemetrySecrets(t *testing.T) {
	t.Parallel()
	for name, site := range map[string]func(*testing.T) (*peer.Server, string){
		"daemon": func(t *testing.T) (*peer.Server, string) {
			s := peer.Imapd(t, basic(t), peer.Options{})
			return s, s.User
		},
		"worker": func(t *testing.T) (*peer.Server, string) { return usersSite(t, peer.Options{}), "alice" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, user := site(t)
			dir := filepath.Join(s.Dir(), "log", user)
			must(0, os.MkdirAll(dir, 0o700))(t)
			peer.Own(t, filepath.Dir(dir))
			conn := must(s.Dial())(t)
			defer conn.Close()
			fmt.Fprintf(conn, "a LOGIN %s %s\r\nb NOOP\r\nc LOGIN %s Hidden-1\r\nd LOGIN x {8+}\r\nHidden-2\r\n"+
				"e AUTHENTICATE PLAIN SGlkZGVu\r\nf AUTHENTICATE PLAIN\r\nSGlkZGVu\r\ng LOGOUT\r\n", user, peer.Password, user)
			if out, err := io.ReadAll(conn); err != nil || !strings.Contains(string(out), "\r\ng OK") {
				t.Fatalf("%q, %v", out, err)
			}
			files, _ := filepath.Glob(dir + "/*")
			if len(files) != 1 {
				t.Fatalf("files %v", files)
			}
			text := read(t, files[0])
			for _, want := range []string{">a OK ", "<b NOOP\r\n", "<c LOGIN ***\r\n", "c BAD ", "<d LOGIN ***\r\n", "<e AUTHENTICATE ***\r\n", "<g LOGOUT\r\n", "\r\ng OK "} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in %q", want, text)
				}
			}
			for _, secret := range []string{peer.Password, "Hidden", "SGlk"} {
				if strings.Contains(text, secret) {
					t.Errorf("%q in %q", secret, text)
				}
			}
		})
	}
}

// switchTelemetry turns the log of user, who has the one session c, on and off.
func switchTelemetry(t *testing.T, s *peer.Server, user string, c *peer.Client) {
	t.Helper()
	dir := filepath.Join(s.Dir(), "log", user)
	before := strings.Count(s.Log(), "telemetry")
	for range 2 {
		must(0, os.MkdirAll(dir+".new", 0o700))(t)
		peer.Own(t, filepath.Dir(dir))
		must(0, os.Rename(dir+".new", dir))(t)
		var file string
		eventually(t, func() string { return "nothing is logged" }, func() bool {
			c.Do("NOOP")
			files, _ := filepath.Glob(dir + "/*")
			if len(files) == 1 {
				file = files[0]
			}
			return file != "" && strings.Contains(read(t, file), " NOOP\r\n")
		})
		held, err := os.Open(file) // what is written still can be seen here
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		// Until its directory is gone a file that was removed may come back.
		eventually(t, func() string { return "the directory stays" }, func() bool {
			files, _ := filepath.Glob(dir + "/*")
			for _, f := range files {
				os.Remove(f)
			}
			return os.Remove(dir) == nil
		})
		size := func() int64 { return must(held.Stat())(t).Size() }
		last := size()
		eventually(t, func() string { return "the log goes on" }, func() bool {
			c.Do("NOOP")
			c.Do("NOOP") // what the first wrote is there by now
			was := last
			last = size()
			return was == last
		})
		c.Do("SELECT INBOX")
		c.Do("FETCH 1:* BODY.PEEK[]")
		if size() != last {
			t.Errorf("%d octets are logged after the log has ended", size()-last)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if text := s.Log(); strings.Count(text, "telemetry") > before {
		t.Errorf("the log complains:\n%s", text)
	}
}
