package control

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

// A guest is a connection that has come in.
type guest struct {
	*admission
	ctx    context.Context
	door   door
	socket net.Conn
	stir   func() // see rest
	leave  func() // closes the connection and takes it out of all counts
}

// visit is the goroutine of one connection. Its frame lies below every session
// that waits: hence no defer, and little in it.
func (l *Listener) visit(h Handler, g *guest, t *ticket) {
	if conn := l.welcome(g, h, t); conn != nil {
		h.Serve(g.ctx, conn)
	}
	g.leave()
}

// welcome makes a Conn of a guest, or returns nil where it is of no use.
func (l *Listener) welcome(g *guest, h Handler, t *ticket) *Conn {
	keepAlive(g.socket, g.conf.TCPKeepalive)
	conn := newConn(g.socket)
	conn.stir, conn.loggedIn, conn.moved = g.stir, t.loggedIn, t.move
	ok, err := g.admit(g.ctx, conn, g.door.tls)
	if err != nil {
		l.refuse(g.door, g.socket, conn.Host, h, err)
	}
	if !ok {
		return nil
	}
	return conn
}

// keepAlive has TCP ask a client that has been silent for idle whether it is
// still there; 0 turns that off. A socket that takes no keep-alive serves as
// well.
func keepAlive(c net.Conn, idle time.Duration) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: idle > 0, Idle: idle, Interval: time.Minute, Count: 5})
	}
}

// startTLS does the handshake of a connection that is under TLS from its first
// octet, and tells whether it is. The session logs it, with its id.
func (c *Conn) startTLS(ctx context.Context, conf *tls.Config, limit time.Duration, log *slog.Logger) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := tls.Server(c.Conn, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		level := slog.LevelInfo
		if gone(err) {
			level = slog.LevelDebug // a look whether we listen
		}
		log.Log(ctx, level, "TLS handshake", "host", c.Host, "err", err)
		return false
	}
	c.Conn, c.TLS = t, true
	return true
}

// A tally counts refused connections. A flood of them must not become a flood of
// log lines: each line is about one, and says how many more there were since the
// line before.
type tally struct {
	mu     sync.Mutex
	untold int // refused since the last line
	host   string
	why    error       // of the last of them
	due    *time.Timer // of the next line; nil where it need not wait
}

// tallyTime is the least time between two lines.
const tallyTime = 10 * time.Second

func (t *tally) add(log *slog.Logger, host string, why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.untold++
	t.host, t.why = host, why
	if t.due == nil {
		t.tell(log)
		t.due = time.AfterFunc(tallyTime, func() { t.again(log) })
	}
}

// again tells of those that have been refused meanwhile.
func (t *tally) again(log *slog.Logger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.due == nil {
		return
	}
	if t.untold == 0 {
		t.due = nil
		return
	}
	t.tell(log)
	t.due.Reset(tallyTime)
}

// end tells of those of whom no line has told yet.
func (t *tally) end(log *slog.Logger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.due != nil {
		t.due.Stop()
		t.due = nil
	}
	if t.untold > 0 {
		t.tell(log)
	}
}

// tell needs mu.
func (t *tally) tell(log *slog.Logger) {
	log.Warn("connection refused", "host", t.host, "err", t.why, "more", t.untold-1)
	t.untold = 0
}

// refuse tells a client that it cannot be served. Under TLS it is told nothing:
// the handshake would cost what is being saved.
func (l *Listener) refuse(d door, c net.Conn, host string, h Handler, err error) {
	defer c.Close()
	l.refused.add(l.log, host, err)
	var why Refusal
	if d.tls || !errors.As(err, &why) {
		return
	}
	if c.SetWriteDeadline(time.Now().Add(refuseTime)) == nil {
		_, _ = c.Write([]byte(h.Refuse(why))) // who does not listen need not know
	}
}
