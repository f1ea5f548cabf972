package control

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// activated makes c the command of a process to which systemd passes files.
func activated(c *exec.Cmd, names string, files ...*os.File) *exec.Cmd {
	c.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0"`}, c.Path)
	c.Path = "/bin/sh"
	c.ExtraFiles = files
	c.Env = append(c.Env, "LISTEN_FDS="+jsonNumber(len(files)), "LISTEN_FDNAMES="+names)
	return c
}

func jsonNumber(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}

// listening returns a listener and the file of it that a launcher hands over.
func listening(t *testing.T, network, address string) (net.Listener, *os.File) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return l, f
}

// greeted reads what the child tells, and sees that nothing of the launcher is
// left in its environment.
func greeted(t *testing.T, c *client) told {
	t.Helper()
	var got told
	if line := c.line(); json.Unmarshal([]byte(line), &got) != nil {
		t.Fatalf("got %q", line)
	}
	for _, name := range got.Env {
		if strings.HasPrefix(name, "LISTEN_") || strings.HasPrefix(name, "REMOTE_") {
			t.Errorf("%s is in the environment still", name)
		}
	}
	c.send("ping\n")
	c.want("ping")
	return got
}

// Sockets of systemd are served together, and with -T the process ends when
// nobody has come for a while. Who comes later waits at systemd's socket.
func TestActivated(t *testing.T) {
	t.Parallel()
	tcp, tcpFile := listening(t, "tcp", "127.0.0.1:0")
	unix, unixFile := listening(t, "unix", t.TempDir()+"/imap")
	c := activated(command(t, "-T1 -C "+testConfig(t, "cyrus_user: 65534")), "imap:anything", tcpFile, unixFile)
	var stderr strings.Builder
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	one, two := dial(t, tcp.Addr()), dial(t, unix.Addr())
	if got := greeted(t, one); got.Start != StartSystemd || got.Host != "[127.0.0.1]" || got.TLS || got.Private {
		t.Errorf("got %+v", got)
	}
	if got := greeted(t, two); got.Start != StartSystemd || got.Host != "[unix socket]" || got.Preauth != nil {
		t.Errorf("got %+v", got)
	}
	one.Close()
	two.send("ping\n")
	two.want("ping")
	two.Close()
	if err := c.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	if _, err := os.Stat(unix.Addr().String()); err != nil {
		t.Errorf("systemd's socket: %v", err)
	}
	dial(t, unix.Addr())
	dial(t, tcp.Addr())
}

// A socket is under TLS for its name, or for its port.
func TestSecure(t *testing.T) {
	t.Parallel()
	imaps, other, file := &net.TCPAddr{Port: 993}, &net.TCPAddr{Port: 143}, &net.UnixAddr{Name: "/run/imap"}
	for _, tt := range []struct {
		name string
		addr net.Addr
		want bool
	}{
		{"imaps", other, true}, {"imaps.socket", file, true}, {"imap", imaps, false}, {"imapd.socket", imaps, true}, {"", imaps, true},
		{"", other, false}, {"unknown", file, false}, {"imap.socket", imaps, false},
	} {
		if got := secure(tt.name, tt.addr); got != tt.want {
			t.Errorf("%q at %v: %v", tt.name, tt.addr, got)
		}
	}
}

// With Accept=yes the one socket is a client's.
func TestActivatedClient(t *testing.T) {
	t.Parallel()
	ours, theirs := tcpPair(t)
	defer ours.Close()
	c := activated(command(t, "-C "+testConfig(t, "cyrus_user: 65534"), "REMOTE_ADDR=192.0.2.1", "REMOTE_PORT=1"), "connection", theirs)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	one := &client{ours, bufio.NewReader(ours), t}
	if got := greeted(t, one); got.Start != StartInetd || got.Host != "[127.0.0.1]" || got.Preauth != nil {
		t.Errorf("got %+v", got)
	}
	ours.Close()
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

// A unix socket on which a server has accepted is no tunnel, whoever is at its
// other end.
func TestAcceptedUnixSocket(t *testing.T) {
	t.Parallel()
	l, _ := listening(t, "unix", t.TempDir()+"/imap")
	ours := dial(t, l.Addr())
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := theirs.(*net.UnixConn).File()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	c := command(t, "-C "+testConfig(t, "cyrus_user: 65534"))
	c.Stdin, c.Stdout = f, f
	if got := talk(t, c, ours, ours, f); got.Start != StartInetd || got.Preauth != nil || got.Host != "[unix socket]" || !got.Private {
		t.Errorf("got %+v", got)
	}
}

// Under inetd with wait one process serves all, and ends when nobody comes.
func TestInetdWait(t *testing.T) {
	t.Parallel()
	l, f := listening(t, "tcp", "127.0.0.1:0")
	c := command(t, "-T1 -C "+testConfig(t, "cyrus_user: 65534"))
	c.Stdin, c.Stdout, c.Stderr = f, f, f
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	one, two := dial(t, l.Addr()), dial(t, l.Addr())
	first, second := greeted(t, one), greeted(t, two)
	if first.Start != StartInetdWait || !first.Hidden || first.Host != "[127.0.0.1]" || !first.ZeroIsNull || second.UID != first.UID {
		t.Errorf("got %+v, %+v", first, second)
	}
	one.Close()
	two.Close()
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	dial(t, l.Addr()) // inetd listens still
}

// A process that cannot serve takes the client with it for whom inetd started
// it: else inetd starts the next at once.
func TestTurnAway(t *testing.T) {
	t.Parallel()
	l, f := listening(t, "tcp", "127.0.0.1:0")
	waiting := dial(t, l.Addr())
	c := command(t, "-C /nonexistent")
	c.Stdin, c.Stdout, c.Stderr = f, f, f
	if err := c.Run(); c.ProcessState.ExitCode() != ExitConfig {
		t.Fatalf("got %v", err)
	}
	if got, err := io.ReadAll(waiting); len(got) != 0 || err != nil {
		t.Errorf("the client got %q, %v", got, err)
	}
}

// What cannot be a socket of systemd's for this service is refused by name.
func TestActivatedWrong(t *testing.T) {
	t.Parallel()
	_, one := listening(t, "tcp", "127.0.0.1:0")
	_, two := tcpPair(t)
	defer two.Close()
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, tt := range []struct {
		names string
		files []*os.File
		say   []string
	}{
		{"a:b", []*os.File{one, file}, []string{"descriptor 4"}},
		{"a:b:c", []*os.File{two, one, file}, []string{"descriptor 3 is a client's", "descriptor 5"}},
		{"imaps", []*os.File{one}, []string{"tls_server_cert"}},
	} {
		c := activated(command(t, "-C "+testConfig(t, "cyrus_user: 65534")), tt.names, tt.files...)
		out, err := c.CombinedOutput()
		if c.ProcessState.ExitCode() != ExitConfig || slices.ContainsFunc(tt.say, func(s string) bool { return !strings.Contains(string(out), s) }) {
			t.Errorf("%v: got %v, %s", tt.names, err, out)
		}
	}
}
