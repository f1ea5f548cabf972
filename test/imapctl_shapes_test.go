package test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"imapd/test/peer"
)

// TestImapctlHandover reaches the sessions of a process that has handed over to a
// newer one.
func TestImapctlHandover(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{})
	c, other := s.Login(t, s.User), s.Login(t, s.User)
	c.Do("SELECT INBOX")
	c.Send("i IDLE")
	c.Wait("+")
	old := findOn(t, s, s.User, "Idle")
	if err := syscall.Kill(s.PID, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	var said string
	eventually(t, func() string { return "no second process: " + said }, func() bool {
		said = finish(t, ctl(t, s, "reload")).out
		return strings.Count(said, ": reloaded\n") == 2
	})
	s.Login(t, s.User).Do("NOOP")
	askctl(t, s, 0, "kick", old.ID)
	c.Wait("* BYE [UNAVAILABLE] Session ended by the administrator")
	other.Do("NOOP")
	session := ctl(t, s, "session", s.User)
	session.Stdin = strings.NewReader("b LOGOUT\r\n")
	if r := finish(t, session); r.code != 0 || !strings.Contains(r.out, "\r\nb OK ") {
		t.Errorf("session: %+v", r)
	}
	askctl(t, s, 0, "drain")
	other.Wait("* BYE")
	eventually(t, func() string { return "a daemon does not end" }, func() bool {
		return finish(t, ctl(t, s, "drain")).code == 69
	})
}

// TestImapctlMaster works where Cyrus's master starts a process for each client
// and no daemon runs.
func TestImapctlMaster(t *testing.T) {
	t.Parallel()
	s := peer.Master(t, basicFor(t, "jane", "john"), peer.Options{Users: []string{"jane", "john"}}, peer.Service{Name: "imap"})
	jane, john := s.Login(t, "jane"), s.Login(t, "john")
	jane.Do("SELECT INBOX")
	john.Send("i IDLE")
	john.Wait("+")
	p := findOn(t, s, "john", "Idle")
	if p.ID != fmt.Sprint(p.PID) {
		t.Errorf("got %+v", p)
	}
	askctl(t, s, 0, "kick", "jane")
	jane.WaitEnd()
	askctl(t, s, 0, "shutdown", "Back at noon")
	john.Wait("* BYE [ALERT] Back at noon")
	if got := greeting(t, s, 1)[0]; got != "* BYE [ALERT] Back at noon" {
		t.Errorf("got %q", got)
	}
	session := beginSession(t, s, "jane")
	session.client.Do("SELECT INBOX")
	info := must(os.Stat(strings.Replace(s.Maildir, "%u", "jane", 1) + "/dovecot-uidlist"))(t)
	if mail, st := must(os.Stat(s.Dir()))(t).Sys().(*syscall.Stat_t), info.Sys().(*syscall.Stat_t); st.Uid != mail.Uid {
		t.Errorf("the session is uid %d's", st.Uid)
	}
	session.end(t)
	askctl(t, s, 0, "shutdown", "--off")
	s.Login(t, "jane").Do("NOOP")
	askctl(t, s, 69, "reload")
	if got := complaints(s); len(got) > 0 {
		t.Errorf("master complains:\n%s", strings.Join(got, ""))
	}
}
