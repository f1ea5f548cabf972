package test

import (
	"fmt"
	"strings"
	"testing"

	"imapd/test/peer"
)

// family returns the processes that serve a client: the parent of the one with
// that id, and all its children.
func family(t *testing.T, pid int) (parent int, children []int) {
	t.Helper()
	parent = number(status(t, pid, "PPid"))
	return parent, peer.Children(parent)
}

// TestUserAlone has launchers that start a process for each client do so where
// every user has a process: root's reads nothing, and all of them end with the
// client.
func TestUserAlone(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{Imapd: []string{"admins: bob"}})
	front, gid := peer.MailUID()
	for _, l := range []struct {
		name  string
		start starter
		args  []string
	}{
		{name: "inetd", start: inetd("nowait")},
		{name: "inetd TLS", start: inetd("nowait"), args: []string{"-s"}},
		{name: "systemd accept", start: activate(plainSocket, "-a")},
	} {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			r := peer.NewRoom(t)
			at := l.start(r, t, append(l.args, "-C", s.ConfFile()))
			at.tls = len(l.args) > 0
			c := s.LoginOn(t, at.connect(t, "127.0.0.7"), "alice")
			c.Do("SELECT INBOX")
			c.Do(`APPEND INBOX (\Seen) %s`, peer.Literal("Subject: x\r\n\r\ntext\r\n"))
			worker := number(r.Told(`imapd\[(\d+)\]: login: \[127\.0\.0\.7\] alice plaintext`)[1])
			parent, children := family(t, worker)
			if got := status(t, parent, "Uid"); got != "0 0 0 0" || len(children) != 3 {
				t.Errorf("the parent is %s, with the children %v", got, children)
			}
			ids := map[int]int{front: gid, authUID: authUID, aliceUID: aliceUID}
			for _, pid := range children {
				uid := number(strings.Fields(status(t, pid, "Uid"))[0])
				unprivileged(t, pid, uid, ids[uid])
				delete(ids, uid)
			}
			if len(ids) > 0 {
				t.Errorf("nobody runs as %v", ids)
			}
			c.Do("LOGOUT")
			for _, pid := range append(children, parent) {
				eventually(t, func() string { return fmt.Sprintf("%d lives on", pid) }, func() bool { return !alive(pid) })
			}

			// Who has no process gets in nowhere; another is served meanwhile.
			conn := at.connect(t, "127.0.0.7")
			fmt.Fprintf(conn, "a LOGIN daemon %s\r\nb LOGIN bob %[1]s\r\nc SELECT INBOX\r\nd LOGOUT\r\n", peer.Password)
			text := string(must(remainder(conn))(t))
			for _, want := range []string{"\r\na NO ", "\r\nb OK ", "\r\nc OK ", "\r\n* BYE ", "\r\nd OK "} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in %q", want, text)
				}
			}
			conn.Close()
			if text := r.Syslog(); strings.Contains(text, "exit status") || strings.Contains(text, "panic") {
				t.Error("see the log")
			}
		})
	}
}

// TestUserAloneNotices has the administrator reach the session of such a
// process.
func TestUserAloneNotices(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{})
	conn, process, err := s.Inetd(t)
	if err != nil {
		t.Fatal(err)
	}
	c := s.LoginOn(t, conn, "alice")
	c.Send("i IDLE")
	c.Wait("+ ")
	if p := findOn(t, s, "alice", "Idle"); p.ID != fmt.Sprint(p.PID) || p.Host != "[127.0.0.1]" {
		t.Errorf("got %+v", p)
	}
	shutDown(t, s)
	c.Wait("* BYE [ALERT] Back at noon")
	c.WaitEnd()
	must(0, process.Wait())(t)
}
