package control

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"time"

	"imapd/control/config"
	"imapd/control/privsep"
)

// What the parent does for privilege_separation: user. See package privsep for
// the processes.

const (
	ticketSize = 16
	ticketTime = 30 * time.Second // in which a ticket is good
	mostTicket = 10000            // that wait to be spent
	endTime    = 5 * time.Second  // for workers to end in when the front has
)

// A vouched is what the process that checks passwords has said about a ticket.
type vouched struct {
	key   workerKey
	until time.Time
}

// A workerKey names one worker: a user with the rights of that moment.
type workerKey struct {
	name     string
	uid, gid int
	identity string // all that the worker is told
}

// A worker is a process that serves one user, as the parent sees it. Its feed
// takes an Identity and the end of a Channel for each session.
type worker struct {
	*privsep.Child
	feed *privsep.Channel
	sent uint32 // sessions; guarded by parent.mu
}

// What privilege_separation: user needs. Cyrus's master has given root up before it
// starts a service.
var (
	errSeparateUser   = errors.New("privilege_separation: user needs a start by root, and a cyrus_user that is not root")
	errSeparateMaster = errors.New("privilege_separation: user cannot be had under Cyrus's master, which is not root when it starts a service")
)

// newTicket returns octets that nobody guesses.
func newTicket() []byte {
	var ticket [ticketSize]byte
	rand.Read(ticket[:])
	return ticket[:]
}

// identifyAuth returns who the process that checks passwords runs as.
func identifyAuth(conf *config.Config, front identity) (identity, error) {
	if conf.AuthUser == "" {
		err := fmt.Errorf(`user: add the line "auth_user: NAME", where NAME is a user of the system who owns nothing and is not %s`, conf.User)
		return identity{}, conf.At("privilege_separation", err)
	}
	id, err := lookUpUser(conf.AuthUser)
	if err != nil {
		return id, conf.At("auth_user", err)
	}
	if id.uid == 0 || id.uid == front.uid {
		return id, conf.At("auth_user", errors.New("must be neither root nor cyrus_user"))
	}
	if !slices.Contains(id.groups, id.gid) {
		id.groups = append(id.groups, id.gid)
	}
	return id, nil
}

// How long the parent waits before it starts another process that checks passwords:
// twice as long each time, until one has lived for longer than the most.
const (
	authPause     = 100 * time.Millisecond
	mostAuthPause = time.Minute
)

// startUsers starts the front and the process that checks passwords, and ties
// them together. There is none where nobody has to log in.
func (p *parent) startUsers(front identity) (server *privsep.Child, err error) {
	if p.alone != nil && p.alone.Caller != nil {
		return p.spawner.Start(RoleFront, p.detail(), front.member())
	}
	if p.checker, err = identifyAuth(p.held.conf, front); err != nil {
		return nil, err
	}
	if err := p.startAuth(); err != nil {
		return nil, err
	}
	defer p.asks.Close()
	if server, err = p.spawner.Start(RoleFront, p.detail(), front.member(), p.asks); err != nil {
		p.signal(p.auth, syscall.SIGKILL)
	}
	p.asks = nil
	return server, err
}

// startAuth starts the process that checks passwords. The way to it is kept for the
// front.
func (p *parent) startAuth() error {
	asks, answers, err := privsep.Pair()
	if err != nil {
		return err
	}
	defer answers.Close()
	p.mu.Lock()
	p.asked = false
	p.mu.Unlock()
	auth, err := p.spawner.Start(RoleAuth, p.detail(), p.checker.member(), answers)
	if err != nil {
		asks.Close()
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asks != nil {
		p.asks.Close() // the front has not come for it
	}
	p.auth, p.asks = auth, asks
	return nil
}

// giveAuth gives the front the way to the process that checks passwords, once.
func (p *parent) giveAuth(c *privsep.Child) error {
	p.mu.Lock()
	asks := p.asks
	p.asks = nil
	p.mu.Unlock()
	if asks == nil {
		return refuse(c.Channel, syscall.EAGAIN)
	}
	defer asks.Close()
	return c.Send([]byte{answerYes}, asks)
}

// takeVouched notes what the process that checks passwords says: the ticket, who
// it is for, and what the worker is to know. Whoever it says is refused if mail
// is nothing that such a user has.
func (p *parent) takeVouched(c *privsep.Child, message []byte) error {
	const fixed = ticketSize + 4 + 4 + 1
	if len(message) < fixed || len(message) < fixed+int(message[fixed-1]) {
		return errors.New("malformed message about a ticket")
	}
	ticket := [ticketSize]byte(message[:ticketSize])
	key := workerKey{
		uid: int(int32(binary.BigEndian.Uint32(message[ticketSize:]))),
		gid: int(int32(binary.BigEndian.Uint32(message[ticketSize+4:]))),
	}
	rest := message[fixed:]
	n := int(message[fixed-1])
	key.name, key.identity = string(rest[:n]), string(rest[n:])
	if err := p.note(ticket, key); err != nil {
		return refuse(c.Channel, err)
	}
	return c.Send([]byte{answerYes})
}

// note keeps a ticket for whom a process may be started.
func (p *parent) note(ticket [ticketSize]byte, key workerKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if least := p.held.conf.FirstValidUID; key.uid <= 0 || key.gid <= 0 || key.uid < least {
		p.log.Error("no process for a user", "user", Escape(key.name), "uid", key.uid, "gid", key.gid, "first_valid_uid", least)
		return syscall.EPERM
	}
	now := time.Now()
	for t, v := range p.tickets {
		if now.After(v.until) {
			delete(p.tickets, t)
		}
	}
	if len(p.tickets) >= mostTicket {
		return syscall.EAGAIN
	}
	p.tickets[ticket] = vouched{key, now.Add(ticketTime)}
	return nil
}

// giveWorker spends a ticket: the front gets one end of a Channel, the user's
// worker the other.
func (p *parent) giveWorker(c *privsep.Child, message []byte) error {
	if len(message) != ticketSize {
		return refuse(c.Channel, syscall.EINVAL)
	}
	ours, err := p.spend([ticketSize]byte(message))
	if err != nil {
		return refuse(c.Channel, err)
	}
	defer ours.Close()
	return c.Send([]byte{answerYes}, ours)
}

// spend has the worker that ticket stands for get one end of a Channel, and
// returns the other.
func (p *parent) spend(ticket [ticketSize]byte) (*os.File, error) {
	p.mu.Lock()
	v, ok := p.tickets[ticket]
	delete(p.tickets, ticket)
	p.mu.Unlock()
	if !ok || time.Now().After(v.until) {
		p.log.Error("the front shows a ticket that is none")
		return nil, syscall.ESRCH
	}
	ours, theirs, err := privsep.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	err = p.send(v.key, theirs)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) {
		err = p.send(v.key, theirs) // to another: that one has just died, or been let go
	}
	if err != nil {
		p.log.Error("no process for a user", "user", Escape(v.key.name), "err", err)
		ours.Close()
		return nil, err
	}
	return ours, nil
}

