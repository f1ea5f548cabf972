package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
)

var aLongTimeAgo = time.Unix(1, 0)

// Under inetd the client is on all three descriptors. Nothing that a process
// writes there by itself may reach it, the stack of a panic least of all.
func TestPanicReachesNoClient(t *testing.T) {
	t.Parallel()
	for name, pair := range map[string]func(*testing.T) (net.Conn, *os.File){"tcp": tcpPair, "unix": socketPair} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, fd := pair(t)
			defer client.Close()
			c := command(t, "panic")
			c.Stdin, c.Stdout, c.Stderr = fd, fd, fd
			err := c.Run()
			fd.Close()
			if c.ProcessState.ExitCode() != 2 {
				t.Fatalf("no panic: %v", err)
			}
			if got, err := io.ReadAll(client); len(got) != 0 || err != nil {
				t.Errorf("the client got %q, %v", got, err)
			}
		})
	}
	// A standard error of its own is left alone: systemd's log, stunnel's.
	client, fd := tcpPair(t)
	defer client.Close()
	c := command(t, "panic")
	var log bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = fd, fd, &log
	_ = c.Run() // exits with 2
	fd.Close()
	if got, err := io.ReadAll(client); len(got) != 0 || err != nil {
		t.Errorf("the client got %q, %v", got, err)
	}
	if !strings.Contains(log.String(), "a stack that nobody may see") {
		t.Errorf("the log got %q", log.String())
	}
}

func TestInetd(t *testing.T) {
	t.Parallel()
	client, fd := tcpPair(t)
	conf := testConfig(t, "cyrus_user: 65534")
	c := command(t, "-C "+conf)
	c.Stdin, c.Stdout, c.Stderr = fd, fd, fd
	got := talk(t, c, client, client, fd)
	if got.Start != StartInetd || !got.Hidden || got.Host != "[127.0.0.1]" || got.Preauth != nil || got.Private || got.Remote != "tcp" || !got.ZeroIsNull {
		t.Errorf("got %+v", got)
	}
	if os.Getuid() == 0 && (got.UID != 65534 || got.Back) {
		t.Errorf("still root: %+v", got)
	}
}

// stunnel tells whose connection it passes on.
func TestRemoteHost(t *testing.T) {
	t.Parallel()
	for env, want := range map[string]string{"192.0.2.7": "[192.0.2.7]", "2001:db8::1": "[2001:db8::1]", "no address [x]": "[127.0.0.1]", "": "[127.0.0.1]"} {
		client, fd := tcpPair(t)
		c := command(t, "-C "+testConfig(t, "cyrus_user: 65534"), "REMOTE_HOST="+env)
		c.Stdin, c.Stdout, c.Stderr = fd, fd, fd
		if got := talk(t, c, client, client, fd); got.Host != want {
			t.Errorf("%q: got %q, want %q", env, got.Host, want)
		}
	}
}

// An external layer keeps the connection private, if it is strong enough.
func TestExternalLayer(t *testing.T) {
	t.Parallel()
	for ssf, private := range map[string]bool{"0": false, "1": false, "2": true, "128": true} {
		client, fd := tcpPair(t)
		c := command(t, "-p"+ssf+" -C "+testConfig(t, "cyrus_user: 65534"))
		c.Stdin, c.Stdout, c.Stderr = fd, fd, fd
		if got := talk(t, c, client, client, fd); got.Private != private || got.TLS {
			t.Errorf("-p %s: got %+v", ssf, got)
		}
	}
}

// checkTunnel holds what the child told against what a tunnel's client is.
func checkTunnel(t *testing.T, got told, uid int) {
	t.Helper()
	want := Caller{UID: uid, GID: uid, Home: "/home/of/the/caller"}
	if uid == os.Getuid() {
		want.GID = os.Getgid()
	}
	if got.Start != StartTunnel || got.Preauth == nil || !got.Private || !got.ZeroIsNull {
		t.Fatalf("got %+v", got)
	}
	want.Name = got.Preauth.Name
	if !reflect.DeepEqual(*got.Preauth, want) || want.Name == "" || got.UID != uid {
		t.Errorf("got %+v", got)
	}
}

// tunnelAsRoot lets root have a tunnel, as which these tests run: the other end of a
// pair of sockets must be the same user's.
const tunnelAsRoot = "cyrus_user: root"

