package control

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imapd/control/config"
)

// Under Cyrus's master(8) a process serves one client after the other. Master
// never accepts: it waits for the listening socket to become readable as long
// as no process is ready, forks one, and keeps count of them by what they write
// to a pipe. All mistakes here are mistakes in its books, for the service as a
// whole and until it is restarted:
//
//   - A process that was forked counts as ready; it says nothing at its start.
//   - With a client it says unavailable, then connection; and available when it
//     takes another. Without the first, every other client waits for this one.
//   - A message is 8 octets in one write, and the process id in it is the one
//     that master forked. Half a message would shift all that follow.
//   - To end with 0 having accepted nobody makes master fork again at once, for
//     as long as a client waits, thousands of times a minute. So what is wrong
//     with the configuration ends a process with another code, before it has
//     said anything: after five of those master closes the service.
//
// The choice between this and one process for all (master knows a message for
// that) was made for the administrator: -U, -T, prefork, maxchild, cyr_deny and
// a crash that hits one client mean what they mean for Cyrus's own imapd.

// The descriptors that master hands over.
const (
	statusFD = 3
	listenFD = 4
)

// What master is told.
const (
	available   = 1
	unavailable = 2
	connection  = 3
)

// ErrTerminated is how the Source of a process under master ends when a signal
// wants it to, and the cause with which its client's context is done: it is not
// told BYE.
var ErrTerminated = errors.New("terminated by a signal")

// A Master is the Source of a process under Cyrus's master.
type Master struct {
	conf    *config.Config
	opt     *Options
	certs   *Certificates
	log     *slog.Logger
	signals <-chan os.Signal
	hangup  chan struct{} // closed at SIGHUP
	lock    *os.File      // held by the process that waits for a client; nil where there is none
	program program
	served  int
}

// underMaster tells whether master has started this process for a service that
// listens.
func underMaster() bool {
	if os.Getenv("CYRUS_SERVICE") == "" {
		return false
	}
	var st unix.Stat_t
	if unix.Fstat(statusFD, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO && st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return false
	}
	mode, err := unix.FcntlInt(statusFD, unix.F_GETFL, 0)
	if err != nil || mode&unix.O_ACCMODE == unix.O_RDONLY {
		return false
	}
	listens, err := unix.GetsockoptInt(listenFD, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && listens != 0
}

// Fits returns why a process that was started with o cannot do what its
// launcher expects: under master, one that serves nobody and ends well would be
// started again and again.
func Fits(o *Options) error {
	if (o.Listen || o.Test || o.Version) && underMaster() {
		return errors.New("options -l, -t and -V have no place in a service of master(8)")
	}
	return nil
}

// serviceName returns what the service is called of a process that was started
// as start.
func serviceName(start Start) string {
	if start == StartMaster {
		return os.Getenv("CYRUS_SERVICE")
	}
	return Service
}

// catch has the signals kept that master sends, from the first moment on: by
// default they would end the process with a code that master takes for a
// failure. They are never let go, for the same reason.
func catch() <-chan os.Signal {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	return c
}

// fit is what a service may be called, since files are named after it.
func fit(name string) bool {
	odd := func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}
	return name != "" && !strings.ContainsFunc(name, odd)
}

// newMaster returns the Master, or the exit code and the error of a process
// that cannot be one.
func newMaster(s *Stdio, conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Master, int, error) {
	id := os.Getenv("CYRUS_ID")
	switch {
	case id == "":
		return nil, ExitSoftware, errors.New("could not getenv(CYRUS_ID); exiting")
	case !fit(conf.Service) || !fit(id):
		return nil, ExitConfig, fmt.Errorf("service %q with the number %q: a file cannot be named so", conf.Service, id)
	case o.TLS && certs == nil:
		return nil, ExitConfig, ErrNoCertificate
	}
	m := &Master{
		conf: conf, opt: o, certs: certs, log: log, signals: s.signals,
		hangup: make(chan struct{}),
	}
	return m, ExitOK, nil
}

