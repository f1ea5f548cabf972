package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"imapd/control"
	"imapd/control/proc"
	"imapd/sasl"

	"golang.org/x/sys/unix"
)

const (
	maxRequest  = 1024             // octets
	requestTime = 10 * time.Second // to send a request
	maxConns    = 64               // at a time
)

// Options are what a daemon lets its administrator do.
type Options struct {
	// Dir is the configuration directory.
	Dir string
	// Daemon is asked to reload and to drain.
	Daemon interface {
		Reload() (kept []string, err error)
		Drain()
	}
	// End ends the session of that id, and tells whether there was one.
	End func(session string) bool
	// Service is the name of the service of all sessions.
	Service string
	// Complete returns all sessions, and true, where the files that list them may
	// not; see proc.Table.
	Complete func() ([]proc.Info, bool)
	// Users returns who knows for whom sessions may be; nil where nobody does.
	Users func() Users
	// Serve serves a session; see control.Handler.
	Serve func(ctx context.Context, c *control.Conn)
	// Grace is how long sessions may take to end by themselves at Close.
	Grace time.Duration
	Log   *slog.Logger
}

// Users know users by name; *sasl.Authenticator does.
type Users interface {
	// Lookup returns a user. Its errors are those of package sasl.
	Lookup(ctx context.Context, user string) (sasl.User, error)
}

// A Server is the daemon's end of the socket.
type Server struct {
	opt    Options
	listen *net.UnixListener
	path   string
	ctx    context.Context // of the sessions; cut ends it
	cut    context.CancelFunc
	slots  chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil once they are to be closed
	ended sync.WaitGroup
}

// Listen makes the socket and answers requests until Close. A daemon without a
// socket serves all the same: log is told why, and Listen returns nil.
func Listen(opt Options) *Server {
	if opt.Dir == "" {
		return nil
	}
	s := &Server{opt: opt, path: socketPath(opt.Dir, os.Getpid()), slots: make(chan struct{}, maxConns), conns: map[net.Conn]struct{}{}}
	s.ctx, s.cut = context.WithCancel(context.Background())
	if err := s.bind(); err != nil {
		s.cut()
		opt.Log.Warn("imapctl will not reach this server", "err", err)
		return nil
	}
	s.ended.Go(s.accept)
	return s
}

// bind makes the socket under both its names.
func (s *Server) bind() error {
	dir := filepath.Dir(s.path)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	sweep(dir)
	// Of this number there is nobody but this process.
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		return err
	}
	err = os.Chmod(s.path, 0o600)
	if err == nil {
		err = s.name()
	}
	if err != nil {
		l.Close() // removes the socket
		return err
	}
	s.listen = l
	return nil
}

// name gives the socket its second name, in one step.
func (s *Server) name() error {
	next := s.path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Link(s.path, next); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(filepath.Dir(s.path), socketName))
}

// sweep removes the sockets that dead daemons left behind.
func sweep(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if pid, ok := socketPID(e.Name()); ok && !proc.Alive(pid) {
			_ = os.Remove(filepath.Join(dir, e.Name())) // who may not need not
		}
	}
}

// Close removes the socket and waits for requests and sessions. After the time
// of grace it ends the context of the sessions and closes their connections. It
// may be called on nil.
func (s *Server) Close() {
	if s == nil {
		return
	}
	name := filepath.Join(filepath.Dir(s.path), socketName)
	if ours, err := os.Lstat(s.path); err == nil {
		if last, err := os.Lstat(name); err == nil && os.SameFile(ours, last) {
			_ = os.Remove(name) // a dead name does no harm
		}
	}
	s.listen.Close()
	late := time.AfterFunc(s.opt.Grace, func() {
		s.cut()
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			c.Close()
		}
		s.conns = nil
	})
	s.ended.Wait()
	late.Stop()
	s.cut()
}

// accept is the Server's goroutine.
func (s *Server) accept() {
	for {
		c, err := s.listen.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.opt.Log.Error("accept", "listen", s.path, "err", err)
			time.Sleep(100 * time.Millisecond) // no descriptor is left
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			c.Close()
			continue
		}
		if !s.add(c) {
			c.Close()
			continue
		}
		s.ended.Go(func() {
			defer func() { <-s.slots }()
			defer s.remove(c)
			s.serve(c)
		})
	}
}

func (s *Server) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	c.Close()
}

// A request is what a client wants, and who the client is.
type request struct {
	conn     *net.UnixConn
	argument string
	cred     *unix.Ucred
}

// serve reads one request and answers it.
func (s *Server) serve(c *net.UnixConn) {
	cred, err := peer(c)
	if err != nil || c.SetDeadline(time.Now().Add(requestTime)) != nil {
		return
	}
	word, argument, err := read(c) // or it would not hear the answer
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		s.opt.Log.Warn("imapctl refused", "uid", cred.Uid, "pid", cred.Pid)
		answer(c, "", errors.New("this is for root and the user who serves"))
		return
	}
	if err != nil {
		answer(c, "", err)
		return
	}
	command, ok := commands[word]
	if !ok || command.Serve == nil {
		answer(c, "", errors.New("unknown request"))
		return
	}
	if !command.Quiet {
		s.opt.Log.Log(s.ctx, control.LevelNotice, "imapctl", "request", word, "for", argument, "uid", cred.Uid, "pid", cred.Pid)
	}
	// A request takes what it takes; the client has had its time.
	if c.SetDeadline(time.Time{}) != nil {
		return
	}
	text, err := command.Serve(s.ctx, s, &request{c, argument, cred})
	if errors.Is(err, errAnswered) {
		return
	}
	answer(c, text, err)
}

// peer returns who is on the other side of c.
func peer(c *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	if ctlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); ctlErr != nil {
		return nil, ctlErr
	}
	return cred, err
}

// read reads one request, which nothing may follow.
func read(c net.Conn) (word, argument string, err error) {
	b := make([]byte, maxRequest)
	n := 0
	for n == 0 || b[n-1] != '\n' {
		if n == len(b) {
			return "", "", errors.New("the request is too long")
		}
		m, err := c.Read(b[n:])
		if err != nil {
			return "", "", fmt.Errorf("read the request: %w", err)
		}
		n += m
	}
	line := string(b[:n-1])
	if strings.ContainsAny(line, "\n\r\x00") {
		return "", "", errors.New("more than one line")
	}
	word, argument, _ = strings.Cut(line, "\t")
	return word, argument, nil
}

// answer ends a request. A client that has gone need not hear.
func answer(c net.Conn, text string, err error) {
	kind := "OK "
	if err != nil {
		kind, text = "NO ", strings.ToValidUTF8(err.Error(), "?")
	}
	lines := strings.Split(text, "\n")
	last := len(lines) - 1
	var out strings.Builder
	for _, line := range lines[:last] {
		out.WriteString("* " + line + "\n")
	}
	out.WriteString(kind + lines[last] + "\n")
	if c.SetWriteDeadline(time.Now().Add(requestTime)) == nil {
		_, _ = c.Write([]byte(out.String()))
	}
}
