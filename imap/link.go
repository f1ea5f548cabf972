package imap

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"imapd/control"
)

// A link is the connection of one session: the stack of socket, TLS and
// telemetry tap, the two buffers, the deadlines, and the way to wake a session
// that waits for input.
//
// The problem is that a session waits for several things at once (input, its
// mailbox, notices, the end of the server, timers) while Go's Read waits for
// one, and that most connections of an IMAP server do nothing but wait, so that
// a goroutine, a channel or a buffer per waiting connection is what the server's
// memory consists of. The choice: the session's own goroutine blocks in Read,
// timers are its read deadline, and everybody else calls wake, which moves the
// deadline into the past while, and only while, the session stands between two
// commands. A woken session looks at all its sources again; wake says nothing
// but "look". So a waiting session is one small goroutine. Rejected: a reader
// goroutine per connection that sends to a channel (twice the stacks, two
// switches a command, and it must be stopped), and an event loop of our own
// (crypto/tls cannot use one).
//
// A session that has been silent for a moment gives both buffers back and waits
// for the socket to become readable without reading from it. Under TLS that is
// safe only when nothing decrypted is left over, which the timed-out Read that
// went before has just proved. And what the socket then has may be no input: the
// session reads it, and waits on if nothing comes of it.
//
// Output is collected in out and sent before each Read that would block or
// when it has grown to flushAt: a pipelined burst of commands costs one Write, and a
// client never waits for an answer that lies in our buffer.
//
// All methods but wake and cut belong to the session's goroutine.
type link struct {
	base net.Conn        // as given to Serve; carries the deadlines
	conn net.Conn        // top of the stack: base, or TLS over it
	raw  syscall.RawConn // base's descriptor; nil if it has none, then buffers are kept
	r    *bufio.Reader   // over the link itself; nil while parked
	out  []byte          // what will be sent next; append to it freely
	record

	silent func() // called when the session parks

	input []byte // that another process has read, and r has not

	patience  time.Duration // how long to wait for more input in the middle of a command
	limit     time.Time     // absolute end of all reading; zero: none (pre-auth time)
	writeWait time.Duration // how long one Write may take
	grace     time.Duration // how long a silent session keeps its buffers

	until time.Time     // deadline while waiting at a boundary, else zero
	slack time.Duration // how much earlier than until the wait may end
	werr  error         // first error of a Write; nothing is sent after it
	in    int64         // octets read from the client, in clear
	sent  int64         // octets sent to the client, in clear

	mu       sync.Mutex
	boundary bool // between two commands: wake may interrupt Read
	woken    bool // wake was called and not yet seen
	ended    bool // cut was called: no Read succeeds any more

	// The deadlines that base has. Each new one is a timer that is moved, and often
	// a thread that is woken for it: they stay while they are good enough.
	reading, writing time.Time

	sending bool // a Write is under way, or another process sends what it wants
	hurried bool // cut came during a Write, whose deadline it moved to cutRest
}

// flushAt is the size at which out is sent although more could be added.
const flushAt = 64 << 10

// parkAfter is the usual grace: a client that is at work pays nothing for parking.
const parkAfter = time.Second

// bufferSize is the size of the input buffer.
const bufferSize = 4 << 10

// Largest output buffer that is kept for reuse.
const keepOut = 256 << 10

// errWoken: wake interrupted the wait.
var errWoken = errors.New("woken")

// errCut: the server ends this session.
var errCut = errors.New("session ended by the server")

// errSilent ends a session to which nothing can be said any more.
var errSilent = errors.New("connection is of no use any more")

// Readers and output buffers of all sessions, while nobody uses them.
var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, bufferSize) }}
	outputs = sync.Pool{New: func() any { b := make([]byte, 0, bufferSize); return &b }}
)

// newLink wraps the connection of peer. The caller sets patience, limit and writeWait.
func newLink(peer *control.Conn) *link {
	conn := peer.Conn
	return &link{base: conn, conn: conn, raw: control.RawConn(conn), grace: parkAfter, silent: peer.Parked}
}

// Read reads for the buffer r. It sends what is to be sent first.
func (l *link) Read(p []byte) (int, error) {
	if err := l.flush(); err != nil {
		return 0, err
	}
	l.tell()
	until, slack := l.until, l.slack
	if until.IsZero() {
		until, slack = time.Now().Add(l.patience), 0
		if !l.limit.IsZero() && l.limit.Before(until) {
			until = l.limit
		}
	}
	if err := l.arm(until, slack); err != nil {
		return 0, err
	}
	n, err := l.read(p)
	l.in += int64(n)
	l.heard(p[:n])
	if err != nil && err != io.EOF {
		err = l.failed(err)
	}
	return n, err
}

// failed returns the error of a Read that has failed with err.
func (l *link) failed(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return errCut // which has moved the deadline
	}
	return readError{err}
}

