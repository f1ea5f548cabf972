package control

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"syscall"

	"imapd/control/config"
	"imapd/control/privsep"
)

// LoadConfig reads the configuration for a process that was started as start:
// config.Load of the file that o names. Who starts imapd for himself may have
// none: without -C a file that is missing or unreadable means the defaults
// then. Of one that is there and unreadable he is told by remark, unless that is nil:
// whoever else reads the same mail goes by it.
func LoadConfig(o *Options, start Start, open config.Opener, remark func(string)) (*config.Config, []config.Problem, error) {
	service := o.Service
	if service == "" {
		service = serviceName(start)
	}
	conf, problems, err := config.Load(o.Config, service, open)
	if start == StartTunnel && !o.ConfigGiven && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) && conf == nil {
		if remark != nil && errors.Is(err, fs.ErrPermission) {
			remark(err.Error() + ": every option has its default, and mailboxes may have other names than elsewhere")
		}
		return config.Default(), nil, nil
	}
	return conf, problems, err
}

// Rereader returns a LoadConfig for later, which wants no faults.
func Rereader(o *Options, start Start, s *Stdio) func() (*config.Config, error) {
	return func() (*config.Config, error) {
		conf, _, err := LoadConfig(o, start, s.Open, nil)
		return conf, err
	}
}

// errNobody answers a start without any client.
var errNobody = errors.New("standard input is no client; imapd -l listens for clients itself")

// errNoMaster answers a start that looks like Cyrus's master's and is not.
var errNoMaster = errors.New("CYRUS_SERVICE is set, but descriptor 3 does not lead to master, or 4 does not listen")

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
	if o.Proxy && len(conf.HAProxyTrusted) == 0 {
		return nil, code, errors.New("-H: haproxy_trusted_networks names no proxy")
	}
	if stdio.member != nil {
		if source, err = stdio.member.source(conf, o, certs, log); err != nil {
			return nil, ExitOS, err
		}
		if l, ok := source.(*Listener); ok {
			l.notify = stdio.notify
		}
		return source, ExitOK, nil
	}
	if conf.PrivilegeSeparation == config.SeparateUser && start != StartTunnel && conf.User != "" {
		if start == StartMaster {
			return nil, code, errSeparateMaster
		}
		return nil, code, errSeparateUser
	}
	if start.Many() { // the others have no time
		who := identity{uid: os.Geteuid()}
		if id, err := identify(conf); err == nil && who.uid == 0 {
			who = id
		}
		if err := who.reaches(conf); err != nil {
			return nil, code, err
		}
		who.warnUnusable(conf, log)
	}
	stdio.await(start, conf, log)
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
		source, code, err = newMaster(stdio, conf, o, certs, log)
	case StartSystemd:
		source, err = Activated(stdio, conf, o, certs, log)
	case StartInetdWait:
		source, err = InetdWait(stdio, conf, o, certs, log)
	default:
		if os.Getenv("CYRUS_SERVICE") != "" {
			return nil, ExitUsage, errNoMaster
		}
		return nil, ExitUsage, errNobody
	}
	if err != nil {
		return nil, code, err
	}
	if l, ok := source.(*Listener); ok {
		l.notify = stdio.notify
	}
	forgetLauncher()
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
	if err := o.harden(); err != nil {
		return nil, ExitOS, err
	}
	return source, ExitOK, nil
}

// harden keeps what is in the memory of this process to itself. A debugger that -D
// starts belongs to the same user, and must be let in.
func (o *Options) harden() error {
	if o.Debugger {
		return privsep.NoCoreDumps()
	}
	return privsep.Harden()
}

// ExitCode returns the exit code for what Run of a Source has returned, and the
// error that is to be told with it.
func ExitCode(err error) (int, error) {
	switch {
	case err == nil:
		return ExitOK, nil
	case errors.Is(err, ErrTerminated):
		return ExitTempFail, nil
	}
	return ExitOS, err
}
