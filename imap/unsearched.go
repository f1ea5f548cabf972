package imap

import (
	"hash/maphash"
	"sync"
	"time"

	"imapd/control"
	"imapd/maildir"
)

// A message that cannot be searched stays one, and a client that searches as its user
// types finds it with each letter. So the log has a line about it once.

const (
	// mostUnsearched bounds how many messages are remembered to have been told of; for
	// unsearchedFor after that no more is said.
	mostUnsearched = 1000
	unsearchedFor  = time.Hour
)

// unsearched are the messages of which the log has said that they cannot be searched.
// The zero value is ready for use.
type unsearched struct {
	mu   sync.Mutex
	seed maphash.Seed
	told map[uint64]struct{} // hashes of what a message is called
	full time.Time           // since when there is no room
}

// message says what a message is called in this process.
type message struct {
	user, mailbox string
	validity      uint32
	uid           maildir.UID
}

// first reports whether m is to be told of, and whether it is the last for some time.
func (u *unsearched) first(m message, now time.Time) (due, last bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.told == nil || len(u.told) == mostUnsearched && now.Sub(u.full) >= unsearchedFor {
		u.told, u.seed = map[uint64]struct{}{}, maphash.MakeSeed()
	}
	h := maphash.Comparable(u.seed, m)
	if _, known := u.told[h]; known || len(u.told) == mostUnsearched {
		return false, false
	}
	u.told[h] = struct{}{}
	if last = len(u.told) == mostUnsearched; last {
		u.full = now
	}
	return true, last
}

// logUnsearched writes a line about the message that x is at, which cannot be read for
// the reason err, unless there is one.
func (x *Searching) logUnsearched(err error) {
	due, last := x.srv.opt.Sessions.unsearched.first(message{x.userName(), x.boxName(), x.Box.view.Validity, x.Msg.UID}, time.Now())
	if due {
		x.log.Warn("message cannot be searched", "user", control.Name(x.userName()), "mailbox", control.Name(x.boxName()), "error", err)
	}
	if last {
		x.log.Warn("no more is said for some time of messages that cannot be searched", "messages", mostUnsearched)
	}
}
