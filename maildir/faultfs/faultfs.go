// Package faultfs is a vfs for tests: it makes chosen calls fail, dies in the
// middle of them, and knows what a power cut would leave.
//
// An FS stands before the real file system. While it is armed it counts the
// calls of all its directories and files together, and asks for each what is
// to happen to it:
//
//   - An error: the call does nothing and returns it; a write does half of its
//     work first, and a Close closes all the same.
//   - ErrKilled: the call does nothing, and neither does any later one that
//     changes something. The code above unwinds, and the files stay as they
//     would after kill -9. ErrTorn is the same in the middle of a write.
//
// It also records the calls, and says which trees a machine may find that lost
// its power behind any of them: see State.
package faultfs

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"imapd/maildir/vfs"
)

// Errors with which a call ends the process, as far as files can tell.
var (
	ErrKilled = errors.New("killed")
	ErrTorn   = fmt.Errorf("in the middle of a write: %w", ErrKilled)
)

// A Call is one call of a method of vfs.Dir or vfs.File.
type Call struct {
	N       int    // from 1, since the FS was armed
	Op      string // "create", "write", "sync", ...: the method in lower case
	Path    string // as far as it is known
	Changes bool   // changes files, or makes changes durable
}

func (c Call) String() string { return fmt.Sprintf("call %d, %s %s", c.N, c.Op, c.Path) }

// An FS is the file system as one process sees it. The zero value is ready: it
// counts nothing and lets everything pass. It is safe for use by several
// goroutines.
type FS struct {
	mu    sync.Mutex
	fault func(Call) error
	armed bool
	n     int
	dead  bool
	hit   Call
	start *State // nil unless the calls are recorded
	keep  string // where the recorded files are linked to; see Record
	log   []func(*State)
}

// Open opens the directory at path; it is what Host and Tree take as Open.
func (f *FS) Open(path string) (vfs.Dir, error) {
	if err := f.try("open", path, false); err != nil {
		return nil, err
	}
	d, err := vfs.Open(path)
	if err != nil {
		return nil, err
	}
	return f.wrap(d)
}

// Arm begins to count, from 1, and to ask fault what becomes of each call; nil
// lets them pass.
func (f *FS) Arm(fault func(Call) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed, f.fault, f.n, f.hit = true, fault, 0, Call{}
}

// Disarm lets all calls pass again, unless the process has been killed.
func (f *FS) Disarm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = false
}

// Count returns how many calls there were since the FS was armed.
func (f *FS) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// Hit returns the last call that was made to fail; its N is 0 if there is none.
func (f *FS) Hit() Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hit
}

// Dead reports whether the process has been killed.
func (f *FS) Dead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// At returns a fault of the one call n.
func At(n int, err error) func(Call) error {
	return func(c Call) error {
		if c.N != n {
			return nil
		}
		return err
	}
}

// Always returns a fault of all calls of one kind.
func Always(op string, err error) func(Call) error {
	return func(c Call) error {
		if c.Op != op {
			return nil
		}
		return err
	}
}

// Full returns the fault of a disk that has no room from the call n on: nothing
// can be made or written, but removed, renamed and cut short.
func Full(n int, err error) func(Call) error {
	return func(c Call) error {
		if c.N < n {
			return nil
		}
		switch c.Op {
		case "create", "write", "mkdir", "link":
			return err
		}
		return nil
	}
}

// try counts a call and returns what is to become of it.
func (f *FS) try(op, path string, changes bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead && changes {
		return ErrKilled
	}
	if !f.armed {
		return nil
	}
	f.n++
	if f.fault == nil {
		return nil
	}
	c := Call{f.n, op, path, changes}
	err := f.fault(c)
	if err != nil {
		f.hit = c
		f.dead = f.dead || errors.Is(err, ErrKilled)
	}
	return err
}

// note records a call that was made, if somebody wants to know.
func (f *FS) note(apply func(*State)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.start != nil {
		f.log = append(f.log, apply)
	}
}

// Record begins to record the calls that change something below root, where
// everything counts as durable now. keep, unless empty, is an empty directory of
// the same file system that is given a link to each file that is or will be there:
// it is what Tree.Return needs.
func (f *FS) Record(root, keep string) error {
	s, err := load(root, keep)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.start, f.keep, f.log = s, keep, nil
	return nil
}

// kept links the new file name of d, if its calls are recorded.
func (f *FS) kept(d vfs.Dir, name string, id key) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.start == nil || f.keep == "" {
		return nil
	}
	return os.Link(d.Path()+"/"+name, id.in(f.keep))
}

// Recorded returns how many calls have been recorded.
func (f *FS) Recorded() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.log)
}

// Replay makes the recorded calls once more, in memory, and calls visit before
// the first and behind each with their number and what the disk holds then.
// It ends the record.
func (f *FS) Replay(visit func(done int, now *State)) {
	f.mu.Lock()
	s, log := f.start, f.log
	f.start, f.log = nil, nil
	f.mu.Unlock()
	visit(0, s)
	for i, apply := range log {
		apply(s)
		visit(i+1, s)
	}
}
