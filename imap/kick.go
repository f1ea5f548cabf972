package imap

import "sync"

// Sessions are those of several Servers, which follow each other when the
// configuration is read again, by their ids. The zero value is ready for use.
type Sessions struct {
	mu  sync.Mutex
	all map[string]*Session
}

// End ends the session of that id for the administrator: with BYE, after the
// command that it runs, between two of its responses, or while it searches. It
// tells whether there is such a session that is not ending yet.
func (l *Sessions) End(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.all[id]
	if s == nil || !s.kicked.CompareAndSwap(false, true) {
		return false
	}
	s.wake()
	if away := s.gone.Load(); away != nil {
		away.Kick()
	}
	return true
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
