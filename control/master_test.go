package control

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// books are what master keeps: here they take what the processes of one service
// tell. A socket that keeps messages apart shows each write by itself.
type books struct {
	t      *testing.T
	door   net.Listener
	dir    string // configdirectory
	conf   string
	files  []*os.File // 3 and 4 of the processes
	status int
}

func newBooks(t *testing.T) *books {
	t.Helper()
	b := &books{t: t, dir: t.TempDir()}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.status = fds[0]
	t.Cleanup(func() { unix.Close(b.status) })
	status := os.NewFile(uintptr(fds[1]), "status")
	t.Cleanup(func() { status.Close() })
	door, file := listening(t, "tcp", "127.0.0.1:0")
	b.door, b.files = door, []*os.File{status, file}
	for _, dir := range []string{b.dir, filepath.Dir(b.dir)} {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	b.conf = filepath.Join(t.TempDir(), "imapd.conf")
	if err := os.Chmod(filepath.Dir(b.conf), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, b.conf, "configdirectory: "+b.dir+"\ncyrus_user: 65534\n")
	return b
}

// command is what master forks for the service.
func (b *books) command(args string, env ...string) *exec.Cmd {
	b.t.Helper()
	c := command(b.t, args+" -C "+b.conf, append([]string{"CYRUS_SERVICE=imap", "CYRUS_ID=0"}, env...)...)
	c.ExtraFiles = b.files
	return c
}

// start runs a process of the service and waits until it waits for a client.
func (b *books) start(args string) *exec.Cmd {
	b.t.Helper()
	c := b.command(args)
	if err := c.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	b.holds(c)
	return c
}

// holds waits until the process c holds the lock.
func (b *books) holds(c *exec.Cmd) {
	b.t.Helper()
	name := filepath.Join(b.dir, "socket", "imap-0.lock")
	late := time.After(20 * time.Second)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		if f, err := os.OpenFile(name, os.O_RDWR, 0); err == nil {
			l := syscall.Flock_t{Type: syscall.F_WRLCK}
			err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &l)
			f.Close()
			if err == nil && l.Type != syscall.F_UNLCK && int(l.Pid) == c.Process.Pid {
				return
			}
		}
		select {
		case <-late:
			b.t.Fatal("the process does not wait for a client")
		case <-look.C:
		}
	}
}

// told demands the next messages of c.
func (b *books) told(c *exec.Cmd, messages ...uint32) {
	b.t.Helper()
	for _, want := range messages {
		if pid := b.next(want); pid != c.Process.Pid {
			b.t.Errorf("got message %d of %d, want that of %d", want, pid, c.Process.Pid)
		}
	}
}

