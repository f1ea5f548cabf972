package imap

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"

	"imapd/control"
	"imapd/sasl"
)

// openLog makes the log of the session, whose lines all say whose they are. It is
// called again when the client turns out to be somewhere else.
func (s *Session) openLog() { s.log = s.srv.log.With("host", s.peer.Host, "session", s.id) }

// userName returns the session's user for the log, "" before login.
func (s *Session) userName() string {
	if s.user == nil {
		return ""
	}
	return s.user.Name
}

// boxName returns the selected mailbox for the log, "" without one.
func (s *Session) boxName() string {
	if s.box == nil {
		return ""
	}
	return s.box.mailbox.Name()
}

// about returns which mailbox a command is about, for the log: what the command
// named, and else the selected one, which is named besides where it is another.
func (s *Session) about() slog.Attr {
	var all []slog.Attr
	add := func(key, name string) { all = append(all, slog.Any(key, control.Name(name))) }
	first, second := s.dec.Named()
	box := s.boxName()
	switch {
	case first == "":
		add("mailbox", box)
	default:
		add("mailbox", first)
		if second != "" {
			add("to", second)
		}
		if box != "" && box != first {
			add("selected", box)
		}
	}
	return slog.Attr{Value: slog.GroupValue(all...)}
}

// logLogin notes that the session's user has come in.
func (s *Session) logLogin(mech string) {
	s.logTLS()
	secret := s.tls || s.peer.ProxyTLS
	control.LogLogin(s.log, control.Login{Host: s.peer.Host, User: s.user.Name, Mech: mech, TLS: secret, Session: s.id})
}

// logProxy notes who it really was that came in as the session's user.
func (s *Session) logProxy() {
	if s.user.Login != "" && s.user.Login != s.user.Name {
		s.log.Info("authorized as another user", "login", control.Name(s.user.Login), "user", control.Name(s.user.Name))
	}
}

// logBadLogin notes a login that failed. What kept the back end from an answer
// is logged besides.
func (s *Session) logBadLogin(a attempt, err error) {
	b := control.BadLogin{Host: s.peer.Host, User: a.authcid, Mech: a.mech, As: a.authzid}
	var denied *sasl.Denied
	switch {
	case errors.As(err, &denied):
		b.Why, b.Denied = control.LoginDenied, denied.Error()
	case errors.Is(err, sasl.ErrNoUser):
		b.Why = control.UnknownUser
	case errors.Is(err, sasl.ErrBadPassword):
		b.Why = control.WrongPassword
	case errors.Is(err, sasl.ErrNotAllowed):
		b.Why = control.MayNotProxy
	case errors.Is(err, sasl.ErrInvalidUser):
		b.Why = control.InvalidUser
	case errors.Is(err, sasl.ErrProtocol):
		b.Why = control.BrokenExchange
	default:
		b.Why = control.LoginUnavailable
		s.log.Error("cannot check a password", "user", control.Name(a.authcid), "error", err)
	}
	control.LogBadLogin(s.log, b)
}

// logInClear notes, once a session, that a login was refused because anybody on the
// way could have read it. A client that does not wait for an answer has shown its
// password, and until it is set right it does so every few minutes. The name is not
// told: it was not read, and could be the password. mech is empty for one that we do
// not know.
func (s *Session) logInClear(mech string) {
	if s.inClear {
		return
	}
	s.inClear = true
	control.LogBadLogin(s.log, control.BadLogin{Host: s.peer.Host, Mech: mech, Why: control.LoginInClear})
}

// logTLS notes, once, that the session began under TLS, where it is we who speak it.
// It does so when the client first says something, or has come in without: who makes
// a handshake and goes looks whether the server lives, every two seconds for days.
func (s *Session) logTLS() {
	if t, ok := s.peer.Conn.(*tls.Conn); ok && s.peer.TLS && !s.toldTLS {
		s.toldTLS = true
		control.LogTLS(s.log, s.peer.Host, s.id, t.ConnectionState())
	}
}

// logEnd notes the end of a session, unless it goes on elsewhere.
func (s *Session) logEnd(err error, bye *byeError) {
	if s.away != nil {
		return
	}
	s.logged(s.userName(), s.why(err, bye))
	if t := s.peer.Taken; t != nil && s.user != nil {
		t.Ended()
	}
}

// logged writes the line of logEnd.
func (s *Session) logged(user, why string) {
	control.LogEnd(s.log, control.End{Host: s.peer.Host, User: user, Why: why, Commands: s.ncmd, In: s.in, Out: s.sent, Session: s.id})
}

// why returns in a few words why the session ends with err, about which the client
// was told bye, or nil. There is nothing in it that a client said.
func (s *Session) why(err error, bye *byeError) string {
	switch {
	case err == nil:
		return "logout"
	case bye == nil && (s.ctx.Err() != nil || s.isCut()):
		if errors.Is(context.Cause(s.ctx), control.ErrTerminated) {
			return "terminated by a signal"
		}
		bye = s.cause()
	case bye == nil && s.werr != nil:
		err = s.werr
	}
	switch {
	case bye == nil:
		return lost(err)
	case bye.Code == "ALERT":
		return "shutdown notice"
	case bye.Code == "SERVERBUG":
		return "internal error"
	}
	return strings.ToLower(bye.Text[:1]) + bye.Text[1:]
}

// lost returns how a connection was lost on which a Read or a Write failed with err.
func lost(err error) string {
	var number syscall.Errno
	var write writeError
	if errors.As(err, &write) && errors.Is(write.err, os.ErrDeadlineExceeded) {
		return "too slow to take what it was sent"
	}
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, syscall.EPIPE, errGone} {
		if errors.Is(err, end) || write.err != nil && errors.Is(write.err, end) {
			return "closed by client"
		}
	}
	if errors.As(err, &number) || write.err != nil && errors.As(write.err, &number) {
		return "connection lost: " + number.Error()
	}
	return "connection lost"
}