func TestTunnel(t *testing.T) {
	t.Parallel()
	t.Run("pipes", func(t *testing.T) {
		t.Parallel()
		c := command(t, "-C "+testConfig(t, tunnelAsRoot))
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		got := talk(t, c, in, out)
		checkTunnel(t, got, os.Getuid())
		if got.Host != "[local]" || got.Remote != "stdio" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("socket pair", func(t *testing.T) {
		t.Parallel()
		client, fd := socketPair(t)
		c := command(t, "-C "+testConfig(t, tunnelAsRoot))
		c.Stdin, c.Stdout = fd, fd
		checkTunnel(t, talk(t, c, client, client, fd), os.Getuid())
	})
	t.Run("two socket pairs", func(t *testing.T) {
		t.Parallel()
		in, fd0 := socketPair(t)
		out, fd1 := socketPair(t)
		c := command(t, "-C "+testConfig(t, tunnelAsRoot))
		c.Stdin, c.Stdout = fd0, fd1
		checkTunnel(t, talk(t, c, in, out, fd0, fd1), os.Getuid())
	})
	t.Run("no configuration", func(t *testing.T) {
		t.Parallel()
		if _, err := os.Stat(DefaultConfig); err == nil {
			t.Skip("NOT TESTED: " + DefaultConfig + " exists")
		}
		c := command(t, " ")
		uid := asSomebody(t, c)
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		checkTunnel(t, talk(t, c, in, out), uid)
	})
}

func TestTunnelFiles(t *testing.T) {
	t.Parallel()
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		c := command(t, "-C "+testConfig(t, tunnelAsRoot))
		in := t.TempDir() + "/in"
		write(t, in, "one\n")
		f, err := os.Open(in)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		c.Stdin = f
		out, err := c.Output()
		if lines := strings.SplitAfterN(string(out), "\n", 2); err != nil || len(lines) != 2 || lines[1] != "one\n" {
			t.Errorf("got %q, %v", out, err)
		}
	})
	// As on a terminal: the user there sees the protocol and nothing else.
	t.Run("standard error is the client's", func(t *testing.T) {
		t.Parallel()
		c := command(t, "-C "+testConfig(t, tunnelAsRoot))
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c.Stdout, c.Stderr = w, w
		if got := talk(t, c, in, r, w); !got.Hidden {
			t.Errorf("got %+v", got)
		}
	})
}

// A configuration that the caller may not read is not passed over in silence, and
// what is said of it does not come between what the client reads.
func TestDeniedConfig(t *testing.T) {
	t.Parallel()
	for name, withStderr := range map[string]bool{"of its own": false, "the client's": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := command(t, " ", "DENIED=1")
			uid := asSomebody(t, c)
			in, err := c.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			var said bytes.Buffer
			c.Stdout, c.Stderr = w, &said
			if withStderr {
				c.Stderr = w
			}
			checkTunnel(t, talk(t, c, in, r, w), uid) // which wants the greeting on the first line
			if got := said.String(); !withStderr && (strings.Count(got, "\n") != 1 || !strings.Contains(got, DefaultConfig+": permission denied")) {
				t.Errorf("said %q", got)
			}
		})
	}
}

// Starts that are refused, with the exit code and a word of the reason.
func TestRefusedStarts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, what string
		env        []string
		stdin      func(*testing.T) *os.File
		code       int
		say        string
		root       bool // only where root starts it
	}{
		{name: "nobody", code: ExitUsage, say: "imapd -l"},
		{name: "master's name without master", env: []string{"CYRUS_SERVICE=imap", "CYRUS_ID=0"}, code: ExitUsage, say: "CYRUS_SERVICE"},
		{name: "a network server's pipe", stdin: pipe, env: []string{"REMOTE_HOST=192.0.2.1"}, code: ExitConfig, say: "REMOTE_HOST"},
		{name: "TLS without a certificate", what: "-s -C " + testConfig(t, tunnelAsRoot), stdin: pipe, code: ExitConfig, say: "tls_server_cert"},
		{name: "root's pipe", stdin: pipe, root: true, code: ExitConfig, say: "root cannot be the client"},
		{name: "root's pipe, another user", what: "-C " + testConfig(t, "cyrus_user: 65534"), stdin: pipe, root: true, code: ExitConfig, say: "root cannot be the client"},
		{name: "wrong option", what: "-x", code: ExitUsage, say: "-x"},
		{name: "no such file", what: "-C /nonexistent", stdin: pipe, code: ExitConfig, say: "/nonexistent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.root && os.Getuid() != 0 {
				return
			}
			what := tt.what
			if !strings.Contains(what, "-C") {
				what += " -C " + testConfig(t)
			}
			c := command(t, what, tt.env...)
			if tt.stdin != nil {
				c.Stdin = tt.stdin(t)
			}
			var stderr bytes.Buffer
			c.Stderr = &stderr
			out, err := c.Output()
			if c.ProcessState == nil || c.ProcessState.ExitCode() != tt.code || !strings.Contains(stderr.String(), tt.say) || len(out) != 0 {
				t.Errorf("got %v, %q, output %q", err, stderr.String(), out)
			}
		})
	}
}

