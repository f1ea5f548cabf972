package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"imapd/control/config"
	"imapd/control/privsep"
)

// BeginSession begins a session of who, without a login, where no daemon can:
// in a process that it starts as cyrus_user, or, where every user has a
// process, in a front and a process of that user. This process becomes their
// parent and passes on what it does not look into; they read the configuration
// in file, for the service of that name, by what this process may open.
//
// It returns the connection, and a function that waits for the end and says why
// it was none in good order. The error is an fs.ErrPermission for a caller who
// is neither root nor the user who serves.
func BeginSession(conf *config.Config, file, service string, who *Caller) (c *net.UnixConn, wait func() error, err error) {
	id, err := sessionIdentity(conf, file)
	if err == nil && !utf8.ValidString(who.Home) {
		err = errors.New("home directory that is not UTF-8") // JSON would change it
	}
	if err != nil {
		return nil, nil, err
	}
	if err := privsep.Harden(); err != nil {
		return nil, nil, err
	}
	log := OpenLog(conf, StartTunnel, &Stdio{})
	p := newParent(StartTunnel, &Options{Config: file, ConfigGiven: true, Service: service}, log.Logger)
	if err := p.load(); err != nil {
		return nil, nil, err
	}
	p.held = p.last
	if conf.PrivilegeSeparation == config.SeparateUser {
		if err := p.vouchFor(who); err != nil {
			return nil, nil, err
		}
	}
	if c, p.alone, err = callerPair(who); err != nil {
		return nil, nil, err
	}
	forgetLauncher()
	if os.Geteuid() == 0 {
		furnish(conf, id)
	}
	ended := make(chan error, 1)
	go func() { // ends with the session
		defer log.Close()
		code, err := p.serve(id, []string{"imapd", "-C", file}, nil)
		if err == nil && code != ExitOK {
			err = fmt.Errorf("the session has ended with exit code %d", code)
		}
		ended <- err
	}()
	return c, func() error { return <-ended }, nil
}

// sessionIdentity returns as whom a session is served that the calling user
// begins.
func sessionIdentity(conf *config.Config, file string) (identity, error) {
	switch {
	case os.Geteuid() == 0 && conf.User == "":
		return identity{}, errNoUser(file)
	case conf.User == "":
		return identity{uid: os.Geteuid(), gid: os.Getegid()}, nil
	case os.Geteuid() != 0 && conf.PrivilegeSeparation == config.SeparateUser:
		return identity{}, fmt.Errorf("%w: only root begins sessions where every user has a process", fs.ErrPermission)
	}
	id, err := identify(conf)
	switch {
	case err != nil:
		return id, err
	case id.uid == 0:
		return id, conf.At("cyrus_user", errors.New("without a daemon no session is served as root"))
	case os.Geteuid() != 0 && os.Geteuid() != id.uid:
		return id, fmt.Errorf("%w: this is for root and the user who serves", fs.ErrPermission)
	}
	return id, nil
}

// callerPair returns the two ends of the connection of a client who need not log
// in.
func callerPair(who *Caller) (*net.UnixConn, *alone, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "session"), os.NewFile(uintptr(fds[1]), "session")
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), &alone{Caller: who, file: theirs}, nil
}

// vouchFor gives who a ticket: root names the user, and nobody else has to.
func (p *parent) vouchFor(who *Caller) error {
	identity, err := json.Marshal(struct {
		Name, Login, Home string
		UID, GID          int
	}{who.Name, who.Name, who.Home, who.UID, who.GID})
	if err != nil {
		return err
	}
	who.Ticket = newTicket()
	key := workerKey{name: who.Name, uid: who.UID, gid: who.GID, identity: string(identity)}
	err = p.note([ticketSize]byte(who.Ticket), key)
	if errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("user %s has the uid %d and the gid %d, and no mail is served for those: see first_valid_uid", Escape(who.Name), who.UID, who.GID)
	}
	return err
}
