package test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// TestLoginsEverywhere bounds the sessions of a user over a daemon and processes
// of inetd together.
func TestLoginsEverywhere(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"maxlogins_per_user: 2"}})
	inetd := func() net.Conn {
		conn, c, err := s.Inetd(t)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			conn.Close()
			c.Wait()
		})
		return conn
	}
	refused := func(conn net.Conn) {
		t.Helper()
		conn.SetDeadline(time.Now().Add(time.Minute))
		r := bufio.NewReader(conn)
		greeting := must(r.ReadString('\n'))(t)
		fmt.Fprintf(conn, "a LOGIN %s %s\r\n", s.User, peer.Password)
		if got, want := must(r.ReadString('\n'))(t), "a NO [LIMIT] Too many open connections (2 of 2 for jane)\r\n"; !strings.HasPrefix(greeting, "* OK") || got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	daemon := s.Login(t, s.User)
	single := s.LoginOn(t, inetd(), s.User)
	refused(inetd())
	other := must(s.Dial())(t)
	defer other.Close()
	refused(other)
	single.Do("LOGOUT")
	eventually(t, func() string { return "the process of inetd stays in the list" }, func() bool {
		for _, e := range must(os.ReadDir(s.Dir() + "/proc"))(t) {
			if text, err := os.ReadFile(s.Dir() + "/proc/" + e.Name()); err == nil && strings.Contains(string(text), "\tjane\t") && !strings.HasPrefix(e.Name(), fmt.Sprintf("%d.", s.PID)) {
				return false
			}
		}
		return true
	})
	s.LoginOn(t, inetd(), s.User).Do("NOOP")
	daemon.Do("NOOP")
}
