package sasl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"imapd/control/config"
	"imapd/control/privsep"
)

// Passwords are checked in a process of its own where every user has a process:
// the one that talks to clients knows no password source. It asks over a
// Channel (Remote), the other answers (Answer), and who has shown the right
// password gets a ticket, for which the parent starts that user's process.
// The parent hears who the ticket is for from the one that checked, never from
// the one that talks.

// A query is what Remote asks; the texts are the client's, and need not be
// UTF-8.
type query struct {
	ID                         uint64
	Authzid, Authcid, Password []byte
}

type reply struct {
	ID       uint64
	Identity Identity
	Error    string  // empty: let in
	Kind     int     // of the error, in kinds; -1 for any other
	Denied   *Denied `json:",omitempty"` // the error, if it is one
}

// kinds are the errors that a Login's caller tells apart; the first that an
// error is counts.
var kinds = []error{ErrNoUser, ErrLocked, ErrBadPassword, ErrNotAllowed, ErrInvalidUser, ErrProtocol}

// A remoteError is an error with the text that it had in the other process.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

// A Remote asks another process. It is safe for use by several goroutines.
type Remote struct {
	again func() (*os.File, error) // the way to another process, when one has ended

	mu      sync.Mutex
	channel *privsep.Channel
	last    uint64
	waiting map[uint64]chan reply // nil when the other process is gone
	tried   time.Time             // to find another
}

// errGone says that nobody answers.
var errGone = errors.New("the process that checks passwords is gone")

// retryAfter is how long after one try to find another process the next is.
const retryAfter = 50 * time.Millisecond

// NewRemote returns a Remote that asks over the Channel whose end f is. When that has
// ended, again is asked for another. Its goroutine ends with the Channel.
func NewRemote(f *os.File, again func() (*os.File, error)) (*Remote, error) {
	r := &Remote{again: again}
	return r, r.use(f)
}

// use has questions go over the Channel whose end f is.
func (r *Remote) use(f *os.File) error {
	channel, err := privsep.NewChannel(f)
	if err != nil {
		return err
	}
	r.channel, r.waiting = channel, map[uint64]chan reply{}
	go r.hear(channel)
	return nil
}

// renew finds another process to ask. r.mu is held.
func (r *Remote) renew() error {
	if time.Since(r.tried) < retryAfter {
		return errGone
	}
	r.tried = time.Now()
	f, err := r.again()
	if err != nil {
		return fmt.Errorf("%w, another: %w", errGone, err)
	}
	return r.use(f)
}

func (r *Remote) hear(channel *privsep.Channel) {
	defer channel.Close()
	for {
		message, files, err := channel.Recv()
		privsep.Close(files)
		var a reply
		if err == nil {
			err = json.Unmarshal(message, &a)
		}
		r.mu.Lock()
		if err != nil {
			for _, w := range r.waiting {
				close(w)
			}
			r.waiting = nil
			r.mu.Unlock()
			return
		}
		if w := r.waiting[a.ID]; w != nil {
			w <- a // has room for it
			delete(r.waiting, a.ID)
		}
		r.mu.Unlock()
	}
}

// Login is that of an Authenticator. The Identity has a Ticket.
func (r *Remote) Login(ctx context.Context, authzid, authcid, password string) (Identity, error) {
	w := make(chan reply, 1)
	r.mu.Lock()
	if r.waiting == nil {
		if err := r.renew(); err != nil {
			r.mu.Unlock()
			return Identity{}, err
		}
	}
	r.last++
	id, channel := r.last, r.channel
	r.waiting[id] = w
	r.mu.Unlock()
	message, err := json.Marshal(query{id, []byte(authzid), []byte(authcid), []byte(password)})
	if err == nil {
		err = channel.Send(message)
	}
	if err != nil {
		r.forget(id)
		return Identity{}, fmt.Errorf("question about a password: %w", err)
	}
	select {
	case <-ctx.Done():
		r.forget(id)
		return Identity{}, ctx.Err()
	case a, ok := <-w:
		switch {
		case !ok:
			return Identity{}, errGone
		case a.Error == "":
			return a.Identity, nil
		case a.Denied != nil:
			return Identity{}, a.Denied
		case a.Kind >= 0 && a.Kind < len(kinds):
			return Identity{}, &remoteError{a.Error, kinds[a.Kind]}
		}
		return Identity{}, errors.New(a.Error)
	}
}

func (r *Remote) forget(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, id)
}

// mostQuestions is how many logins are checked at a time; hashing has a limit
// of its own.
const mostQuestions = 1000

// A Parent is what a process that only checks passwords has of the one that
// started it; *control.Stdio is one.
type Parent interface {
	// Open is a config.Opener.
	Open(path string) (*os.File, error)
	// Vouch gets the ticket for who has shown the right password: name and the
	// system's ids, which must be known, and the Identity for the process that
	// will serve the user.
	Vouch(name string, uid, gid int, identity []byte) (ticket []byte, err error)
	// Hangups is ready when the configuration is to be read again.
	Hangups() <-chan os.Signal
	// Confine takes from this process what it does not need.
	Confine(c *config.Config, log *slog.Logger) error
}