func (l *link) read(p []byte) (int, error) {
	if len(l.input) > 0 {
		n := copy(p, l.input)
		l.input = l.input[n:]
		return n, nil
	}
	return l.conn.Read(p)
}

// A readError is an error of a Read. It tells a connection that has failed from
// a disk that has: the errors of both are the system's.
type readError struct{ err error }

func (e readError) Error() string { return "read: " + e.err.Error() }
func (e readError) Unwrap() error { return e.err }

// arm sets the read deadline to until, or slack before it, unless the session was
// woken or cut meanwhile.
func (l *link) arm(until time.Time, slack time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
		return errCut
	case l.boundary && l.woken:
		return os.ErrDeadlineExceeded
	case !l.reading.After(until) && !l.reading.Before(until.Add(-slack)):
		return nil
	}
	l.reading = until
	return l.base.SetReadDeadline(until)
}

// interrupt has a Read that waits return. l.mu is held.
func (l *link) interrupt() {
	l.reading = time.Unix(1, 0)
	l.base.SetReadDeadline(l.reading)
}

// wake makes await return errWoken, now or when it is next called. It may be
// called by any goroutine, at any time.
func (l *link) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.woken = true
	if l.boundary {
		l.interrupt()
	}
}

// cut ends the session from outside: also a Read in the middle of a command
// returns, and output gets a last few seconds, but not what a client does not take
// already. It may be called by any goroutine.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return // a second call must not give it more time
	}
	l.woken, l.ended = true, true
	l.interrupt()
	wait := cutWait
	if l.hurried = l.sending; l.hurried {
		wait = cutRest
	}
	l.base.SetWriteDeadline(time.Now().Add(wait))
}

// cutWait is how long a Write may take that begins once the server wants to end, and
// cutRest how long one that is under way then: it has had its time, unless it has
// only just begun.
const cutWait, cutRest = 5 * time.Second, 100 * time.Millisecond

// isCut reports whether cut was called.
func (l *link) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// hungUp tells how the client's end of the connection is: see control.HungUp.
func (l *link) hungUp() (shut, gone bool) {
	if l.raw == nil {
		return false, false
	}
	if l.raw.Control(func(fd uintptr) { shut, gone = control.HungUp(fd) }) != nil {
		return true, true
	}
	return shut, gone
}

// takes tells whether the client's socket takes some output at once.
func (l *link) takes() (yes bool) {
	return l.raw != nil && l.raw.Control(func(fd uintptr) { yes = control.Takes(fd) }) == nil && yes
}

// seeWake reports whether wake was called since the last time, and forgets it.
func (l *link) seeWake() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	woken := l.woken
	l.woken = false
	return woken
}

// await blocks at a command boundary until input is there (nil), wake was
// called (errWoken, even if input is there), until has passed
// (os.ErrDeadlineExceeded) or the connection has ended. While it blocks for longer than grace the
// session holds no buffers; after nil it has a reader again.
func (l *link) await(until time.Time) error {
	l.enter(until)
	parked, err := l.stay()
	for parked {
		if err = l.readable(); l.seeWake() {
			err = errWoken
		}
		if err != nil {
			break
		}
		l.unpark()
		parked, err = l.stay() // a piece of a TLS record, or one without data, is no input yet
	}
	l.leave()
	return err
}

func (l *link) enter(until time.Time) {
	l.mu.Lock()
	l.boundary, l.until = true, until
	l.mu.Unlock()
}

// stay waits with a buffer in hand for a moment, or for as long as it takes
// where the session cannot be parked. It reports whether it has been.
func (l *link) stay() (parked bool, err error) {
	if l.seeWake() {
		return false, errWoken
	}
	if l.r != nil && l.r.Buffered() > 0 {
		return false, nil
	}
	if err := l.flush(); err != nil {
		return false, err
	}
	if l.r != nil || l.raw == nil {
		if err := l.peek(l.until); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return false, err
		}
		if l.seeWake() {
			return false, errWoken
		}
		if !time.Now().Before(l.until) {
			return false, os.ErrDeadlineExceeded
		}
	}
	l.park()
	l.silent()
	return true, nil
}

func (l *link) leave() {
	l.mu.Lock()
	l.boundary, l.until = false, time.Time{}
	l.mu.Unlock()
}

// peek waits with a buffer in hand: for a moment where the session can be
// parked afterwards, else until the deadline.
func (l *link) peek(until time.Time) error {
	l.unpark()
	if short := time.Now().Add(l.grace); l.raw != nil && short.Before(until) {
		l.until, l.slack = short, l.grace/2
	}
	_, err := l.r.Peek(1)
	l.until, l.slack = until, 0
	return err
}

// readable waits until the socket has something to read, without reading it.
func (l *link) readable() error {
	if err := l.arm(l.until, 0); err != nil {
		return err
	}
	if err := l.raw.Read(control.HasInput); err != nil {
		return l.failed(err)
	}
	return nil
}

