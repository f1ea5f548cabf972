package imap

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"imapd/control"
	"imapd/control/config"
	"imapd/imap/wire"
	"imapd/maildir"
	"imapd/sasl"
)

// A Session is one client connection. The goroutine in Server.Serve owns it and
// everything it points to:
//
//   - only that goroutine reads from the client, writes to it, and changes the session;
//   - others may call wake and cut, nothing else;
//   - snapshots and mailboxes are shared, and safe for that;
//   - no lock is held while it reads, writes, parses or waits.
type Session struct {
	*link // out, flush, spill: how to write to the client

	srv  *Server
	conf *config.Config
	ctx  context.Context // done when the session is cut short; as in http.Request
	log  *slog.Logger    // says host and session in each line
	id   string          // session id, as in the log and in the reply to LOGIN
	peer *control.Conn
	tls  bool // octets are encrypted on the wire
	ssf  int  // strength in bits of what protects the wire, 0 for nothing
	dec  *wire.Decoder

	entry Entry                        // nil where no list is kept
	away  *control.Away                // the session goes on elsewhere; nil while it is here
	gone  atomic.Pointer[control.Away] // the same, for others

	user  *User // nil until authenticated
	box   *Box  // nil unless a mailbox is selected; implies user != nil
	props Props

	cmd      *Command // that is running, nil between commands
	tag      string   // of the command that is running
	ncmd     int      // commands begun
	done     tagged   // what the tagged OK will say
	marks    marks    // what has happened while the command ran
	then     func() error
	quit     bool
	bad      int // bad commands: before login in all, after it in a row
	tries    int // failed logins
	idLogged bool
	toldTLS  bool // the log has said that the session began under TLS
	inClear  bool // the log has said of a login that was refused in the clear

	giveUp time.Time // when wait gives a silent client up,
	alive  time.Time // and when it tells an idle one that it is there

	rank    atomic.Int32 // stranger, ordinary or admin
	idling  atomic.Bool  // in IDLE: changed may wake the session
	stirred atomic.Bool  // and is about to
	kicked  atomic.Bool  // the administrator ends it
}

// Ranks of sessions: what bears on how the server ends them.
const (
	stranger int32 = iota // not logged in
	ordinary
	admin // whom a shutdown notice spares
)

// tagged is what a command wants its OK to say.
type tagged struct{ code, text string }

// marks are what a command has done that bears on its end.
type marks uint8

const (
	markModSeq   marks = 1 << iota // showed a modseq
	markExpunged                   // expunged messages, or told by VANISHED of some
	markNumbers                    // is a UID SEARCH that names message numbers
	markFiles                      // made, renamed or removed files of the selected mailbox, as its last change
)

// A User is who has logged in.
type User struct {
	sasl.Identity
	Store *maildir.Store
}

// Props is a set of the properties of a session that change how other
// commands answer. ENABLE sets most of them, in one place: Session.enable.
type Props uint8

const (
	// PropRev2: IMAP4rev2 is enabled. No RECENT, ESEARCH instead of SEARCH,
	// UID in every FETCH, names in UTF-8 (RFC 9051 appendix E).
	PropRev2 Props = 1 << iota
	// PropUTF8: UTF8=ACCEPT is enabled (RFC 6855).
	PropUTF8
	// PropCondstore: the client wants MODSEQ in every FETCH (RFC 7162).
	PropCondstore
	// PropQresync: VANISHED instead of EXPUNGE (RFC 7162).
	PropQresync
	// PropUIDOnly: no sequence numbers at all (RFC 9586).
	PropUIDOnly
)

// Has reports whether all of q are set in p.
func (p Props) Has(q Props) bool { return p&q == q }

// Rev2 reports whether the client has enabled IMAP4rev2.
func (s *Session) Rev2() bool { return s.props.Has(PropRev2) }

// UTF8 reports whether names and strings go to the client as UTF-8.
func (s *Session) UTF8() bool { return s.props&(PropRev2|PropUTF8) != 0 }

// enable sets properties, and tells the parts of the session that depend on them.
// A client that asks for modseqs first when it has a mailbox selected is told
// the highest (RFC 7162 section 3.1).
func (s *Session) enable(p Props) {
	had := s.props
	s.props |= p
	s.dec.SetUTF8(s.UTF8())
	if s.box != nil && s.props&^had&PropCondstore != 0 {
		s.sendHighest()
	}
}

// state follows from what the session holds, so the two cannot disagree.
func (s *Session) state() state {
	switch {
	case s.box != nil:
		return stateSelected
	case s.user != nil:
		return stateAuthed
	}
	return stateUnauthed
}

// ok says what the tagged OK of the running command will carry: a response
// code without brackets, or "", and a text, or "" for "<command> completed".
func (s *Session) ok(code, text string) { s.done = tagged{code, text} }

// untagged appends the line "* <parts>".
func (s *Session) untagged(parts ...string) {
	s.out = append(s.out, "* "...)
	for _, p := range parts {
		s.out = append(s.out, p...)
	}
	s.out = append(s.out, "\r\n"...)
}

// commandName returns the running command's name for the log.
func (s *Session) commandName() string {
	if s.cmd == nil {
		return ""
	}
	return s.cmd.Name
}

// run serves the client from the greeting on. What it returns is for bye.
func (s *Session) run() error {
	begin := s.greet
	if t := s.peer.Taken; t != nil {
		begin = func() error { return s.taken(t) }
	}
	if err := begin(); err != nil {
		return err
	}
	for !s.quit {
		if err := s.wait(false); err != nil {
			return err
		}
		if err := s.command(); err != nil {
			return err
		}
	}
	return nil
}

// greet sends the first line, and the message of the day behind it. A client need not
// wait until it is listed: to make a file there takes longer than the rest.
func (s *Session) greet() error {
	if u := s.peer.Preauth; u != nil {
		return s.greetCaller(u)
	}
	s.welcome("OK", s.motd())
	if err := s.flush(); err != nil {
		return err
	}
	s.enter()
	return nil
}

// greetCaller is greet for a client that need not log in.
func (s *Session) greetCaller(u *control.Caller) error {
	s.enter()
	who := sasl.Identity{
		User:  sasl.User{Name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home},
		Login: u.Name, Admin: s.conf.IsAdmin(u.Name), Ticket: u.Ticket,
	}
	err := s.login(who, "preauth")
	if errors.Is(err, errAway) {
		return err
	}
	if err != nil {
		return &byeError{Code: "UNAVAILABLE", Text: err.Error()}
	}
	s.welcome("PREAUTH", s.motd())
	return nil
}

// motd returns the message of the day, or an empty text.
func (s *Session) motd() string {
	if s.srv.opt.Notices == nil {
		return ""
	}
	text, _ := s.srv.opt.Notices.Motd()
	return text
}

// welcome writes the greeting, of the kind that word says.
func (s *Session) welcome(word, motd string) {
	s.untagged(word, " [CAPABILITY ", strings.Join(s.Capabilities(), " "), "] ", s.serverName(), "server ready")
	if motd != "" {
		s.untagged("OK [ALERT] ", motd)
	}
}

// serverName returns what serverinfo lets out of the server's name, with a
// space behind it.
func (s *Session) serverName() string {
	switch s.conf.ServerInfo {
	case config.ServerInfoOff:
		return ""
	case config.ServerInfoMin:
		return s.conf.ServerName + " "
	}
	return s.conf.ServerName + " imapd " + s.srv.opt.Version + " "
}

// close releases everything that the session holds.
func (s *Session) close() {
	s.unselect()
	s.link.close()
}
