package imap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// wait blocks until a client begins to send something, and returns nil then.
// It is the one place where a session waits for more than its client: the end
// of the server, notices, the autologout and keep-alive timers and, with idle, changes
// of the mailbox, which it reports. The error is for bye.
//
// Every source is asked again whenever anything happens (see link): none can be
// lost, and a wake without a reason does no harm.
func (s *Session) wait(idle bool) error {
	s.giveUp = time.Now().Add(s.conf.Timeout)
	if idle {
		s.giveUp = time.Now().Add(s.conf.IdleTimeout)
	}
	s.alive = time.Now().Add(s.conf.Limits.IdleKeepalive)
	// Before the first report: what changes after it wakes the session.
	s.idling.Store(idle)
	defer s.idling.Store(false)
	for {
		if err := s.look(idle); err != nil {
			return err
		}
		s.dec.Reset(nil) // the reader is another session's while this one is parked
		err := s.await(s.next(idle))
		switch {
		case err == nil:
			s.dec.Reset(s.r)
			return nil
		case errors.Is(err, errWoken):
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		default:
			if err := s.expired(idle); err != nil {
				return err
			}
		}
	}
}

// look asks all that a waiting session waits for but its client.
func (s *Session) look(idle bool) error {
	if err := s.over(); err != nil || !idle {
		return err
	}
	if err := s.report(false); err != nil {
		return err
	}
	if len(s.out) > 0 {
		s.alive = time.Now().Add(s.conf.Limits.IdleKeepalive)
	}
	return nil
}

// next returns when something has to be done although nothing happens.
func (s *Session) next(idle bool) time.Time {
	until := s.earlier(s.giveUp)
	if idle && s.alive.Before(until) {
		until = s.alive
	}
	return until
}

// expired does what next was for.
func (s *Session) expired(idle bool) error {
	now := time.Now()
	if !now.Before(s.earlier(s.giveUp)) {
		return errIdleTooLong
	}
	if idle && !now.Before(s.alive) {
		s.untagged("OK Still here")
	}
	return nil
}

// earlier returns t, or the end of the time to log in if that comes first.
func (s *Session) earlier(t time.Time) time.Time {
	if !s.limit.IsZero() && s.limit.Before(t) {
		return s.limit
	}
	return t
}

// over returns why the session may not go on: the server ends, or the
// administrator wants everybody out. Administrators stay.
func (s *Session) over() error {
	if s.ctx.Err() != nil || s.srv.ending() {
		return errCut
	}
	return s.expelled()
}

// expelled returns the BYE that the administrator wants: for this session, or by
// a shutdown notice that does not spare it. A command with many responses asks between
// them, and a search while it runs.
func (s *Session) expelled() error {
	if s.kicked.Load() {
		return &byeError{Code: "UNAVAILABLE", Text: "Session ended by the administrator"}
	}
	if text, down := s.shutdown(); down && s.rank.Load() != admin {
		return &byeError{Code: "ALERT", Text: text}
	}
	return nil
}

// heedEvery is how often a command that takes long looks up from its work: often
// enough that nobody waits for a session that has to end, or works for nobody.
const heedEvery = time.Second

// errGone ends a session whose client is not there any more.
var errGone = fmt.Errorf("client is gone: %w", errSilent)

// heed returns why a command that takes long has to be given up: the session is cut,
// or the client is gone. One that has only shut its side may still listen, as a
// script with its commands in a file does: it is told something between two
// responses, which whoever is gone answers with a reset.
func (s *Session) heed(between bool) error {
	if s.ctx.Err() != nil || s.isCut() {
		return errCut
	}
	shut, gone := s.hungUp()
	switch {
	case gone:
		return errGone
	case shut && between:
		s.untagged("OK Still here")
		return s.flush()
	}
	return nil
}

// locked tells the client that its command waits for the lock of a mailbox, and for how
// long it will yet: it would take us for dead. Whoever waits says nothing else, and does
// not wait in the middle of a response (RFC 9051 section 7.1.2 has NO for warnings). The
// client is told only what its socket takes at once, since others wait for the lock.
func (s *Session) locked(left time.Duration) {
	if len(s.out) > mostWithNotice || len(s.out) > 0 && s.out[len(s.out)-1] != '\n' || !s.takes() {
		return
	}
	s.untagged(fmt.Sprintf("NO Mailbox is locked, will abort in %.0f seconds", left.Seconds()))
	_ = s.flush() // the error stays with the link
}

// mostWithNotice is how much other output goes with such a notice, in octets: less than
// any socket takes that takes anything.
const mostWithNotice = 1 << 10

// shutdown returns the text of the shutdown notice, if there is one.
func (s *Session) shutdown() (string, bool) {
	if s.srv.opt.Notices == nil {
		return "", false
	}
	return s.srv.opt.Notices.Shutdown()
}

// gather is how long an idle session lets changes come together before it
// reports them: those of one command of another session, whose own report
// should come first, and those of a delivery agent.
const gather = 10 * time.Millisecond

// changed wakes an idle session shortly after its mailbox has changed. It is
// called by whoever made the change, and does not block.
func (s *Session) changed() {
	if !s.idling.Load() || !s.stirred.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(gather, func() {
		s.stirred.Store(false)
		s.wake()
	})
}

// pause lets d pass before an answer is sent, as after a failed login.
func (s *Session) pause(d time.Duration) error {
	ctx, cancel := context.WithTimeout(s.ctx, d)
	defer cancel()
	<-ctx.Done()
	if s.ctx.Err() != nil {
		return errCut
	}
	return nil
}
