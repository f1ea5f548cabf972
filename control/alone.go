package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"

	"imapd/control/config"
	"imapd/control/privsep"
)

// An alone is the one client of a process that serves no other. Where a parent
// of root's has it, it goes on to the process that serves it, which reads its
// first octet.
type alone struct {
	Systemd bool    // systemd (Accept=yes) has left it, on descriptor 3
	Name    string  // of the socket then
	Remote  string  // REMOTE_HOST
	Caller  *Caller // who it is, where it need not log in

	file *os.File // its socket
}

// alone returns the client whose socket the launcher left on descriptor 0, or
// systemd on 3. It reads nothing.
func (s *Stdio) alone() (*alone, error) {
	a := &alone{file: s.socket, Remote: os.Getenv("REMOTE_HOST")}
	if s.client != nil {
		a.Systemd, a.Name, a.file = true, s.client.name, s.client.file
	}
	if a.file == nil {
		return nil, errors.New("standard input is not a socket")
	}
	return a, nil
}

// single returns the Source of this client, whose file it closes.
func (a *alone) single(conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Single, error) {
	defer a.file.Close()
	c, err := net.FileConn(a.file) // makes its own duplicate
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	if a.Caller != nil {
		return newSingle(&Conn{Conn: c, Host: "[unix socket]", Private: true, Preauth: a.Caller}, false, newAdmission(conf, o, certs, log))
	}
	keepAlive(c, conf.TCPKeepalive)
	conn := newConn(c)
	// stunnel connects from this machine and tells for whom.
	if ip, err := netip.ParseAddr(a.Remote); err == nil && conn.addr.IsLoopback() {
		_ = conn.move(ip) // nobody counts
	}
	tls := o.TLS || a.Systemd && secure(a.Name, c.LocalAddr())
	return newSingle(conn, tls, newAdmission(conf, o, certs, log))
}

// close closes what may have been given away. It may be called on nil, and
// again.
func (a *alone) close() {
	if a != nil {
		a.file.Close()
	}
}

// giveAlone passes the one client on, once.
func (p *parent) giveAlone(c *privsep.Child) error {
	if p.alone == nil || p.given {
		return refuse(c.Channel, syscall.ENOENT)
	}
	p.given = true
	text, err := json.Marshal(p.alone)
	if err != nil {
		return err
	}
	defer p.alone.close() // or its end would not be seen
	close(p.served)       // it is given once, and nothing more is to wait for
	return c.Send(append([]byte{answerYes}, text...), p.alone.file)
}

// alone returns the Source of the one client that the parent has.
func (m *member) alone(conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (*Single, error) {
	text, files, err := m.ask([]byte{askAlone})
	if err != nil {
		return nil, err
	}
	a := &alone{}
	if err := json.Unmarshal(text, a); err != nil || len(files) != 1 {
		privsep.Close(files)
		return nil, errors.New("malformed client from the parent")
	}
	a.file = files[0]
	return a.single(conf, o, certs, log)
}
