package test

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
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

// aloneConn starts a process for one client as inetd does, behind the command wrap, and
// returns the client's end.
func aloneConn(t *testing.T, s *peer.Server, wrap ...string) (net.Conn, *exec.Cmd) {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	near := must(net.Dial("tcp", l.Addr().String()))(t)
	far := must(l.Accept())(t)
	defer far.Close()
	f := must(far.(*net.TCPConn).File())(t)
	defer f.Close()
	args := append(slices.Clone(wrap), peer.Binary(t), "-C", s.ConfFile())
	c := exec.Command(args[0], args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = f, f, f
	must(0, c.Start())(t)
	t.Cleanup(func() {
		near.Close()
		_ = c.Wait() // some tests end it by a signal
	})
	return near, c
}

// TestUserAloneNotices has the administrator reach the session of such a
// process.
func TestUserAloneNotices(t *testing.T) {
	t.Parallel()
	s := usersSite(t, peer.Options{})
	conn, _ := aloneConn(t, s)
	c := s.LoginOn(t, conn, "alice")
	c.Send("i IDLE")
	c.Wait("+ ")
	if p := findOn(t, s, "alice", "Idle"); p.ID != fmt.Sprint(p.PID) || p.Host != "[127.0.0.1]" {
		t.Errorf("got %+v", p)
	}
	shutDown(t, s)
	c.Wait("* BYE [ALERT] Back at noon")
	c.WaitEnd()
}

// TestUserAloneRootReadsNoClient holds, by the system calls of all processes, that
// root's reads nothing of the client.
func TestUserAloneRootReadsNoClient(t *testing.T) {
	t.Parallel()
	peer.Need(t, "strace")
	s := usersSite(t, peer.Options{})
	trace := filepath.Join(peer.TempDir(t), "trace")
	conn, command := aloneConn(t, s, "strace", "-D", "-ff", "-q", "-s", "400", "-e", "trace=read,readv,pread64,recvfrom,recvmsg,recvmmsg", "-o", trace)
	c := s.LoginOn(t, conn, "alice")
	c.Do(`ID ("marker" "octets-of-a-client")`)
	children := map[int][]int{}
	parent := command.Process.Pid
	for _, pid := range peer.Children(parent) {
		children[number(strings.Fields(status(t, pid, "Uid"))[0])] = threads(t, pid)
	}
	front, _ := peer.MailUID()
	c.Do("LOGOUT")
	eventually(t, func() string { return "the parent lives on" }, func() bool { return !alive(parent) })
	for marker, uid := range map[string]int{"octets-of-a-client": aliceUID, "LOGIN alice": front} {
		readers := markerIn(t, trace, marker)
		if len(readers) == 0 {
			t.Fatalf("nobody has read %s", marker)
		}
		for _, r := range readers {
			if !slices.Contains(children[uid], r) {
				t.Errorf("thread %d has read %s; those of %d are %v", r, marker, uid, children[uid])
			}
		}
	}
}
