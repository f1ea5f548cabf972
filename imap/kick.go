package imap

import (
	"sync"
	"sync/atomic"
	"time"
)

// Sessions are those of several Servers, which follow each other when the
// configuration is read again, by their ids. The zero value is ready for use.
type Sessions struct {
	begun      atomic.Uint64
	unsearched unsearched

	mu  sync.Mutex
	all map[string]*Session
}

// number returns the number of one more session.
func (l *Sessions) number() uint64 { return l.begun.Add(1) }

// End ends the session of that id for the administrator: with BYE, after the
// command that it runs, between two of its responses, or while it searches; one that
// has not come to that when shutdown_grace is over, or that is to end for the second
// time, in the middle of the command. It tells whether there is such a session.
func (l *Sessions) End(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.all[id]
	switch {
	case s == nil:
		return false
	case !s.kicked.CompareAndSwap(false, true):
		s.cutOff()
		return true
	}
	s.wake()
	if away := s.gone.Load(); away != nil {
		away.Kick()
	}
	time.AfterFunc(s.conf.ShutdownGrace, func() { l.cut(id) })
	return true
}

// cut ends the session of that id in the middle of its command, if it is there still.
func (l *Sessions) cut(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.all[id]; s != nil {
		s.cutOff()
	}
}

// cutOff cuts the session, wherever it goes on.
func (s *Session) cutOff() {
	s.cut()
	if away := s.gone.Load(); away != nil {
		away.Cut()
	}
}

func (l *Sessions) add(s *Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[string]*Session{}
	}
	l.all[s.id] = s
}

func (l *Sessions) remove(s *Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, s.id)
}