// park gives the buffers back. There must be no input in r.
func (l *link) park() {
	if l.r != nil {
		l.r.Reset(nil)
		readers.Put(l.r)
		l.r = nil
	}
	if l.out != nil && len(l.out) == 0 && cap(l.out) <= keepOut {
		out := l.out
		outputs.Put(&out)
	}
	if len(l.out) == 0 {
		l.out = nil
	}
	if len(l.held) == 0 {
		l.held = nil
	}
}

// unpark takes the buffers again.
func (l *link) unpark() {
	if l.r == nil {
		l.r = readers.Get().(*bufio.Reader)
		l.r.Reset(l)
	}
	if l.out == nil {
		l.out = *outputs.Get().(*[]byte)
	}
}

// flush sends what has been collected.
func (l *link) flush() error {
	if l.werr == nil && len(l.out) > 0 {
		l.send(l.out)
	}
	l.out = l.out[:0]
	return l.werr
}

// Write sends what has been collected and then p, which it neither copies nor
// keeps: for pieces that are large.
func (l *link) Write(p []byte) (int, error) {
	if err := l.flush(); err != nil {
		return 0, err
	}
	return l.send(p), l.werr
}

// send writes b to the client and returns how much of it went out.
func (l *link) send(b []byte) int {
	l.sendBegins()
	n, err := l.conn.Write(b)
	l.sendEnds(err == nil)
	if l.tap != nil {
		l.tell()
		l.tap.Out(l.told(b[:n]))
	}
	l.sent += int64(n)
	if err != nil {
		l.werr = writeError{err}
	}
	return n
}

// sendBegins is called before a Write.
func (l *link) sendBegins() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sending = true
	l.giveTime(l.writeWait)
}

// sendEnds is called after a Write. One that cut has hurried and that the client has taken
// to its end leaves what follows, such as BYE, the time that it would have had else.
func (l *link) sendEnds(taken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sending = false
	if l.hurried && taken {
		l.hurried = false
		l.base.SetWriteDeadline(time.Now().Add(cutWait))
	}
}

// giveTime sets the write deadline: wait from now on, or a little longer. l.mu is held.
func (l *link) giveTime(wait time.Duration) {
	least := time.Now().Add(wait)
	most := least.Add(wait / 4)
	if l.ended || !l.writing.Before(least) && !l.writing.After(most) {
		return
	}
	l.writing = most
	l.base.SetWriteDeadline(most)
}

// A writeError is the first error of a Write. It hides its cause, which may be a
// deadline too, from those who ask about the deadline of a Read.
type writeError struct{ err error }

func (e writeError) Error() string        { return "write: " + e.err.Error() }
func (e writeError) Is(target error) bool { return target == errSilent }

// spill sends what has been collected if it is much. Commands with large
// answers call it between pieces.
func (l *link) spill() error {
	if len(l.out) < flushAt {
		return l.werr
	}
	return l.flush()
}

// preload has the first reads return input, which somebody else has read. It is
// called before anything is read.
func (l *link) preload(input []byte) error {
	if len(input) == 0 {
		return nil
	}
	l.unpark()
	l.input = input
	_, err := l.r.Peek(1)
	return err
}

// release gives the buffers back of a session that goes on elsewhere.
func (l *link) release() {
	l.mu.Lock()
	l.sending = true
	l.mu.Unlock()
	if l.r != nil {
		l.r.Reset(nil)
	}
	l.out = l.out[:0]
	l.park()
}

// startTLS puts TLS on top of the stack. What the client sent in clear behind
// its command is dropped, never run.
func (l *link) startTLS(c *tls.Config, handshake time.Duration) (tls.ConnectionState, error) {
	if err := l.flush(); err != nil {
		return tls.ConnectionState{}, err
	}
	l.r.Reset(l)
	t := tls.Server(l.base, c)
	if err := l.arm(time.Now().Add(handshake), 0); err != nil {
		return tls.ConnectionState{}, err
	}
	l.mu.Lock()
	l.giveTime(handshake)
	l.mu.Unlock()
	if err := t.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	l.conn = t
	return t.ConnectionState(), nil
}

// linger lets a client that still sends read our last line: closing a socket
// with input unread would reset the connection, and the line be lost. Under TLS the
// end is said in TLS, or it would look like that of somebody on the way (RFC 8446
// section 6.1).
func (l *link) linger() {
	half, ok := l.conn.(interface{ CloseWrite() error })
	if !ok || l.werr != nil || half.CloseWrite() != nil {
		return
	}
	l.base.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, l.conn, lingerMax)
}

// How long, and for how many octets, linger waits for the client to close.
const (
	lingerTime = time.Second
	lingerMax  = 1 << 20
)

// close ends the connection and gives everything back.
func (l *link) close() {
	l.conn.Close()
	l.finish()
	if l.r != nil {
		l.r.Reset(nil)
	}
	l.out = l.out[:0]
	l.park()
	if l.tap != nil {
		l.tap.Close()
		l.tap = nil
	}
}
