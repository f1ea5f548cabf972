package test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// loginReply returns how the server answers a client that logs in.
func loginReply(t *testing.T, s *peer.Server, user, password string) string {
	t.Helper()
	conn := must(s.Dial())(t)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "a LOGIN %s %s\r\n", user, password)
	r := bufio.NewReader(conn)
	for {
		if line := must(r.ReadString('\n'))(t); strings.HasPrefix(line, "a ") {
			return line
		}
	}
}

// TestDenied keeps a user out as Cyrus's cyr_deny does, where the file is for the
// server alone to read and where, with a process for each user, for root alone.
func TestDenied(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for name, s := range map[string]*peer.Server{
		"shared": peer.Imapd(t, basicFor(t, "alice", "bob"), peer.Options{Users: []string{"alice", "bob"}}),
		"user":   usersSite(t, peer.Options{}),
	} {
		for _, tt := range []struct{ services, want string }{
			{"*", "a NO [AUTHORIZATIONFAILED] gone fishing\r\n"},
			{"*,!imap", "a OK "},
			{"[", "a NO [UNAVAILABLE] "},
		} {
			put(t, s.Dir()+"/user_deny.db", "alice\t2\xff\x89"+tt.services+"\xff\x89gone fishing\n")
			must(0, os.Chmod(s.Dir()+"/user_deny.db", 0o600))(t)
			if name == "shared" {
				s.Give(t, s.Dir()+"/user_deny.db")
			}
			if got := loginReply(t, s, "alice", peer.Password); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s, %s: got %q, want %q", name, tt.services, got, tt.want)
			}
			if got := loginReply(t, s, "bob", peer.Password); !strings.HasPrefix(got, "a OK ") {
				t.Errorf("%s, %s: bob: %q", name, tt.services, got)
			}
		}
	}
}
