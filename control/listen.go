package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"imapd/control/config"
)

const (
	// grace is how long sessions may take to end after the server was told to.
	grace = 10 * time.Second
	// backoff is how long accept rests when the system has no descriptor left.
	backoff = 100 * time.Millisecond
	// refuseTime is how long a client that is refused may take to hear so.
	refuseTime = 100 * time.Millisecond
)

// A Listener is the Source of every start that brings many clients: it takes
// the connections that come in at its doors and serves each in a goroutine of
// its own.
type Listener struct {
	conf  *config.Config
	certs *Certificates
	ssf   int
	log   *slog.Logger
	gate  *gate
	doors []door
	// idle is how long Run goes on without a client before it ends; 0 is for
	// ever.
	idle time.Duration
}

// Listen returns the Listener of imapd -l: it binds all addresses of the
// configuration, or none. Connections wait until Run.
func Listen(conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Listener, error) {
	doors, err := bind(conf, o, certs)
	if err != nil {
		return nil, err
	}
	return newListener(conf, o, certs, log, doors), nil
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
	if o.TimeoutGiven {
		l.idle = time.Duration(o.Timeout) * time.Second
	}
	return l, nil
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
	l := newListener(conf, o, certs, log, []door{{n, o.TLS}})
	l.idle = time.Duration(o.Timeout) * time.Second
	return l, nil
}

// newListener returns the Listener of doors, which are its own from now on.
func newListener(conf *config.Config, o *Options, certs *Certificates, log *slog.Logger, doors []door) *Listener {
	return &Listener{conf: conf, certs: certs, ssf: o.SSF, log: log, gate: newGate(conf.Limits), doors: doors}
}

// Addrs returns where l listens, in the order of its doors: with the real ports
// where the configuration names port 0.
func (l *Listener) Addrs() []net.Addr {
	var addrs []net.Addr
	for _, d := range l.doors {
		addrs = append(addrs, d.Addr())
	}
	return addrs
}

// Run serves until ctx is done. Sessions have 10 seconds to end then, before
// their connections are closed, and 10 more after that. It also ends when it
// has been idle for too long: who comes then waits at the launcher's socket.
func (l *Listener) Run(ctx context.Context, h Handler) error {
	sessions, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var serving sync.WaitGroup
	if l.receive(ctx, h, sessions, &serving) {
		return nil
	}
	ended := make(chan struct{})
	go func() { // ends when the last session does
		serving.Wait()
		close(ended)
	}()
	for range 2 {
		select {
		case <-ended:
			return nil
		case <-time.After(grace):
			cut()
		}
	}
	return errors.New("sessions did not end")
}

// receive takes connections in until ctx is done or, and then it returns true,
// the process is idle. The doors are closed then.
func (l *Listener) receive(ctx context.Context, h Handler, sessions context.Context, serving *sync.WaitGroup) bool {
	idle := newIdler(l.idle)
	defer idle.stop()
	var accepting sync.WaitGroup
	for {
		for _, d := range l.doors {
			accepting.Go(func() { l.accept(ctx, d, h, sessions, serving, idle) })
		}
		select {
		case <-ctx.Done():
			closeDoors(l.doors)
			accepting.Wait()
			return false
		case <-idle.done():
		}
		// A client may come in at this very moment. Closing the doors and
		// waiting for its end would keep the others out for hours.
		l.deadline(time.Unix(1, 0))
		accepting.Wait()
		if idle.empty() {
			closeDoors(l.doors)
			serving.Wait()
			return true
		}
		l.deadline(time.Time{})
	}
}

// deadline sets how long the doors are open.
func (l *Listener) deadline(t time.Time) {
	for _, d := range l.doors {
		if n, ok := d.Listener.(interface{ SetDeadline(time.Time) error }); ok {
			_ = n.SetDeadline(t) // fails at a closed door, which is as good
		}
	}
}

// accept is the goroutine of one door. It ends when the door is closed or its
// deadline passes. sessions is done when connections are to
// be closed whatever their sessions do.
func (l *Listener) accept(ctx context.Context, d door, h Handler, sessions context.Context, serving *sync.WaitGroup, idle *idler) {
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
		one, leave := context.WithCancelCause(ctx)
		ticket, err := l.gate.enter(c.RemoteAddr(), leave)
		if err != nil {
			leave(nil)
			l.refuse(d, c, h, err)
			continue
		}
		idle.enter()
		serving.Go(func() {
			defer idle.leave()
			defer leave(nil)
			defer ticket.exit()
			defer c.Close()
			defer context.AfterFunc(sessions, func() { c.Close() })()
			l.serve(one, d, c, ticket, h)
		})
	}
}

// serve makes a Conn of c and hands it over.
func (l *Listener) serve(ctx context.Context, d door, c net.Conn, t *ticket, h Handler) {
	keepAlive(c, l.conf.TCPKeepalive)
	conn := &Conn{
		Conn:     c,
		Host:     hostText(c.RemoteAddr()),
		Private:  d.tls || l.ssf >= 2 || d.Addr().Network() == "unix",
		SSF:      outside(l.ssf, d.Addr()),
		loggedIn: t.loggedIn,
	}
	if d.tls && !conn.startTLS(ctx, l.certs.Config(), l.conf.Limits.HandshakeTime, l.log) {
		return
	}
	h.Serve(ctx, conn)
}

// keepAlive has TCP ask a client that has been silent for idle whether it is
// still there; 0 turns that off. A socket that takes no keep-alive serves as
// well.
func keepAlive(c net.Conn, idle time.Duration) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: idle > 0, Idle: idle, Interval: time.Minute, Count: 5})
	}
}

// startTLS does the handshake of a connection that is under TLS from its first
// octet, and tells whether it is.
func (c *Conn) startTLS(ctx context.Context, conf *tls.Config, limit time.Duration, log *slog.Logger) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := tls.Server(c.Conn, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		log.Info("TLS handshake", "host", c.Host, "err", err)
		return false
	}
	LogTLS(log, t.ConnectionState())
	c.Conn, c.TLS = t, true
	return true
}

// refuse tells a client that it cannot be served. Under TLS it is told nothing:
// the handshake would cost what is being saved.
func (l *Listener) refuse(d door, c net.Conn, h Handler, err error) {
	defer c.Close()
	l.log.Warn("connection refused", "host", hostText(c.RemoteAddr()), "err", err)
	var why Refusal
	if d.tls || !errors.As(err, &why) {
		return
	}
	if c.SetWriteDeadline(time.Now().Add(refuseTime)) == nil {
		_, _ = c.Write([]byte(h.Refuse(why))) // who does not listen need not know
	}
}
