// Package admin is imapctl(8), the administrator's tool: the program itself,
// and what it talks to in a running daemon.
//
// Most of it needs no daemon, because a site where a launcher starts a process
// for each client has none: who reads the files of control/proc, and asks daemons
// only for what they could not write there, motd and shutdown write files below
// msg/, telemetry makes directories below log/, and kick sends a signal to a process
// that serves one client. What only a daemon can do (end one of its sessions, reload, drain) goes over a socket, and so does
// a session for the administrator where there is a daemon. Each subcommand is one
// file with one register row, which holds the client's half and, if there is one,
// the daemon's.
//
// # The socket
//
// A daemon listens on the unix socket {configdirectory}/socket/imapctl.PID,
// which only its own user may open. A second name of the socket, imapctl, leads to the daemon
// that was started last. One that has handed its listeners over to a newer one
// is still reached by its number, as long as it has sessions.
//
// Who connects must be root or the user who serves, as the kernel says
// (SO_PEERCRED). A connection is one request and its answer:
//
//	request = word [TAB argument] LF          at most 1024 octets, within 10 s
//	answer  = *("* " text LF) ("OK" / "NO") SP text LF
//
// The request who is answered with "OK listed" where the files of control/proc are
// right, else with all sessions, a line of JSON each, and "OK complete"; the request
// shutdown with the name of the service. The request session is answered with OK,
// and the connection is then that of an IMAP client who is greeted with PREAUTH.
//
// Each connection has a goroutine of the Server's, which Close waits for. There
// are at most 64 at a time.
package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Command is one subcommand of imapctl.
type Command struct {
	// Name, Args and Help are what `imapctl help` says of it.
	Name, Args, Help string
	// Options are the letters of options without an argument, Long the words
	// that may be written with "--" instead; see options.
	Options []option
	// Min and Max bound the number of arguments; Max is -1 for any.
	Min, Max int
	// Run is the client's half.
	Run func(*call) error
	// Serve is the daemon's half, nil where there is none: the answer's text,
	// or why it is NO.
	Serve func(context.Context, *Server, *request) (string, error)
	// Quiet says that Serve changes nothing, and is not logged.
	Quiet bool
}

// An option of a subcommand.
type option struct{ short, long string }

// commands is what the files of this package register, by name.
var commands = map[string]Command{}

// register adds a subcommand. It is called before main begins.
func register(c Command) Command {
	commands[c.Name] = c
	return c
}

// names returns the names of all subcommands in order.
func names() []string {
	var all []string
	for name := range commands {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// Exit codes, as sysexits.h names them.
const (
	exitOK          = 0
	exitUsage       = 64 // a wrong option, subcommand or argument
	exitNoInput     = 66 // nothing to look at
	exitNoUser      = 67 // nobody of that name is on
	exitUnavailable = 69 // no daemon answers, or it refuses
	exitOS          = 71 // the system refused something
	exitNoPerm      = 77 // not root, nor the user who serves
	exitConfig      = 78 // the configuration is wrong
)

// A failure is why a subcommand failed, with the exit code.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(code int, format string, args ...any) error {
	return &failure{code, fmt.Errorf(format, args...)}
}

// errSaid is a failure of which all has been said.
var errSaid = errors.New("said")

// errAnswered tells that a request has been answered already.
var errAnswered = errors.New("answered")

// printable returns what another program said fit for a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || 0x7f <= r && r < 0xa0 || r == '\ufffd' {
			return '?'
		}
		return r
	}, s)
}
