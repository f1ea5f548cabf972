package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/test/peer"
)

// A begun is a session that imapctl has begun.
type begun struct {
	command *exec.Cmd
	conn    net.Conn
	client  *peer.Client
}

// beginSession begins one on a server, and reads its greeting.
func beginSession(t *testing.T, s *peer.Server, user string) begun {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer theirs.Close()
	conn := must(net.FileConn(ours))(t)
	ours.Close()
	c := ctl(t, s, "session", user)
	c.Stdin, c.Stdout, c.Stderr = theirs, theirs, os.Stderr
	c.SysProcAttr = nil // the thread that starts it need not live as long
	must(0, c.Start())(t)
	t.Cleanup(func() {
		if c.ProcessState == nil {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	})
	return begun{c, conn, peer.Preauth(t, conn)}
}

// end logs out, and sees that nothing is left.
func (b begun) end(t *testing.T) {
	t.Helper()
	children := peer.Children(b.command.Process.Pid)
	b.client.Do("LOGOUT")
	if err := b.command.Wait(); err != nil {
		t.Errorf("imapctl: %v", err)
	}
	for _, pid := range children {
		eventually(t, func() string { return fmt.Sprintf("%d lives on", pid) }, func() bool { return !alive(pid) })
	}
}

// kick has the administrator end the session. One that has just begun gets no BYE.
func (b begun) kick(t *testing.T, s *peer.Server, user string) {
	t.Helper()
	askctl(t, s, 0, "kick", user)
	if left, err := remainder(b.conn); err != nil || len(left) > 0 && !strings.Contains(string(left), "* BYE ") {
		t.Errorf("the session ends with %q, %v", left, err)
	}
	_ = b.command.Wait() // how it ended is said
}

// shutDown writes the notice that keeps everybody out.
func shutDown(t *testing.T, s *peer.Server) {
	t.Helper()
	askctl(t, s, 0, "shutdown", "Back at noon")
}

// TestSessionAlone begins sessions where no daemon runs, with files that only root
// can read, while msg/shutdown keeps everybody out.
func TestSessionAlone(t *testing.T) {
	t.Parallel()
	needRoot(t)
	peer.Need(t, "setpriv")
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"imaps_serverinfo: off"}})
	s.Stop()
	shutDown(t, s)
	askctl(t, s, 0, "motd", "Hello")
	for _, file := range []string{"imapd.conf", "passwd", "key.pem"} {
		must(0, os.Chown(filepath.Join(s.Dir(), file), 0, 0))(t)
		must(0, os.Chmod(filepath.Join(s.Dir(), file), 0o600))(t)
	}
	b := beginSession(t, s, s.User)
	b.client.Wait("* OK [ALERT] Hello")
	b.client.Do("SELECT INBOX")
	b.client.Do("FETCH 1:* (FLAGS BODY.PEEK[])")
	uid, gid := peer.MailUID()
	server := onlyChild(t, b.command.Process.Pid)
	unprivileged(t, server, uid, gid)
	if p := findOn(t, s, s.User, ""); p.PID != server || p.Mailbox != "INBOX" || p.Host != "[unix socket]" {
		t.Errorf("got %+v", p)
	}
	b.end(t)
	b = beginSession(t, s, s.User)
	b.client.Wait("* OK [ALERT] Hello")
	b.kick(t, s, s.User)

	other := ctl(t, s, "-S", "imaps", "session", s.User)
	other.Stdin = strings.NewReader("a LOGOUT\r\n")
	if r := finish(t, other); r.code != 0 || !strings.Contains(r.out, "] server ready") {
		t.Errorf("for another service: %+v", r)
	}
	if r := askctl(t, s, 69, "session", "nobody-of-that-name"); !strings.Contains(r.err, "no user") || r.out != "" {
		t.Errorf("session of nobody: %+v", r)
	}
	// Whoever may read it all may do so too, if it is the user who serves.
	must(0, os.Chmod(s.Dir()+"/imapd.conf", 0o644))(t)
	must(0, os.Chmod(s.Dir()+"/passwd", 0o644))(t)
	for user, want := range map[int]int{uid: 0, 21001: 77} {
		c := ctl(t, s, "session", s.User)
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(user), Gid: uint32(gid)}
		c.Stdin = strings.NewReader("a SELECT INBOX\r\nb LOGOUT\r\n")
		if r := finish(t, c); r.code != want || (want == 0) != strings.Contains(r.out, "\r\nb OK ") {
			t.Errorf("as %d: %+v", user, r)
		}
	}
	put(t, s.ConfFile(), strings.Replace(read(t, s.ConfFile()), fmt.Sprint("cyrus_user: ", uid), "cyrus_user: root", 1))
	if r := askctl(t, s, 71, "session", s.User); !strings.Contains(r.err, "cyrus_user") || r.out != "" {
		t.Errorf("as root: %+v", r)
	}
}

// TestSessionUser begins sessions where every user has a process, beside a daemon
// and without one.
func TestSessionUser(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{})
	bob := s.Login(t, "bob")
	for _, daemon := range []bool{true, false} {
		if !daemon {
			askctl(t, s, 0, "shutdown", "--off")
			s.Stop()
		}
		shutDown(t, s)
		if daemon {
			bob.Wait("* BYE [ALERT] Back at noon")
			askctl(t, s, 0, "motd", "Hello")
		}
		b := beginSession(t, s, "alice")
		b.client.Wait("* OK [ALERT] Hello")
		b.client.Do("SELECT INBOX")
		b.client.Do(`APPEND INBOX (\Seen) %s`, peer.Literal("Subject: x\r\n\r\ntext\r\n"))
		front, gid := peer.MailUID()
		children := peer.Children(b.command.Process.Pid)
		if len(children) != 2 {
			t.Errorf("children %v: want front and one for alice", children)
		}
		for _, pid := range children {
			if strings.HasPrefix(status(t, pid, "Uid"), fmt.Sprint(front, " ")) {
				unprivileged(t, pid, front, gid)
				if p := findOn(t, s, "alice", ""); p.PID != pid || p.Mailbox != "INBOX" {
					t.Errorf("got %+v", p)
				}
			} else {
				unprivileged(t, pid, aliceUID, aliceUID)
			}
		}
		info := must(os.Stat(filepath.Join(s.Maildir, "alice/Maildir/dovecot-uidlist")))(t)
		if st := info.Sys().(*syscall.Stat_t); st.Uid != aliceUID || st.Gid != aliceUID {
			t.Errorf("the list belongs to %d:%d", st.Uid, st.Gid)
		}
		b.client.Send("i IDLE")
		b.client.Wait("+ ")
		findOn(t, s, "alice", "Idle")
		b.client.Send("DONE")
		b.client.Wait("i OK ")
		b.end(t)

		b = beginSession(t, s, "alice")
		b.client.Wait("* OK [ALERT] Hello")
		b.kick(t, s, "alice")
		if r := askctl(t, s, 71, "session", "daemon"); !strings.Contains(r.err, "first_valid_uid") || r.out != "" {
			t.Errorf("daemon: %+v", r)
		}
	}
}