// Run serves one client after the other until it is time to go: after -U of
// them, after -T seconds without one, when the program was replaced, or at
// SIGHUP. At SIGTERM it returns ErrTerminated. A goroutine that waits for
// clients or signals may be left behind; the process ends then.
func (m *Master) Run(ctx context.Context, h Handler) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go m.watch(cancel)
	m.program = findProgram(os.Args[0])
	m.openLock()
	for {
		c, err := m.next(ctx)
		if errors.Is(err, errChanged) {
			m.log.Info("process file has changed")
			return nil
		}
		if c == nil {
			return err
		}
		err = m.tell(unavailable)
		if err == nil {
			err = m.tell(connection)
		}
		m.serve(ctx, c, h)
		m.served++
		switch {
		case ctx.Err() != nil:
			return ErrTerminated
		case err != nil:
			return err
		case m.hungUp() || m.served >= m.opt.Uses || m.program.old:
			return nil
		}
		if err := m.tell(available); err != nil {
			return err
		}
	}
}

// watch is the goroutine that hears signals. It lives as long as the process.
func (m *Master) watch(cancel context.CancelCauseFunc) {
	var once sync.Once
	for s := range m.signals {
		if s == syscall.SIGHUP {
			once.Do(func() { close(m.hangup) })
			continue
		}
		m.log.Log(context.Background(), LevelNotice, "graceful shutdown")
		cancel(ErrTerminated)
	}
}

func (m *Master) hungUp() bool {
	select {
	case <-m.hangup:
		return true
	default:
		return false
	}
}

// patience is how long a process that has served waits for its next client: from
// T to 2T, so that those that were forked together do not end together.
func (m *Master) patience() <-chan time.Time {
	t := time.Duration(m.opt.Timeout) * time.Second
	if m.served == 0 || t == 0 {
		return nil
	}
	return time.After(t + rand.N(t))
}

// serve serves one client.
func (m *Master) serve(ctx context.Context, c *Conn, h Handler) {
	keepAlive(c.Conn, m.conf.TCPKeepalive)
	one := &Single{newAdmission(m.conf, m.opt, m.certs, m.log), c, m.opt.TLS}
	one.serve(ctx, h)
}

// tell tells master something about this process.
func (m *Master) tell(message uint32) error {
	var b [8]byte
	binary.NativeEndian.PutUint32(b[:4], message)
	binary.NativeEndian.PutUint32(b[4:], uint32(os.Getpid()))
	for {
		// Fewer octets than PIPE_BUF are written whole or not at all.
		_, err := syscall.Write(statusFD, b[:])
		switch err {
		case nil:
			return nil
		case syscall.EINTR:
		case syscall.EAGAIN: // not ours to say that the pipe blocks
			_, _ = unix.Poll([]unix.PollFd{{Fd: statusFD, Events: unix.POLLOUT}}, -1)
		default:
			return fmt.Errorf("unable to tell master %x: %w", message, err)
		}
	}
}

// A program is the file that a process runs, as it was at the start.
type program struct {
	path string
	info os.FileInfo // nil where the file cannot be seen
	// old says that it was replaced while the process started. Such a process
	// serves one client first: should the two only look different, as on some
	// file systems, master would fork without end.
	old bool
}

// findProgram finds the file of this process by the name that it was called by,
// so that a link in the way may be turned, or else by what the system says.
func findProgram(name string) program {
	self, err := os.Stat("/proc/self/exe")
	if path := called(name); err == nil && path != "" {
		if info, err := os.Stat(path); err == nil && os.SameFile(info, self) {
			return program{path: path, info: info}
		}
	}
	path, err := os.Executable()
	if err != nil {
		return program{}
	}
	info, err := os.Stat(path)
	if err != nil {
		return program{}
	}
	return program{path, info, self != nil && !os.SameFile(info, self)}
}

// called returns the path of a program that was called by name, as a shell finds
// it, or "". Whether it is the one that runs remains to be seen.
func called(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	if path, err = filepath.Abs(path); err != nil {
		return ""
	}
	return path
}

// changed tells whether the file was replaced or removed. What cannot be seen,
// at the start or now, has not changed: master would fork without end.
func (p program) changed() bool {
	if p.info == nil {
		return false
	}
	info, err := os.Stat(p.path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return !os.SameFile(info, p.info) || info.Size() != p.info.Size() || !info.ModTime().Equal(p.info.ModTime())
}
