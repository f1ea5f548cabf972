package imap

import (
	"cmp"
	"errors"
	"strings"
	"time"

	"imapd/control"
	"imapd/imap/wire"
	"imapd/sasl"
)

// LOGIN logs in with a password in clear. See RFC 9051 section 6.2.3.
var _ = register(Extension{
	Name: "LOGIN",
	RFC:  9051,
	Caps: func(s *Session) []string {
		if s.user != nil || s.private() == nil {
			return nil
		}
		return []string{"LOGINDISABLED"}
	},
	// Asked before the password is: a client that is refused has not sent it.
	Commands: []Command{unauthed("LOGIN", parseLogin, (*Session).loginCommand).with(Silent).unless((*Session).mayLogin)},
})

type loginArgs struct{ user, password string }

func parseLogin(d *wire.Decoder) (a loginArgs) {
	d.SP()
	a.user = d.LenientAString()
	d.SP()
	a.password = d.LenientAString()
	return a
}

// private refuses passwords where somebody on the way could read them.
func (s *Session) private() error {
	if s.tls || s.peer.Private || s.conf.AllowPlaintext {
		return nil
	}
	return no("PRIVACYREQUIRED", "Login only available under a layer")
}

// mayLogin is private, and has the log say of a client that is refused: it may have
// sent the password all the same.
func (s *Session) mayLogin() error {
	err := s.private()
	if err != nil {
		s.logInClear("plaintext")
	}
	return err
}

func (s *Session) loginCommand(a loginArgs) error {
	who, err := s.verify("", a.user, a.password)
	if err != nil {
		return s.loginFailed(attempt{mech: "plaintext", authcid: a.user}, err)
	}
	return s.login(who, "plaintext")
}

// An attempt is what is known of a login that may fail: the mechanism, who the
// client says it is, and who it wants to be.
type attempt struct{ mech, authcid, authzid string }

// verify asks who the client is that gave these names and password.
func (s *Session) verify(authzid, authcid, password string) (sasl.Identity, error) {
	if s.srv.opt.Auth == nil {
		return sasl.Identity{}, sasl.ErrNoUser
	}
	return s.srv.opt.Auth.Login(s.ctx, authzid, authcid, password)
}

// login makes who the session's user; mech is for the log.
func (s *Session) login(who sasl.Identity, mech string) error {
	if err := s.admit(who.Name); err != nil {
		return err
	}
	if s.srv.opt.HandOver != nil {
		return s.handOver(who, mech)
	}
	store, err := s.srv.openStore(s.ctx, who.User)
	if err != nil {
		s.present("")
		s.log.Error("cannot open the user's mail", "user", control.Name(who.Name), "error", err)
		return no("UNAVAILABLE", "Mail is not available, try again later")
	}
	s.user = &User{Identity: who, Store: store}
	s.rank.Store(ordinary)
	if who.Admin || s.peer.Preauth != nil && s.peer.Preauth.Admin || s.peer.Taken != nil && s.peer.Taken.Preauth {
		s.rank.Store(admin)
	}
	s.limit = time.Time{}
	s.bad = 0
	s.dec.SetLimits(s.limits())
	s.peer.Authenticated()
	s.logLogin(mech)
	s.logProxy()
	if t := s.peer.Taken; t != nil {
		s.observe(t.Log())
	} else if tap := s.srv.opt.Tap; tap != nil {
		s.observe(tap(who.Name, s.id))
	}
	s.ok("CAPABILITY "+strings.Join(s.Capabilities(), " "), "User logged in SESSIONID=<"+s.id+">")
	return nil
}

// loginFailed answers a login that did not succeed: after a pause, always with
// the same words for a wrong password and an unknown user, and with BYE behind
// it when there were too many.
func (s *Session) loginFailed(a attempt, err error) error {
	s.logBadLogin(a, err)
	answer := no("AUTHENTICATIONFAILED", "Authentication failed")
	var denied *sasl.Denied
	switch {
	case errors.As(err, &denied):
		answer = no("AUTHORIZATIONFAILED", cmp.Or(denied.Message, "Access to this service has been blocked"))
	case errors.Is(err, sasl.ErrBadPassword), errors.Is(err, sasl.ErrInvalidUser), errors.Is(err, sasl.ErrProtocol):
	case errors.Is(err, sasl.ErrNotAllowed):
		answer = no("AUTHORIZATIONFAILED", "Authorization failed")
	default:
		// It waits and counts as well: another back end may have said no.
		answer = no("UNAVAILABLE", "Temporary authentication failure")
	}
	if err := s.failedTry(); err != nil {
		return err
	}
	return answer
}

// failedTry counts a failed login and makes the client wait for it.
func (s *Session) failedTry() error {
	if s.tries++; s.tries >= s.conf.Limits.LoginTries {
		s.then = func() error { return &byeError{Text: "Too many failed logins"} }
	}
	return s.pause(s.conf.FailedLoginPause)
}
