package test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// greeting connects and returns the first lines that a client sees before it
// says anything.
func greeting(t *testing.T, s *peer.Server, lines int) []string {
	t.Helper()
	c, err := s.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	var got []string
	for range lines {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, strings.TrimSpace(line))
	}
	return got
}

// put writes a file as an admin's script does, in one step.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestNotices writes msg/motd and msg/shutdown, which do not exist when the
// server starts, and looks at what clients see.
func TestNotices(t *testing.T) {
	t.Parallel()
	dir := basic(t)
	s := peer.Imapd(t, dir, peer.Options{})
	motd, shutdown := s.Dir()+"/msg/motd", s.Dir()+"/msg/shutdown"
	idle, busy := s.Login(t, s.User), s.Login(t, s.User)
	idle.Send("i IDLE")
	idle.Wait("+")

	put(t, motd, "[Hello.\nThe second line is not shown.\n")
	sees := func(what, want string, lines int) {
		t.Helper()
		var got []string
		eventually(t, func() string { return fmt.Sprintf("%s: a new client sees %q, want %q", what, got, want) }, func() bool {
			got = greeting(t, s, 1)
			if strings.HasPrefix(got[0], "* OK") && lines > 1 {
				got = greeting(t, s, lines)
			}
			return got[len(got)-1] == want
		})
	}
	sees("motd", "* OK [ALERT] Hello.", 2)

	put(t, shutdown, "[Back at noon\r\n")
	sees("shutdown", "* BYE [ALERT] Back at noon", 1)
	idle.Wait("* BYE [ALERT] Back at noon")
	busy.Wait("* BYE [ALERT] Back at noon")

	if err := os.Remove(shutdown); err != nil {
		t.Fatal(err)
	}
	sees("after the shutdown", "* OK [ALERT] Hello.", 2)
	s.Login(t, s.User).Do("NOOP")
}

// TestTelemetry makes log/USER while a session runs: from then on both
// directions are in a file named by the server's process.
func TestTelemetry(t *testing.T) {
	t.Parallel()
	dir := basic(t)
	s := peer.Imapd(t, dir, peer.Options{})
	c := s.Login(t, s.User)
	c.Do("NOOP")
	log := filepath.Join(s.Dir(), "log", s.User)
	// Whole before it is there, as whoever runs into it may not look twice.
	if err := os.MkdirAll(log+".new", 0o755); err != nil {
		t.Fatal(err)
	}
	peer.Own(t, filepath.Dir(log))
	if err := os.Rename(log+".new", log); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(log, fmt.Sprint(s.PID))
	// The file is there a moment before the session writes to it.
	logged := regexp.MustCompile(`<\d{10,}<t\d+ NOOP`)
	eventually(t, func() string { return "no log of NOOP in " + file }, func() bool {
		c.Do("NOOP")
		text, err := os.ReadFile(file)
		return err == nil && logged.Match(text)
	})
	c.Do("SELECT INBOX")
	for _, want := range []string{
		`---------- ` + s.User + ` \w+ `,
		`<\d{10,}<t\d+ SELECT INBOX\r\n`,
		`>\d{10,}>(?s:.*)\* 4 EXISTS\r\n`,
	} {
		// What the client has read may not be in the file yet.
		eventually(t, func() string { return fmt.Sprintf("%s: no %s in\n%s", file, want, read(t, file)) },
			func() bool { return regexp.MustCompile(want).MatchString(read(t, file)) })
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want mode 0600", info.Mode(), err)
	}
	// A session that logs in with the directory there: its password is not in it.
	d := s.Login(t, s.User)
	d.Do("NOOP")
	var all string
	for _, path := range must(filepath.Glob(log + "/*"))(t) {
		all += read(t, path)
	}
	if strings.Contains(all, peer.Password) || strings.Count(all, "----------") < 2 {
		t.Errorf("telemetry of two sessions:\n%s", all)
	}
}
