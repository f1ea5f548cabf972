package privsep

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// environment names the variable by which a process knows its role: a word, how
// many files it is given, and what else there is to say, with spaces between. It says
// nothing on its own: Join looks at the descriptor.
const environment = "IMAPD_ROLE"

// channelFD is the descriptor of the Channel to the parent; further files that
// a child is given follow it.
const channelFD = 3

// self is the program that runs, also when another has taken its place on disk,
// and also for a user who may not walk to where it lies.
const self = "/proc/self/exe"

// An Identity is who a child runs as.
type Identity struct {
	UID, GID int
	Groups   []int
}

// A Spawner starts the children. They are all started by one thread, which
// lives as long as the Spawner and for nothing else: the kernel counts that
// thread, not the process, as the parent whose death a child shall follow, and
// no_new_privs, which a thread hands on to what it starts, would keep the other
// threads from nothing but would be theirs for good.
type Spawner struct {
	// Args are the arguments of the children; nil stands for those of this
	// process.
	Args []string

	orders chan func()
	closed chan struct{}
}

// slack is by how many nanoseconds the timers of children may be late, 20 times as many
// as usual. While a thread waits for the disk, that of Go's scheduler which looks for
// threads that wait sleeps for 20,000 at a time: it took a fifth of an EXPUNGE.
const slack = 1_000_000

// errClosed refuses to start a child for a parent that ends.
var errClosed = errors.New("no more processes are started")

// NewSpawner starts the thread.
func NewSpawner() (*Spawner, error) {
	s := &Spawner{orders: make(chan func()), closed: make(chan struct{})}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()                             // for good: the thread ends with the goroutine
		unix.Prctl(unix.PR_SET_TIMERSLACK, slack, 0, 0, 0) // fails nowhere, and would do no harm
		ready <- unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		for {
			select {
			case order := <-s.orders:
				order()
			case <-s.closed:
				return
			}
		}
	}()
	if err := <-ready; err != nil {
		s.Close()
		return nil, fmt.Errorf("no_new_privs: %w", err)
	}
	return s, nil
}

// Close ends the thread, and with it the children that still run.
func (s *Spawner) Close() { close(s.closed) }

// A Child is a process that a Spawner has started.
type Child struct {
	*Channel
	role    string
	process *os.Process
	ended   chan struct{} // closed when code is set
	code    int
}

// Start starts this program again, with the same environment, in a role, a word
// about which detail says more. It runs as id, which is this process's own where
// that is not root's, and is given files.
func (s *Spawner) Start(role, detail string, id Identity, files ...*os.File) (*Child, error) {
	ours, theirs, err := Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, environment+"=") })
	cmd := &exec.Cmd{
		Path: self, Args: os.Args, Env: append(env, fmt.Sprintf("%s=%s %d %s", environment, role, len(files), detail)),
		Stdin: nil, Stdout: os.Stdout, Stderr: os.Stderr,
		ExtraFiles:  append([]*os.File{theirs}, files...),
		SysProcAttr: &syscall.SysProcAttr{Credential: id.credential(), Pdeathsig: syscall.SIGKILL},
	}
	if s.Args != nil {
		cmd.Args = s.Args
	}
	started := make(chan error)
	select {
	case s.orders <- func() { started <- cmd.Start() }:
		err = <-started
	case <-s.closed:
		err = errClosed
	}
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start of the %s: %w", role, err)
	}
	c := &Child{role: role, process: cmd.Process, ended: make(chan struct{})}
	if c.Channel, err = NewChannel(ours); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, err
	}
	go func() { // ends with the process
		err := cmd.Wait()
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit) && exit.ExitCode() < 0:
			c.code = 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
		default:
			c.code = cmd.ProcessState.ExitCode()
		}
		close(c.ended)
	}()
	return c, nil
}

// credential returns what the system is to make of a child; nil, which changes
// nothing, where that is not for this process to say.
func (id Identity) credential() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	groups := make([]uint32, len(id.Groups))
	for i, g := range id.Groups {
		groups[i] = uint32(g)
	}
	return &syscall.Credential{Uid: uint32(id.UID), Gid: uint32(id.GID), Groups: groups}
}

// Role returns the word that Start was given.
func (c *Child) Role() string { return c.role }

// PID returns the process id.
func (c *Child) PID() int { return c.process.Pid }

// Signal sends s, which does nothing once the process has ended.
func (c *Child) Signal(s os.Signal) error {
	err := c.process.Signal(s)
	switch {
	case errors.Is(err, os.ErrProcessDone):
		return nil
	case errors.Is(err, syscall.EPERM): // root is not enough where a supervisor takes its rights
		return fmt.Errorf("signal to the %s: %w (CAP_KILL is missing)", c.role, err)
	case err != nil:
		return fmt.Errorf("signal to the %s: %w", c.role, err)
	}
	return nil
}

// Ended is closed when the process has ended.
func (c *Child) Ended() <-chan struct{} { return c.ended }

// Code returns how a process that has ended did so: its exit code, or 128 and
// the signal, as in a shell.
func (c *Child) Code() int {
	<-c.ended
	return c.code
}
