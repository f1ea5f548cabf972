package imap

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"

	"imapd/control"
	"imapd/sasl"
)

// Where every user has a process, a session begins in one process and goes on
// in another (control.HandOver). The first one reads and checks the login, lists
// the session among those who are on, and from then on only passes on what the
// administrator wants. The second begins where the first has stopped: with the
// answer to the login. A session that the administrator begins without one goes
// on before its greeting.

// A HandOver gives a session to the process of the user that ticket stands for.
// *control.Stdio has it.
type HandOver func(ctx context.Context, ticket []byte, top net.Conn, h control.Handover, home control.Home) (*control.Away, error)

// errAway ends a session here that goes on elsewhere: nothing is said to the
// client.
var errAway error = awayError{}

type awayError struct{}

func (awayError) Error() string        { return "handed over" }
func (awayError) Is(target error) bool { return target == errSilent }

// handOver gives the session away. After an error other than errAway it is
// still ours.
func (s *Session) handOver(who sasl.Identity, mech string) error {
	if err := s.flush(); err != nil {
		return err
	}
	input, err := s.r.Peek(s.r.Buffered())
	if err != nil {
		return err
	}
	h := control.Handover{
		Session: s.id, Tag: s.tag, Mech: mech, Host: s.peer.Host, TLS: s.tls, ProxyTLS: s.peer.ProxyTLS, Private: s.peer.Private, Input: input,
		Preauth: s.peer.Preauth != nil, Commands: s.ncmd, In: s.in - int64(len(input)), Out: s.sent,
	}
	if h.Preauth {
		h.Motd = s.motd()
	}
	h.Shutdown, h.Down = s.shutdown()
	home := control.Home{
		Present: func(mailbox, command string) {
			if s.entry != nil {
				s.entry.Set(who.Name, mailbox, command)
			}
		},
		Lend: func(give func(*os.File)) (end func()) { return s.srv.opt.Lend(who.Name, s.id, give) },
	}
	away, err := s.srv.opt.HandOver(s.ctx, who.Ticket, s.conn, h, home)
	if err != nil {
		s.present("")
		if !errors.Is(err, control.ErrDeclined) { // which is in the log already, with the reason
			s.log.Error("cannot hand the session over", "user", control.Name(who.Name), "error", err)
		}
		return no("UNAVAILABLE", "Mail is not available, try again later")
	}
	s.user, s.away = &User{Identity: who}, away
	s.rank.Store(ordinary)
	if who.Admin || h.Preauth {
		s.rank.Store(admin)
	}
	s.gone.Store(away)
	if s.kicked.Load() {
		away.Kick() // meanwhile
	}
	s.peer.Authenticated()
	return errAway
}

// follow tells a session that goes on elsewhere what happens here, until it is
// over.
func (s *Session) follow() {
	s.link.release()
	ending, cut := s.srv.opt.Ending, s.ctx.Done()
	for {
		var changed <-chan struct{}
		if n := s.srv.opt.Notices; n != nil {
			changed = n.Changed()
			s.away.Shutdown(n.Shutdown())
		}
		select {
		case <-s.away.Ended():
			if s.away.Lost() {
				s.logged(s.userName(), "the process of the user has died")
			}
			return
		case <-ending:
			s.away.End()
			ending = nil
		case <-cut:
			s.away.Cut()
			cut = nil
		case <-changed:
		}
	}
}

// A farEntry is the place in the list of who is on of a session that another
// process has admitted.
type farEntry struct{ *control.Taken }

func (e farEntry) Admit(string, int, int) (int, int, bool) { return 0, 0, true }
func (e farEntry) Set(_, mailbox, command string)          { e.Present(mailbox, command) }
func (e farEntry) Move(string)                             {}
func (e farEntry) End()                                    {}

// taken begins a session that has logged in elsewhere.
func (s *Session) taken(t *control.Taken) error {
	var who sasl.Identity
	if err := json.Unmarshal(t.Identity, &who); err != nil {
		return err
	}
	s.entry = farEntry{t}
	t.OnKick(func() {
		s.kicked.Store(true)
		s.wake()
	})
	if !t.Preauth {
		s.tag = t.Tag
		s.cmd = commands.find("LOGIN") // or AUTHENTICATE: both are answered alike
	}
	if err := s.login(who, t.Mech); err != nil {
		_ = t.Decline(err.Error()) // if that fails the session ends all the same
		return errAway
	}
	if err := t.Accept(); err != nil {
		return err
	}
	if t.Preauth {
		s.welcome("PREAUTH", t.Motd)
		return nil
	}
	if err := s.reply(t.Tag, nil); err != nil {
		return err
	}
	s.cmd = nil
	return s.link.preload(t.Input)
}
