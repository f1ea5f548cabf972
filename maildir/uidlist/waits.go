package uidlist

import (
	"context"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Somebody else's lock costs time that nobody can explain who sees neither: an APPEND
// that takes two minutes, new mail that is not shown. So the log says who holds a lock
// for which somebody has waited for long, or in vain, and when one is taken away; and
// whoever waits may be told while he does (OnWait).

const (
	// longWait is how long a wait is that the log has a line about.
	longWait = 3 * time.Second
	// vainWait is the same for one that has come to nothing. A look at a mailbox waits
	// for a second.
	vainWait = 500 * time.Millisecond
	// toldFor is for how long no more is said of one lock, unless it was had meanwhile.
	toldFor = 10 * time.Minute
	// mostTold bounds how many locks are remembered to have been told of.
	mostTold = 1000

	// firstWord and nextWord are when who waits is told so.
	firstWord = 5 * time.Second
	nextWord  = 30 * time.Second
)

// met is the lock of somebody else, as it was found last.
type met struct {
	holder  string // what is in the file
	changed time.Time
}

func meet(content []byte, st unix.Stat_t) met {
	holder := strings.ToValidUTF8(string(content), "?")
	if len(holder) > 64 {
		holder = holder[:64]
	}
	return met{strings.TrimSpace(holder), latest(time.Unix(st.Mtim.Unix()), time.Unix(st.Ctim.Unix()))}
}

// log writes a line about the lock that is in the way.
func (l *Lock) log(message string) {
	if l.locks.Log != nil {
		l.locks.Log.Warn(message, "lock", l.dir.Path()+"/"+l.key.name, "holder", l.met.holder, "age", time.Since(l.met.changed).Round(time.Second))
	}
}

// tell logs, once, that the lock is not to be had.
func (l *Lock) tell(message string) {
	if l.met == (met{}) {
		return // left to others for a moment
	}
	t := l.locks
	t.mu.Lock()
	last, known := t.told[l.key]
	due := !known || time.Since(last) >= toldFor
	if due {
		if t.told == nil || len(t.told) >= mostTold {
			t.told = map[lockKey]time.Time{}
		}
		t.told[l.key] = time.Now()
	}
	t.mu.Unlock()
	if due {
		l.log(message)
	}
}

// had says that the lock was to be had: the next wait is another one.
func (l *Lock) had() {
	t := l.locks
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told != nil {
		delete(t.told, l.key)
	}
}

type waitKey struct{}

// OnWait returns a context under which whoever waits for a lock for long calls tell,
// and again from time to time, with how long he will wait yet. It is called by the
// goroutine that waits, while others may wait behind it, and must not block. With nil
// nothing is called.
func OnWait(ctx context.Context, tell func(left time.Duration)) context.Context {
	return context.WithValue(ctx, waitKey{}, tell)
}

// A Reminder is one wait under such a context, Ctx, which ends it. It begins when it
// is first asked something: mostly nobody has to wait.
type Reminder struct {
	Ctx context.Context

	tell func(left time.Duration)
	next time.Time
}

func (r *Reminder) begin() {
	if r.next.IsZero() {
		r.tell, _ = r.Ctx.Value(waitKey{}).(func(time.Duration))
		r.next = time.Now().Add(firstWord)
	}
}

// Due returns when Look has something to do, as a channel that is nil if never. stop
// ends it.
func (r *Reminder) Due() (due <-chan time.Time, stop func()) {
	r.begin()
	if r.tell == nil {
		return nil, func() {}
	}
	t := time.NewTimer(time.Until(r.next))
	return t.C, func() { t.Stop() }
}

// Look tells who waits, if it is time.
func (r *Reminder) Look() {
	r.begin()
	now := time.Now()
	if r.tell == nil || now.Before(r.next) {
		return
	}
	r.next = now.Add(nextWord)
	if end, ok := r.Ctx.Deadline(); ok && r.Ctx.Err() == nil {
		r.tell(end.Sub(now))
	}
}
