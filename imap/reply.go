package imap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"imapd/control"
	"imapd/imap/wire"
	"imapd/maildir"
	"imapd/maildir/tree"
	"imapd/sasl"
)

// A Refusal is the answer NO to a command that was understood and will not or
// cannot be carried out. Text is written for the client; Err is for the log.
type Refusal struct {
	Code string // response code without brackets, or ""
	Text string // one line
	Err  error
}

func (e *Refusal) Error() string { return e.Text }
func (e *Refusal) Unwrap() error { return e.Err }

// no returns the refusal with this response code (without brackets, may be
// empty) and text.
func no(code, text string) error { return &Refusal{Code: code, Text: text} }

// bad returns an error that is answered with BAD: arguments that are well-formed
// but that no client should send.
func bad(text string) error { return &wire.SyntaxError{Text: text} }

// A byeError ends the session with BYE, without a tagged reply for the command
// that runs.
type byeError struct{ Code, Text string }

func (e *byeError) Error() string { return e.Text }

var (
	errIdleTooLong = &byeError{Text: "idle for too long"}
	errTooManyBad  = &byeError{Text: "Too many invalid commands"}
	errForeign     = &byeError{Text: "This is an IMAP server"}
)

// errProxied ends a session silently; see proxied.
var errProxied = fmt.Errorf("PROXY header: %w", errSilent)

// refusals maps what the packages below return to what the client is told.
// The first row that matches counts. A command that knows better, such as APPEND with TRYCREATE,
// returns a Refusal of its own.
var refusals = []struct {
	err        error
	code, text string
}{
	{maildir.ErrNotFound, "NONEXISTENT", "No such mailbox"},
	{maildir.ErrExists, "ALREADYEXISTS", "Mailbox already exists"},
	{maildir.ErrHasChildren, "HASCHILDREN", "Mailbox has children"},
	{maildir.ErrLimit, "LIMIT", "Too many mailboxes"},
	{maildir.ErrInbox, "CANNOT", "INBOX cannot be deleted"},
	{tree.ErrLimit, "LIMIT", "Too many mailboxes"},
	{tree.ErrLayout, "CANNOT", "Mailbox cannot be made here"},
	{maildir.ErrGone, "EXPUNGEISSUED", "Some of the messages no longer exist"},
	{maildir.ErrKeywords, "LIMIT", "Too many keywords in this mailbox"},
	{maildir.ErrReadOnly, "READ-ONLY", "Mailbox is read-only"},
	{maildir.ErrBusy, "INUSE", "Mailbox is locked by another program, try again later"},
	{maildir.ErrDamaged, "CORRUPTION", "Compressed message is damaged"},
	{maildir.ErrTooBig, "LIMIT", "Compressed message is too big"},
	{maildir.ErrUsedUp, "LIMIT", "No UID is left in this mailbox, its administrator must give it a new UIDVALIDITY"},
	{maildir.ErrNoUIDs, "UNAVAILABLE", "Mailbox is not available"},
	{sasl.ErrBadPassword, "AUTHENTICATIONFAILED", "Authentication failed"},
	{sasl.ErrInvalidUser, "AUTHENTICATIONFAILED", "Authentication failed"},
	{syscall.ENOSPC, "OVERQUOTA", "No space left for mail"},
	{syscall.EDQUOT, "OVERQUOTA", "Quota exceeded"},
	{syscall.ENAMETOOLONG, "CANNOT", "Mailbox name is too long"},
	{syscall.EROFS, "UNAVAILABLE", "Mail storage is read-only"},
	{syscall.EIO, "UNAVAILABLE", "Mail storage has a fault"},
	{syscall.ELOOP, "UNAVAILABLE", "Mail storage has a fault"},  // a link where a file should be
	{syscall.EINVAL, "UNAVAILABLE", "Mail storage has a fault"}, // a FIFO or a directory there
	{syscall.EISDIR, "UNAVAILABLE", "Mail storage has a fault"}, // likewise
	{syscall.ENOTDIR, "CANNOT", "Something else is in the place of a mailbox"},
	{syscall.EFBIG, "UNAVAILABLE", "Mail storage has a fault"},
	{syscall.ESTALE, "UNAVAILABLE", "Mail storage is not available, try again later"},
	{syscall.EACCES, "NOPERM", "Permission denied"},
	{syscall.EPERM, "NOPERM", "Permission denied"},
	{syscall.EMFILE, "LIMIT", "Too many open files on the server, try again later"},
	{syscall.ENFILE, "LIMIT", "Too many open files on the server, try again later"},
	{context.DeadlineExceeded, "INUSE", "It takes too long, try again later"},
}

// refusal returns what to answer for err, and whether the log should have it.
func refusal(err error) (r *Refusal, log, ok bool) {
	var big *wire.TooBigError
	var name *wire.NameError
	var impossible *tree.NameError
	switch {
	case errors.As(err, &r):
		return r, r.Err != nil, true
	case errors.As(err, &big):
		return &Refusal{Code: "TOOBIG", Text: "Argument is too big"}, false, true
	case errors.As(err, &name):
		return &Refusal{Code: "CANNOT", Text: "Invalid mailbox name: " + name.Err.Error()}, false, true
	case errors.As(err, &impossible):
		return &Refusal{Code: "CANNOT", Text: "Invalid mailbox name: " + impossible.Why, Err: err}, false, true
	}
	for _, row := range refusals {
		if errors.Is(err, row.err) {
			_, system := row.err.(syscall.Errno)
			return &Refusal{Code: row.code, Text: row.text, Err: err}, system || row.code == "UNAVAILABLE" || row.code == "CORRUPTION", true
		}
	}
	return nil, true, false
}

