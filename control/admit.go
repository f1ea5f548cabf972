package control

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"time"

	"imapd/control/config"
)

// proxyTime is how long a proxy may take to send its header.
const proxyTime = 3 * time.Second

// An admission is what a connection passes through before its session: the
// header of a proxy, then TLS.
//
// The PROXY protocol forbids to guess whether a header comes: who may send one,
// because it is in haproxy_trusted_networks, must. From anybody else a header is
// no header but what a client says, and with -H nobody else is let in.
type admission struct {
	conf    *config.Config
	certs   *Certificates
	ssf     int
	proxied bool // -H
	log     *slog.Logger
}

func newAdmission(conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) admission {
	return admission{conf: conf, certs: certs, ssf: o.SSF, proxied: o.Proxy, log: log}
}

// newConn returns a Conn for c from where c says that it comes.
func newConn(c net.Conn) *Conn {
	a := c.RemoteAddr()
	conn := &Conn{Conn: c, Host: hostText(a), addr: addrOf(a)}
	if a.Network() == "unix" {
		conn.Private, conn.SSF = true, 256
	}
	return conn
}

// proxy tells whether a peer is one that has to send a header: for a unix
// socket, of which addr is not valid, -H says so.
func (a admission) proxy(addr netip.Addr) bool {
	if !addr.IsValid() {
		return a.proxied
	}
	return within(a.conf.HAProxyTrusted, addr)
}

// counted returns the address by which the gate counts a new connection, nil for
// none: those of proxies and of login_trusted_networks are many clients'.
func (a admission) counted(addr net.Addr) net.Addr {
	if ip := addrOf(addr); a.proxy(ip) || within(a.conf.LoginTrusted, ip) {
		return nil
	}
	return addr
}

func within(nets []netip.Prefix, addr netip.Addr) bool {
	for _, n := range nets {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// admit makes c ready for its session, and tells whether it is. An error that is
// a Refusal has to be told to the client.
func (a admission) admit(ctx context.Context, c *Conn, tls bool) (bool, error) {
	switch {
	case a.proxy(c.addr):
		if ok, err := a.header(ctx, c); !ok {
			return false, err
		}
	case a.proxied:
		a.log.Log(ctx, LevelNotice, "connection past the proxy", "host", c.Host)
		return false, nil
	}
	c.trusted = within(a.conf.LoginTrusted, c.addr)
	c.Private = c.Private || tls || a.ssf >= 2 || c.trusted
	c.SSF = max(c.SSF, a.ssf)
	if tls {
		return c.startTLS(ctx, a.certs.Config(), a.conf.Limits.HandshakeTime, a.log), nil
	}
	return true, nil
}

// header reads what a proxy says of its client into c.
func (a admission) header(ctx context.Context, c *Conn) (bool, error) {
	_ = c.SetReadDeadline(time.Now().Add(proxyTime)) // no file, so it can
	stop := context.AfterFunc(ctx, func() { c.Close() })
	h, err := readProxyHeader(c.Conn)
	stop()
	if err != nil {
		level := LevelNotice
		if gone(err) {
			level = slog.LevelDebug // a look whether we listen
		}
		a.log.Log(ctx, level, "PROXY protocol", "host", c.Host, "err", err)
		return false, nil
	}
	_ = c.SetReadDeadline(time.Time{})
	if !h.local {
		c.Private, c.ProxyTLS, c.SSF = h.tls, h.tls, 0 // the client's way, not that of the proxy's own socket
	}
	switch {
	case h.client.IsValid():
		err := c.move(h.client)
		return err == nil, err
	case !h.local:
		c.addr = netip.Addr{} // unknown, and not the proxy's
	}
	return true, nil
}

// gone tells whether err says that the peer has hung up without a word.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}
