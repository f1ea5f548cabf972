package control

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
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
	conf  *config.Config
	certs *Certificates
	ssf   int
	log   *slog.Logger
	gate  *gate
	doors []door
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

// Run serves until ctx is done. Sessions have shutdown_grace to end then, before
// they are cut short.
func (l *Listener) Run(ctx context.Context, h Handler) error {
	sessions, cut := later(ctx, l.conf.ShutdownGrace)
	defer cut()
	var accepting, serving sync.WaitGroup
	for _, d := range l.doors {
		accepting.Go(func() { l.accept(ctx, d, h, sessions, &serving) })
	}
	<-ctx.Done()
	closeDoors(l.doors)
	accepting.Wait()

	ended := make(chan struct{})
	go func() { // ends when the last session does
		serving.Wait()
		close(ended)
	}()
	select {
	case <-ended:
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
func later(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return late, cancel
}

// accept is the goroutine of one door. sessions is done when all sessions are to
// be cut short.
func (l *Listener) accept(ctx context.Context, d door, h Handler, sessions context.Context, serving *sync.WaitGroup) {
	short := false
	for {
		c, err := d.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
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
		one, leave := context.WithCancelCause(sessions)
		ticket, err := l.gate.enter(c.RemoteAddr(), leave)
		if err != nil {
			leave(nil)
			l.refuse(d, c, h, err)
			continue
		}
		serving.Add(1)
		go l.visit(h, &guest{ctx: one, door: d, socket: c, leave: func() {
			c.Close()
			ticket.exit()
			leave(nil)
			serving.Done()
		}}, ticket)
	}
}

// A guest is a connection that has come in.
type guest struct {
	ctx    context.Context
	door   door
	socket net.Conn
	leave  func() // closes the connection and takes it out of all counts
}

// visit is the goroutine of one connection. Its frame lies below every session
// that waits: hence no defer, and little in it.
func (l *Listener) visit(h Handler, g *guest, t *ticket) {
	if conn := l.welcome(g, t); conn != nil {
		h.Serve(g.ctx, conn)
	}
	g.leave()
}

// welcome makes a Conn of a guest, or returns nil where it is of no use.
func (l *Listener) welcome(g *guest, t *ticket) *Conn {
	conn := &Conn{
		Conn:     g.socket,
		Host:     hostText(g.socket.RemoteAddr()),
		Private:  g.door.tls || l.ssf >= 2 || g.door.Addr().Network() == "unix",
		loggedIn: t.loggedIn,
	}
	if g.door.tls && !conn.startTLS(g.ctx, l.certs.Config(), l.conf.Limits.HandshakeTime, l.log) {
		return nil
	}
	return conn
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
