package control

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imapd/control/privsep"
)

// A session begins in the front, and after the login goes on in the process of
// its user: the front hands over the connection with what it has read of it
// already. A connection in the clear goes away as a descriptor. TLS stays, since
// its keys do: the front gives away one end of a socket pair and copies between
// the other and the client. A Channel for each session outlives the handover;
// when either side closes it the session is over.

// A Handover is a session at the moment of its login. The command that logged
// in has been read whole and is not answered yet.
type Handover struct {
	Session string // its id
	Tag     string // of the command
	Mech    string // for the log
	Host    string // Conn.Host
	TLS     bool   // the client is under TLS
	Private bool
	// ProxyTLS is that of Conn.
	ProxyTLS bool
	// What the session has come to, for the line that tells of its end: octets of
	// Input are not counted in In.
	Commands int
	In, Out  int64
	Input    []byte // what the client has sent behind the command
	// Preauth is set where there was no command: the client has to be greeted,
	// with the message of the day behind the greeting.
	Preauth bool
	Motd    string
	// Shutdown is the text of the shutdown notice; Down tells whether there is one.
	// Nobody may have told the worker of the last change.
	Shutdown string
	Down     bool
}

// What the two sides of a session tell each other, by the first octet.
const (
	sayOpening  = 'o' // front: the Handover, with the connection
	sayTaken    = 'y' // worker: the session goes on here
	sayNo       = 'n' // worker: it cannot; the client is the front's again
	sayEnded    = 'e' // worker: the session has ended, and the log says so
	sayPresent  = 'p' // worker: mailbox, NUL, command, for the list of who is on
	sayShutdown = 'S' // front: the shutdown notice's text
	sayOpen     = 's' // front: there is none any more
	sayEnd      = 'B' // front: the server ends, say goodbye after the command
	sayCut      = 'C' // front: and now
	sayKick     = 'K' // front: the administrator ends this session
	sayLog      = 'T' // front: the telemetry file that comes with this
	sayNoLog    = 't' // front: no telemetry any more
)

// maxPresent is the most octets that a worker says for the list of who is on. More in
// a file of that list would have its readers pass the session over.
const maxPresent = 4096

// handoverTime is how long a worker may take to take a session: its process
// starts, and opens the mail.
const handoverTime = 60 * time.Second

// ErrDeclined says that a worker does not take a session. It has logged why.
var ErrDeclined = errors.New("the worker has refused the session")

// An Away is a session that goes on in another process.
type Away struct {
	channel *privsep.Channel
	unlend  func()        // ends the telemetry
	ended   chan struct{} // closed when it is over
	pumps   sync.WaitGroup
	plain   net.Conn // our end of the pair that the worker reads; nil without TLS
	client  net.Conn
	linger  time.Duration // see listen
	told    bool          // the worker has said that it has ended; set before ended is closed
	severed atomic.Bool   // it is we who have closed the channel
}

// A Home is what stays in the front of a session that has gone away.
type Home struct {
	// Present is called with what the worker says of the session, for the
	// list of who is on.
	Present func(mailbox, command string)
	// Lend begins the telemetry: give takes the files, or nil, now and later.
	// What it returns ends it.
	Lend func(give func(*os.File)) (end func())
}

// HandOver gives a session to the worker that ticket stands for. top is what the
// session has read from: the connection, or TLS over it. After an error the
// session is still the caller's; after none nobody but the Away touches the
// connection.
func (s *Stdio) HandOver(ctx context.Context, ticket []byte, top net.Conn, h Handover, home Home) (*Away, error) {
	_, files, err := s.member.ask(append([]byte{askWorker}, ticket...))
	if err == nil && len(files) != 1 {
		privsep.Close(files)
		err = syscall.EIO
	}
	if err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	a := &Away{ended: make(chan struct{}), client: top, linger: pumpLinger}
	if a.channel, err = privsep.NewChannel(files[0]); err != nil {
		return nil, err
	}
	a.unlend = home.Lend(a.log)
	if err := a.open(ctx, top, h); err != nil {
		a.unlend()
		a.channel.Close()
		if a.plain != nil {
			a.plain.Close()
		}
		return nil, err
	}
	if a.plain == nil {
		top.Close() // the worker has it
	} else {
		a.pump()
	}
	go a.hear(home.Present) // ends with the channel
	return a, nil
}

