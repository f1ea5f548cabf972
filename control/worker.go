package control

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"imapd/control/config"
	"imapd/control/privsep"
	"imapd/control/telemetry"
)

// A Worker is the Source of the process that serves one user: sessions that
// have logged in in the front.
type Worker struct {
	feed *privsep.Channel
	conf *config.Config
	log  *slog.Logger
	// patience is how long a worker without sessions waits for the next:
	// clients come back, and its caches are warm.
	patience time.Duration

	mu       sync.Mutex
	sessions int
	received uint32
	idle     *time.Timer
	down     bool   // there is a shutdown notice
	text     string // its text
	changed  chan struct{}
	ending   chan struct{} // closed when the server ends
	ended    bool          // it is closed
}

// A Taken is a session that another process has handed over, as its Conn knows
// it.
type Taken struct {
	Handover
	// Identity is who has logged in, in JSON, as the process that checked the
	// password has told the parent.
	Identity []byte

	channel *privsep.Channel
	log     telemetry.Far
	said    string // to the list of who is on, last

	mu     sync.Mutex
	kicked bool
	onKick func()
}

// newWorker returns the Source of this process. Without a session for as long as
// -T says it is let go.
func (m *member) newWorker(conf *config.Config, o *Options, log *slog.Logger) (*Worker, error) {
	feed, err := privsep.NewChannel(m.Files[0])
	if err != nil {
		return nil, err
	}
	w := &Worker{feed: feed, conf: conf, log: log, patience: math.MaxInt64, changed: make(chan struct{}), ending: make(chan struct{})}
	if o.Timeout > 0 {
		w.patience = time.Duration(o.Timeout) * time.Second
	}
	w.idle = time.AfterFunc(w.patience, w.tellIdle)
	return w, nil
}

// tellIdle tells the parent that there is no session, and how many there were:
// it knows whether one more is on its way.
func (w *Worker) tellIdle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sessions == 0 {
		_ = w.feed.TrySend(binary.BigEndian.AppendUint32(nil, w.received)) // the parent is gone: so are we soon
	}
}

// Run serves sessions until the parent sends no more, and those that are there
// have ended.
func (w *Worker) Run(ctx context.Context, h Handler) error {
	stir, still := rest()
	defer still()
	var all sync.WaitGroup
	defer all.Wait()
	defer w.idle.Stop()
	for {
		identity, files, err := w.feed.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("sessions from the parent: %w", err)
		}
		if len(files) != 1 {
			privsep.Close(files)
			return errors.New("malformed session from the parent")
		}
		if w.received == 0 {
			if err := w.confine(identity); err != nil {
				privsep.Close(files)
				return err
			}
		}
		w.mu.Lock()
		w.received++
		w.sessions++
		w.idle.Stop()
		w.mu.Unlock()
		stir()
		all.Go(func() {
			defer stir()
			defer w.over()
			channel, err := privsep.NewChannel(files[0])
			if err == nil {
				err = w.serve(ctx, h, identity, channel, stir)
			}
			if err != nil {
				w.log.Error("a session is not taken over", "err", err)
			}
		})
	}
}

func (w *Worker) over() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sessions--; w.sessions == 0 {
		w.idle.Reset(w.patience)
	}
}

// serve serves one session, whose identity the parent has told; see rest for stir.
func (w *Worker) serve(ctx context.Context, h Handler, identity []byte, channel *privsep.Channel, stir func()) error {
	defer channel.Close()
	t := &Taken{Identity: identity, channel: channel}
	timer := time.AfterFunc(handoverTime, func() { channel.Close() })
	c, err := t.open()
	timer.Stop()
	if err != nil {
		return err
	}
	defer c.Close()
	defer t.log.Close()
	w.notice(t.Shutdown, t.Down)
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var hearing sync.WaitGroup
	defer hearing.Wait()
	defer channel.Close()
	hearing.Go(func() {
		// The front is gone, or has waited long enough: whatever it does, the
		// session must end.
		defer c.Close()
		defer end()
		w.hear(t, end)
	})
	h.Serve(ctx, &Conn{Conn: c, Host: t.Host, TLS: t.TLS, ProxyTLS: t.ProxyTLS, Private: t.Private, Taken: t, stir: stir})
	return nil
}

