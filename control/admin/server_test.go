package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"imapd/control"
	"imapd/control/proc"
	"imapd/sasl"
)

// daemon keeps what it was asked.
type daemon struct {
	mu    sync.Mutex
	asked []string
	kept  []string
	err   error
	known []proc.Info // where the files do not tell
}

func (d *daemon) say(what string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, what)
	return d.err
}

func (d *daemon) Reload() ([]string, error) { return d.kept, d.say("reload") }
func (d *daemon) Drain()                    { _ = d.say("drain") }

type users struct{}

func (users) Lookup(_ context.Context, user string) (sasl.User, error) {
	switch user {
	case "jane":
		return sasl.User{Name: "jane", UID: 7, GID: 8, Home: "/home/jane"}, nil
	case "broken":
		return sasl.User{}, errors.New("the back end\nis away")
	}
	return sasl.User{}, sasl.ErrNoUser
}

// serve starts a Server for d, whose sessions greet, echo and say bye at their
// end.
func serve(t *testing.T, dir string, d *daemon) (path string) {
	t.Helper()
	s := Listen(Options{
		Dir: dir, Daemon: d, Log: slog.New(slog.DiscardHandler),
		Service: "imap", Complete: func() ([]proc.Info, bool) { return d.known, d.known != nil },
		End:   func(session string) bool { return session == "s1" },
		Users: func() Users { return users{} },
		Serve: func(ctx context.Context, c *control.Conn) {
			defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })()
			io.WriteString(c, "hello "+c.Preauth.Name+"\n")
			io.Copy(c, c)
			io.WriteString(c, "bye\n")
		},
	})
	if s == nil {
		t.Fatal("no server")
	}
	t.Cleanup(s.Close)
	return filepath.Join(dir, "socket", "imapctl")
}

func TestRequests(t *testing.T) {
	t.Parallel()
	dir, _ := site(t)
	d := &daemon{}
	path := serve(t, dir, d)
	for _, tt := range []struct{ in, want string }{
		{"reload\n", "OK reloaded\n"},
		{"drain\n", "OK draining\n"},
		{"kick\ts1\n", "OK ended\n"},
		{"kick\ts2\n", "NO the session has ended\n"},
		{"session\tjane\n", "OK the session begins\nhello jane\nbye\n"},
		{"session\tjoe\x1b\n", `NO there is no user joe\x1b` + "\n"},
		{"session\tbroken\n", "* the back end\nNO is away\n"},
		{"motd\n", "NO unknown request\n"},
		{"who\n", "OK listed\n"},
		{"\n", "NO unknown request\n"},
		{"reload\nreload\n", "NO more than one line\n"},
		{strings.Repeat("x", 2000), "NO the request is too long\n"},
		{"reload", "NO read the request: EOF\n"},
	} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		go func() { io.WriteString(c, tt.in); c.(*net.UnixConn).CloseWrite() }()
		got, err := io.ReadAll(c)
		if string(got) != tt.want && !(len(tt.in) > maxRequest && len(got) == 0) {
			t.Errorf("%.20q: got %q, %v, want %q", tt.in, got, err, tt.want)
		}
		c.Close()
	}
	if got := strings.Join(d.asked, " "); got != "reload drain" {
		t.Errorf("asked for %s", got)
	}
}

// TestReloadFault holds that all of a configuration's faults reach the
// administrator.
func TestReloadFault(t *testing.T) {
	t.Parallel()
	dir, conf := site(t)
	serve(t, dir, &daemon{err: errors.New("imapd.conf:1: no\nimapd.conf:2: neither")})
	out, complaints, code := imapctl("-C", conf, "reload")
	if code != 69 || out != "" || !strings.Contains(complaints, "imapd.conf:1: no") || !strings.Contains(complaints, "imapd.conf:2: neither") {
		t.Errorf("exit %d, %q, %q", code, out, complaints)
	}
}

// TestReloadKept holds that the administrator is told what a reload has not changed.
func TestReloadKept(t *testing.T) {
	t.Parallel()
	dir, conf := site(t)
	serve(t, dir, &daemon{kept: []string{"imapd.conf:3: landlock: has changed and needs a restart", "umask: has too"}})
	out, complaints, code := imapctl("-C", conf, "reload")
	me := fmt.Sprintf("process %d: ", os.Getpid())
	if want := me + "imapd.conf:3: landlock: has changed and needs a restart\n" + me + "umask: has too\n" + me + "reloaded\n"; code != 0 || out != want || complaints != "" {
		t.Errorf("exit %d, %q, %q", code, out, complaints)
	}
}

