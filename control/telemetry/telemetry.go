// Package telemetry keeps the protocol logs: while the directory log/USER
// exists below the configuration directory, everything that a session of USER
// reads and writes after its login goes, in clear, into a file there.
//
// The directory turns the log on and off, for sessions in progress too. Who
// watches log/ calls Logs.Scan when something changed there (and now and then
// without being told); a session holds a Tap, hands it all that passes, and
// pays one atomic load for it where there is no log.
//
// A log never costs a session more than time: at the first error (a full
// disk) it ends, and the session goes on without.
package telemetry

import (
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options say where logs are kept.
type Options struct {
	// Dir is the configuration directory. Where it is empty nothing is ever
	// logged.
	Dir string
	// BySession names files by session id instead of process id.
	BySession bool
	// Log is told about files that cannot be made or written. It may be nil.
	Log *slog.Logger
}

// Logs are the protocol logs of this process. The methods may be called from
// any number of goroutines.
type Logs struct {
	opt Options

	// Held for moments only: a disk of logs that hangs must not keep those out who
	// have none there.
	mu    sync.Mutex
	users map[string]*user // those with an open Tap
	names map[string]int   // files named by process id, per user whose directory exists
}

// user is what Logs knows of a user with sessions.
type user struct {
	sessions int // guarded by Logs.mu

	mu   sync.Mutex // held while the disk is asked; before Logs.mu
	taps map[*Tap]struct{}
}

// New returns the logs below opt.Dir. There is nothing to close but the Taps.
func New(opt Options) *Logs {
	return &Logs{opt: opt, users: map[string]*user{}, names: map[string]int{}}
}

// Open returns the Tap of a session that has just authenticated as the
// canonical user name. session is its id, used where files are named so. The
// caller closes the Tap at LOGOUT and UNAUTHENTICATE. The zero Tap, and that of
// a user whose name is no plain file name, never logs.
func (l *Logs) Open(name, session string) *Tap {
	return l.open(&Tap{logs: l, user: name, session: session})
}

func (l *Logs) open(t *Tap) *Tap {
	if l.opt.Dir == "" || !plain(t.user) {
		return t
	}
	l.mu.Lock()
	u := l.users[t.user]
	if u == nil {
		u = &user{taps: map[*Tap]struct{}{}}
		l.users[t.user] = u
	}
	u.sessions++
	l.mu.Unlock()
	t.owner = u
	u.mu.Lock()
	defer u.mu.Unlock()
	u.taps[t] = struct{}{}
	l.follow(t.user, u)
	return t
}

// leave ends the log of t, if it has not ended.
func (l *Logs) leave(t *Tap) {
	u := t.owner
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, open := u.taps[t]; !open {
		return
	}
	t.end()
	delete(u.taps, t)
	l.mu.Lock()
	defer l.mu.Unlock()
	if u.sessions--; u.sessions == 0 {
		delete(l.users, t.user)
	}
}

// Scan looks which users' directories exist, opens logs where one appeared and
// ends them where it is gone or another took its place.
func (l *Logs) Scan() {
	if l.opt.Dir == "" {
		return
	}
	l.mu.Lock()
	names := maps.Clone(l.names)
	l.mu.Unlock()
	there := map[string]bool{}
	entries, err := os.ReadDir(filepath.Join(l.opt.Dir, "log"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	// Any other error leaves the list short (log/ may be searched but not
	// read): the directories of all users with sessions are tried by name.
	for _, e := range entries {
		there[e.Name()] = true
	}
	l.mu.Lock()
	for name, n := range names {
		if err == nil && !there[name] && l.names[name] == n { // else a new one was there meanwhile
			delete(l.names, name)
		}
	}
	users := maps.Clone(l.users)
	l.mu.Unlock()
	for name, u := range users {
		u.mu.Lock()
		if err != nil || there[name] || u.logged() {
			l.follow(name, u)
		}
		u.mu.Unlock()
	}
}

// logged tells whether one of the sessions holds a file, or gave up on one. u.mu is
// held.
func (u *user) logged() bool {
	for t := range u.taps {
		if t.place != (place{}) {
			return true
		}
	}
	return false
}

// follow makes the logs of one user's sessions what the directory asks for.
// u.mu is held.
func (l *Logs) follow(name string, u *user) {
	dir, err := unix.Open(filepath.Join(l.opt.Dir, "log", name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		for t := range u.taps {
			t.end()
		}
		return
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return
	}
	place := place{uint64(st.Dev), st.Ino}
	for t := range u.taps {
		if t.place == place && !lost(t.file.Load()) {
			continue // logs there, or had to give up there
		}
		t.end()
		f, err := l.create(dir, t)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the directory has been removed since it was opened
		}
		t.place = place
		if err != nil {
			l.warn("telemetry log not opened", t, err)
			continue
		}
		t.file.Store(f)
		if t.give != nil {
			t.give(f)
		}
	}
}

// create opens the file for t in the directory dir and writes the header.
func (l *Logs) create(dir int, t *Tap) (*os.File, error) {
	f, err := open(dir, l.name(t))
	if err != nil {
		return nil, err
	}
	header := "---------- " + t.user + " " + time.Now().Format(time.ANSIC) + "\n\n"
	if err := write(f, []byte(header), nil); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// name returns the name of the next file for t: the process id, and for the
// user's n-th further session in this process the process id and n.
func (l *Logs) name(t *Tap) string {
	if l.opt.BySession && plain(t.session) {
		return t.session
	}
	l.mu.Lock()
	n := l.names[t.user]
	l.names[t.user]++
	l.mu.Unlock()
	return fileName(os.Getpid(), n)
}

func (l *Logs) warn(what string, t *Tap, err error) {
	if l.opt.Log != nil {
		l.opt.Log.Warn(what, "user", t.user, "err", err)
	}
}

// plain tells whether name can be the name of a file and nothing else.
func plain(name string) bool {
	if name == "" || name == "." || name == ".." || len(name) > 255 {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r < ' ' || r == 0x7f })
}
