package imap

import (
	"strings"

	"imapd/imap/wire"
)

// IDLE lets the server report changes while the client is silent.
// See RFC 2177, or RFC 9051 section 6.3.13.
var _ = register(Extension{
	Name: "IDLE",
	RFC:  2177,
	Caps: func(s *Session) []string {
		if s.conf.IdlePoll == 0 {
			return nil
		}
		// Before login too: old clients look for it in the greeting.
		return []string{"IDLE"}
	},
	Commands: []Command{authedStream("IDLE", (*Session).idle)},
})

// idle reports changes until the client sends a line, which must be DONE.
// Commands may follow it in the same packet. Its frame is kept small, as that of
// Server.Serve.
func (s *Session) idle(_ *User, d *wire.Decoder) error {
	if err := s.beginIdle(d); err != nil {
		return err
	}
	err := s.wait(true)
	s.present("")
	if err != nil {
		return err
	}
	return s.endIdle(d)
}

func (s *Session) beginIdle(d *wire.Decoder) error {
	if err := d.End(); err != nil {
		return err
	}
	if s.conf.IdlePoll == 0 {
		return bad("IDLE is turned off")
	}
	if b := s.box; b != nil {
		if b.stop == nil {
			b.stop = b.mailbox.Watch(b.access(), s.changed)
		}
		s.sync() // what happened before the watch began
	}
	s.out = append(s.out, "+ idling\r\n"...)
	s.present("Idle")
	return nil
}

func (s *Session) endIdle(d *wire.Decoder) error {
	s.hold() // it may be any command
	line := d.Line(idleLine)
	if err := d.Err(); err != nil && ends(err) {
		return err
	}
	if !strings.EqualFold(line, "DONE") {
		return bad("Expected DONE")
	}
	s.show()
	return nil
}

// idleLine is the longest line that is looked at, in octets.
const idleLine = 128
