package control

import (
	"context"
	"errors"
	"log/slog"
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
// descriptor 0, or systemd (Accept=yes) on 3.
func Inetd(s *Stdio, conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Single, error) {
	if s.socket == nil && s.client == nil {
		return nil, errors.New("standard input is not a socket")
	}
	c, err := s.connection()
	if err != nil {
		return nil, err
	}
	keepAlive(c, conf.TCPKeepalive)
	conn := &Conn{Conn: c, Host: hostText(c.RemoteAddr())}
	// stunnel connects from this machine and tells for whom.
	if ip, err := netip.ParseAddr(os.Getenv("REMOTE_HOST")); err == nil && addrOf(c.RemoteAddr()).IsLoopback() {
		conn.Host = "[" + ip.Unmap().WithZone("").String() + "]"
	}
	tls := o.TLS || s.client != nil && secure(s.client.name, c.LocalAddr())
	conn.Private = tls || o.SSF >= 2 || c.RemoteAddr().Network() == "unix"
	conn.SSF = outside(o.SSF, c.RemoteAddr())
	return newSingle(conn, tls, conf, certs, log)
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
	return newSingle(&Conn{Conn: c, Host: sshClient(), Private: true, Preauth: who}, o.TLS, conf, certs, log)
}

func newSingle(c *Conn, tls bool, conf *config.Config, certs *Certificates, log *slog.Logger) (*Single, error) {
	if tls && certs == nil {
		c.Close()
		return nil, ErrNoCertificate
	}
	return &Single{c, tls, conf, certs, log}, nil
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
