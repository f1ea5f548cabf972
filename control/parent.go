package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"imapd/control/config"
	"imapd/control/privsep"
)

// What a child may ask its parent for, by the first octet of the message.
const (
	askFile  = 'f' // and its path
	askDoors = 'd'
	tellInit = 'n' // what systemd is to hear; the answer says how often it wants to

	tellTicket = 'v' // from the process that checks passwords; see takeVouched
	askWorker  = 't' // from the front: the ticket
)

// The first octet of an answer.
const (
	answerYes = 'y'
	answerNo  = 'n' // and the number of the error, 4 octets
)

// A parent is the process that root has started, once it has handed all work
// over to its children. See package privsep for what it must and must not do.
type parent struct {
	start   Start
	options *Options
	log     *slog.Logger
	spawner *privsep.Spawner
	doors   []door
	notify  *notifier

	mu    sync.Mutex
	conf  *config.Config
	files map[string]bool // that conf was read from
	// Of privilege_separation: user.
	tickets map[[ticketSize]byte]vouched
	workers map[workerKey]*worker
	living  sync.WaitGroup // goroutines that end with a worker
}

// Parted tells whether this process has to become a parent instead of serving:
// root has started it, for many clients, and whom to become is known.
func (s *Stdio) Parted(start Start, conf *config.Config) bool {
	many := start == StartListen || start == StartSystemd || start == StartInetdWait
	if !many || s.member != nil || os.Geteuid() != 0 || conf.PrivilegeSeparation == config.SeparateNone || conf.User == "" {
		return false
	}
	id, err := identify(conf)
	return err != nil || id.uid != 0
}

// Parent binds what has to be bound, starts the process that serves, as
// cyrus_user, and does what that one asks until it ends. It returns the child's
// exit code.
func Parent(start Start, stdio *Stdio, conf *config.Config, o *Options, log *slog.Logger) (int, error) {
	syscall.Umask(conf.Umask)
	if err := privsep.Harden(); err != nil {
		return ExitOS, err
	}
	id, err := identify(conf)
	if err != nil {
		return ExitConfig, err
	}
	p := &parent{start: start, options: o, log: log, notify: stdio.notify, tickets: map[[ticketSize]byte]vouched{}, workers: map[workerKey]*worker{}}
	if err := p.load(); err != nil {
		return ExitConfig, err
	}
	if p.doors, err = openDoors(start, stdio, conf, o, log); err != nil {
		if errors.Is(err, ErrNoCertificate) {
			return ExitConfig, err
		}
		return ExitOS, err
	}
	defer closeDoors(p.doors)
	if p.spawner, err = privsep.NewSpawner(); err != nil {
		return ExitOS, err
	}
	defer p.spawner.Close()

	// Before there is a child: a signal must not be lost between the two.
	got := make(chan os.Signal, 8)
	signal.Notify(got, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	defer signal.Stop(got)
	return p.run(id, got)
}

// run starts the children and ends when the one that serves has ended.
func (p *parent) run(id identity, signals <-chan os.Signal) (int, error) {
	detail := strconv.Itoa(int(p.start))
	var server, auth *privsep.Child
	var err error
	var authEnded <-chan struct{} // never ready where there is no such process
	if p.conf.PrivilegeSeparation == config.SeparateUser {
		if server, auth, err = p.startUsers(detail, id); err != nil {
			return ExitConfig, err
		}
		go p.attend(auth) // ends with the child
		authEnded = auth.Ended()
	} else if server, err = p.spawner.Start(roleServer+" "+detail, id.member()); err != nil {
		return ExitOS, err
	}
	go p.attend(server) // ends with the child
	for {
		select {
		case s := <-signals:
			if s != syscall.SIGHUP {
				closeDoors(p.doors) // or clients would wait where nobody accepts
			} else {
				p.retireAll()
			}
			server.Signal(s)
		case <-authEnded:
			authEnded = nil
			p.log.Error("the process that checks passwords has ended", "code", auth.Code())
			closeDoors(p.doors)
			server.Signal(syscall.SIGTERM)
		case <-server.Ended():
			p.endWorkers()
			return p.verdict(server, auth)
		}
	}
}

// verdict returns how the parent of children that have ended ends.
func (p *parent) verdict(server, auth *privsep.Child) (int, error) {
	code := server.Code()
	if auth != nil && code == ExitOK {
		select {
		case <-auth.Ended():
			code = auth.Code()
		default:
		}
	}
	if code > 128 {
		return code, fmt.Errorf("the server was ended by signal %d", code-128)
	}
	return code, nil
}

func (id identity) member() privsep.Identity {
	return privsep.Identity{UID: id.uid, GID: id.gid, Groups: id.groups}
}

// openDoors binds the addresses of the configuration, or takes what the launcher
// has bound. Certificates are the child's: here they are only asked for.
func openDoors(start Start, stdio *Stdio, conf *config.Config, o *Options, log *slog.Logger) ([]door, error) {
	var certs *Certificates
	if len(conf.TLSServerCert) > 0 {
		certs = &Certificates{}
	}
	var l *Listener
	var err error
	switch start {
	case StartSystemd:
		l, err = Activated(stdio, conf, o, certs, log)
	case StartInetdWait:
		l, err = InetdWait(stdio, conf, o, certs, log)
	default:
		l, err = Listen(conf, o, certs, log)
	}
	if err != nil {
		return nil, err
	}
	return l.doors, nil
}

// attend answers what the child c asks, until it is gone.
func (p *parent) attend(c *privsep.Child) {
	defer c.Close()
	for {
		message, files, err := c.Recv()
		privsep.Close(files) // none is asked for
		if err != nil {
			return
		}
		switch {
		case message[0] == askFile:
			err = p.giveFile(c, string(message[1:]))
		case message[0] == tellInit && (c.Role() == roleServer || c.Role() == RoleFront):
			err = p.tellInit(c, string(message[1:]))
		case message[0] == tellTicket && c.Role() == RoleAuth:
			err = p.takeVouched(c, message[1:])
		case message[0] == askWorker && c.Role() == RoleFront:
			err = p.giveWorker(c, message[1:])
		case message[0] == askDoors && len(message) == 1 && (c.Role() == roleServer || c.Role() == RoleFront):
			err = p.giveDoors(c)
		default:
			p.log.Error("a child asks for what there is not", "pid", c.PID())
			return
		}
		if err != nil {
			p.log.Error("answer to a child", "pid", c.PID(), "err", err)
			return
		}
	}
}

// refuse answers with the number of err.
func refuse(c *privsep.Channel, err error) error {
	number := syscall.EIO
	errors.As(err, &number)
	return c.Send(binary.BigEndian.AppendUint32([]byte{answerNo}, uint32(number)))
}

// giveFile opens path for the child, if the configuration names it. The
// configuration is read again when its own file is asked for: the child is
// about to do the same.
func (p *parent) giveFile(c *privsep.Child, path string) error {
	if path == p.options.Config {
		_ = p.load() // the child finds the fault, and tells of it
	}
	if !p.names(c.Role(), path) {
		p.log.Error("a child asks for a file that is not its own", "pid", c.PID(), "file", path)
		return refuse(c.Channel, syscall.EPERM)
	}
	f, err := config.Open(path)
	if err == nil {
		defer f.Close()
		var info fs.FileInfo
		if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
			err = syscall.EINVAL
		}
	}
	if err != nil {
		return refuse(c.Channel, err)
	}
	return c.Send([]byte{answerYes}, f)
}

