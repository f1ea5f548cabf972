package test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"imapd/test/peer"
)

// wildPorts returns a number of the first of three ports for wildcard addresses. They are
// below those that the kernel gives to clients, of which any may be in the way.
func wildPorts(t *testing.T) int {
	t.Helper()
	return 10000 + 3*(number(port(peer.FreeAddr(t)))%7000)
}

// listedFrom waits until the list of who is on has a session from host.
func listedFrom(t *testing.T, s *peer.Server, session, host string) {
	t.Helper()
	eventually(t, func() string { return fmt.Sprintf("%s from %s is not in %+v", session, host, who(t, s)) }, func() bool {
		return slices.ContainsFunc(who(t, s), func(p present) bool { return p.Session == session && p.Host == host && p.User == s.User })
	})
}

// TestListen6 has clients come over IPv6, and over both where nothing else is said. An
// address that stands for all of one kind does not stand for the other.
func TestListen6(t *testing.T) {
	t.Parallel()
	plain, secure, wild := peer.FreeAddr6(t), peer.FreeAddr6(t), wildPorts(t)
	s, r, conf := site(t, fmt.Sprintf("listen: imap://%s imaps://%s imap://:%d imap://0.0.0.0:%d imap://[::]:%[4]d imap://0.0.0.0:%[5]d", plain, secure, wild, wild+1, wild+2))
	r.Start("imapd", peer.Binary(t), "-l", "-C", conf)
	four, six := "127.0.0.1:%d", "[::1]:%d"
	for n, tt := range []struct {
		addr, from string
		tls        bool
	}{
		{addr: plain, from: "::1"}, {addr: secure, from: "::1", tls: true},
		{addr: fmt.Sprintf(four, wild), from: "127.0.0.11"}, {addr: fmt.Sprintf(six, wild), from: "::1"},
		{addr: fmt.Sprintf(four, wild+1), from: "127.0.0.12"}, {addr: fmt.Sprintf(six, wild+1), from: "::1"},
		{addr: fmt.Sprintf(four, wild+2), from: "127.0.0.13"},
	} {
		conn := peer.Dial(t, "tcp", tt.addr, tt.from)
		if tt.tls {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		}
		c := s.LoginOn(t, conn, s.User)
		m := r.Told(fmt.Sprintf(`(?s)(?:\]: login: .*){%d}\]: login: \[%s\] jane plaintext.* SESSIONID=<(.*?)>`, n, tt.from)) // it is the last
		listedFrom(t, s, m[1], "["+tt.from+"]")
		c.Do("LOGOUT")
	}
	if c, err := net.Dial("tcp", fmt.Sprintf(six, wild+2)); err == nil {
		c.Close()
		t.Error("0.0.0.0 takes clients over IPv6")
	}
}

// TestMaster6 has a service of Cyrus's master listen at two addresses: two locks, and
// Cyrus's program shows the clients of both.
func TestMaster6(t *testing.T) {
	t.Parallel()
	at := fmt.Sprint(wildPorts(t))
	s := peer.Master(t, basic(t), peer.Options{}, peer.Service{Name: "imap", Addr: at, Proto: "tcp"})
	for id, from := range []string{"127.0.0.7", "::1"} {
		c := s.LoginOn(t, peer.Dial(t, "tcp", net.JoinHostPort(strings.Replace(from, "0.7", "0.1", 1), at), from), s.User)
		c.Do("SELECT INBOX")
		m := logged(t, s, fmt.Sprintf(`imap\[(\d+)\]: login: \[%s\] jane plaintext User`, from))
		out, err := s.Cyrus(t, "cyr_info", "proc").CombinedOutput()
		if want := fmt.Sprintf("%s imap [%s] jane INBOX \n", m[1], from); !strings.Contains(string(out), want) || err != nil {
			t.Errorf("cyr_info proc says %q, %v, want %q", out, err, want)
		}
		if _, err := os.Stat(fmt.Sprintf("%s/socket/imap-%d.lock", s.Dir(), id)); err != nil {
			t.Error(err)
		}
		c.Do("LOGOUT")
	}
	if got := complaints(s); len(got) > 0 {
		t.Errorf("master complains:\n%s", strings.Join(got, ""))
	}
}
