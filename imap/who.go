package imap

import (
	"fmt"
	"strings"

	"imapd/control"
)

// enter puts the session into the list of who is on.
func (s *Session) enter() {
	if enter := s.srv.opt.Enter; enter != nil {
		s.entry = enter(s.peer.Host, s.id)
	}
}

// present tells the list of who is on what the session is at: command is
// "Idle" or empty.
func (s *Session) present(command string) {
	if s.entry != nil {
		s.entry.Set(s.userName(), s.boxName(), command)
	}
}

// admit puts user into the list of who is on, unless the limits of sessions
// keep them out. What it says is what Cyrus says.
func (s *Session) admit(user string) error {
	perUser, perHost := s.conf.MaxLoginsPerUser, s.conf.MaxLoginsPerHost
	if s.entry == nil {
		return nil
	}
	users, hosts, ok := s.entry.Admit(user, perUser, perHost)
	if ok {
		return nil
	}
	var parts []string
	if perHost > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d from %s", hosts, perHost, s.peer.Host))
	}
	if perUser > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d for %s", users, perUser, control.Escape(user)))
	}
	text := "Too many open connections (" + strings.Join(parts, ", ") + ")"
	s.log.Error(text)
	return no("LIMIT", text)
}
