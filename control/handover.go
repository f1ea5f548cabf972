package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imapd/control/config"
)

// Handing over: a new process, of the program that lies in our place now, gets
// the sockets that listen, and we stop to accept when it says that it serves.
// The sockets are the same ones all the time, so nobody is refused. What has
// come in stays with us until it ends, since the state of TLS cannot be handed
// on. If the new process fails we go on as if nothing had happened.
//
// The new process finds in its environment which descriptor listens where, and
// at which one it is waited for.
const (
	handedEnv = "IMAPD_LISTENERS" // "3=imap://:143 4=imaps://:993", as the option listen writes them
	readyEnv  = "IMAPD_READY"     // the descriptor
	readyWord = "ready"
)

// readyTime is how long a new process may take until it serves, and lateTime how long
// it may from when this one has been told to end. Upgrade scripts do tell it so at
// once, and mean the new one to serve.
const (
	readyTime = 60 * time.Second
	lateTime  = 10 * time.Second
)

// untilLate returns what is done when ctx has been for lateTime.
func untilLate(ctx context.Context) (context.Context, context.CancelFunc) {
	return later(ctx, func() time.Duration { return lateTime })
}

// A Handed is a socket to be handed over: its descriptor and a name for it.
type Handed struct {
	FD   int
	Name string // without blanks
}

// Succeed starts program, a path, with the arguments of this process, hands it
// the sockets, which stay open here too, and returns its process id when it
// serves. more is put into its environment. The error says why it does not, as
// when late is done before it does; it has ended then.
//
// The path is found when this process starts. Later its file may have been moved
// away, and what the system says of us would lead to the old program.
func Succeed(late context.Context, program string, sockets []Handed, more ...string) (pid int, err error) {
	if program == "" {
		return 0, errors.New("the program cannot be found")
	}
	wait, ready, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer wait.Close()
	defer ready.Close()
	files := []uintptr{0, 1, 2}
	var names []string
	for _, s := range sockets {
		names = append(names, fmt.Sprintf("%d=%s", len(files), s.Name))
		files = append(files, uintptr(s.FD))
	}
	// Not by os.File, whose Fd would let our own accept block.
	env := append(os.Environ(), handedEnv+"="+strings.Join(names, " "), fmt.Sprintf("%s=%d", readyEnv, len(files)))
	files = append(files, ready.Fd())
	pid, err = syscall.ForkExec(program, os.Args, &syscall.ProcAttr{Env: append(env, more...), Files: files})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", program, err)
	}
	ready.Close()
	p, err := os.FindProcess(pid)
	if err != nil {
		return 0, err
	}
	if err := awaitReady(late, wait); err != nil {
		_ = p.Kill() // fails where it has ended by itself
		state, _ := p.Wait()
		return 0, fmt.Errorf("%s: %w (%v)", program, err, state)
	}
	go p.Wait() // so that no zombie is left; it may outlive us
	return pid, nil
}

func awaitReady(late context.Context, r *os.File) error {
	if err := r.SetReadDeadline(time.Now().Add(readyTime)); err != nil {
		return err
	}
	defer context.AfterFunc(late, func() { _ = r.SetReadDeadline(time.Now()) })() // a pipe can
	b := make([]byte, len(readyWord))
	if _, err := io.ReadFull(r, b); errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("the new process takes too long to serve")
	} else if err != nil {
		return errors.New("the new process has ended before it served")
	}
	return nil
}

// HandOver has a new process of the program take over the doors. Run ends when
// the last session does. A Daemon calls it, never beside a reload.
func (l *Listener) HandOver() error {
	l.handing.Lock()
	defer l.handing.Unlock()
	pid, err := l.succeed()
	if err != nil {
		return err
	}
	l.leave(pid)
	return nil
}