// load reads the configuration. One with faults counts as far as it could be
// read, or else its faults could not be told.
func (p *parent) load() error {
	files := map[string]bool{}
	conf, _, err := LoadConfig(p.options, p.start, func(path string) (*os.File, error) {
		files[path] = true
		return config.Open(path)
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files = files
	if conf != nil {
		p.conf = conf
	}
	return err
}

// names tells whether the configuration names the file path for a process of
// that role: keys are for those that talk to clients, passwords for the one that
// checks them.
func (p *parent) names(role, path string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.files[path]:
		return true
	case role == roleServer:
		return slices.Contains(p.conf.KeyFiles(), path) || slices.Contains(p.conf.PasswordFiles(), path)
	case role == RoleFront:
		return slices.Contains(p.conf.KeyFiles(), path)
	case role == RoleAuth:
		return slices.Contains(p.conf.PasswordFiles(), path)
	}
	return false
}

// tellInit tells systemd, which listens to this process only, how the child is.
func (p *parent) tellInit(c *privsep.Child, message string) error {
	if p.notify == nil {
		return refuse(c.Channel, syscall.ENOENT)
	}
	for line := range strings.Lines(message) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "=")
		if !slices.Contains([]string{"READY", "STOPPING", "RELOADING", "MONOTONIC_USEC", "WATCHDOG", "MAINPID"}, name) {
			return refuse(c.Channel, syscall.EINVAL)
		}
	}
	if message != "" {
		p.notify.tell(message)
	}
	return c.Send(binary.BigEndian.AppendUint64([]byte{answerYes}, uint64(p.notify.watchdog)))
}

// giveDoors passes the doors on.
func (p *parent) giveDoors(c *privsep.Child) error {
	answer := []byte{answerYes}
	var files []*os.File
	defer func() { privsep.Close(files) }()
	for _, d := range p.doors {
		l, ok := d.Listener.(interface{ File() (*os.File, error) })
		if !ok {
			return fmt.Errorf("%T has no descriptor", d.Listener)
		}
		f, err := l.File()
		if err != nil {
			return err
		}
		files = append(files, f)
		tls := byte(0)
		if d.tls {
			tls = 1
		}
		answer = append(answer, tls)
	}
	return c.Send(answer, files...)
}

// doorsOf makes doors of an answer to askDoors.
func doorsOf(answer []byte, files []*os.File) ([]door, error) {
	defer privsep.Close(files)
	if len(answer) != len(files) {
		return nil, unix.EBADMSG
	}
	var doors []door
	for i, f := range files {
		l, err := net.FileListener(f) // makes its own duplicate
		if err != nil {
			closeDoors(doors)
			return nil, err
		}
		doors = append(doors, door{l, answer[i] != 0})
	}
	return doors, nil
}
