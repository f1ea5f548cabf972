package control

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"imapd/control/config"
	"imapd/control/privsep"
)

// openDoors binds the addresses of the configuration, or takes what the launcher
// has bound. Certificates are the child's: here they are only asked for.
func openDoors(start Start, stdio *Stdio, conf *config.Config, o *Options, log *slog.Logger) (*Listener, error) {
	certs := askedCertificates(conf)
	switch start {
	case StartSystemd:
		return Activated(stdio, conf, o, certs, log)
	case StartInetdWait:
		return InetdWait(stdio, conf, o, certs, log)
	}
	return Listen(conf, o, certs, log)
}

// askedCertificates returns none where there are none, and else some that must
// not be used.
func askedCertificates(conf *config.Config) *Certificates {
	if len(conf.TLSServerCert) == 0 {
		return nil
	}
	return &Certificates{}
}

// moveDoors makes the doors those of the configuration as it is now. Where one
// cannot be opened nothing changes.
func (p *parent) moveDoors() error {
	p.mu.Lock()
	conf := p.last.conf
	p.mu.Unlock()
	doors, opened, err := changeDoors(p.doors, conf, p.options, askedCertificates(conf))
	if err != nil {
		closeDoors(opened)
		return err
	}
	for _, d := range p.doors {
		if !slices.ContainsFunc(doors, func(stays door) bool { return stays.at == d.at }) {
			d.Close()
		}
	}
	p.mu.Lock()
	p.doors = doors
	p.mu.Unlock()
	return nil
}

// giveDoors passes the doors on. A child that has had them once has read the
// configuration again, and gets what it says now.
func (p *parent) giveDoors(c *privsep.Child) error {
	if p.given && p.start == StartListen {
		if p.succeeding.Load() { // the new process has those that are there
			return refuse(c.Channel, syscall.EBUSY)
		}
		if err := p.moveDoors(); err != nil {
			p.log.Error("addresses are not changed", "err", err)
			return refuse(c.Channel, err)
		}
	}
	p.given = true
	answer := []byte{answerYes}
	var files []*os.File
	defer func() { privsep.Close(files) }()
	for _, d := range p.doors {
		l, ok := d.Listener.(interface{ File() (*os.File, error) })
		if !ok {
			return fmt.Errorf("%T has no descriptor", d.Listener)
		}
		f, err := l.File()
		if err != nil {
			return err
		}
		files = append(files, f)
		kind := "clear"
		if d.tls {
			kind = "tls"
		}
		answer = append(answer, kind+" "+d.at.String()+"\n"...)
	}
	return c.Send(answer, files...)
}

// doorsOf makes doors of an answer to askDoors; addresses are those of the option
// listen.
func doorsOf(answer []byte, files []*os.File, addresses []config.Address) (doors []door, err error) {
	lines := strings.Split(strings.TrimSuffix(string(answer), "\n"), "\n")
	defer privsep.Close(files)
	if len(lines) != len(files) {
		return nil, unix.EBADMSG
	}
	for i, f := range files {
		l, err := net.FileListener(f) // makes its own duplicate
		if err != nil {
			closeDoors(doors)
			return nil, err
		}
		kind, at, _ := strings.Cut(lines[i], " ")
		d := door{Listener: l, tls: kind == "tls"}
		if n := slices.IndexFunc(addresses, func(a config.Address) bool { return a.String() == at }); n >= 0 {
			d.at = addresses[n]
		}
		doors = append(doors, d)
	}
	return doors, nil
}

// changeDoors returns the doors that the configuration asks for: of old those
// that stay, and others, opened, that are new. The error has a line for each that
// cannot be opened.
func changeDoors(old []door, conf *config.Config, o *Options, certs *Certificates) (doors, opened []door, err error) {
	for _, a := range conf.Listen {
		if i := slices.IndexFunc(old, func(d door) bool { return d.at == a }); i >= 0 {
			doors = append(doors, old[i])
			continue
		}
		d, wrong := bindOne(a, a.TLS || o.TLS, certs, inheritance{})
		if wrong != nil {
			err = errors.Join(err, cannotListen(conf, a, wrong))
			continue
		}
		doors, opened = append(doors, d), append(opened, d)
	}
	return doors, opened, err
}
