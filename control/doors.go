package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imapd/control/config"
)

// A door is a socket at which clients come in: one that imapd has bound itself,
// or one that a launcher hands over.
type door struct {
	net.Listener
	tls bool           // a connection is under TLS from its first octet
	at  config.Address // of the option listen; zero where a launcher bound it
}

// bind returns the doors of the option listen: all of them, or none and an
// error. Connections wait behind them until they are accepted.
//
// Those that a process hands over that is being replaced are taken from it.
func bind(conf *config.Config, o *Options, certs *Certificates, from inheritance) ([]door, error) {
	var doors []door
	defer from.drop()
	for _, a := range conf.Listen {
		d, err := bindOne(a, a.TLS || o.TLS, certs, from)
		if err != nil {
			closeDoors(doors)
			return nil, cannotListen(conf, a, err)
		}
		doors = append(doors, d)
	}
	return doors, nil
}

// cannotListen tells where the address that cannot be listened on is set, and what
// there is to do.
func cannotListen(conf *config.Config, a config.Address, err error) error {
	hint := ""
	_, port, _ := net.SplitHostPort(a.Address)
	n, _ := strconv.Atoi(port)
	switch {
	case errors.Is(err, fs.ErrPermission) && a.Network == "tcp" && n < 1024:
		hint = "; ports below 1024 are root's: let root start imapd, with cyrus_user for who it becomes, or give it CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "; another program listens there"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "; no interface of this host has that address"
	}
	return conf.At("listen", fmt.Errorf("%v: %w%s", a, err, hint))
}

func closeDoors(doors []door) {
	for _, d := range doors {
		d.Close()
	}
}

func bindOne(a config.Address, tls bool, certs *Certificates, from inheritance) (door, error) {
	if tls && certs == nil {
		return door{}, ErrNoCertificate
	}
	if n, err := from.take(a); n != nil || err != nil {
		return door{n, tls, a}, err
	}
	lc := net.ListenConfig{KeepAlive: -1} // see keepAlive
	if a.Network == "unix" {
		if err := removeStale(a.Address); err != nil {
			return door{}, err
		}
	}
	n, err := lc.Listen(context.Background(), networkAt(a), a.Address)
	if err == nil && a.Network == "unix" {
		// Whoever may reach the directory may log in.
		if err = openToAll(a.Address); err != nil {
			n.Close()
		}
	}
	if err != nil {
		return door{}, err
	}
	return door{n, tls, a}, nil
}

// networkAt returns the network to listen on at a. Package net takes 0.0.0.0 and [::]
// for all addresses, of IPv4 and IPv6, unless the network says which.
func networkAt(a config.Address) string {
	host, _, _ := net.SplitHostPort(a.Address)
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil || !ip.IsUnspecified():
		return a.Network
	case ip.Is4():
		return "tcp4"
	}
	return "tcp6"
}

// openToAll lets everybody connect to the socket name. It changes nothing but a
// socket: root does this, and others may have put a link there meanwhile.
func openToAll(name string) error {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return &os.PathError{Op: "chmod", Path: name, Err: unix.ENOTSOCK}
	}
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o666)
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
