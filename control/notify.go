package control

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"imapd/control/config"
)

// A notifier tells the supervisor how a daemon is. systemd wants it as
// sd_notify(3) does it: the socket that NOTIFY_SOCKET names takes lines such as
// READY=1. s6 wants a newline on a pipe, once. A nil notifier, where nobody
// asked, tells nobody.
type notifier struct {
	socket   *net.UnixConn           // systemd's; nil where it does not listen
	pipe     atomic.Pointer[os.File] // of notify_fd, until it is told; nil without
	relay    func(message string)    // instead of both, in the child of who they listen to
	env      []string                // by which it was found
	watchdog time.Duration           // how often systemd wants to hear of us; 0 is never
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

// notifyReady is what systemd is told when clients are served.
const notifyReady = "READY=1"

// await has the notifier of a daemon tell the supervisor that waits at notify_fd
// too. A process that takes another's place was not started by one.
func (s *Stdio) await(start Start, conf *config.Config, log *slog.Logger) {
	if conf.NotifyFD == 0 || !start.Many() || s.member != nil || os.Getenv(readyEnv) != "" {
		return
	}
	if !writablePipe(conf.NotifyFD) {
		log.Warn("notify_fd: the descriptor is no pipe to write to", "descriptor", conf.NotifyFD)
		return
	}
	if s.notify == nil {
		s.notify = &notifier{}
	}
	s.notify.pipe.Store(os.NewFile(uintptr(conf.NotifyFD), "notify_fd"))
}

// writablePipe tells whether fd is what a supervisor leaves, and nothing that the
// runtime has opened where there was none, nor standard error.
func writablePipe(fd int) bool {
	var st unix.Stat_t
	if fd <= 2 || unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
}

// tell sends one message. What a supervisor does not take cannot be helped.
func (n *notifier) tell(message string) {
	if n == nil {
		return
	}
	if n.relay != nil {
		n.relay(message)
		return
	}
	if strings.HasPrefix(message, notifyReady) {
		if pipe := n.pipe.Swap(nil); pipe != nil {
			_, _ = pipe.WriteString("\n")
			pipe.Close()
		}
	}
	if n.socket == nil {
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
	if n != nil && n.socket != nil {
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
	n.tell(notifyReady + "\nMAINPID=" + strconv.Itoa(pid))
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
func (n *notifier) reloading(reload Reload) Reload {
	return func() ([]string, error) {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
			n.tell(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
		}
		defer n.tell(notifyReady)
		return reload()
	}
}

// Reloading returns reload as a function that tells systemd, where that wants
// to know, when it begins and ends.
func (s *Stdio) Reloading(reload Reload) Reload { return s.notify.reloading(reload) }
