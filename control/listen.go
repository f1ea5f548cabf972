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
	"syscall"
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

// A Listener is the Source of imapd -l: it listens on the addresses of the
// configuration and serves every connection in a goroutine of its own.
type Listener struct {
	conf  *config.Config
	certs *Certificates
	ssf   int
	log   *slog.Logger
	gate  *gate
	doors []door
}

type door struct {
	net.Listener
	tls bool
}

// Listen binds all addresses, or none. Connections wait until Run.
func Listen(conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Listener, error) {
	l := &Listener{conf: conf, certs: certs, ssf: o.SSF, log: log, gate: newGate(conf.Limits)}
	for _, a := range conf.Listen {
		d, err := l.open(a, a.TLS || o.TLS)
		if err != nil {
			l.close()
			return nil, fmt.Errorf("listen %v: %w", a, err)
		}
		l.doors = append(l.doors, d)
	}
	return l, nil
}

func (l *Listener) open(a config.Address, tls bool) (door, error) {
	if tls && l.certs == nil {
		return door{}, ErrNoCertificate
	}
	lc := net.ListenConfig{KeepAlive: -1}
	if idle := l.conf.TCPKeepalive; idle > 0 {
		lc.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: idle, Interval: time.Minute, Count: 5}
	}
	if a.Network == "unix" {
		if err := removeStale(a.Address); err != nil {
			return door{}, err
		}
	}
	n, err := lc.Listen(context.Background(), a.Network, a.Address)
	if err == nil && a.Network == "unix" {
		// Whoever may reach the directory may log in.
		err = os.Chmod(a.Address, 0o666)
	}
	if err != nil {
		return door{}, err
	}
	return door{n, tls}, nil
}

// ErrNoCertificate is returned where TLS is asked for and cannot be had.
var ErrNoCertificate = errors.New("TLS needs tls_server_cert and tls_server_key in the configuration")

// removeStale removes a unix socket that a server left behind: nobody answers
// there.
func removeStale(name string) error {
	info, err := os.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return errors.New("there is something else of that name")
	}
	c, err := net.DialTimeout("unix", name, time.Second)
	if err == nil {
		c.Close()
		return errors.New("another server listens there")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(name)
}

// Addrs returns where l listens, in the order of the configuration: with the
// real ports where it names port 0.
func (l *Listener) Addrs() []net.Addr {
	var addrs []net.Addr
	for _, d := range l.doors {
		addrs = append(addrs, d.Addr())
	}
	return addrs
}

func (l *Listener) close() {
	for _, d := range l.doors {
		d.Close()
	}
}

// Run serves until ctx is done. Sessions have 10 seconds to end then, before
// their connections are closed, and 10 more after that.
func (l *Listener) Run(ctx context.Context, h Handler) error {
	sessions, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var accepting, serving sync.WaitGroup
	for _, d := range l.doors {
		accepting.Go(func() { l.accept(ctx, d, h, sessions, &serving) })
	}
	<-ctx.Done()
	l.close()
	accepting.Wait()

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

// accept is the goroutine of one door. sessions is done when connections are to
// be closed whatever their sessions do.
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
		one, leave := context.WithCancelCause(ctx)
		ticket, err := l.gate.enter(c.RemoteAddr(), leave)
		if err != nil {
			leave(nil)
			l.refuse(d, c, h, err)
			continue
		}
		serving.Go(func() {
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
