package control

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"imapd/control/config"
	"imapd/control/privsep"
)

// What a child may ask its parent for, by the first octet of the message.
const (
	askFile      = 'f' // and its path
	askDoors     = 'd'
	askAlone     = 'c' // the one client, where there are no doors
	tellServes   = 's' // clients are served
	askSuccessor = 'u' // another process of the program is to take over
	tellHeld     = 'r' // the configuration that was asked for last counts from now on
	tellInit     = 'n' // what systemd is to hear; the answer says how often it wants to

	tellTicket = 'v' // from the process that checks passwords; see takeVouched
	askWorker  = 't' // from the front: the ticket
	askAuth    = 'a' // from the front: a way to the process that checks passwords, which is another
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
	given   bool // the child has had the doors, or the one client
	from    inheritance
	program string // see Succeed

	succeeding atomic.Bool        // another process is being started in our place
	late       context.Context    // done when that one has had its time
	end        context.CancelFunc // it gets lateTime from now on
	notify     *notifier
	served     chan struct{} // closed when the child serves
	alone      *alone        // the one client, nil where there are doors

	// Held for moments only, never while a file is read, a process is started or a
	// child may have to be waited for: one must not keep the others from the parent.
	mu         sync.Mutex
	doors      []door  // changed by the goroutine of the child that serves only
	last, held reading // see reading
	former     reading // what was held before
	// Of privilege_separation: user.
	checker identity       // who auth runs as; set before there is one
	auth    *privsep.Child // the process that checks passwords; nil where there is none
	asks    *os.File       // for the front, where auth is not the first; nil: it has it
	asked   bool           // auth has begun to read the configuration
	tickets map[[ticketSize]byte]vouched
	workers map[workerKey]*worker
	over    bool           // the server has ended: no more workers
	living  sync.WaitGroup // goroutines that end with a worker
}

// Parted tells whether this process has to become a parent instead of serving:
// root has started it for many clients, or for one where every user gets a
// process, and whom to become is known.
func (s *Stdio) Parted(start Start, conf *config.Config) bool {
	apt := start.Many() || start == StartInetd && conf.PrivilegeSeparation == config.SeparateUser
	if !apt || s.member != nil || os.Geteuid() != 0 || conf.PrivilegeSeparation == config.SeparateNone || conf.User == "" {
		return false
	}
	id, err := identify(conf)
	return err != nil || id.uid != 0
}

func newParent(start Start, o *Options, log *slog.Logger) *parent {
	ending, end := context.WithCancel(context.Background())
	late, _ := untilLate(ending)
	return &parent{
		start: start, options: o, log: log, served: make(chan struct{}), late: late, end: end,
		tickets: map[[ticketSize]byte]vouched{}, workers: map[workerKey]*worker{},
	}
}

