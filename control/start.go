package control

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"syscall"

	"imapd/control/config"
)

// LoadConfig reads the configuration for a process that was started as start:
// config.Load of the file that o names. Who starts imapd for himself may have
// none: without -C a file that is missing or unreadable means the defaults
// then.
func LoadConfig(o *Options, start Start, open config.Opener) (*config.Config, []config.Problem, error) {
	conf, problems, err := config.Load(o.Config, Service, open)
	if start == StartTunnel && !o.ConfigGiven && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) && conf == nil {
		return config.Default(), nil, nil
	}
	return conf, problems, err
}

// errNobody answers a start without any client.
var errNobody = errors.New("standard input is no client; imapd -l listens for clients itself")

// errLater answers the starts that are known but not implemented.
var errLater = errors.New("not in this version")

// Open returns the Source that belongs to start, with all its addresses bound,
// sets the umask and gives up root. The exit code goes with the error.
//
// A process that root started for himself, on a terminal, a pipe or through
// ssh, stays his: there is nobody else on the other side.
func Open(start Start, stdio *Stdio, conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (Source, int, error) {
	syscall.Umask(conf.Umask)
	var source Source
	var err error
	code := ExitConfig
	if stdio.member != nil {
		if source, err = stdio.member.source(conf, o, certs, log); err != nil {
			return nil, ExitOS, err
		}
		return source, ExitOK, nil
	}
	switch start {
	case StartListen:
		if os.Geteuid() == 0 && conf.User == "" {
			return nil, code, errNoUser(o.Config)
		}
		source, err = Listen(conf, o, certs, log)
		if err != nil && !errors.Is(err, ErrNoCertificate) {
			code = ExitOS
		}
	case StartInetd:
		source, err = Inetd(stdio, conf, o, certs, log)
	case StartTunnel:
		source, err = Tunnel(stdio, conf, o, certs, log)
	case StartMaster:
		err = fmt.Errorf("start by Cyrus's master (CYRUS_SERVICE is set): %w", errLater)
	case StartSystemd:
		err = fmt.Errorf("start by systemd's socket activation (LISTEN_FDS is set): %w", errLater)
	case StartInetdWait:
		err = fmt.Errorf("start by inetd with wait (standard input listens): %w; use nowait", errLater)
	default:
		return nil, ExitUsage, errNobody
	}
	if err != nil {
		return nil, code, err
	}
	if start == StartTunnel {
		return source, ExitOK, nil
	}
	warn, err := become(conf, o.Config)
	if err != nil {
		return nil, ExitConfig, err
	}
	if warn != "" {
		log.Warn(warn)
	}
	return source, ExitOK, nil
}
