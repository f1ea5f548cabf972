package peer

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// floor is the result of building test/floor.
var floor struct {
	sync.Once
	path string
	err  error
}

// Floor returns the path of a program that links net and crypto/tls and greets,
// with which the start of our server is compared.
func Floor(t testing.TB) string {
	t.Helper()
	floor.Do(func() {
		floor.path = filepath.Join(filepath.Dir(Binary(t)), "floor")
		c := exec.Command("go", "build", "-trimpath", "-o", floor.path, "imapd/test/floor")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			floor.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if floor.err != nil {
		t.Fatal(floor.err)
	}
	return floor.path
}

// PlainConf writes the configuration of s once more, without TLS, and returns the
// path.
func (s *Server) PlainConf() (string, error) {
	text, err := os.ReadFile(s.conf)
	if err != nil {
		return "", err
	}
	plain := filepath.Join(s.dir, "plain.conf")
	return plain, os.WriteFile(plain, regexp.MustCompile(`(?m)^(tls_|listen).*\n`).ReplaceAll(text, nil), 0o644)
}

// Greeted starts a program as inetd does, as the owner of the mail, for one
// connection, which ends when it has greeted. It returns the processor time that
// all threads of the process have used by then, from exec on. A greeting that does
// not begin with want is an error. As root it runs before all that others do: to be
// interrupted and to find the caches cold costs processor time too.
func Greeted(want, program string, args ...string) (time.Duration, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return 0, err
	}
	defer near.Close()
	c := exec.Command(program, args...)
	c.Env = append(os.Environ(), "PROTO=TCP")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		uid, gid := MailUID()
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if err := first(func() error { return serve(l, c) }); err != nil {
		return 0, err
	}
	near.SetDeadline(time.Now().Add(30 * time.Second))
	line, err := bufio.NewReader(near).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, want) {
		err = fmt.Errorf("greeting %q, not %q", line, want)
	}
	used := used(c.Process.Pid)
	near.Close()
	if end := c.Wait(); end != nil {
		err = errors.Join(err, end)
	}
	return used, err
}

// first calls start, and lets the processes that it makes run before all others,
// where that is allowed.
func first(start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	usual, err := unix.SchedGetAttr(0, 0)
	if err == nil && unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0) == nil {
		defer unix.SchedSetAttr(0, usual, 0)
	}
	return start()
}

// used returns the processor time of the threads of a process.
func used(pid int) time.Duration {
	var sum time.Duration
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, path := range threads {
		text, _ := os.ReadFile(path)
		ran, _, _ := strings.Cut(string(text), " ")
		ns, _ := strconv.ParseInt(ran, 10, 64)
		sum += time.Duration(ns)
	}
	return sum
}
