package imap

import (
	"errors"
	"math"
	"strings"

	"imapd/control"
	"imapd/imap/wire"
)

// command reads one command, runs it and answers it. The error ends the session.
//
// In this order: the tag, the name, the state, the gates, the arguments. Each
// is judged when all earlier commands have run, because a client may send LOGIN,
// SELECT and FETCH in one packet. Whatever is not run is skipped by the
// decoder, which knows where literals end; no octet of a literal is ever read
// as a command.
func (s *Session) command() error {
	first := s.ncmd == 0
	s.ncmd++
	if first && s.user == nil && s.proxyV2() {
		return s.proxied()
	}
	s.then, s.marks = nil, 0
	s.dec.Begin()
	s.hold()
	tag := s.dec.Tag()
	if c := s.dec.Peek(); c != ' ' && c != '\r' && c != '\n' {
		s.dec.Fail("tag") // "a+b": what cannot be echoed whole is not echoed
	}
	if first && s.in > 0 {
		s.logTLS()
	}
	if err := s.dec.Err(); err != nil {
		return s.untaggable(err, first)
	}
	name, err := s.name()
	if err != nil && ends(err) {
		return err
	}
	s.cmd, s.tag = commands.find(name), tag
	if s.cmd == nil && first && s.user == nil {
		if err := s.foreign(s.tag); err != nil {
			return err
		}
	}
	s.named(s.tag, name, s.cmd != nil)
	if s.conf.Chatty && s.cmd != nil { // what is no command may be a password in the wrong place
		control.LogCommand(s.log, s.tag, name)
	}
	var run func(*Session) error
	if err == nil {
		run, err = s.prepare(s.cmd)
	}
	if run != nil {
		err = run(s)
	}
	// Also after an error of a handler: it may have left arguments unread.
	if !s.dec.Ended() {
		if skipErr := s.skip(err); skipErr != nil {
			return skipErr
		}
	}
	if s.finish(); s.cmd == nil {
		s.conceal(len(s.tag)) // with which the answer begins
	}
	if err := s.reply(s.tag, err); err != nil {
		return err
	}
	s.cmd, s.done = nil, tagged{} // a response code may be large
	if s.then != nil {
		return s.then()
	}
	return nil
}

// name reads the command's name, in upper case; of a UID command both words.
func (s *Session) name() (string, error) {
	d := s.dec
	d.SP()
	name := d.Keyword()
	if name == "UID" {
		d.SP()
		name += " " + d.Keyword()
	}
	if d.Err() != nil {
		return "", d.Err()
	}
	return name, nil
}

// prepare decides whether the command may run, and parses its arguments.
func (s *Session) prepare(c *Command) (func(*Session) error, error) {
	switch st := s.state(); {
	case c == nil && st == stateUnauthed:
		return nil, bad("Unknown command, or please login first")
	case c == nil:
		return nil, bad("Unknown command")
	case c.need&st != 0:
	case st == stateUnauthed:
		return nil, bad("Please login first")
	case c.need == stateUnauthed:
		return nil, bad("Already logged in")
	default:
		return nil, bad("Please select a mailbox first")
	}
	for _, gate := range c.gates {
		if err := gate(s); err != nil {
			return nil, err
		}
	}
	return c.bind(s.dec)
}

// skip reads away what is left of a command that did not run to its end. The
// session goes on, unless the client and the server can no longer agree on
// where the next command begins.
func (s *Session) skip(why error) error {
	if why != nil && ends(why) {
		return why
	}
	s.doubt()
	return s.dec.Skip()
}

// untaggable answers a line that does not begin with a tag, so that the answer
// cannot carry one.
func (s *Session) untaggable(err error, first bool) error {
	if ends(err) {
		return err
	}
	// Another protocol spoken to this port: a TLS or binary hello.
	if first && s.user == nil && s.binary(err) {
		return errForeign
	}
	if err := s.dec.Skip(); err != nil {
		return err
	}
	s.finish()
	s.tagged("*", "BAD", "", "Invalid tag")
	return s.countBad()
}

// binary reports whether the octet that is no tag is no text either.
func (s *Session) binary(err error) bool {
	var syntax *wire.SyntaxError
	return errors.As(err, &syntax) && syntax.Got != 0 &&
		(syntax.Got < ' ' && syntax.Got != '\r' && syntax.Got != '\n' || syntax.Got >= 0x7f)
}

// foreign returns how to end a session whose first line, which is no IMAP command
// and begins with tag, is that of another protocol. It is answered without an echo
// of anything that was sent, so that no browser can be made to run the answer.
func (s *Session) foreign(tag string) error {
	switch strings.ToUpper(tag) {
	case "PROXY":
		return s.proxied()
	case "GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PATCH", "DELETE", "PRI", // HTTP
		"EHLO", "HELO", "LHLO", "MAIL", "RCPT", "DATA", "RSET", "QUIT", // SMTP, LMTP
		"USER", "PASS", "APOP", "CAPA", "STLS": // POP3
		return errForeign
	}
	if strings.HasPrefix(tag, "SSH-") {
		return errForeign
	}
	return nil
}

// proxyV2 reports whether the client begins with a header of version 2 of the
// PROXY protocol, which comes in one piece. Version 1 begins with a tag.
func (s *Session) proxyV2() bool {
	const signature = "\r\n\r\n\x00\r\nQUIT\n"
	b, _ := s.r.Peek(min(s.r.Buffered(), len(signature))) // they are there
	return string(b) == signature
}

// proxied ends the session of a peer that sends a header of the PROXY protocol and
// may not: without an answer, which a proxy would pass on to a client. Inlined it
// would make the frame of command larger, and with it the stack of each idle session.
//
//go:noinline
func (s *Session) proxied() error {
	s.logTLS()
	s.log.Log(s.ctx, control.LevelNotice, "PROXY header from a peer that is not in haproxy_trusted_networks")
	return errProxied
}

// title returns the command's name as a word in a sentence: "Uid fetch".
func (c *Command) title() string {
	return c.Name[:1] + strings.ToLower(c.Name[1:])
}

// uidForm reports whether the command is the UID form of another.
func (c *Command) uidForm() bool { return strings.HasPrefix(c.Name, "UID ") }

// newDecoder returns the session's decoder with the limits before login.
func newDecoder(s *Session) *wire.Decoder {
	return wire.NewDecoder(s.r, s.limits(), s.continuation)
}

// continuation asks the client to go on: for a literal that it waits to send.
func (s *Session) continuation() error {
	s.out = append(s.out, "+ OK\r\n"...)
	return s.flush()
}

// largest non-synchronizing literal with LITERAL- (RFC 7888 section 5).
const literalMinus = 4096

// limits returns what the decoder takes from this client now.
func (s *Session) limits() wire.Limits {
	c := s.conf.Limits
	if s.user == nil {
		l := wire.BeforeLogin()
		l.Line, l.Literal, l.NonSync = c.PreauthLine, c.PreauthLiteral, c.PreauthLiteral
		l.Quoted, l.Word = c.Quoted, c.Word
		return l
	}
	l := wire.AfterLogin()
	l.Line, l.Quoted, l.Word = c.Line, c.Quoted, c.Word
	l.Literal, l.Literals, l.Args, l.Depth, l.Skip = c.Literal, c.Literals, c.Args, c.ListDepth, c.Skip
	l.NonSync = math.MaxInt64 // APPEND has a limit of its own, and Literal holds for all others
	if s.conf.LiteralMinus {
		l.NonSync = literalMinus
	}
	return l
}
