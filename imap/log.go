package imap

import (
	"crypto/tls"
	"errors"
	"strconv"

	"imapd/sasl"
)

// The lines below are those of Cyrus, word for word: operators' filters,
// fail2ban's among them, match them.

func (s *Session) userName() string {
	if s.user == nil {
		return ""
	}
	return s.user.Name
}

func (s *Session) boxName() string {
	if s.box == nil {
		return ""
	}
	return s.box.mailbox.Name()
}

// logStartTLS notes that the connection is encrypted now.
func (s *Session) logStartTLS(c tls.ConnectionState) {
	s.log.Info("starttls", "version", tls.VersionName(c.Version), "cipher", tls.CipherSuiteName(c.CipherSuite))
}

// logLogin notes a login.
func (s *Session) logLogin(mech string) {
	if s.tls {
		mech += "+TLS"
	}
	s.log.Info("login: " + s.peer.Host + " " + clean(s.user.Name) + " " + mech + " User logged in SESSIONID=<" + s.id + ">")
}

// logBadLogin notes a login that failed. "SASL(-13)" and the words behind it
// are what fail2ban looks for.
func (s *Session) logBadLogin(mech, user string, err error) {
	line := "badlogin: " + s.peer.Host + " " + mech + " (" + clean(user) + ") "
	switch {
	case errors.Is(err, sasl.ErrInvalidUser):
		line += err.Error()
	case errors.Is(err, sasl.ErrBadPassword), errors.Is(err, sasl.ErrNotAllowed):
		line += "[SASL(-13): " + clean(err.Error()) + "]"
	case errors.Is(err, sasl.ErrProtocol):
		line += "[SASL(-5): " + err.Error() + "]"
	default:
		line += "[SASL(-1): generic failure: " + clean(err.Error()) + "]"
	}
	s.log.Warn(line)
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
	s.log.Debug("session ended", "user", s.userName(), "why", clean(why), "commands", s.ncmd, "bytes_in", s.in, "bytes_out", s.sent)
}

// clean returns text that a client had a hand in, fit for a line of the log.
func clean(text string) string {
	if len(text) > 128 {
		text = text[:128] + "..."
	}
	quoted := strconv.QuoteToASCII(text)
	return quoted[1 : len(quoted)-1]
}
