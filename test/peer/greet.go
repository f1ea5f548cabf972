package peer

import (
	"bufio"
	"bytes"
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

// Copy copies a program into dir, as who installs it does, and returns its path.
func Copy(t testing.TB, program, dir string) string {
	t.Helper()
	path := filepath.Join(dir, filepath.Base(program))
	text, err := os.ReadFile(program)
	if err == nil {
		err = Program(path, text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Program writes the program text to path. Another process does: nobody can run a file
// that somebody has open to write (ETXTBSY), and each process that another goroutine
// starts meanwhile has, between fork and exec, all that this one has open.
func Program(path string, text []byte) error {
	c := exec.Command("sh", "-c", `cat >"$0" && chmod 755 "$0"`, path)
	c.Stdin = bytes.NewReader(text)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", path, err, out)
	}
	return nil
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
// interrupted and to find the caches cold costs processor time too. What it does behind
// the greeting is not counted: the kernel stops it as the greeting arrives.
func Greeted(want, program string, args ...string) (time.Duration, error) {
	for {
		used, err := greeted(want, program, args...)
		if !errors.Is(err, errEarly) {
			return used, err
		}
	}
}

// errEarly is a greeting that nobody was ready for.
var errEarly = errors.New("greeted already")

func greeted(want, program string, args ...string) (time.Duration, error) {
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
	err = first(func() error {
		if err := serve(l, c); err != nil {
			return err
		}
		return stopAtInput(near.(*net.TCPConn), c.Process.Pid)
	})
	if c.Process == nil {
		return 0, err
	}
	near.SetDeadline(time.Now().Add(30 * time.Second))
	var spent time.Duration
	if err == nil {
		var line string
		line, err = bufio.NewReader(near).ReadString('\n')
		if err == nil && !strings.HasPrefix(line, want) {
			err = fmt.Errorf("greeting %q, not %q", line, want)
		}
		spent = used(c.Process.Pid)
	}
	near.Close()
	_ = c.Process.Signal(syscall.SIGCONT)
	if end := c.Wait(); end != nil {
		err = errors.Join(err, end)
	}
	return spent, err
}

// stopAtInput has the kernel stop the process pid as soon as c has something to read. See
// F_SETSIG in fcntl(2).
func stopAtInput(c *net.TCPConn, pid int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for _, call := range [][2]int{{unix.F_SETSIG, int(unix.SIGSTOP)}, {unix.F_SETOWN, pid}, {unix.F_SETFL, unix.O_RDWR | unix.O_NONBLOCK | unix.O_ASYNC}} {
			if _, err := unix.FcntlInt(fd, call[0], call[1]); err != nil {
				failed = err
				return
			}
		}
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); n > 0 {
			failed = errEarly
		}
	})
	return errors.Join(err, failed)
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
