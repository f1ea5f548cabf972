package maildir

import (
	"time"

	"golang.org/x/sys/unix"
)

// What a scan has not seen may still be there, unless the scan was atomic.
//
// Of a message that clients know this costs nothing: it stays until its absence is
// certain. Of a line in the UID list above all that was published it is another
// matter. A message with a higher UID must not be published before: the file would
// find its UID passed by when it is seen at last, and get another one, and so would
// the other server's clients lose it. So a look that misses the file of such a
// line looks again, a few times without the lock and then with it, and keeps back
// the line and all above it while that proves nothing. A line without a file is
// common, too: a message that another server has delivered and expunged. Where
// scans are atomic, or events tell, it costs nothing either way.
//
// A mailbox that nobody has seen yet is shown whole or not at all: a client that
// knows it from the other server would take the rest for expunged.

// absence is how often and since when a file has not been seen.
type absence struct {
	scans int
	calm  int // of them, scans that nothing can have disturbed
	since time.Time
}

// The proof that a file is not there where scans are not atomic: calmScans that
// nothing can have disturbed, or anyScans in the course of spread, the last with
// the lock held.
const (
	calmScans = 2
	anyScans  = 5
	spread    = time.Second
)

// again returns the absence after one more scan.
func (a absence) again(calm bool) absence {
	if a.scans++; a.scans == 1 {
		a.since = time.Now()
	}
	if calm {
		a.calm++
	}
	return a
}

func (a absence) certain(locked bool) bool {
	return a.calm >= calmScans || locked && a.scans >= anyScans && time.Since(a.since) >= spread
}

// overdue reports whether a message would be known to be gone if the last scan had
// been made with the lock held.
func (m *Mailbox) overdue() bool {
	for _, a := range m.missing {
		if a.scans >= anyScans-1 && time.Since(a.since) >= spread {
			return true
		}
	}
	return false
}

// departed adds the messages to sv.gone that are gone for certain: of those that
// no scan has seen. See doc.go for when it is certain.
func (m *Mailbox) departed(snap *Snapshot, sv *survey, calm, locked bool) {
	if sv.told {
		return
	}
	still := map[UID]absence{}
	for i, seen := range m.seen {
		if seen {
			continue
		}
		msg := snap.At(i)
		if sv.atomic {
			sv.gone = append(sv.gone, msg.UID)
			continue
		}
		a := m.missing[msg.UID].again(calm)
		if a.certain(locked) && m.lacks(msg) {
			sv.gone = append(sv.gone, msg.UID)
			continue
		}
		still[msg.UID] = a
	}
	m.missing = still
}

// lacks reports whether the file of msg is not there under the name we know.
func (m *Mailbox) lacks(msg Message) bool {
	var st unix.Stat_t
	return unix.Fstatat(m.dirOf(msg.place()).Fd(), string(msg.name()), &st, unix.AT_SYMLINK_NOFOLLOW) == unix.ENOENT
}

// Between two looks for files: long enough that the second may be calm, not so
// short that a large directory is read for nothing.
const (
	shortPause = localSettle * 3 / 2
	longPause  = spread / (anyScans - 1)
	// freeLooks is how many are made without the lock before it is waited for.
	freeLooks = 3
)

// findFiles surveys the folder again until each line above all that was published
// has its file, or is known to have none. Without the lock it may end with lines
// that are left: then sv.held says from where on. before and begin are the stamp
// and the time before the survey, and follow.
func (m *Mailbox) findFiles(snap *Snapshot, sv *survey, before *stamp, begin *time.Time, locked bool) error {
	for pause, looks := shortPause, 1; ; pause, looks = min(2*pause, longPause), looks+1 {
		if sv.atomic || sv.told {
			m.unfound = nil
			return nil
		}
		after, err := m.stamp()
		if err != nil {
			return err
		}
		calm := *before == after && m.settled(after, *begin)
		last := locked || !m.lockable()
		still := map[UID]absence{}
		for _, u := range m.unfiled(snap, sv) {
			still[u] = m.unfound[u].again(calm)
			if !still[u].certain(last) && (sv.held == 0 || u < sv.held) {
				sv.held = u
			}
		}
		if m.unfound = still; sv.held == 0 {
			m.unfound = nil
			return nil
		}
		if !last && looks == freeLooks {
			return nil
		}
		time.Sleep(pause)
		*begin = fileTime()
		if *before, err = m.stamp(); err == nil {
			*sv, err = m.survey(snap, *before)
		}
		if err != nil {
			return err
		}
	}
}

// lockable reports whether the lock can be had at all.
func (m *Mailbox) lockable() bool {
	return unix.Faccessat(m.control.Fd(), ".", unix.W_OK, unix.AT_EACCESS) == nil
}

// unfiled returns the UIDs of the lines above all that snap knows whose file sv has
// not seen and, as scans are not atomic, may have missed. A list that is not loaded
// has none: it is as it was when all was known.
func (m *Mailbox) unfiled(snap *Snapshot, sv *survey) (left []UID) {
	l := m.list.lines
	if l == nil || !m.list.known || m.list.next() <= snap.Next {
		return nil
	}
	seen := make(map[UID]bool, len(sv.fresh))
	for _, f := range sv.fresh {
		seen[f.uid] = true
	}
	filled := cursor{s: snap.with(sv.filled)}
	for i, u := range l.uids {
		if u < snap.Next || seen[u] {
			continue
		}
		p := filled.page()
		for ; p != nil && UID(p.recs[filled.r].UID) < u; p = filled.page() {
			filled.next()
		}
		if p != nil && UID(p.recs[filled.r].UID) == u {
			continue
		}
		if l.index(); l.find(l.hashes[i]) == i { // else a later line has the file
			left = append(left, u)
		}
	}
	return left
}