// An answerer answers what a Remote asks.
type answerer struct {
	channel *privsep.Channel
	vouch   func(name string, uid, gid int, identity []byte) (ticket []byte, err error)
	conf    atomic.Pointer[config.Config]
	auth    atomic.Pointer[Authenticator]
}

// hasProcess returns why nobody serves a user with these ids. The parent refuses
// them too, with a number for an error.
func hasProcess(c *config.Config, name string, uid, gid int) error {
	where := "/etc/passwd"
	if c.PasswdFile != "" && slices.Contains(c.PwcheckMethods, "passwd-file") {
		where = c.PasswdFile + " nor in " + where
	}
	switch {
	case uid < 0:
		return fmt.Errorf("user %s has no uid in %s", name, where)
	case gid < 0:
		return fmt.Errorf("user %s has no gid in %s, or another uid there", name, where)
	case uid == 0, gid == 0:
		return fmt.Errorf("user %s has uid %d and gid %d, and mail is never root's", name, uid, gid)
	case uid < c.FirstValidUID:
		return fmt.Errorf("user %s has uid %d, which is below first_valid_uid %d", name, uid, c.FirstValidUID)
	}
	return nil
}

// Answer is all that a process does which only checks passwords. It answers
// what a Remote asks over the Channel whose end f is, until that process is gone.
// The configuration is conf, and when p says so what reload returns; one with
// faults changes nothing. Signals are for those who serve clients.
func Answer(f *os.File, p Parent, conf *config.Config, reload func() (*config.Config, error), log *slog.Logger) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	channel, err := privsep.NewChannel(f)
	if err != nil {
		return err
	}
	auth, err := New(conf, p.Open, log)
	if err == nil {
		err = p.Confine(conf, log)
	}
	if err != nil {
		return err
	}
	a := &answerer{channel: channel}
	a.vouch = func(name string, uid, gid int, identity []byte) ([]byte, error) {
		if err := hasProcess(a.conf.Load(), name, uid, gid); err != nil {
			return nil, err
		}
		return p.Vouch(name, uid, gid, identity)
	}
	a.conf.Store(conf)
	a.auth.Store(auth)
	go func() { // ends with the process
		for range p.Hangups() {
			if conf, err := reload(); err != nil {
				log.Error("not reloaded", "err", err)
			} else if auth, err := New(conf, p.Open, log); err != nil {
				log.Error("not reloaded", "err", err)
			} else {
				a.conf.Store(conf)
				a.auth.Store(auth)
			}
		}
	}()
	return a.run(context.Background())
}

// run answers until nobody can ask any more.
func (a *answerer) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	slots := make(chan struct{}, mostQuestions)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for {
		message, files, err := a.channel.Recv()
		privsep.Close(files)
		if errors.Is(err, io.EOF) {
			return nil
		}
		var q query
		if err == nil {
			err = json.Unmarshal(message, &q)
		}
		if err != nil {
			return fmt.Errorf("question about a password: %w", err)
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if message, err := json.Marshal(a.answer(ctx, &q)); err == nil {
				_ = a.channel.Send(message) // who is gone need not know
			}
		})
	}
}

// Complete fills in what the system knows of a user and the back end does not.
func Complete(u *User) error {
	if u.UID >= 0 && u.GID >= 0 && u.Home != "" {
		return nil
	}
	system, err := user.Lookup(u.Name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return nil // the parent refuses one without a uid or a gid
	}
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(system.Uid) // numbers wherever this program runs
	if u.UID < 0 {
		u.UID = uid
	}
	if u.GID < 0 && u.UID == uid { // else it is another user's
		u.GID, _ = strconv.Atoi(system.Gid)
	}
	if u.Home == "" {
		u.Home = system.HomeDir
	}
	return nil
}

func (a *answerer) answer(ctx context.Context, q *query) reply {
	who, err := a.auth.Load().Login(ctx, string(q.Authzid), string(q.Authcid), string(q.Password))
	var identity []byte
	if err == nil {
		err = Complete(&who.User)
	}
	if err == nil && !utf8.ValidString(who.Home) {
		err = errors.New("home directory that is not UTF-8") // JSON would change it
	}
	if err == nil {
		identity, err = json.Marshal(who)
	}
	if err == nil {
		who.Ticket, err = a.vouch(who.Name, who.UID, who.GID, identity)
	}
	if err == nil {
		return reply{ID: q.ID, Identity: who}
	}
	no := reply{ID: q.ID, Error: err.Error(), Kind: -1}
	errors.As(err, &no.Denied)
	for i, kind := range kinds {
		if errors.Is(err, kind) {
			no.Kind = i
			break
		}
	}
	return no
}
