package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"imapd/control/config"
)

// A door is a socket at which clients come in: one that imapd has bound itself,
// or one that a launcher hands over.
type door struct {
	net.Listener
	tls bool // a connection is under TLS from its first octet
}

// bind returns the doors of the option listen: all of them, or none and an
// error. Connections wait behind them until they are accepted.
func bind(conf *config.Config, o *Options, certs *Certificates) ([]door, error) {
	var doors []door
	for _, a := range conf.Listen {
		d, err := bindOne(a, a.TLS || o.TLS, certs)
		if err != nil {
			closeDoors(doors)
			return nil, fmt.Errorf("listen %v: %w", a, err)
		}
		doors = append(doors, d)
	}
	return doors, nil
}

func closeDoors(doors []door) {
	for _, d := range doors {
		d.Close()
	}
}

func bindOne(a config.Address, tls bool, certs *Certificates) (door, error) {
	if tls && certs == nil {
		return door{}, ErrNoCertificate
	}
	lc := net.ListenConfig{KeepAlive: -1} // see keepAlive
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