// log sends the file of the telemetry, or that there is none any more.
func (a *Away) log(f *os.File) {
	if f == nil {
		_ = a.channel.TrySend([]byte{sayNoLog}) // the file ends here
		return
	}
	_ = a.channel.TrySend([]byte{sayLog}, f) // a session that does not listen has no log
}

// open sends the session and waits for the worker to take it.
func (a *Away) open(ctx context.Context, top net.Conn, h Handover) error {
	theirs, err := a.passable(top)
	if err != nil {
		return err
	}
	defer theirs.Close()
	message, err := json.Marshal(h)
	if err == nil {
		err = a.channel.Send(append([]byte{sayOpening}, message...), theirs)
	}
	if err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	defer context.AfterFunc(ctx, func() { a.channel.Close() })()
	timer := time.AfterFunc(handoverTime, func() { a.channel.Close() })
	defer timer.Stop()
	for {
		reply, files, err := a.channel.Recv()
		privsep.Close(files)
		switch {
		case err != nil:
			return fmt.Errorf("the worker has not taken the session: %w", err)
		case reply[0] == sayTaken:
			return nil
		case reply[0] != sayPresent: // which is of a login that may yet fail
			return fmt.Errorf("%w: %s", ErrDeclined, Escape(string(reply[1:])))
		}
	}
}

// passable returns a descriptor from which the worker reads what the client
// says in the clear.
func (a *Away) passable(top net.Conn) (*os.File, error) {
	if _, secret := top.(*tls.Conn); !secret {
		if f, ok := top.(interface{ File() (*os.File, error) }); ok {
			return f.File() // its own duplicate
		}
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "client"), os.NewFile(uintptr(fds[1]), "client")
	a.plain, err = net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, err
	}
	return theirs, nil
}

// hear takes what the worker says, until the session is over.
func (a *Away) hear(present func(mailbox, command string)) {
	defer close(a.ended)
	defer a.pumps.Wait()
	defer a.unlend()
	defer a.channel.Close()
	for {
		message, files, err := a.channel.Recv()
		privsep.Close(files)
		if err != nil {
			return
		}
		if message[0] == sayEnded {
			a.told = true
		}
		if message[0] == sayPresent && len(message) <= 1+maxPresent && present != nil {
			mailbox, command, _ := strings.Cut(string(message[1:]), "\x00")
			present(mailbox, command)
		}
	}
}

// Ended is closed when the session is over and its connection closed.
func (a *Away) Ended() <-chan struct{} { return a.ended }

// Lost tells, of a session that is over, whether its process has died with it and
// left nothing about it in the log.
func (a *Away) Lost() bool { return !a.told && !a.severed.Load() }

// End has the session say goodbye after the command that it runs.
func (a *Away) End() {
	_ = a.channel.TrySend([]byte{sayEnd}) // fails where it has ended
}

// Kick has this session end for the administrator.
func (a *Away) Kick() {
	_ = a.channel.TrySend([]byte{sayKick}) // fails where it has ended
}

// Cut has the session say goodbye now. One that does not is cut off.
func (a *Away) Cut() {
	_ = a.channel.TrySend([]byte{sayCut}) // fails where it has ended
	time.AfterFunc(cutTime/2, func() {
		a.severed.Store(true)
		a.channel.Close()
		if a.plain != nil { // the copying ends, whatever the worker does
			a.plain.Close()
			a.client.Close()
		}
	})
}

// Shutdown tells the session of the shutdown notice, or that there is none.
func (a *Away) Shutdown(text string, down bool) {
	message := []byte{sayOpen}
	if down {
		message = append([]byte{sayShutdown}, text...)
	}
	if err := a.channel.TrySend(message); errors.Is(err, unix.EAGAIN) {
		a.severed.Store(true)
		a.channel.Close() // it does not listen
	}
}