// open takes what the front sends to begin with, and returns the connection.
func (t *Taken) open() (net.Conn, error) {
	for {
		message, files, err := t.channel.Recv()
		if err != nil {
			return nil, err
		}
		defer privsep.Close(files)
		if message[0] != sayOpening {
			t.telemetry(message[0], files)
			continue
		}
		if err := json.Unmarshal(message[1:], &t.Handover); err != nil || len(files) != 1 {
			return nil, errors.New("malformed session")
		}
		return net.FileConn(files[0])
	}
}

// telemetry takes what the front says about the log of the session.
func (t *Taken) telemetry(what byte, files []*os.File) {
	switch {
	case what == sayLog && len(files) == 1:
		t.log.Take(files[0])
	case what == sayNoLog:
		t.log.Take(nil)
	}
}

// hear takes what the front says about a session until that is over.
func (w *Worker) hear(t *Taken, end func()) {
	for {
		message, files, err := t.channel.Recv()
		if err != nil {
			return
		}
		t.telemetry(message[0], files)
		privsep.Close(files)
		switch message[0] {
		case sayShutdown:
			w.notice(string(message[1:]), true)
		case sayOpen:
			w.notice("", false)
		case sayEnd:
			w.end()
		case sayKick:
			t.kick()
		case sayCut:
			end()
		}
	}
}

// end has all sessions end: they are the front's, and it ends.
func (w *Worker) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.ended = true
		close(w.ending)
	}
}

// Ending returns what is closed when the sessions of source have to end after
// the command that each runs: ctx is done, or another process says so.
func Ending(ctx context.Context, source Source) <-chan struct{} {
	w, ok := source.(*Worker)
	if !ok {
		return ctx.Done()
	}
	context.AfterFunc(ctx, w.end)
	return w.ending
}

// notice takes the state of the shutdown notice, as any of the sessions hears
// it.
func (w *Worker) notice(text string, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.text == text && w.down == down {
		return
	}
	w.text, w.down = text, down
	close(w.changed)
	w.changed = make(chan struct{})
}

// The methods that follow are those of notices, for sessions of this process.

// Motd says nothing: the front has shown it before the login.
func (w *Worker) Motd() (string, bool) { return "", false }

// Shutdown returns the shutdown notice.
func (w *Worker) Shutdown() (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text, w.down
}

// Refresh does nothing: the front looks.
func (w *Worker) Refresh() {}

// Close does nothing.
func (w *Worker) Close() {}

// Changed returns a channel that is closed when the notice has changed.
func (w *Worker) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// Accept tells the front that the session goes on here. Only then may anything
// be read or written.
func (t *Taken) Accept() error { return t.channel.Send([]byte{sayTaken}) }

// Decline gives the session back: the front answers the client.
func (t *Taken) Decline(why string) error {
	return t.channel.Send(append([]byte{sayNo}, why...))
}

// Ended tells the front that the log says of the session's end.
func (t *Taken) Ended() {
	_ = t.channel.TrySend([]byte{sayEnded}) // the front is gone, or far behind: nothing depends on it
}

// Log returns the telemetry of the session.
func (t *Taken) Log() *telemetry.Far { return &t.log }

// OnKick has end called, soon or at once, when the administrator ends the
// session.
func (t *Taken) OnKick(end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.onKick = end; t.kicked {
		end()
	}
}

func (t *Taken) kick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kicked = true; t.onKick != nil {
		t.onKick()
	}
}

// Present says, for the list of who is on, which mailbox is selected and what
// command the session is at.
func (t *Taken) Present(mailbox, command string) {
	said := mailbox + "\x00" + command
	if said == t.said || len(said) > maxPresent {
		return
	}
	t.said = said
	_ = t.channel.TrySend(append([]byte{sayPresent}, said...)) // the list is late then
}