// send sends a session to a user's worker, which is started if there is none, and
// forgotten where it cannot be sent to. The front asks for one thing at a time, so
// no two are started for one user.
func (p *parent) send(key workerKey, session *os.File) error {
	p.mu.Lock()
	w := p.workers[key]
	p.mu.Unlock()
	if w == nil {
		var err error
		if w, err = p.startWorker(key); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := w.feed.TrySend([]byte(key.identity), session); err != nil {
		p.retire(key, w)
		return err
	}
	w.sent++
	return nil
}

// startWorker starts the worker of a user. That takes files and a process, for
// which p.mu is not held.
func (p *parent) startWorker(key workerKey) (*worker, error) {
	id, err := userIdentity(key)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := privsep.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	feed, err := privsep.NewChannel(ours)
	if err != nil {
		return nil, err
	}
	child, err := p.spawner.Start(RoleWorker, p.detail(), id.member(), theirs)
	if err != nil {
		feed.Close()
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		feed.Close() // which ends it
		child.Close()
		return nil, syscall.ECANCELED
	}
	w := &worker{Child: child, feed: feed}
	p.workers[key] = w
	p.living.Go(func() { p.attend(child) })
	p.living.Go(func() { p.watch(key, w) })
	return w, nil
}

// userIdentity returns the ids and groups of a user. One whom the system does
// not know has the group that the password source names.
func userIdentity(key workerKey) (identity, error) {
	id := identity{uid: key.uid, gid: key.gid, groups: []int{key.gid}}
	u, err := user.LookupId(strconv.Itoa(key.uid))
	var unknown user.UnknownUserIdError
	if errors.As(err, &unknown) {
		return id, nil
	}
	if err != nil {
		return id, err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return id, err
	}
	for _, g := range groups {
		if n, err := strconv.Atoi(g); err == nil && n > 0 && n != key.gid {
			id.groups = append(id.groups, n)
		}
	}
	return id, nil
}

// watch hears what a worker says of itself until it has ended: that it has been
// idle. It is let go if no session is on its way to it.
func (p *parent) watch(key workerKey, w *worker) {
	for {
		message, files, err := w.feed.Recv()
		privsep.Close(files)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				p.log.Error("a worker", "user", Escape(key.name), "err", err)
			}
			break
		}
		if len(message) != 4 {
			break
		}
		p.mu.Lock()
		if w.sent == binary.BigEndian.Uint32(message) {
			p.retire(key, w)
		}
		p.mu.Unlock()
	}
	p.mu.Lock()
	p.retire(key, w)
	p.mu.Unlock()
	if code := w.Code(); code != 0 {
		p.log.Error("the process of a user has died; that user's sessions are gone", "user", Escape(key.name), "pid", w.PID(), "code", code)
	}
}

// retire has no more sessions sent to w, which ends when it has none. p.mu is
// held.
func (p *parent) retire(key workerKey, w *worker) {
	if p.workers[key] == w {
		delete(p.workers, key)
	}
	w.feed.Close()
}

// retireAll has new sessions served by new processes, with the configuration
// that is held now.
func (p *parent) retireAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, w := range p.workers {
		p.retire(key, w)
	}
}

// endWorkers ends all workers, which have no sessions any more: the front is
// gone.
func (p *parent) endWorkers() {
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	p.retireAll()
	ended := make(chan struct{})
	go func() { // ends with the last worker, which this process' end brings at the latest
		p.living.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(endTime):
	}
}
