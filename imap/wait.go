package imap

import (
	"context"
	"errors"
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
	logout := time.Now().Add(s.conf.Timeout)
	if idle {
		logout = time.Now().Add(s.conf.IdleTimeout)
	}
	// Before the first report: what changes after it wakes the session.
	s.idling.Store(idle)
	defer s.idling.Store(false)
	alive := time.Now().Add(s.conf.Limits.IdleKeepalive)
	for {
		if err := s.over(); err != nil {
			return err
		}
		until := s.earlier(logout)
		if idle {
			if err := s.report(false); err != nil {
				return err
			}
			if len(s.out) > 0 {
				alive = time.Now().Add(s.conf.Limits.IdleKeepalive)
			}
			if alive.Before(until) {
				until = alive
			}
		}
		err := s.await(until)
		switch {
		case err == nil:
			s.dec.Reset(s.r)
			return nil
		case errors.Is(err, errWoken):
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		default:
			now := time.Now()
			if !now.Before(s.earlier(logout)) {
				return errIdleTooLong
			}
			if idle && !now.Before(alive) {
				s.untagged("OK Still here")
			}
		}
	}
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
	if s.ctx.Err() != nil {
		return errCut
	}
	if text, down := s.shutdown(); down && !s.spared() {
		return &byeError{Code: "ALERT", Text: text}
	}
	return nil
}

// spared reports whether a shutdown notice is not for this session.
func (s *Session) spared() bool {
	return s.user != nil && s.user.Admin || s.peer.Preauth != nil && s.peer.Preauth.Admin
}

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
