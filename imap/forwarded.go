package imap

import (
	"net/netip"
	"strings"

	"imapd/control"
)

// forwarded takes from an ID before login for whom the peer has connected. The
// field is Dovecot's, which webmail servers and proxies send; those that go with
// it (x-originating-port, x-connected-ip, x-connected-port, x-session-id,
// x-proxy-ttl) say nothing that is needed here. From a peer that is not trusted
// with it it is a text like any other.
func (s *Session) forwarded(pairs []idPair) error {
	if s.user != nil {
		return nil
	}
	for _, p := range pairs {
		if !strings.EqualFold(p.field, "x-originating-ip") {
			continue
		}
		ip, err := netip.ParseAddr(p.value)
		if err != nil {
			continue
		}
		via := s.peer.Host
		ok, err := s.peer.Forward(ip)
		if why, refused := err.(control.Refusal); refused {
			return &byeError{Code: "UNAVAILABLE", Text: refusalText(why)}
		}
		if ok {
			s.openLog()
			s.log.Info("client forwarded", "via", via)
			if s.entry != nil {
				s.entry.Move(s.peer.Host)
			}
		}
	}
	return nil
}
