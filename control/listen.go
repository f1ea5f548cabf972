package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"imapd/control/config"
)

const (
	// cutTime is how long sessions may take to end that were cut short.
	cutTime = 10 * time.Second
	// backoff is how long accept rests when the system has no descriptor left.
	backoff = 100 * time.Millisecond
	// refuseTime is how long a client that is refused may take to hear so.
	refuseTime = 100 * time.Millisecond
)

// A Listener is the Source of every start that brings many clients: it takes
// the connections that come in at its doors and serves each in a goroutine of
// its own.
type Listener struct {
	opt     *Options
	own     bool // the doors are those of the option listen
	from    inheritance
	program string  // see Succeed
	led     *member // whose parent has bound the doors; nil where nobody has
	log     *slog.Logger
	gate    *gate
	refused tally
	notify  *notifier // is told that it serves
	now     atomic.Pointer[admission]

	handing sync.Mutex      // held while another process is started in our place; before mu
	late    context.Context // done when that one has had its time; set before begin

	mu    sync.Mutex
	doors []door
	begin func(door)    // accepts at a door; nil while Run does not
	left  chan struct{} // closed when another process has taken over the doors

	// idle is how long Run goes on without a client before it ends; 0 is for
	// ever.
	idle time.Duration
}

// Listen returns the Listener of imapd -l: it binds all addresses of the
// configuration, or none. Connections wait until Run.
func Listen(conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Listener, error) {
	from := inherit()
	doors, err := bind(conf, o, certs, from)
	if err != nil {
		return nil, err
	}
	l := newListener(conf, o, certs, log, doors)
	l.own, l.from, l.program = true, from, findProgram(os.Args[0]).path
	return l, nil
}

// Activated returns the Listener of the sockets that systemd passes. With -T on
// the command line it ends when it has had no client for so long: systemd
// starts it again when one comes.
func Activated(s *Stdio, conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Listener, error) {
	doors, err := passedDoors(s.passed, o, certs)
	if err != nil {
		return nil, fmt.Errorf("sockets of systemd: %w", err)
	}
	l := newListener(conf, o, certs, log, doors)
	l.idle = idleTime(StartSystemd, o)
	return l, nil
}

// idleTime returns how long a Listener of start goes on without a client.
func idleTime(start Start, o *Options) time.Duration {
	if start == StartInetdWait || start == StartSystemd && o.TimeoutGiven {
		return time.Duration(o.Timeout) * time.Second
	}
	return 0
}

// InetdWait returns the Listener of the socket that inetd, with wait, leaves on
// descriptor 0. It ends when it has had no client for as long as -T says, and
// inetd listens again.
func InetdWait(s *Stdio, conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Listener, error) {
	if o.TLS && certs == nil {
		return nil, ErrNoCertificate
	}
	n, err := s.listener()
	if err != nil {
		return nil, err
	}
	l := newListener(conf, o, certs, log, []door{{Listener: n, tls: o.TLS}})
	l.idle = idleTime(StartInetdWait, o)
	return l, nil
}

// newListener returns the Listener of doors, which are its own from now on.
func newListener(conf *config.Config, o *Options, certs *Certificates, log *slog.Logger, doors []door) *Listener {
	raiseFiles(conf, log)
	l := &Listener{opt: o, log: log, gate: newGate(conf.Limits), doors: doors, left: make(chan struct{})}
	a := newAdmission(conf, o, certs, log)
	l.now.Store(&a)
	return l
}

// Addrs returns where l listens, in the order of its doors: with the real ports
// where the configuration names port 0.
func (l *Listener) Addrs() []net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	var addrs []net.Addr
	for _, d := range l.doors {
		addrs = append(addrs, d.Addr())
	}
	return addrs
}

