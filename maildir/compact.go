package maildir

import (
	"context"
	"time"

	"imapd/maildir/intents"
)

// The line of a message stays in dovecot-uidlist when the message goes: to take it out
// is to write the file anew. Where nobody does, the list of a folder through which mail
// passes grows for ever, and is read by everybody who opens the folder. So once many
// lines are of messages that are gone the list is written without them. Dovecot does
// the same, and reads a list that was replaced from its beginning.
//
// Which lines may go: those below UIDNEXT whose UID the snapshot does not have.
// Whoever published that UIDNEXT had proof of each of them that it has no file, however
// hard that is to come by where scans are not atomic (unfound.go), and clients count
// the message as expunged. Should a file of that base name come, it gets a new UID
// whether the line is there or not. Everything else stays as it is, octet for octet:
// other lines, the fields of the header but N. N is above all UIDs, so that none is
// given again; what was expunged and when is in the index, not here.
//
// One thing was known by the old lines only: that a base name is not free. Once they are
// gone a MOVE there and back can give a base name to another UID. Who has the folder
// open and has not looked since would take the file for the message that it was. So an
// edit that meets a new list looks first (heedList).
//
// It is done when nobody waits for it: when the last session of a mailbox has gone, and
// else a second after a message has. It needs the lock, and gives up if that is not to be
// had at once.

const (
	// fewDead is how many lines without a message do not matter: 70 KB.
	fewDead = 1000
	// deadShare is which part of the list they must be: a fourth, as for Dovecot. So a
	// message costs to remove, besides its own line, at most three lines to be copied.
	deadShare = 4

	// compactAfter is how long after a message has gone in a mailbox that is in use: the
	// client shall have its answer, and most often more messages go.
	compactAfter = time.Second
	// compactWait is how long the lock is waited for.
	compactWait = time.Second
	// compactAgain is how long after a failure it is tried again. The disk is full, perhaps.
	compactAgain = 10 * time.Minute
)

// overlong reports whether so many lines of the list are of messages that s does not
// have that it is to be written anew.
func (m *Mailbox) overlong(s *Snapshot) bool {
	l := &m.list
	if s == nil || l.file == nil || l.damaged {
		return false
	}
	dead := l.count - s.Len()
	return dead >= fewDead && dead >= l.count/deadShare && !time.Now().Before(m.compactFrom)
}

// compactSoon has the list of a mailbox that is in use written anew, if it is time, now
// that s is published. m.mu is held.
func (m *Mailbox) compactSoon(s *Snapshot) {
	if !m.compacting && m.overlong(s) {
		m.compacting = true
		time.AfterFunc(compactAfter, m.compactInUse)
	}
}

func (m *Mailbox) compactInUse() {
	m.mu.Lock()
	m.compacting = false
	m.mu.Unlock()
	if !m.host.hold(m) {
		return // nobody uses it: it is tidied up
	}
	defer m.host.early.Done()
	defer m.Release()
	m.compactList()
}

// compactList writes the list anew if it is time. Nothing is held.
func (m *Mailbox) compactList() {
	m.mu.Lock()
	due := m.overlong(m.Snapshot())
	m.mu.Unlock()
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), compactWait)
	defer cancel()
	lock, err := m.lock(ctx)
	if err != nil {
		return // somebody is at work, or has made the folder read-only
	}
	defer lock.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.slot(ctx) != nil {
		return
	}
	defer m.leave()
	if err := m.dropLines(); err != nil {
		m.compactFrom = time.Now().Add(compactAgain)
		m.host.opt.Log.Warn("cannot shorten the UID list", "mailbox", m.name, "err", err)
	}
}

// dropLines is compactList with the lock, m.mu and a disk slot held. It leaves a list
// that is not as the last look found it, and one that whoever finishes or undoes what
// was begun may ask.
func (m *Mailbox) dropLines() error {
	l, s := &m.list, m.Snapshot()
	if _, err := m.stamp(); err != nil || intents.Waiting(m.control) {
		return nil // the folder has been deleted, or something goes on
	}
	if err := l.read(m.control); err != nil {
		return err
	}
	if !m.overlong(s) || l.again || s.Validity != l.head.Validity || l.next() > s.Next {
		return nil
	}
	before := m.listStamp()
	err := l.compact(m.control, func(u UID) bool {
		_, ok := s.Find(u)
		return ok || u >= s.Next
	})
	if err == nil && m.clean.list == before {
		m.clean.list = m.listStamp()
	}
	return err
}
