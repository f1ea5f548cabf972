package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"imapd/control/config"
)

// serve runs a Listener with the echo handler until the test ends.
func serve(t *testing.T, conf *config.Config, o *Options, certs *Certificates) (l *Listener, stop func()) {
	t.Helper()
	l, err := Listen(conf, o, certs, discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx, echo(func(c *Conn) any { return []any{c.Host, c.TLS, c.Private} })) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return l, stop
}

// A client reads lines.
type client struct {
	net.Conn
	r *bufio.Reader
	t *testing.T
}

func dial(t *testing.T, addr net.Addr) *client {
	t.Helper()
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{c, bufio.NewReader(c), t}
}

// line returns the next line, or the error that comes instead.
func (c *client) line() string {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	s, err := c.r.ReadString('\n')
	if err != nil {
		return s + err.Error()
	}
	return strings.TrimSuffix(s, "\n")
}

func (c *client) want(line string) {
	c.t.Helper()
	if got := c.line(); got != line {
		c.t.Fatalf("got %q, want %q", got, line)
	}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

const hello = `["[127.0.0.1]",false,false]`

func TestListen(t *testing.T) {
	t.Parallel()
	sock := t.TempDir() + "/imap"
	conf := loadConfig(t, "listen: imap://127.0.0.1:1 unix:"+sock)
	l, stop := serve(t, conf, &Options{}, nil)
	tcp, unix := dial(t, l.Addrs()[0]), dial(t, l.Addrs()[1])
	tcp.want(hello)
	unix.want(`["[unix socket]",false,true]`)
	tcp.send("ping\n")
	tcp.want("ping")

	// A second server finds both taken and takes neither.
	other := *conf
	other.Listen = []config.Address{{Network: "tcp", Address: l.Addrs()[0].String()}}
	if _, err := Listen(&other, &Options{}, nil, discard); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the same port twice: %v", err)
	}
	other.Listen = []config.Address{{Network: "unix", Address: sock}}
	if _, err := Listen(&other, &Options{}, nil, discard); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("the same socket twice: %v", err)
	}

	stop()
	tcp.want("bye: context canceled")
	unix.want("bye: context canceled")
	if c, err := net.Dial("tcp", l.Addrs()[0].String()); err == nil {
		c.Close()
		t.Error("it listens still")
	}
}

func TestStaleSocket(t *testing.T) {
	t.Parallel()
	sock := t.TempDir() + "/imap"
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, _ := serve(t, loadConfig(t, "listen: unix:"+sock), &Options{}, nil)
	dial(t, l.Addrs()[0]).want(`["[unix socket]",false,true]`)
	if info, err := os.Stat(sock); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, %v", info, err)
	}

	file := t.TempDir() + "/file"
	write(t, file, "precious")
	if _, err := Listen(loadConfig(t, "listen: unix:"+file), &Options{}, nil, discard); err == nil {
		t.Error("a file gave way")
	}
	if b, err := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	t.Run("in all", func(t *testing.T) {
		t.Parallel()
		l, _ := serve(t, loadConfig(t, "listen: imap://127.0.0.1:1", "limit_connections: 2"), &Options{}, nil)
		one, two := dial(t, l.Addrs()[0]), dial(t, l.Addrs()[0])
		one.want(hello)
		two.want(hello)
		dial(t, l.Addrs()[0]).want("refused: too many connections")
		// The place is free when the connection has ended on both sides.
		one.Close()
		for dial(t, l.Addrs()[0]).line() != hello {
		}
	})
	t.Run("from one address", func(t *testing.T) {
		t.Parallel()
		l, _ := serve(t, loadConfig(t, "listen: imap://127.0.0.1:1", "limit_preauth_per_address: 1"), &Options{}, nil)
		one := dial(t, l.Addrs()[0])
		one.want(hello)
		dial(t, l.Addrs()[0]).want("refused: too many connections from one address")
		one.send("login\n")
		one.want("login")
		dial(t, l.Addrs()[0]).want(hello)
	})
	t.Run("not logged in", func(t *testing.T) {
		t.Parallel()
		conf := loadConfig(t, "listen: imap://127.0.0.1:1", "limit_preauth_connections: 2")
		conf.Limits.PreauthPerAddress = 20 // as if they came from several
		l, _ := serve(t, conf, &Options{}, nil)
		user, oldest, other := dial(t, l.Addrs()[0]), dial(t, l.Addrs()[0]), (*client)(nil)
		user.want(hello)
		user.send("login\n")
		user.want("login")
		oldest.want(hello)
		other = dial(t, l.Addrs()[0])
		other.want(hello)
		dial(t, l.Addrs()[0]).want(hello)
		oldest.want("bye: too many clients wait to log in")
		for _, c := range []*client{user, other} {
			c.send("ping\n")
			c.want("ping")
		}
	})
}

