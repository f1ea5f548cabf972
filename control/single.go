package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"imapd/control/config"
)

// A Single is the Source of a process that serves one client: under inetd
// (nowait), or on a pipe or terminal.
type Single struct {
	conn  *Conn
	tls   bool
	conf  *config.Config
	certs *Certificates
	log   *slog.Logger
}

// Inetd returns the Source of the client whose socket the launcher left on
// descriptor 0.
func Inetd(s *Stdio, conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Single, error) {
	if s.socket == nil {
		return nil, errors.New("standard input is not a socket")
	}
	c, err := s.connection()
	if err != nil {
		return nil, err
	}
	if t, ok := c.(*net.TCPConn); ok && conf.TCPKeepalive > 0 {
		// A socket that takes no keep-alive serves as well.
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: conf.TCPKeepalive, Interval: time.Minute, Count: 5})
	}
	conn := &Conn{Conn: c, Host: hostText(c.RemoteAddr())}
	// stunnel connects from this machine and tells for whom.
	if ip, err := netip.ParseAddr(os.Getenv("REMOTE_HOST")); err == nil && addrOf(c.RemoteAddr()).IsLoopback() {
		conn.Host = "[" + ip.Unmap().WithZone("").String() + "]"
	}
	conn.Private = o.TLS || o.SSF >= 2 || c.RemoteAddr().Network() == "unix"
	conn.SSF = outside(o.SSF, c.RemoteAddr())
	return newSingle(conn, conf, o, certs, log)
}

// Tunnel returns the Source of the client on standard input and output: it is
// whoever started imapd, and need not log in.
func Tunnel(s *Stdio, conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Single, error) {
	who, err := caller()
	if err != nil {
		return nil, err
	}
	c, err := s.tunnel()
	if err != nil {
		return nil, err
	}
	return newSingle(&Conn{Conn: c, Host: "[local]", Private: true, Preauth: who}, conf, o, certs, log)
}

func newSingle(c *Conn, conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Single, error) {
	if o.TLS && certs == nil {
		c.Close()
		return nil, fmt.Errorf("-s: %w", ErrNoCertificate)
	}
	return &Single{c, o.TLS, conf, certs, log}, nil
}

// Run serves the client. After ctx is done its session has 10 seconds to end
// before the connection is closed.
func (s *Single) Run(ctx context.Context, h Handler) error {
	raw := s.conn.Conn
	defer raw.Close()
	ended := make(chan struct{})
	defer close(ended)
	defer context.AfterFunc(ctx, func() {
		select {
		case <-ended:
		case <-time.After(grace):
			raw.Close()
		}
	})()
	if s.tls && !s.conn.startTLS(ctx, s.certs.Config(), s.conf.Limits.HandshakeTime, s.log) {
		return nil
	}
	h.Serve(ctx, s.conn)
	return nil
}