// Parent binds what has to be bound, or takes over the one client, starts the
// process that serves, as cyrus_user, and does what that one asks until it ends.
// It returns the child's exit code.
func Parent(start Start, stdio *Stdio, conf *config.Config, o *Options, log *slog.Logger) (int, error) {
	syscall.Umask(conf.Umask)
	if err := privsep.Harden(); err != nil {
		return ExitOS, err
	}
	id, err := identify(conf)
	if err != nil {
		return ExitConfig, err
	}
	if err := id.reaches(conf); err != nil {
		return ExitConfig, err
	}
	stdio.await(start, conf, log)
	p := newParent(start, o, log)
	p.notify = stdio.notify
	if err := p.load(); err != nil {
		return ExitConfig, err
	}
	p.held = p.last
	if err := p.takeDoors(stdio, conf); err != nil {
		if errors.Is(err, ErrNoCertificate) {
			return ExitConfig, err
		}
		return ExitOS, err
	}
	forgetLauncher()
	furnish(conf, id)
	if start.Many() { // the others have no time
		id.warnUnusable(conf, log)
	}

	// Before there is a child: a signal must not be lost between the two.
	got := make(chan os.Signal, 8)
	signal.Notify(got, syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	defer signal.Stop(got)
	defer p.closeDoors()
	code, err := p.serve(id, os.Args, got)
	if code != ExitOK {
		stdio.TurnAway() // while the door is open
	}
	return code, err
}

// takeDoors binds the doors, or takes over those of the launcher or its one
// client.
func (p *parent) takeDoors(stdio *Stdio, conf *config.Config) (err error) {
	if p.start == StartInetd {
		p.alone, err = stdio.alone()
		return err
	}
	l, err := openDoors(p.start, stdio, conf, p.options, p.log)
	if err == nil {
		p.doors, p.from, p.program = l.doors, l.from, l.program
	}
	return err
}

// serve starts the children, with args, and ends when the one that serves has
// ended.
func (p *parent) serve(id identity, args []string, signals <-chan os.Signal) (int, error) {
	defer p.alone.close()
	spawner, err := privsep.NewSpawner()
	if err != nil {
		return ExitOS, err
	}
	defer spawner.Close()
	spawner.Args, p.spawner = args, spawner
	return p.run(id, signals)
}

// detail is what every child is told of the start: see member.start.
func (p *parent) detail() string { return strconv.Itoa(int(p.start)) + " " + p.options.Service }

// run starts the children and ends when the one that serves has ended.
func (p *parent) run(id identity, signals <-chan os.Signal) (int, error) {
	var server *privsep.Child
	var err error
	var authEnded <-chan struct{} // never ready where there is no such process
	var bereft <-chan time.Time   // the server goes on without it
	var again <-chan time.Time    // another is started
	pause, began, ending := authPause, time.Now(), false
	if p.held.conf.PrivilegeSeparation == config.SeparateUser {
		if server, err = p.startUsers(id); err != nil {
			return ExitConfig, err
		}
	} else if server, err = p.spawner.Start(roleServer, p.detail(), id.member()); err != nil {
		return ExitOS, err
	}
	if p.auth != nil {
		go p.attend(p.auth) // ends with the child
		authEnded = p.auth.Ended()
	}
	go p.attend(server) // ends with the child
	served := p.served
	var early []os.Signal
	for {
		select {
		case <-served:
			served = nil
			for _, s := range early {
				p.signal(server, s)
			}
		case s := <-signals:
			switch s {
			case syscall.SIGHUP, syscall.SIGUSR2: // the child asks for the rest
				if served != nil { // and would die of them as long as it starts
					early = append(early, s)
					continue
				}
			default:
				ending = true
				p.end()
				p.closeDoors() // or clients would wait where nobody accepts
			}
			p.signal(server, s)
		case <-authEnded:
			authEnded = nil
			switch code := p.auth.Code(); {
			case code == ExitOK || ending: // as when the server has ended, which is seen next then
				bereft = time.After(endTime)
			case served != nil: // nothing that another one would do better
				bereft = time.After(0)
			default: // sessions need it no more, and who logs in can come back
				if time.Since(began) > mostAuthPause {
					pause = authPause // it was well meanwhile
				}
				p.log.Error("the process that checks passwords has died, another is started", "code", code, "after", pause)
				again, pause = time.After(pause), min(2*pause, mostAuthPause)
			}
		case <-again:
			if err := p.startAuth(); err != nil {
				p.log.Error("no process that checks passwords", "err", err, "after", pause)
				again, pause = time.After(pause), min(2*pause, mostAuthPause)
				continue
			}
			again, began = nil, time.Now()
			go p.attend(p.auth) // ends with the child
			authEnded = p.auth.Ended()
		case <-bereft:
			p.log.Error("the process that checks passwords has ended", "code", p.auth.Code())
			p.end()
			p.closeDoors()
			p.signal(server, syscall.SIGTERM)
		case <-server.Ended():
			p.endWorkers()
			return p.verdict(server)
		}
	}
}

// signal passes s on to a child. That it cannot be would else go unnoticed.
func (p *parent) signal(c *privsep.Child, s os.Signal) {
	if err := c.Signal(s); err != nil {
		p.log.Error("a signal is not passed on", "signal", s, "err", err)
	}
}

// verdict returns how the parent of children that have ended ends.
func (p *parent) verdict(server *privsep.Child) (int, error) {
	code := server.Code()
	if p.auth != nil && code == ExitOK {
		select {
		case <-p.auth.Ended():
			code = p.auth.Code()
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

func (p *parent) own(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own(p.doors, yes)
}

// closeDoors has nobody come in any more, as far as it is up to this process.
func (p *parent) closeDoors() {
	p.mu.Lock()
	defer p.mu.Unlock()
	closeDoors(p.doors)
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
		serves := c.Role() == roleServer || c.Role() == RoleFront
		switch {
		case message[0] == askFile:
			err = p.giveFile(c, string(message[1:]))
		case message[0] == tellServes && serves:
			err = p.serves(c)
		case message[0] == askSuccessor && serves:
			err = p.succeed(c)
		case message[0] == tellInit && serves:
			err = p.tellInit(c, string(message[1:]))
		case message[0] == tellHeld && serves:
			err = p.hold(c)
		case message[0] == tellTicket && c.Role() == RoleAuth:
			err = p.takeVouched(c, message[1:])
		case message[0] == askWorker && c.Role() == RoleFront:
			err = p.giveWorker(c, message[1:])
		case message[0] == askAuth && len(message) == 1 && c.Role() == RoleFront:
			err = p.giveAuth(c)
		case message[0] == askDoors && len(message) == 1 && serves:
			err = p.giveDoors(c)
		case message[0] == askAlone && len(message) == 1 && serves:
			err = p.giveAlone(c)
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

// tellInit tells the supervisor, which listens to this process only, how the
// child is.
func (p *parent) tellInit(c *privsep.Child, message string) error {
	if p.notify == nil {
		return refuse(c.Channel, syscall.ENOENT)
	}
	for line := range strings.Lines(message) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		// systemd would believe root's process about any other, and end that with
		// the service.
		foreign := name == "MAINPID" && value != strconv.Itoa(os.Getpid())
		if foreign || !slices.Contains([]string{"READY", "STOPPING", "RELOADING", "MONOTONIC_USEC", "WATCHDOG", "MAINPID"}, name) {
			return refuse(c.Channel, syscall.EINVAL)
		}
	}
	if message != "" {
		p.notify.tell(message)
	}
	return c.Send(binary.BigEndian.AppendUint64([]byte{answerYes}, uint64(p.notify.watchdog)))
}

// serves tells the process that waits for this one that the child serves, and
// makes the doors this one's own.
func (p *parent) serves(c *privsep.Child) error {
	if p.start == StartListen {
		p.from.tell()
		p.own(true)
	}
	select {
	case <-p.served: // told again
	default:
		close(p.served)
	}
	return c.Send([]byte{answerYes})
}

// succeed has another process of the program take the place of this one, which
// ends when the child has no sessions any more. That takes as long as the new one
// needs to start, while children ask for other things: so the answer is the end of
// a pipe, which gets the process id when the new process serves, and nothing where
// it does not come to that. The goroutine that waits belongs to p, ends after
// readyTime at the latest, and is the only one of its kind.
func (p *parent) succeed(c *privsep.Child) error {
	if p.start != StartListen {
		p.log.Error("only a server that listens by itself can be replaced")
		return refuse(c.Channel, syscall.ENOTSUP)
	}
	if !p.succeeding.CompareAndSwap(false, true) {
		return refuse(c.Channel, syscall.EALREADY)
	}
	told, tell, err := os.Pipe()
	if err != nil {
		p.succeeding.Store(false)
		return refuse(c.Channel, err)
	}
	defer told.Close()
	p.own(false)
	doors := p.doors // they do not change meanwhile: see giveDoors
	go func() {
		defer p.succeeding.Store(false)
		defer tell.Close()
		pid, err := replace(p.late, p.program, doors, p.notify)
		if err != nil {
			p.own(true)
			p.log.Error("not handed over", "err", err)
			return
		}
		p.closeDoors()
		_, _ = tell.WriteString(strconv.Itoa(pid)) // a child that is gone need not know
	}()
	return c.Send([]byte{answerYes}, told)
}