// shared is a text that several goroutines write.
type shared struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// Of a flood of refused connections there are few lines, which count them all.
func TestTally(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var text shared
		log := slog.New(slog.NewTextHandler(&text, nil))
		var c tally
		flood := func(n int) {
			for range n {
				c.add(log, "[192.0.2.1]", TooMany)
			}
		}
		// What is logged by then, as numbers of others that a line tells of.
		want := func(more ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for line := range strings.Lines(text.String()) {
				_, n, _ := strings.Cut(strings.TrimSpace(line), " more=")
				got = append(got, n)
			}
			if !slices.Equal(got, more) {
				t.Errorf("%v: got %v, want %v:\n%s", time.Now(), got, more, &text)
			}
		}
		flood(4)
		want("0")
		time.Sleep(tallyTime)
		want("0", "2")
		flood(2)
		want("0", "2")
		time.Sleep(tallyTime)
		want("0", "2", "1")
		time.Sleep(3 * tallyTime)
		flood(8)
		want("0", "2", "1", "0")
		c.end(log)
		want("0", "2", "1", "0", "6")
		c.end(log)
		time.Sleep(3 * tallyTime)
		want("0", "2", "1", "0", "6")
	})
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		addr       net.Addr
		want, host string
	}{
		{&net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 1}, "192.0.2.1/32", "[192.0.2.1]"},
		{&net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1"), Port: 1}, "192.0.2.1/32", "[192.0.2.1]"},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8:1:2:3::4"), Port: 1}, "2001:db8:1:2::/64", "[2001:db8:1:2:3::4]"},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, "fe80::/64", "[fe80::1]"},
		{&net.UnixAddr{Net: "unix"}, "invalid Prefix", "[unix socket]"},
		{streamAddr{}, "invalid Prefix", "[local]"},
	} {
		if got := network(tt.addr).String(); got != tt.want || hostText(tt.addr) != tt.host {
			t.Errorf("%v: got %s %s, want %s %s", tt.addr, got, hostText(tt.addr), tt.want, tt.host)
		}
	}
}

// started is a child that listens.
type started struct {
	*exec.Cmd
	addr   net.Addr
	stderr *bytes.Buffer
}

func startListening(t *testing.T, conf string, env ...string) *started {
	t.Helper()
	s := &started{Cmd: command(t, "-l -C "+conf, env...), stderr: new(bytes.Buffer)}
	s.Stderr = s.stderr
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Process.Kill(); s.Wait() })
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %s", err, s.stderr)
	}
	if s.addr, err = net.ResolveTCPAddr("tcp", strings.TrimSpace(addr)); err != nil {
		t.Fatal(err)
	}
	return s
}

