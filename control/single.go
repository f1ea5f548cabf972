package control

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"imapd/control/config"
)

// A Single is the Source of a process that serves one client: under inetd
// (nowait), or on a pipe or terminal.
type Single struct {
	admission
	conn *Conn
	tls  bool // from the first octet
}

// Inetd returns the Source of the client whose socket the launcher left on
// descriptor 0, or systemd (Accept=yes) on 3.
func Inetd(s *Stdio, conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Single, error) {
	a, err := s.alone()
	if err != nil {
		return nil, err
	}
	return a.single(conf, o, certs, log)
}

// errRootTunnel refuses root a tunnel: what comes through a pipe has often come
// through a network before, and nobody has logged in.
var errRootTunnel = errors.New("root cannot be the client on a pipe or a terminal unless cyrus_user is root: " +
	"start it as the user whose mail it is, or use \"imapctl session USER\"")

// Tunnel returns the Source of the client on standard input and output: it is
// whoever started imapd, and need not log in.
func Tunnel(s *Stdio, conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Single, error) {
	if o.Proxy {
		return nil, errors.New("-H: the PROXY protocol needs a socket")
	}
	who, err := caller()
	if err != nil {
		return nil, err
	}
	if err := s.mayTunnel(); err != nil {
		return nil, err
	}
	if who.UID == 0 {
		if id, err := identify(conf); err != nil || id.uid != 0 {
			return nil, errRootTunnel
		}
		log.Warn(asRoot)
	}
	hint(who)
	c, err := s.tunnel()
	if err != nil {
		return nil, err
	}
	return newSingle(&Conn{Conn: c, Host: sshClient(), Private: true, Preauth: who}, o.TLS, newAdmission(conf, o, certs, log))
}

func newSingle(c *Conn, tls bool, a admission) (*Single, error) {
	if tls && a.certs == nil {
		c.Close()
		return nil, ErrNoCertificate
	}
	collectLate()
	return &Single{a, c, tls}, nil
}

// collectLate has the first collection of garbage come when the heap has 16 MB, not
// 4. Most processes for one client end before that, and one that opens a large folder
// has its answer before that: the collection would cost it more than to read the
// index of 100,000 messages. From then on the heap grows as everywhere. Whoever sets
// GOGC has thought about it himself.
func collectLate() {
	if os.Getenv("GOGC") != "" {
		return
	}
	usual := debug.SetGCPercent(lateCollection)
	runtime.AddCleanup(new([16]byte), func(percent int) { debug.SetGCPercent(percent) }, usual)
}

// lateCollection is what GOGC is until then: the runtime begins with 4 MB at 100.
const lateCollection = 400

// Run serves the client. After ctx is done its session has shutdown_grace to end
// before it is cut short.
func (s *Single) Run(ctx context.Context, h Handler) error {
	ctx, cut := later(ctx, func() time.Duration { return s.conf.ShutdownGrace })
	defer cut()
	s.serve(ctx, h)
	return nil
}

// serve serves the client until ctx is done.
func (s *Single) serve(ctx context.Context, h Handler) {
	raw := s.conn.Conn
	defer raw.Close()
	if ok, _ := s.admit(ctx, s.conn, s.tls); ok { // nobody counts, so nobody refuses
		h.Serve(ctx, s.conn)
	}
}