// TestEmptyNotice holds that a notice without a text is refused: who passes an empty
// variable may want it off, and may not.
func TestEmptyNotice(t *testing.T) {
	t.Parallel()
	dir, conf := site(t)
	for _, args := range [][]string{{"motd", ""}, {"motd", " ", "\u00a0"}, {"shutdown", ""}, {"-S", "imaps", "shutdown", "  "}} {
		out, complaints, code := imapctl(append([]string{"-C", conf}, args...)...)
		if code != exitUsage || out != "" || !strings.Contains(complaints, "--off") {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, complaints)
		}
	}
	if files, _ := filepath.Glob(dir + "/msg/*"); len(files) > 0 {
		t.Errorf("written: %q", files)
	}
}

// TestShutdownService holds that who shuts a service down that the daemon has not is
// told so.
func TestShutdownService(t *testing.T) {
	t.Parallel()
	dir, conf := site(t)
	shutdown := func(code int, args ...string) {
		t.Helper()
		out, complaints, got := imapctl(append([]string{"-C", conf}, args...)...)
		if got != code || out != "" || (code != 0) != strings.Contains(complaints, fmt.Sprintf("no daemon that runs is of the service imaps: process %d serves imap\n", os.Getpid())) {
			t.Errorf("%q: exit %d, %q, %q", args, got, out, complaints)
		}
	}
	shutdown(0, "-S", "imaps", "shutdown", "bye") // nobody runs
	serve(t, dir, &daemon{})
	shutdown(69, "-S", "imaps", "shutdown", "bye")
	if text, err := os.ReadFile(dir + "/msg/shutdown.imaps"); string(text) != "bye\n" {
		t.Errorf("the notice is %q, %v", text, err)
	}
	shutdown(0, "-S", "imap", "shutdown", "bye")
	shutdown(0, "-S", "imaps", "shutdown", "--off")
	shutdown(0, "shutdown", "bye")
	// Somebody is on by that service, in a process that a launcher has started.
	if err := os.Mkdir(dir+"/proc", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fmt.Sprintf("%s/proc/%d", dir, os.Getppid()), []byte("imaps\th\tbob\t\t\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shutdown(0, "-S", "imaps", "shutdown", "bye")
}

// TestWhoComplete holds that a daemon is believed, and not its files, where it could
// not write one.
func TestWhoComplete(t *testing.T) {
	t.Parallel()
	dir, conf := site(t)
	d := &daemon{}
	serve(t, dir, d)
	if err := os.Mkdir(filepath.Join(dir, "proc"), 0o700); err != nil {
		t.Fatal(err)
	}
	me := strconv.Itoa(os.Getpid())
	for name, text := range map[string]string{me + ".1": "imap\th1\told\t\t\n", strconv.Itoa(os.Getppid()): "imap\th2\tbob\t\t\n"} {
		if err := os.WriteFile(filepath.Join(dir, "proc", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	on := func() (users string) {
		out, complaints, code := imapctl("-C", conf, "who")
		if code != 0 || complaints != "" {
			t.Errorf("exit %d, %q", code, complaints)
		}
		var all []string
		for line := range strings.Lines(out) {
			all = append(all, strings.Join(strings.Fields(line)[2:5], " "))
		}
		slices.Sort(all)
		return strings.Join(all, ", ")
	}
	if got := on(); got != "h1 old -, h2 bob -" {
		t.Errorf("who is on: %s", got)
	}
	info := proc.Info{PID: os.Getpid(), ID: "1", Service: "imap", Host: "h1", User: "ann", Mailbox: "a\tb"}
	second := info
	second.ID, second.User = "2", "joe"
	d.known = []proc.Info{info, second, {PID: 1, User: "not ours"}}
	if got := on(); got != "h1 ann a?b, h1 joe a?b, h2 bob -" && !strings.HasPrefix(got, "h1 ann a") {
		t.Errorf("who is on: %s", got)
	}
	d.known = []proc.Info{}
	if got := on(); got != "h2 bob -" {
		t.Errorf("who is on: %s", got)
	}
}

// TestClose ends a session, removes the sockets, and leaves alone the name that
// a newer daemon has taken.
func TestClose(t *testing.T) {
	t.Parallel()
	dir, _ := site(t)
	socket := filepath.Join(dir, "socket")
	if err := os.Mkdir(socket, 0o700); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(socket, "imapctl.999999999") // beyond any process
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := Listen(Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if s == nil {
		t.Fatal("no server")
	}
	if _, err := os.Lstat(dead); !os.IsNotExist(err) {
		t.Errorf("the socket of a dead daemon: %v", err)
	}
	for _, name := range []string{s.path, filepath.Join(socket, "imapctl")} {
		if info, err := os.Lstat(name); err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	newer := filepath.Join(socket, "imapctl")
	if err := os.Remove(newer); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(newer, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Close()
	entries, err := os.ReadDir(socket)
	if err != nil || len(entries) != 1 || entries[0].Name() != "imapctl" {
		t.Errorf("left %v, %v", entries, err)
	}
	var none *Server
	none.Close()
	if Listen(Options{Dir: "/nonexistent/dir", Log: slog.New(slog.DiscardHandler)}) != nil {
		t.Error("a server without a socket")
	}
}
