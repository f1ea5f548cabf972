package control

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"imapd/control/config"
)

// What belongs to a whole process (descriptors, the user, signals) is tested in
// one: the test binary starts itself with childEnv set, and is then a small
// imapd whose handler tells what it was given and echoes lines.
const childEnv = "CONTROL_TEST_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		os.Exit(child(what))
	}
	goleak.VerifyTestMain(m)
}

// told is what the child's handler tells of its process and its client.
type told struct {
	Start          Start
	Hidden         bool
	UID, EUID, GID int
	Groups         []int
	Umask          int
	Back           bool // root could be taken back
	Host           string
	TLS, Private   bool
	Preauth        *Caller
	Remote         string
	ZeroIsNull     bool
	Env            []string // names
}

func child(what string) int {
	stdio, err := Adopt()
	if err != nil {
		fmt.Fprintln(os.Stderr, "adopt:", err)
		return ExitOS
	}
	code := serveAs(what, stdio)
	if code != ExitOK {
		stdio.TurnAway()
	}
	return code
}

func serveAs(what string, stdio *Stdio) int {
	if what == "panic" {
		fmt.Println("said on standard output")
		fmt.Fprintln(os.Stderr, "said on standard error")
		panic("a stack that nobody may see")
	}
	o, err := ParseOptions(strings.Fields(what))
	if err == nil {
		err = Fits(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ExitUsage
	}
	start := stdio.FindStart(o)
	conf, _, err := LoadConfig(o, start, opener(), stdio.Remark)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ExitConfig
	}
	anyPort(conf)
	log := OpenLog(conf, start, stdio)
	defer log.Close()
	certs, err := FirstCertificates(StartListen, conf, &Options{}, config.Open, log.Logger)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ExitConfig
	}
	source, code, err := Open(start, stdio, conf, o, certs, log.Logger)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return code
	}
	daemon, ctx := NewDaemon(context.Background(), log.Logger, stdio.Reloading(func() ([]string, error) { return nil, nil }))
	if start != StartMaster {
		defer Signals(daemon, start)()
	}
	if l, ok := source.(*Listener); ok {
		fmt.Println(l.Addrs()[0].String())
	}
	h := echo(func(c *Conn) any { return tell(c, start, stdio) })
	code, err = ExitCode(source.Run(ctx, h))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// opener returns an Opener. For a test that root runs it may open DefaultConfig as
// little as another user may whose name is not in its mode.
func opener() config.Opener {
	if os.Getenv("DENIED") == "" {
		return config.Open
	}
	return func(path string) (*os.File, error) {
		return nil, &os.PathError{Op: "open", Path: path, Err: syscall.EACCES}
	}
}

func tell(c *Conn, start Start, stdio *Stdio) told {
	groups, _ := syscall.Getgroups()
	umask := syscall.Umask(0)
	syscall.Umask(umask)
	null, _ := os.Stat("/dev/null")
	zero, _ := os.Stdin.Stat()
	env := os.Environ()
	for i := range env {
		env[i], _, _ = strings.Cut(env[i], "=")
	}
	return told{
		Start: start, Hidden: stdio.Hidden,
		UID: os.Getuid(), EUID: os.Geteuid(), GID: os.Getgid(), Groups: groups, Umask: umask,
		Back: os.Getuid() != 0 && syscall.Setuid(0) == nil,
		Host: c.Host, TLS: c.TLS, Private: c.Private, Preauth: c.Preauth, Remote: c.RemoteAddr().Network(),
		ZeroIsNull: os.SameFile(null, zero), Env: env,
	}
}

// echo greets with what greeting returns, as JSON on a line, then sends back
// what it gets until the client or ctx ends, and then "bye".
func echo(greeting func(*Conn) any) Handler {
	return Handler{
		Serve: func(ctx context.Context, c *Conn) {
			line, err := json.Marshal(greeting(c))
			if err != nil {
				line = []byte(err.Error())
			}
			if _, err := c.Write(append(line, '\n')); err != nil {
				return
			}
			done := context.AfterFunc(ctx, func() { c.SetReadDeadline(aLongTimeAgo) })
			defer done()
			b := make([]byte, 100)
			for {
				n, err := c.Read(b)
				if ctx.Err() != nil {
					fmt.Fprintf(c, "bye: %v\n", context.Cause(ctx))
					return
				}
				if err != nil {
					return
				}
				if string(b[:n]) == "login\n" {
					c.Authenticated()
				}
				if _, err := c.Write(b[:n]); err != nil {
					return
				}
			}
		},
		Refuse: func(why Refusal) string { return "refused: " + why.Error() + "\n" },
	}
}

// command returns the child that does what, with no environment but HOME.
func command(t *testing.T, what string, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Dir = t.TempDir()
	c.Env = append([]string{childEnv + "=" + what, "HOME=/home/of/the/caller", "GORACE=atexit_sleep_ms=0"}, env...)
	return c
}

// asSomebody has c run as a user who is not root, and returns the number of whoever
// runs it then.
func asSomebody(t *testing.T, c *exec.Cmd) int {
	t.Helper()
	if os.Getuid() != 0 {
		return os.Getuid()
	}
	for _, dir := range []string{c.Dir, filepath.Dir(c.Dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// It lies where nobody else may look.
	if out, err := exec.Command("cp", c.Path, c.Dir+"/self").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.Path = c.Dir + "/self"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return 65534
}

// testConfig writes a configuration with some lines and returns its name.
func testConfig(t *testing.T, text ...string) string {
	t.Helper()
	name := t.TempDir() + "/imapd.conf"
	if err := os.Chmod(t.TempDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	// Everybody can look there, and nobody make anything.
	all := "configdirectory: /proc\n" + strings.Join(text, "\n") + "\n"
	if !strings.Contains(all, "shutdown_grace:") {
		all += "shutdown_grace: 0\n" // the child's handler waits for its context
	}
	write(t, name, all)
	return name
}

// loadConfig returns the configuration with some lines.
func loadConfig(t *testing.T, text ...string) *config.Config {
	t.Helper()
	conf, problems, err := config.Load(testConfig(t, text...), Service, config.Open)
	if err != nil {
		t.Fatal(err, problems)
	}
	anyPort(conf)
	return conf
}

// anyPort makes port 1 mean any free port, for which a configuration has no
// word.
func anyPort(conf *config.Config) {
	for i, a := range conf.Listen {
		if host, ok := strings.CutSuffix(a.Address, ":1"); ok {
			conf.Listen[i].Address = host + ":0"
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// socketPair returns two ends of a unix socket pair, as files.
func socketPair(t *testing.T) (ours net.Conn, theirs *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "ours")
	defer f.Close()
	ours, err = net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return ours, os.NewFile(uintptr(fds[1]), "theirs")
}

// tcpPair returns two ends of a TCP connection, the second as a file.
func tcpPair(t *testing.T) (ours net.Conn, theirs *os.File) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	theirs, err = c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

var discard = slog.New(slog.DiscardHandler)