// A client that is on standard output or error alone, as behind "tee log | imapd" in
// a line of inetd's, is a network's all the same: it is refused, and hears nothing.
func TestClientBehindPipe(t *testing.T) {
	t.Parallel()
	accepted := func(t *testing.T) (net.Conn, *os.File) {
		l, _ := listening(t, "unix", t.TempDir()+"/imap")
		ours := dial(t, l.Addr())
		theirs, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		f, err := theirs.(*net.UnixConn).File()
		if err != nil {
			t.Fatal(err)
		}
		return ours.Conn, f
	}
	for _, tt := range []struct {
		name, what  string
		client      func(*testing.T) (net.Conn, *os.File)
		out, errors bool // where the client is
		code        int
	}{
		{name: "output", client: tcpPair, out: true, code: ExitConfig},
		{name: "error", client: tcpPair, errors: true, code: ExitConfig},
		{name: "both", client: tcpPair, out: true, errors: true, code: ExitConfig},
		{name: "an accepted unix socket", client: accepted, out: true, errors: true, code: ExitConfig},
		{name: "wrong option", what: "-x", client: tcpPair, out: true, errors: true, code: ExitUsage},
		{name: "panic", what: "panic", client: tcpPair, errors: true, code: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client, fd := tt.client(t)
			defer client.Close()
			what := tt.what
			if what == "" {
				what = "-C " + testConfig(t)
			}
			c := command(t, what)
			var stderr bytes.Buffer
			c.Stdin, c.Stderr = pipe(t), &stderr
			if tt.out {
				c.Stdout = fd
			}
			if tt.errors {
				c.Stderr = fd
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			fd.Close()
			_ = client.SetReadDeadline(time.Now().Add(20 * time.Second))
			got, err := io.ReadAll(client)
			if err != nil { // it serves
				_ = c.Process.Kill()
			}
			_ = c.Wait()
			if c.ProcessState.ExitCode() != tt.code || len(got) != 0 || err != nil {
				t.Errorf("exit %v, the client got %q, %v", c.ProcessState, got, err)
			}
			if !tt.errors && !strings.Contains(stderr.String(), errNetwork.Error()) {
				t.Errorf("it says %q", stderr.String())
			}
		})
	}
}

// What the command line says counts before the environment, and that before
// standard input. systemd's variables count only for the process that they were
// made for, and are gone in any case.
func TestFindStart(t *testing.T) {
	find := func(o *Options) Start { return (&Stdio{Start: StartTunnel}).FindStart(o) }
	t.Setenv("CYRUS_SERVICE", "")
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("LISTEN_PID", "1")
	if got := find(&Options{}); got != StartTunnel || os.Getenv("LISTEN_FDS") != "" {
		t.Errorf("another process's sockets: %v", got)
	}
	t.Setenv("CYRUS_SERVICE", "imap")
	if got := find(&Options{}); got != StartTunnel {
		t.Errorf("master's name without its descriptors: %v", got)
	}
	if got := find(&Options{Listen: true}); got != StartListen {
		t.Errorf("-l: %v", got)
	}
}

// talk runs the child, reads its greeting, checks that it echoes, hangs up and
// waits for its end. passed are the files that the child gets, to be closed
// here.
func talk(t *testing.T, c *exec.Cmd, in io.WriteCloser, out io.ReadCloser, passed ...*os.File) (greeting told) {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range passed {
		f.Close()
	}
	r := bufio.NewReader(out)
	line, err := r.ReadBytes('\n')
	if err != nil {
		t.Fatalf("greeting: %q, %v", line, err)
	}
	if err := json.Unmarshal(line, &greeting); err != nil {
		t.Fatalf("greeting: %q, %v", line, err)
	}
	if _, err := io.WriteString(in, "ping\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := r.ReadString('\n'); line != "ping\n" {
		t.Errorf("got %q, %v", line, err)
	}
	in.Close()
	if rest, err := io.ReadAll(r); len(rest) != 0 && err == nil {
		t.Errorf("got %q at the end", rest)
	}
	out.Close()
	if err := c.Wait(); err != nil {
		t.Errorf("end: %v", err)
	}
	return greeting
}

// pipe returns the end of a pipe that stays open for the test's time.
func pipe(t *testing.T) *os.File {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r
}