// succeed starts the new process and returns its id when it serves. Who is to end
// closes the doors meanwhile. l.handing is held.
func (l *Listener) succeed() (pid string, err error) {
	l.mu.Lock()
	doors, begun := l.doors, l.begin != nil
	ours := begun && l.own && l.led == nil
	if ours {
		own(doors, false)
	}
	l.mu.Unlock()
	if begun && l.led != nil {
		if pid, err = l.led.succeed(); err != nil {
			err = fmt.Errorf("the parent is not replaced: %w", err)
		}
		return pid, err
	}
	if !ours {
		return "", errors.New("only a server that listens by itself can be replaced")
	}
	n, err := replace(l.late, l.program, doors, l.notify)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		own(doors, true)
		return "", err
	}
	return strconv.Itoa(n), nil
}

// leave closes the doors, which the process pid has, and keeps the sessions.
func (l *Listener) leave(pid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	closeDoors(l.doors)
	l.begin = nil
	close(l.left)
	l.log.Log(context.Background(), LevelNotice, "handed over", "pid", pid)
}

// replace starts the process of program that takes over doors. They stay open here. They are
// nobody's own meanwhile, since who is told to end closes them at any moment.
func replace(late context.Context, program string, doors []door, notify *notifier) (pid int, err error) {
	var sockets []Handed
	defer func() {
		for _, s := range sockets {
			unix.Close(s.FD)
		}
	}()
	for _, d := range doors {
		fd, err := duplicate(d.Listener)
		if err != nil {
			return 0, fmt.Errorf("listen %v: %w", d.at, err)
		}
		sockets = append(sockets, Handed{fd, d.at.String()})
	}
	if pid, err = Succeed(late, program, sockets, notify.environ()...); err != nil {
		return 0, err
	}
	notify.replaced(pid)
	return pid, nil
}

// duplicate returns a descriptor of the socket of l, which is not changed.
func duplicate(l net.Listener) (fd int, err error) {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return -1, errors.New("no socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	ctlErr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) })
	return fd, errors.Join(ctlErr, err)
}

// An inheritance is what a process has from the one that it replaces.
type inheritance struct {
	doors map[string]int // descriptors by address
	ready *os.File       // nil where nobody waits
}

// inherit takes over what lies in the environment. No child inherits it again.
func inherit() inheritance {
	h := inheritance{doors: map[string]int{}}
	list, ready := os.Getenv(handedEnv), os.Getenv(readyEnv)
	os.Unsetenv(handedEnv)
	os.Unsetenv(readyEnv)
	fd, err := strconv.Atoi(ready)
	if err != nil {
		return h
	}
	unix.CloseOnExec(fd)
	h.ready = os.NewFile(uintptr(fd), "ready")
	for entry := range strings.FieldsSeq(list) {
		number, address, _ := strings.Cut(entry, "=")
		if fd, err := strconv.Atoi(number); err == nil {
			unix.CloseOnExec(fd)
			h.doors[address] = fd
		}
	}
	return h
}

// take returns the door at a, if there is one.
func (h inheritance) take(a config.Address) (net.Listener, error) {
	fd, ok := h.doors[a.String()]
	if !ok {
		return nil, nil
	}
	delete(h.doors, a.String())
	f := os.NewFile(uintptr(fd), a.String())
	defer f.Close()
	return net.FileListener(f) // makes its own duplicate, and leaves the name of a unix socket where it is
}

// own tells whether the names of unix sockets go with them when they are closed,
// because no other process serves there.
func own(doors []door, own bool) {
	for _, d := range doors {
		if u, ok := d.Listener.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(own)
		}
	}
}

// drop closes what was not taken: addresses that the configuration has no more.
func (h inheritance) drop() {
	for _, fd := range h.doors {
		unix.Close(fd)
	}
	clear(h.doors)
}

// tell tells who waits that clients are served, once.
func (h *inheritance) tell() {
	if h.ready != nil {
		_, _ = h.ready.WriteString(readyWord) // who does not wait any more has ended us
		h.ready.Close()
		h.ready = nil
	}
}
