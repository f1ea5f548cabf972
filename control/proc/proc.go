// Package proc is the list of who is on: one small file for each session of
// each process, in the directory proc below the configuration directory, as
// Cyrus keeps them. Its own cyr_info proc and cyr_deny read ours, and ours is
// read by everything here that asks about other processes.
//
// A file is named by the process id. Its first line is Cyrus's:
//
//	service TAB client's host TAB user TAB mailbox TAB command LF
//
// The second, which Cyrus does not look at, has what we want to know besides:
// the session id, when the session began (Unix seconds) and when its process
// was started (clock ticks since the system's start), which tells a file that
// a crash left behind from that of a process to which the number was given
// since.
//
// A process that serves several clients at a time names their files PID.n. It
// must have none of the plain name: cyr_deny ends the process in whose file it
// finds the user. Cyrus's programs pass such names over.
//
// The second line ends in spaces: see file.go.
//
// Files are written aside, with a dot before their names and .new behind, and renamed, so that a reader
// sees one line or the other. There are no goroutines: a session that waits costs its file and the
// few words of an Entry.
package proc

import (
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Info is what is known of a session. Text that a client chose is as in the
// file: without control characters.
type Info struct {
	PID     int
	ID      string // n where the file is named PID.n, else empty
	Service string // imap, imaps: as the launcher calls it
	Host    string // as in log lines
	User    string // empty before login
	Mailbox string // that is selected, or empty
	Command string // "Idle" or empty
	Since   time.Time
	Session string // the session id; empty for another program's session
}

// A Table is the list as one process sees it: its own sessions, and the files
// of all. Its methods may be called by any number of goroutines.
type Table struct {
	dir string
	log *slog.Logger

	mu        sync.Mutex
	several   bool
	last      int // n of the last file named PID.n
	entries   map[*Entry]struct{}
	warned    bool
	closed    bool
	lastSpare int    // n of the last file named PID.n.new
	resting   []file // to be written again, that which has rested for longest first
}

// Open returns the Table of the files in dir, which is made when it is first
// written to. Nothing is listed where dir is empty. A directory that cannot be
// written costs no session: log is told once.
func Open(dir string, log *slog.Logger) *Table {
	return &Table{dir: dir, log: log, entries: map[*Entry]struct{}{}}
}

// Several says that this process serves several clients at a time. It is called
// before the first Begin.
func (t *Table) Several() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.several = true
}

// An Entry is one session of this process in the list. One goroutine at a time
// may call its methods.
type Entry struct {
	table *Table
	name  string // of the file; empty where there is none
	file  file   // zero until it is written
	info  Info   // changed under table.mu, since Count reads it
}

// Begin lists a session from its first moment on. PID and ID of i are filled
// in, as is Since where it is zero. The caller calls End.
func (t *Table) Begin(i Info) *Entry {
	e := &Entry{table: t}
	if t.dir == "" {
		return e
	}
	i.PID, i.ID = os.Getpid(), ""
	if i.Since.IsZero() {
		i.Since = time.Now()
	}
	e.name = strconv.Itoa(i.PID)
	t.mu.Lock()
	if t.several || len(t.entries) > 0 {
		t.last++
		i.ID = strconv.Itoa(t.last)
		e.name += "." + i.ID
	}
	e.info = i
	t.entries[e] = struct{}{}
	t.mu.Unlock()
	e.write()
	return e
}

// Set says what the session is at now: who has logged in, which mailbox is
// selected, and Idle or nothing. Nothing is written where nothing changed.
func (e *Entry) Set(user, mailbox, command string) {
	if e.name == "" || e.info.User == user && e.info.Mailbox == mailbox && e.info.Command == command {
		return
	}
	e.table.mu.Lock()
	e.info.User, e.info.Mailbox, e.info.Command = user, mailbox, command
	e.table.mu.Unlock()
	e.write()
}

// Move says that the client is at host.
func (e *Entry) Move(host string) {
	if e.name == "" {
		return
	}
	e.table.mu.Lock()
	e.info.Host = host
	e.table.mu.Unlock()
	e.write()
}

// End takes the session off the list.
func (e *Entry) End() {
	if e.name == "" {
		return
	}
	e.table.mu.Lock()
	delete(e.table.entries, e)
	e.table.mu.Unlock()
	e.leave()
	e.name = ""
}

// start is when this process was started, in clock ticks since the system's start; 0,
// without /proc, is no process's.
var start = sync.OnceValue(func() uint64 {
	at, _ := started(os.Getpid())
	return at
})

// warn tells once that sessions are not listed.
func (t *Table) warn(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.log != nil && !t.warned {
		t.warned = true
		t.log.Warn("who is on is not listed", "dir", t.dir, "err", err)
	}
}

// Complete returns all sessions of this process, and true, where the files may not
// tell of all of them, because one could not be written since the start. It returns
// nothing where they do.
func (t *Table) Complete() ([]Info, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.warned {
		return nil, false
	}
	all := make([]Info, 0, len(t.entries))
	for e := range t.entries {
		i := e.info
		for _, s := range []*string{&i.Service, &i.Host, &i.User, &i.Mailbox, &i.Command, &i.Session} {
			*s = field(*s)
		}
		all = append(all, i)
	}
	return all, true
}

// text returns the content of the file. start is that of the process.
func (i *Info) text(start uint64) string {
	return strings.Join([]string{field(i.Service), field(i.Host), field(i.User), field(i.Mailbox), field(i.Command)}, "\t") + "\n" +
		strings.Join([]string{field(i.Session), strconv.FormatInt(i.Since.Unix(), 10), strconv.FormatUint(start, 10)}, "\t") + "\n"
}

// field returns s without what would end the field or the line, or upset the
// terminal of who reads it.
func field(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
