package control

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A notifier tells systemd how a daemon is, as sd_notify(3) does: the socket
// that NOTIFY_SOCKET names takes lines such as READY=1. A nil notifier, where
// nobody asked, tells nobody.
type notifier struct {
	socket   *net.UnixConn
	relay    func(message string) // instead of socket, in the child of who systemd listens to
	env      []string             // by which it was found
	watchdog time.Duration        // how often systemd wants to hear of us; 0 is never
}

// openNotifier connects to systemd's socket, while a root-only path can be
// reached still, or returns nil. The variables are gone then.
func openNotifier() *notifier {
	name, pid, usec := os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_PID"), os.Getenv("WATCHDOG_USEC")
	for _, v := range []string{"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"} {
		os.Unsetenv(v)
	}
	if name == "" {
		return nil
	}
	// An @ at the start stands for an abstract socket, here as there.
	socket, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil // systemd will say that it has not heard of us
	}
	n := &notifier{socket: socket, env: []string{"NOTIFY_SOCKET=" + name, "WATCHDOG_USEC=" + usec}}
	if u, err := strconv.ParseUint(usec, 10, 50); err == nil && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(u) * time.Microsecond
	}
	return n
}

// tell sends one message. What systemd does not take cannot be helped.
func (n *notifier) tell(message string) {
	if n == nil {
		return
	}
	if n.relay != nil {
		n.relay(message)
		return
	}
	_ = n.socket.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = n.socket.Write([]byte(message))
}

// environ returns what a process needs to find the same socket.
func (n *notifier) environ() []string {
	if n == nil {
		return nil
	}
	return n.env
}

// replaced tells that another process is the daemon now, and nothing after it.
func (n *notifier) replaced(pid int) {
	n.tell("MAINPID=" + strconv.Itoa(pid))
	if n != nil {
		n.socket.Close()
	}
}

// ready tells that clients are served, and from now on that the process lives,
// until stop is called. That tells that it ends.
func (n *notifier) ready() (stop func()) {
	pid := os.Getpid()
	if n != nil && n.relay != nil {
		pid = os.Getppid()
	}
	n.tell("READY=1\nMAINPID=" + strconv.Itoa(pid))
	done, ended := make(chan struct{}), make(chan struct{})
	if n == nil || n.watchdog <= 0 {
		close(ended)
	} else {
		go func() {
			defer close(ended)
			n.live(done)
		}()
	}
	return func() {
		n.tell("STOPPING=1")
		close(done)
		<-ended
	}
}

// live says so twice in the time that systemd waits, until done is closed.
func (n *notifier) live(done <-chan struct{}) {
	t := time.NewTicker(n.watchdog / 2)
	defer t.Stop()
	for {
		select {
		case <-done:
			return
		case <-t.C:
			n.tell("WATCHDOG=1")
		}
	}
}

// reloading wraps a function that reads the configuration again: systemd
// (Type=notify-reload) waits for its end.
func (n *notifier) reloading(reload func() error) func() error {
	return func() error {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
			n.tell(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
		}
		defer n.tell("READY=1")
		return reload()
	}
}

// Reloading returns reload as a function that tells systemd, where that wants
// to know, when it begins and ends.
func (s *Stdio) Reloading(reload func() error) func() error { return s.notify.reloading(reload) }
