package imap

import (
	"errors"

	"imapd/control"
)

// STARTTLS puts TLS under the session. See RFC 9051 section 6.2.1.
var _ = register(Extension{
	Name: "STARTTLS",
	RFC:  9051,
	Caps: func(s *Session) []string {
		if !s.canStartTLS() {
			return nil
		}
		return []string{"STARTTLS"}
	},
	Commands: []Command{unauthed("STARTTLS", noArgs, (*Session).startTLS)},
})

// canStartTLS reports whether STARTTLS can be had now.
func (s *Session) canStartTLS() bool {
	return s.srv.opt.TLS != nil && !s.tls && s.user == nil
}

// startTLS begins the handshake once the OK has gone out. Whatever the client
// sent in clear before it counts for nothing: commands that wait in the buffer
// are dropped, not run, or else somebody on the way could put them there.
func (s *Session) startTLS(none) error {
	if s.tls {
		return bad("TLS is already active")
	}
	if s.srv.opt.TLS == nil {
		return bad("TLS is not available")
	}
	s.ok("", "Begin TLS negotiation now")
	s.then = func() error {
		c, err := s.link.startTLS(s.srv.opt.TLS, s.conf.Limits.HandshakeTime)
		if err != nil {
			s.log.Info("starttls failed", "error", err)
			return errors.Join(errSilent, err)
		}
		s.tls = true
		s.ssf = max(s.ssf, control.Bits(c))
		s.idLogged = false
		s.dec = newDecoder(s)
		control.LogTLS(s.log, s.peer.Host, s.id, c)
		return nil
	}
	return nil
}
