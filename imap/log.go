package imap

import (
	"errors"

	"imapd/control"
	"imapd/sasl"
)

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

// logLogin notes that the session's user has come in.
func (s *Session) logLogin(mech string) {
	control.LogLogin(s.log, control.Login{Host: s.peer.Host, User: s.user.Name, Mech: mech, TLS: s.tls, Session: s.id})
}

// logProxy notes who it really was that came in as the session's user.
func (s *Session) logProxy() {
	if s.user.Login != "" && s.user.Login != s.user.Name {
		s.log.Info("authorized as another user", "login", control.Escape(s.user.Login), "user", control.Escape(s.user.Name))
	}
}

// logBadLogin notes a login that failed. What kept the back end from an answer
// is logged besides.
func (s *Session) logBadLogin(a attempt, err error) {
	b := control.BadLogin{Host: s.peer.Host, User: a.authcid, Mech: a.mech, As: a.authzid}
	switch {
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
		s.log.Error("cannot check a password", "user", control.Escape(a.authcid), "error", err)
	}
	control.LogBadLogin(s.log, b)
}

// logEnd notes the end of a session.
func (s *Session) logEnd(err error, bye *byeError) {
	why := "logout"
	switch {
	case bye != nil:
		why = bye.Text
	case err != nil:
		why = err.Error()
	}
	s.log.Debug("session ended", "user", s.userName(), "why", why, "commands", s.ncmd, "bytes_in", s.in, "bytes_out", s.sent)
}
