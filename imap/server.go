package imap

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"imapd/control"
	"imapd/control/config"
	"imapd/maildir"
	"imapd/sasl"
)

// Options are what a Server works with. They are not changed afterwards.
type Options struct {
	Config  *config.Config
	Host    *maildir.Host
	Auth    Authenticator // nil: nobody can log in
	TLS     *tls.Config   // nil: no STARTTLS
	Notices Notices       // nil: none
	Log     *slog.Logger  // nil: slog.Default()
	Version string        // of the program, for the greeting and ID
	// Ending is closed when every session has to end after the command that it
	// runs; nil: never.
	Ending <-chan struct{}

	// HandOver, where not nil, gives every session away that has logged in.
	// Lend begins the telemetry of one: see control.Home.
	HandOver HandOver
	Lend     func(user, session string, give func(*os.File)) (end func())

	// Sessions, where not nil, are to know those of this server too, and number them.
	Sessions *Sessions

	// Enter lists a session among those who are on, from its first moment.
	// It returns never nil; a nil Enter means that no list is kept.
	Enter func(host, session string) Entry

	// Tap opens the telemetry of a session that user has just begun; it
	// returns nil for none. A nil Tap means no telemetry at all.
	Tap func(user, session string) Tap
}

// An Authenticator knows passwords; *sasl.Authenticator is one.
type Authenticator interface {
	// Login returns who a client is that gave these names and password. Its
	// errors are those of package sasl.
	Login(ctx context.Context, authzid, authcid, password string) (sasl.Identity, error)
}

// Notices is what the administrator has to say to clients. The methods are
// called by many goroutines, Shutdown before every command.
type Notices interface {
	Motd() (text string, ok bool)
	Shutdown() (text string, ok bool)
	Refresh()                 // looks now, instead of when it is told to
	Changed() <-chan struct{} // closed when either may have changed
}

// An Entry is a session's place in the list of who is on. It is called from the
// session's goroutine only.
type Entry interface {
	// Admit makes user the session's user unless maxUser sessions of the same
	// user, or maxHost from the same host, are in the list already; 0 means any
	// number. It returns how many are.
	Admit(user string, maxUser, maxHost int) (perUser, perHost int, ok bool)
	// Set says what the session is at. It costs nothing where that is what was
	// said last.
	Set(user, mailbox, command string)
	// Move says that the client is at host, which a trusted peer has said.
	Move(host string)
	End()
}

// A Tap records what passes between a client and its session. It is called
// from the session's goroutine only, and must not keep the octets.
type Tap interface {
	In([]byte)  // from the client
	Out([]byte) // to the client
	On() bool   // whether anything becomes of it now
	Close()
}

// A Server serves IMAP on the connections that Serve is given. Its methods may
// be called by many goroutines.
type Server struct {
	opt   Options
	log   *slog.Logger
	eager bool // sessions park almost at once, for tests

	mu       sync.Mutex
	sessions map[*Session]struct{}
	stop     chan struct{} // ends watch; nil while there is no session
	stopped  chan struct{} // closed when watch has ended
	young    *time.Timer   // begins watch
}

// New returns a server. It starts nothing.
func New(o Options) *Server {
	s := &Server{opt: o, log: o.Log, sessions: map[*Session]struct{}{}}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.opt.Sessions == nil {
		s.opt.Sessions = &Sessions{}
	}
	return s
}

// Auth returns who knows the passwords; nil if nobody does.
func (srv *Server) Auth() Authenticator { return srv.opt.Auth }

// Serve runs one session on conn until it ends and closes conn. It returns when nothing of
// the session is left. When ctx is done, the session is cut short: the command that
// it runs does not end, and if possible it is told BYE.
//
// conn must obey SetReadDeadline while a Read is blocked, as net.Conn and
// net.Pipe do; that is how a waiting session is woken.
//
// Its frame, like those of all that lies below a session that waits, is kept
// small: from some 1200 octets on a stack does not shrink to 4 KiB.
func (srv *Server) Serve(ctx context.Context, conn *control.Conn) {
	s := srv.newSession(ctx, conn)
	defer s.close()
	if stop := srv.begin(s); stop != nil {
		s.live()
		stop()
		if s.away != nil {
			s.follow()
		}
		srv.remove(s)
	}
}

// begin counts s in, unless a shutdown notice keeps it out. stop ends the watch
// for the end of its context.
func (srv *Server) begin(s *Session) (stop func() bool) {
	if srv.opt.Notices != nil {
		srv.opt.Notices.Refresh()
	}
	if text, down := s.shutdown(); down && s.peer.Taken == nil && !srv.mayStay(s.peer.Preauth) {
		s.bye(&byeError{Code: "ALERT", Text: text})
		return nil
	}
	srv.opt.Sessions.add(s)
	srv.add(s)
	return context.AfterFunc(s.ctx, s.cut)
}

// live is the session from the greeting to BYE.
func (s *Session) live() {
	defer s.recover()
	s.bye(s.run())
}

