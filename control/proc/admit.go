package proc

import (
	"os"
	"syscall"
	"time"
)

// Admit makes user the session's user, unless there are as many sessions of
// the user as maxUser says, or as many users' from the session's host as
// maxHost says; 0 means any number. It returns how many there were: counted in
// all processes, for the same service, without this one.
//
// Two that come at the same time do not both get the last place: who counts
// holds a lock. Where the list cannot be read everybody is admitted.
func (e *Entry) Admit(user string, maxUser, maxHost int) (perUser, perHost int, ok bool) {
	if maxUser > 0 || maxHost > 0 {
		defer e.table.lock()()
		var err error
		perUser, perHost, err = e.table.Count(e.info.Service, user, e.info.Host)
		if err != nil {
			e.table.warn(err)
		}
		if maxUser > 0 && perUser >= maxUser || maxHost > 0 && perHost >= maxHost {
			return perUser, perHost, false
		}
	}
	e.Set(user, "", "")
	return perUser, perHost, true
}

// How often, and how long, lock tries.
const (
	lockTries = 400
	lockPause = 5 * time.Millisecond
)

// lock keeps other processes, and other sessions of this one, from counting
// until the function that it returns is called. One that is stopped while it
// holds the lock keeps nobody out for more than two seconds.
func (t *Table) lock() (unlock func()) {
	if t.dir == "" {
		return func() {}
	}
	dir, err := os.Open(t.dir)
	if err != nil {
		return func() {}
	}
	for range lockTries {
		// The lock belongs to the open directory, not to the process.
		if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil || err != syscall.EWOULDBLOCK && err != syscall.EINTR {
			break
		}
		time.Sleep(lockPause)
	}
	return func() { dir.Close() }
}