// Run serves until ctx is done. Sessions have shutdown_grace to end then, before
// they are cut short. It also ends when it has been idle for too long: who comes
// then waits at the launcher's socket.
func (l *Listener) Run(ctx context.Context, h Handler) error {
	defer l.refused.end(l.log)
	sessions, cut := later(ctx, func() time.Duration { return l.now.Load().conf.ShutdownGrace })
	defer cut()
	var serving sync.WaitGroup
	stir, still := rest()
	defer still()
	stop := l.notify.ready()
	late, drop := untilLate(ctx)
	defer drop()
	l.late = late
	idle := l.receive(ctx, h, sessions, &serving, stir)
	l.handing.Lock() // where another process takes over nothing ends
	stop()
	l.handing.Unlock()
	if idle {
		return nil
	}
	ended := make(chan struct{})
	go func() { // ends when the last session does
		serving.Wait()
		close(ended)
	}()
	select {
	case <-ended: // at last, where another process has taken over
		return nil
	case <-sessions.Done():
	}
	select {
	case <-ended:
		return nil
	case <-time.After(cutTime):
	}
	return errors.New("sessions did not end")
}

// later returns a context with the values of ctx that is done when ctx has been
// for so long: what sessions get that are told of the end by other means.
func later(ctx context.Context, grace func() time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(grace(), cancel) })
	return late, cancel
}

// receive takes connections in, and calls stir for each that comes, parks or goes, until
// ctx is done, another process has taken over or, and then it returns true, this one
// is idle. The doors are closed then.
func (l *Listener) receive(ctx context.Context, h Handler, sessions context.Context, serving *sync.WaitGroup, stir func()) bool {
	idle := newIdler(l.idle)
	defer idle.stop()
	var accepting sync.WaitGroup
	for {
		l.accepting(func(d door) {
			accepting.Go(func() { l.accept(ctx, d, h, sessions, serving, idle, stir) })
		})
		select {
		case <-ctx.Done():
			l.close()
			accepting.Wait()
			return false
		case <-l.left:
			accepting.Wait()
			return false
		case <-idle.done():
		}
		// A client may come in at this very moment. Closing the doors and
		// waiting for its end would keep the others out for hours.
		l.deadline(time.Unix(1, 0))
		accepting.Wait()
		if idle.empty() {
			l.close()
			serving.Wait()
			return true
		}
		l.deadline(time.Time{})
	}
}

// accepting has all doors accepted at by begin, and those that a reload opens.
func (l *Listener) accepting(begin func(door)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin = begin
	for _, d := range l.doors {
		begin(d)
	}
	if l.led != nil {
		_, _, _ = l.led.ask([]byte{tellServes}) // a parent that is gone takes us with it
		return
	}
	if l.from.tell(); l.own {
		own(l.doors, true)
	}
}

func (l *Listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	closeDoors(l.doors)
	l.begin = nil
}

// deadline sets how long the doors are open.
func (l *Listener) deadline(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.doors {
		if n, ok := d.Listener.(interface{ SetDeadline(time.Time) error }); ok {
			_ = n.SetDeadline(t) // fails at a closed door, which is as good
		}
	}
}

// accept is the goroutine of one door. It ends when the door is closed or its
// deadline passes. sessions is done when all sessions
// are to be cut short.
func (l *Listener) accept(ctx context.Context, d door, h Handler, sessions context.Context, serving *sync.WaitGroup, idle *idler, stir func()) {
	short := false
	for {
		c, err := d.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			if !short {
				l.log.Error("accept", "listen", d.Addr(), "err", err)
			}
			short = true
			select {
			case <-ctx.Done():
			case <-time.After(backoff):
			}
			continue
		}
		short = false
		now := l.now.Load()
		one, leave := context.WithCancelCause(sessions)
		ticket, err := l.gate.enter(now.counted(c.RemoteAddr()), leave)
		if err != nil {
			leave(nil)
			l.refuse(d, c, hostText(c.RemoteAddr()), h, err)
			continue
		}
		idle.enter()
		stir()
		serving.Add(1)
		go l.visit(h, &guest{admission: now, ctx: one, door: d, socket: c, stir: stir, leave: func() {
			c.Close()
			ticket.exit()
			leave(nil)
			stir()
			idle.leave()
			serving.Done()
		}}, ticket)
	}
}
