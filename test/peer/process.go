package peer

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Process is a program that a test has started.
type Process struct {
	PID   int           // of the process that serves, which may be a child
	first int           // of the process that was started
	ended chan struct{} // closed when it is gone
	state error         // how it ended; read after ended is closed
}

// startProcess runs c with its output appended to the file log. The kernel
// ends it with the test binary, also when that is killed.
func startProcess(c *exec.Cmd, log string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	c.WaitDelay = 5 * time.Second
	p := &Process{ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Pdeathsig counts the thread that started the process as its parent:
		// it has to live as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		err := c.Start()
		if err == nil {
			p.PID, p.first = c.Process.Pid, c.Process.Pid
		}
		started <- err
		if err == nil {
			p.state = c.Wait()
		}
	}()
	return p, <-started
}

// Wait waits for the end of the process, and returns how it ended.
func (p *Process) Wait() error {
	<-p.ended
	return p.state
}

// Stop ends the process in the orderly way, and after 10 s in the other.
func (p *Process) Stop() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		p.signal(syscall.SIGKILL)
		<-p.ended
	}
}

// Signal sends sig to the process.
func (p *Process) Signal(sig syscall.Signal) { p.signal(sig) }

// signal does nothing when the process has ended: its id may be another's by now.
func (p *Process) signal(sig syscall.Signal) {
	select {
	case <-p.ended:
	default:
		syscall.Kill(p.first, sig)
	}
}

// Started returns the id of the process that was started: a parent where PID is
// its child.
func (p *Process) Started() int { return p.first }

// Code waits until the process that was started has ended, and returns its exit
// code.
func (p *Process) Code() int {
	<-p.ended
	var exit *exec.ExitError
	if errors.As(p.state, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// Children returns the processes that pid has started and that still run.
func Children(pid int) []int {
	states, _ := filepath.Glob("/proc/[0-9]*/stat")
	var all []int
	for _, file := range states {
		text, _ := os.ReadFile(file) // fails when the process has ended
		// Behind the name, which may hold anything: the state, the parent.
		f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(f) > 1 && f[1] == strconv.Itoa(pid) && f[0] != "Z" {
			if n, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}
