package test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imapd/test/peer"
)

// TestUserConfiguration holds that all processes of a site with one for each user
// go by the same reading of the configuration: what is in the file counts from
// the reload on, whoever asks for that, and one with faults never does.
func TestUserConfiguration(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{})
	capable := func(user string) bool {
		c := s.Login(t, user)
		defer c.Do("LOGOUT")
		return strings.Contains(c.Do("CAPABILITY")[0].Text, " IDLE")
	}
	edit(t, s, "allowplaintext: yes", "allowplaintext: maybe\nsuppress_capabilities: IDLE")
	if !capable("alice") {
		t.Error("a process of a user goes by what nobody has had read")
	}
	askctl(t, s, 69, "reload")
	notify(t, s, syscall.SIGHUP, "]: not reloaded")
	if !capable("bob") {
		t.Error("a process of a user goes by what was refused")
	}
	passwords := filepath.Join(s.Maildir, "passwd")
	text := must(os.ReadFile(passwords))(t)
	must(0, os.WriteFile(passwords+".next", append(text, strings.Replace(string(text), "bob:", "carol:", 1)...), 0o600))(t)
	edit(t, s, "allowplaintext: maybe", "allowplaintext: yes")
	edit(t, s, passwords, passwords+".next")
	askctl(t, s, 0, "reload")
	for _, user := range []string{"alice", "bob"} {
		if capable(user) {
			t.Errorf("the process of %s goes by the configuration before the reload", user)
		}
	}
	// The process that checks passwords hears of it a moment later.
	eventually(t, func() string { return "nobody has read the new passwords" }, func() bool {
		return strings.HasPrefix(welcome(t, s, 1).ask("LOGIN carol "+peer.Password), "OK")
	})
}