// Root binds, then becomes cyrus_user with no way back.
func TestRoot(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: only root can")
	}
	for _, tt := range []struct {
		lines    []string
		uid, gid int
		groups   []int
	}{
		{[]string{"cyrus_user: nobody"}, 65534, 65534, []int{65534}},
		{[]string{"cyrus_user: 21000"}, 21000, 21000, []int{21000}},
		{[]string{"cyrus_user: nobody", "cyrus_group: mail", "umask: 027"}, 65534, 8, []int{8, 65534}},
		{[]string{"cyrus_user: root"}, 0, 0, nil},
	} {
		s := startListening(t, testConfig(t, append(tt.lines, "listen: imap://127.0.0.1:1")...))
		var got told
		if err := json.Unmarshal([]byte(dial(t, s.addr).line()), &got); err != nil {
			t.Fatal(err)
		}
		slices.Sort(got.Groups)
		if got.UID != tt.uid || got.EUID != tt.uid || got.GID != tt.gid || got.Back || tt.groups != nil && !slices.Equal(got.Groups, tt.groups) {
			t.Errorf("%v: got %+v", tt.lines, got)
		}
		if want := 0o77; got.Umask != want && len(tt.lines) < 3 || got.Umask != 0o27 && len(tt.lines) == 3 {
			t.Errorf("%v: umask %o", tt.lines, got.Umask)
		}
		if err := s.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := s.Wait(); err != nil {
			t.Errorf("end: %v: %s", err, s.stderr)
		}
		if warned := strings.Contains(s.stderr.String(), "served as root"); warned != (tt.uid == 0) {
			t.Errorf("%v: log %s", tt.lines, s.stderr)
		}
	}
	for lines, want := range map[string]string{
		"":                         "cyrus_user: NAME",
		"cyrus_user: no-such-user": `imapd.conf:2: cyrus_user: no user "no-such-user"`,
		"cyrus_group: no-such\ncyrus_user: nobody": `imapd.conf:2: cyrus_group: no group "no-such"`,
	} {
		c := command(t, "-l -C "+testConfig(t, lines, "listen: imap://127.0.0.1:1"))
		out, err := c.CombinedOutput()
		if c.ProcessState.ExitCode() != ExitConfig || !strings.Contains(string(out), want) {
			t.Errorf("%q: got %v, %s", lines, err, out)
		}
	}
}

// SIGHUP ends nothing; SIGTERM and SIGINT end the sessions and then the process.
func TestSignals(t *testing.T) {
	t.Parallel()
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		s := startListening(t, testConfig(t, "listen: imap://127.0.0.1:1", fmt.Sprintf("cyrus_user: %d", 65534)))
		c := dial(t, s.addr)
		c.line()
		if err := s.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		c.send("ping\n")
		c.want("ping")
		if err := s.Process.Signal(end); err != nil {
			t.Fatal(err)
		}
		c.want("bye: context canceled")
		if err := s.Wait(); err != nil {
			t.Errorf("%v: %v: %s", end, err, s.stderr)
		}
		if log := s.stderr.String(); !strings.Contains(log, "]: graceful shutdown\n") {
			t.Errorf("%v: log %s", end, log)
		}
	}
}

// TestCannotListen holds that an address that cannot be listened on is told of with
// the option, its place and what there is to do.
func TestCannotListen(t *testing.T) {
	t.Parallel()
	taken := loadConfig(t, "listen: imap://127.0.0.1:1")
	l, err := Listen(taken, &Options{}, nil, discard)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	taken.Listen[0].Address = l.Addrs()[0].String()
	_, err = Listen(taken, &Options{}, nil, discard)
	if err == nil || !strings.Contains(err.Error(), "imapd.conf:2: listen: imap://127.0.0.1:") || !strings.HasSuffix(err.Error(), "address already in use; another program listens there") {
		t.Error(err)
	}
	foreign := loadConfig(t, "listen: imap://192.0.2.1:1143")
	if _, err = Listen(foreign, &Options{}, nil, discard); err == nil || !strings.HasSuffix(err.Error(), "; no interface of this host has that address") {
		t.Error(err)
	}
	low := cannotListen(loadConfig(t), config.Address{Network: "tcp", Address: ":143"}, os.ErrPermission)
	if !strings.HasPrefix(low.Error(), "listen: imap://:143: ") || !strings.Contains(low.Error(), "CAP_NET_BIND_SERVICE") {
		t.Error(low)
	}
}