// next demands a message, and returns the process that it is about.
func (b *books) next(want uint32) (pid int) {
	b.t.Helper()
	var text [64]byte
	_ = unix.SetsockoptTimeval(b.status, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
	n, err := unix.Read(b.status, text[:])
	if err != nil || n != 8 {
		b.t.Fatalf("got %d octets, %v, want message %d", n, err, want)
	}
	pid = int(binary.NativeEndian.Uint32(text[4:]))
	if message := binary.NativeEndian.Uint32(text[:]); message != want {
		b.t.Errorf("got message %d of %d, want %d", message, pid, want)
	}
	return pid
}

// silent demands that nothing more has been told.
func (b *books) silent() {
	b.t.Helper()
	var text [64]byte
	if n, _, err := unix.Recvfrom(b.status, text[:], unix.MSG_DONTWAIT); err != unix.EAGAIN {
		b.t.Errorf("got %q, %v", text[:max(n, 0)], err)
	}
}

// ends demands that c exits with code.
func (b *books) ends(c *exec.Cmd, code int) {
	b.t.Helper()
	err := c.Wait()
	if got := c.ProcessState.ExitCode(); got != code {
		b.t.Errorf("exit %d, %v; want %d", got, err, code)
	}
	b.silent()
}

// endsReady demands that c exits with 0, and has told at most that it is available
// again: the Go runtime may hand SIGHUP on only when the client has gone already.
func (b *books) endsReady(c *exec.Cmd) {
	b.t.Helper()
	if err := c.Wait(); err != nil {
		b.t.Error(err)
	}
	var text [64]byte
	n, _, err := unix.Recvfrom(b.status, text[:], unix.MSG_DONTWAIT)
	if err == nil && (n != 8 || binary.NativeEndian.Uint32(text[:]) != available) {
		b.t.Errorf("got %q", text[:n])
	}
	b.silent()
}

// What master is told of two clients, after which -U ends the process.
func TestMasterMessages(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	c := b.start("-U2")
	b.silent()
	for n := range 2 {
		one := dial(t, b.door.Addr())
		if got := greeted(t, one); got.Start != StartMaster || got.Host != "[127.0.0.1]" || got.Private || got.UID == 0 || !got.ZeroIsNull {
			t.Errorf("got %+v", got)
		}
		b.told(c, unavailable, connection)
		b.silent()
		one.Close()
		if n == 0 {
			b.told(c, available)
		}
	}
	b.ends(c, ExitOK)
}

// One process waits at the socket, the next for it.
func TestMasterLock(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	first := b.start("")
	second := b.command("")
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	defer second.Wait()
	defer second.Process.Kill()
	b.holds(first)
	one := dial(t, b.door.Addr())
	greeted(t, one)
	b.told(first, unavailable, connection)
	b.holds(second)
	two := dial(t, b.door.Addr())
	greeted(t, two)
	b.told(second, unavailable, connection)
	one.Close()
	b.told(first, available)
	b.holds(first)
	info, err := os.Stat(filepath.Join(b.dir, "socket", "imap-0.lock"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestMasterSignals(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		signal syscall.Signal
		code   int
	}{"hup": {syscall.SIGHUP, ExitOK}, "term": {syscall.SIGTERM, ExitTempFail}, "int": {syscall.SIGINT, ExitTempFail}, "quit": {syscall.SIGQUIT, ExitTempFail}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			send := func(c *exec.Cmd) {
				if err := c.Process.Signal(tt.signal); err != nil {
					t.Fatal(err)
				}
			}
			idle := b.start("")
			send(idle)
			b.ends(idle, tt.code)

			busy := b.start("")
			one := dial(t, b.door.Addr())
			greeted(t, one)
			b.told(busy, unavailable, connection)
			send(busy)
			if tt.signal == syscall.SIGHUP {
				one.send("ping\n") // the client does not notice
				one.want("ping")
				one.Close()
				b.endsReady(busy)
				return
			}
			one.want("bye: terminated by a signal")
			b.ends(busy, tt.code)
		})
	}
}

// -T counts from the end of a client; who has had none waits on.
func TestMasterTimeout(t *testing.T) {
	t.Parallel()
	b, fresh := newBooks(t), newBooks(t)
	virgin := fresh.start("-T1")
	c := b.start("-T1")
	one := dial(t, b.door.Addr())
	greeted(t, one)
	b.told(c, unavailable, connection)
	one.Close()
	b.told(c, available)
	begin := time.Now()
	b.ends(c, ExitOK)
	if took := time.Since(begin); took < 900*time.Millisecond {
		t.Errorf("it waited for %v", took)
	}
	one = dial(t, fresh.door.Addr())
	greeted(t, one)
	fresh.told(virgin, unavailable, connection)
}

// Without a lock all processes wake at a client, and those that come too late for it
// block in accept. They end when they are to, all the same.
func TestMasterWithoutLock(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	write(t, filepath.Join(b.dir, "socket"), "where a directory should be")
	all := map[int]*exec.Cmd{}
	var held []*client
	for range 10 {
		c := b.command("-T600")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = c.Process.Kill()
			_ = c.Wait()
		})
		all[c.Process.Pid] = c
	}
	// Each has a client, so each is there.
	for range all {
		one := dial(t, b.door.Addr())
		greeted(t, one)
		held = append(held, one)
		b.next(unavailable)
		b.next(connection)
	}
	for _, one := range held {
		one.Close()
		b.next(available)
	}
	// Until one has come too late, which root can see.
	var one *client
	busy := 0
	for n := 0; n < 200 && (busy == 0 || !stuck(t, all, busy)); n++ {
		if one != nil {
			one.Close()
			b.next(available)
		}
		one = dial(t, b.door.Addr())
		greeted(t, one)
		busy = b.next(unavailable)
		b.next(connection)
	}
	delete(all, busy)
	for _, c := range all {
		if err := c.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	late := time.AfterFunc(20*time.Second, func() {
		for _, c := range all {
			_ = c.Process.Kill()
		}
	})
	defer late.Stop()
	for _, c := range all {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
	one.send("ping\n")
	one.want("ping")
	b.silent()
}

// stuck tells whether a process other than busy is within accept.
func stuck(t *testing.T, all map[int]*exec.Cmd, busy int) bool {
	t.Helper()
	for pid := range all {
		calls, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range calls {
			text, _ := os.ReadFile(call)
			if pid != busy && strings.HasPrefix(string(text), fmt.Sprint(unix.SYS_ACCEPT4, " ")) {
				return true
			}
		}
	}
	return false
}

// A process whose master has died does not keep the port.
func TestMasterGone(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b.files[0] = out
	c := b.start("")
	out.Close()
	in.Close()
	b.ends(c, ExitOS)
}

// What cannot serve says nothing, and ends with a code that counts.
func TestMasterWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		env  []string
		code int
		say  string
	}{
		{"", []string{"CYRUS_ID="}, ExitSoftware, "could not getenv(CYRUS_ID)"},
		{"", []string{"CYRUS_SERVICE=a/b"}, ExitConfig, "a/b"},
		{"-s", nil, ExitConfig, "tls_server_cert"},
		{"-l", nil, ExitUsage, "-l"},
		{"-t", nil, ExitUsage, "-t"},
		{"-V", nil, ExitUsage, "-V"},
	} {
		b := newBooks(t)
		c := b.command(tt.args, tt.env...)
		var out strings.Builder
		c.Stderr = &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		b.ends(c, tt.code)
		if !strings.Contains(out.String(), tt.say) {
			t.Errorf("%s %v: %q", tt.args, tt.env, out.String())
		}
	}
}

// The program is another one when the file behind its name is.
func TestProgramChanges(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "imapd")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	byLink, byName := findProgram(link), findProgram("imapd")
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(cwd, link)
	if err != nil {
		t.Fatal(err)
	}
	if got := findProgram(relative); got.path != link {
		t.Errorf("%s is %q", relative, got.path)
	}
	if byLink.path != link || byName.path != self || byLink.changed() || byName.changed() {
		t.Errorf("got %+v, %+v", byLink, byName)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if !byLink.changed() || byName.changed() {
		t.Error("removed, and not changed")
	}
	if err := os.Symlink("/bin/sh", link); err != nil {
		t.Fatal(err)
	}
	if !byLink.changed() {
		t.Error("turned, and not changed")
	}
	if (program{}).changed() {
		t.Error("what is not known has changed")
	}
}