// ends reports whether err is the end of the session: the connection is gone
// or out of step, or BYE is due.
func ends(err error) bool {
	var bye *byeError
	var read readError
	return errors.As(err, &bye) || errors.Is(err, wire.ErrFraming) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, errCut) || errors.Is(err, errSilent) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &read)
}

// fatal reports whether a command has failed with err in such a way that the session
// is over.
func (s *Session) fatal(err error) bool {
	return err != nil && (s.werr != nil || s.ctx.Err() != nil || ends(err))
}

// reply ends the running command. It is the only place that turns an error into a
// tagged response. What it returns ends the session.
func (s *Session) reply(tag string, err error) error {
	if s.fatal(err) {
		return err
	}
	if err2 := s.settle(); err2 != nil {
		return err2
	}
	s.closeHighest(err == nil)
	var syntax *wire.SyntaxError
	switch {
	case err == nil:
		s.forgive()
		text := s.done.text
		if text == "" {
			text = s.cmd.title() + " completed"
		}
		s.tagged(tag, "OK", s.done.code, text)
		return nil
	case errors.As(err, &syntax):
		s.tagged(tag, "BAD", syntax.Code, syntax.Error())
		return s.countBad()
	}
	s.forgive()
	s.refuse(tag, err)
	return nil
}

// warn tells of err, if there is one, in an untagged NO: it does not keep the running
// command from its OK (RFC 9051 section 7.1.2). What it returns ends the session.
func (s *Session) warn(err error) error {
	if err == nil || s.fatal(err) {
		return err
	}
	s.refuse("*", err)
	return nil
}

// refuse answers NO for err, and logs what an administrator should know.
func (s *Session) refuse(tag string, err error) {
	r, log, ok := refusal(err)
	if !ok {
		id := fmt.Sprintf("%s.%d", s.id, s.ncmd)
		s.log.Error("internal error", "id", id, "cmd", s.commandName(), "user", control.Name(s.userName()), s.about(), "error", err)
		s.tagged(tag, "NO", "SERVERBUG", "Internal error "+id)
		return
	}
	if log {
		s.log.Warn("command refused", "cmd", s.commandName(), "user", control.Name(s.userName()), s.about(), "error", r.Err)
	}
	s.tagged(tag, "NO", r.Code, r.Text)
}

// settle sends the mailbox data that goes before a tagged reply.
func (s *Session) settle() error {
	if s.box == nil || s.cmd == nil || s.cmd.Mode&Silent != 0 {
		return nil
	}
	if s.marks&markFiles != 0 {
		s.syncEdited()
	} else {
		s.sync()
	}
	// UID SEARCH with message numbers may not be answered by VANISHED (RFC 7162
	// section 3.2.10.2), though by EXPUNGE (RFC 9051 section 7.5.1).
	numbers := s.marks&markNumbers != 0 && s.props.Has(PropQresync)
	return s.report(s.cmd.Mode&UsesSeq != 0 || numbers)
}

// tagged appends a tagged status response.
func (s *Session) tagged(tag, status, code, text string) {
	s.out = append(s.out, tag...)
	s.out = append(s.out, ' ')
	s.out = append(s.out, status...)
	s.out = append(s.out, ' ')
	if code != "" {
		s.out = append(s.out, '[')
		s.out = append(s.out, code...)
		s.out = append(s.out, "] "...)
	}
	s.out = append(s.out, oneLine(text)...)
	s.out = append(s.out, "\r\n"...)
}

// oneLine returns text without anything that could end the line or that a
// client may not get outside a literal.
func oneLine(text string) string {
	if text == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}

// countBad counts a command that was answered with BAD, and ends a session
// that has sent too many: before login in all, later in a row.
func (s *Session) countBad() error {
	s.bad++
	limit := s.conf.Limits.BadCommands
	if s.user == nil {
		limit = s.conf.Limits.PreauthBadCommands
	}
	if s.bad > limit {
		return errTooManyBad
	}
	return nil
}

// forgive forgets bad commands once a user has sent a good one.
func (s *Session) forgive() {
	if s.user != nil {
		s.bad = 0
	}
}

// cause returns what a session is told that the server has cut.
func (s *Session) cause() *byeError {
	var why control.Refusal
	if errors.As(context.Cause(s.ctx), &why) {
		return &byeError{Code: "UNAVAILABLE", Text: refusalText(why)}
	}
	var bye *byeError
	if !s.srv.ending() && errors.As(s.expelled(), &bye) {
		return bye
	}
	return &byeError{Text: "Server is shutting down"}
}

// bye ends the session; err says why, nil means that the client wanted it. It
// is the only place that sends BYE, but for LOGOUT.
func (s *Session) bye(err error) {
	var bye *byeError
	switch {
	case s.werr != nil || err == nil || errors.Is(err, errSilent):
	case s.ctx.Err() != nil || errors.Is(err, errCut):
		if errors.Is(context.Cause(s.ctx), control.ErrTerminated) {
			break // no BYE: Cyrus says none
		}
		bye = s.cause()
	case errors.As(err, &bye):
	case errors.Is(err, wire.ErrFraming):
		bye = &byeError{Code: "TOOBIG", Text: err.Error()}
	case errors.Is(err, os.ErrDeadlineExceeded):
		bye = errIdleTooLong
	case !ends(err):
		s.log.Error("session failed", "user", control.Name(s.userName()), "error", err)
		bye = &byeError{Code: "SERVERBUG", Text: "Internal error, see the log for session " + s.id}
	}
	if bye == errIdleTooLong {
		s.log.Warn("idle for too long, closing connection")
	}
	if bye != nil {
		s.tagged("*", "BYE", bye.Code, bye.Text)
	}
	s.flush()
	if bye != nil {
		s.linger()
	}
	s.logEnd(err, bye)
}