// Refuse returns what a client is sent that is not served because of why.
func Refuse(why control.Refusal) string {
	return "* BYE [UNAVAILABLE] " + refusalText(why) + "\r\n"
}

func refusalText(why control.Refusal) string {
	text := why.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// mayStay reports whether a shutdown notice spares a user who comes in
// authenticated.
func (srv *Server) mayStay(u *control.Caller) bool {
	return u != nil && (u.Admin || srv.opt.Config.IsAdmin(u.Name))
}

// recover keeps a mistake in this program from ending the other sessions.
func (s *Session) recover() {
	r := recover()
	if r == nil {
		return
	}
	s.log.Error("panic in session", "cmd", s.commandName(), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
	s.out = s.out[:0] // whatever it was writing
	s.bye(&byeError{Code: "SERVERBUG", Text: "Internal error, see the log for session " + s.id})
}

func (srv *Server) newSession(ctx context.Context, peer *control.Conn) *Session {
	n := srv.opt.Sessions.number()
	c := srv.opt.Config
	name := c.SyslogPrefix
	if name == "" {
		name = c.ServerName
	}
	// The last number is no secret: it tells a session from those of other machines and
	// of other times. To make crypto/rand ready would cost as much as to load the configuration.
	id := fmt.Sprintf("%s-%d-%d-%d-%016x", name, time.Now().Unix(), os.Getpid(), n, rand.Uint64())
	if peer.Taken != nil {
		id = peer.Taken.Session
	}
	s := &Session{
		srv: srv, conf: c, peer: peer, id: id, tls: peer.TLS,
		link: newLink(peer),
	}
	s.openLog()
	if t := peer.Taken; t != nil {
		s.ncmd, s.in, s.sent = t.Commands, t.In, t.Out
	}
	s.ctx = maildir.OnWait(ctx, s.locked)
	s.ssf = peer.SSF
	if t, ok := peer.Conn.(*tls.Conn); ok && peer.TLS {
		s.ssf = max(s.ssf, control.Bits(t.ConnectionState()))
	}
	s.writeWait = c.Limits.WriteTime
	s.patience = c.Timeout
	if srv.eager {
		s.grace = time.Millisecond
	}
	s.limit = time.Now().Add(c.Limits.PreauthTime)
	s.unpark()
	s.dec = newDecoder(s)
	return s
}

func (srv *Server) add(s *Session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.sessions[s] = struct{}{}
	if srv.stop == nil {
		stop, stopped := make(chan struct{}), make(chan struct{})
		srv.stop, srv.stopped = stop, stopped
		srv.young = time.AfterFunc(young, func() { srv.watch(stop, stopped) })
	}
}

// young is how old the first session gets before anybody watches for it. What a
// process for one client starts before it greets costs more than many a client
// asks of it; what changes meanwhile is seen when the watch begins.
const young = 100 * time.Millisecond

// remove takes s out of all lists. The last session takes the goroutine in watch with it.
func (srv *Server) remove(s *Session) {
	if s.entry != nil {
		s.entry.End()
	}
	srv.opt.Sessions.remove(s)
	srv.mu.Lock()
	delete(srv.sessions, s)
	stop, stopped := srv.stop, srv.stopped
	last := len(srv.sessions) == 0 && stop != nil
	begun := !last || !srv.young.Stop()
	if last {
		srv.stop, srv.stopped = nil, nil
	}
	srv.mu.Unlock()
	if last {
		close(stop)
		if begun {
			<-stopped
		}
	}
}

// watch wakes all sessions when the notices change and when the server ends, and
// cuts those that a shutdown notice has not ended in time. There is one for all
// sessions, from the first to the last.
func (srv *Server) watch(stop, stopped chan struct{}) {
	defer close(stopped)
	ending := srv.opt.Ending
	var late <-chan time.Time // not nil while a shutdown notice is there
	for {
		var changed <-chan struct{}
		down := false
		if n := srv.opt.Notices; n != nil {
			// Asked for before the sessions look, so that no change is missed.
			changed = n.Changed()
			_, down = n.Shutdown()
		}
		switch {
		case !down:
			late = nil
		case late == nil:
			late = time.After(srv.opt.Config.ShutdownGrace)
		}
		srv.each((*Session).wake)
		select {
		case <-changed:
		case <-ending:
			ending = nil
			// Who has not logged in is not waited for: anybody could hold up the end.
			srv.each(func(s *Session) {
				if s.rank.Load() == stranger {
					s.cut()
				}
			})
		case <-late:
			late = nil
			srv.each(func(s *Session) {
				if s.rank.Load() != admin {
					s.cut()
				}
			})
		case <-stop:
			return
		}
	}
}

// each calls do, which must not block, for all sessions.
func (srv *Server) each(do func(*Session)) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for s := range srv.sessions {
		do(s)
	}
}

// ending reports whether all sessions have to end.
func (srv *Server) ending() bool {
	select {
	case <-srv.opt.Ending:
		return true
	default:
		return false
	}
}
