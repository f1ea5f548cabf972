package maildir

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/intents"
	"imapd/maildir/quota"
	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
)

// A Mailbox is one folder of mail, shared by the sessions of this process.
//
// What sessions read is the published Snapshot, without a lock. Everything else
// below mu belongs to whoever looks at the folder or edits it. Lock order: the
// lock file, mu, a disk slot.
type Mailbox struct {
	host     *Host
	store    *Store
	name     string
	id       folderID
	path     string    // it was opened by last; guarded by host.mu
	refs     int       // guarded by host.mu; 0: kept, see keep.go
	released time.Time // when refs became 0; guarded by host.mu
	weight   int       // what it takes in memory while it is kept; guarded by host.mu
	site     site
	gate     *gate
	disk     *disk

	dir, cur, new, tmp, control vfs.Dir
	indexDir                    vfs.Dir // where imapd.index is; nil: nowhere, for the reason noIndex
	noIndex                     error
	atomic                      bool // scans of cur and new are
	local                       bool // see localFiles

	snap atomic.Pointer[Snapshot] // nil until the first look

	mu       sync.Mutex
	list     list
	keys     keywordState
	past     history // see history.go
	restored bool    // the index has been looked for
	clean    stamp   // the folder as it was at the last look that left no doubt; zero: none
	locked   bool    // the lock is held by whoever holds mu, in an edit
	// foreignLocked says that the first look holds Courier's lock too.
	foreignLocked bool
	importing     map[string][]string // keywords by base name, to be taken over from Dovecot's index
	scanned       bool                // once at least, though it is large
	eventsOnly    bool                // this look reads no directory; see lookBack
	stuck         bool                // new -> cur was refused, do not try again until new/ changes
	moving        *intents.Held       // of a MOVE from here that goes on, or nil
	unfinished    bool                // the first look found something for redo
	undone        bool                // what a crash left cannot be finished; said once
	unlistable    bool                // the UID list cannot be written; said once
	mendFrom      time.Time           // it is not mended before, while it is so
	usedUp        bool                // no UID is left for what clients add; said once
	left          unclaimed           // what the Host remembered
	recentFrom    UID                 // UIDs from here on are not \Recent to anybody yet
	missing       map[UID]absence     // messages that no scan has seen
	unfound       map[UID]absence     // lines above all that was published, likewise
	freed         quota.Usage         // by unlink and \Deleted, not noted in maildirsize yet
	seen          []bool              // scratch of scans
	tidying       *time.Timer         // see keep.go
	compacting    bool                // compactInUse is to come; see compact.go
	compactFrom   time.Time           // the list is not written anew before
	found         []uint32            // UIDs in the order in which a scan found their files; nil: as in the index, or nobody knows
	disorder      bool                // the index says otherwise

	forgetful atomic.Bool // see Forgetful

	early    atomic.Bool // followEarly has been here, or will be
	uprooted atomic.Bool // another cur/ or new/ is in place; see inPlace
	// told says that the kernel tells of cur and new, unwatched that it does not and
	// that the log says so, claiming that it is being found out; guarded by the hub's mu.
	told, unwatched, claiming bool
	additions                 joint[adding]
	expunges                  joint[expunging]
	renames                   sharedSync
	spare                     uidlist.Spare // for the lock; safe without mu
	track                     tracker
	watch                     watchers
}

// Access says what a look may do.
type Access uint8

const (
	// Look gives UIDs to new messages but leaves them in new/ (EXAMINE, STATUS).
	Look Access = iota
	// Serve also moves messages from new/ to cur/ (SELECT).
	Serve
)

// A stamp tells whether a folder has changed: what stat(2) says of cur/, new/
// and the list.
type stamp struct {
	cur, new dirStamp
	list     fileStamp
}

type dirStamp struct {
	dev, ino uint64
	mtime    int64 // nanoseconds
}

type fileStamp struct {
	dev, ino, size uint64
	mtime, ctime   int64
}

const (
	// Kernels before 6.13 let the clock of files tick every 4 ms.
	localTick   = 4 * time.Millisecond
	localSettle = 10 * time.Millisecond
	// Inodes may have room for whole seconds only: those of ext3, and of an ext4 that
	// was made with 128 octets each, which calls itself what every ext4 does.
	secondSettle = time.Second + localSettle
	// Network file systems may have whole seconds, too, and another clock.
	distantSettle = 2 * time.Second
	// Nobody sets a clock back so far: a time that is farther ahead was set by hand.
	byHand = 24 * time.Hour
)

// stamp returns the folder's stamp, or ErrNotFound if it has been deleted.
func (m *Mailbox) stamp() (stamp, error) {
	var s stamp
	if m.uprooted.Load() {
		return s, openError(m.name, unix.ENOENT)
	}
	for _, d := range []struct {
		dir vfs.Dir
		to  *dirStamp
	}{{m.cur, &s.cur}, {m.new, &s.new}} {
		var st unix.Stat_t
		if err := unix.Fstat(d.dir.Fd(), &st); err != nil {
			return stamp{}, err
		}
		if st.Nlink == 0 {
			return stamp{}, openError(m.name, unix.ENOENT)
		}
		*d.to = dirStamp{uint64(st.Dev), st.Ino, m.host.opt.cut(st.Mtim.Nano())}
	}
	var st unix.Stat_t
	if unix.Fstatat(m.control.Fd(), uidlist.Name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		s.list = fileStamp{uint64(st.Dev), st.Ino, uint64(st.Size), m.host.opt.cut(st.Mtim.Nano()), m.host.opt.cut(st.Ctim.Nano())}
	}
	return s, nil
}

// listStamp returns the stamp of the list as it was read or written last.
func (m *Mailbox) listStamp() fileStamp {
	st := m.list.stat
	return fileStamp{st.Dev, st.Ino, uint64(st.Size), m.host.opt.cut(st.MtimeNs), m.host.opt.cut(st.CtimeNs)}
}

// settled reports whether s is too old to share a clock tick with a change that
// is still to come. A time ahead is no less so where it is a fine one, which does
// not come again after the clock was set back; of whole seconds all do.
func (m *Mailbox) settled(s stamp, now time.Time) bool {
	return m.aged(s.cur, now) && m.aged(s.new, now)
}

// aged is settled for one of the two directories.
func (m *Mailbox) aged(d dirStamp, now time.Time) bool {
	age, settle := now.Sub(time.Unix(0, d.mtime)), m.settle(d)
	switch {
	case age >= 0 || !m.local:
		return age >= settle
	case settle == localSettle:
		return -age >= settle
	}
	return -age >= byHand
}

// settle returns the age from which d is settled. A whole second is taken for all
// that its file system can say.
func (m *Mailbox) settle(d dirStamp) time.Duration {
	switch {
	case !m.local:
		return distantSettle
	case d.mtime%int64(time.Second) == 0:
		return secondSettle
	}
	return localSettle
}

// fileTime is the time that a file has which changes now: that of the last tick, which
// may be some ms ago, more under a hypervisor.
func fileTime() time.Time {
	var tick unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &tick) != nil {
		return time.Now()
	}
	return time.Unix(tick.Unix())
}

// Name returns the name that the mailbox was first opened by.
func (m *Mailbox) Name() string { return m.name }

// ReadOnly reports whether messages cannot be changed here.
func (m *Mailbox) ReadOnly() bool {
	m.await()
	defer m.leave()
	return unix.Faccessat(m.cur.Fd(), ".", unix.W_OK, unix.AT_EACCESS) != nil
}

// UIDsStick reports whether UIDs are the same in another session (RFC 9051
// section 7.1, UIDNOTSTICKY).
func (m *Mailbox) UIDsStick() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.list.file != nil
}

// Snapshot returns what has been published last.
func (m *Mailbox) Snapshot() *Snapshot { return m.snap.Load() }

// publish makes s the mailbox's snapshot and wakes those who wait for one. What
// has gone is in the history before anybody can miss it.
func (m *Mailbox) publish(s *Snapshot) {
	if old := m.snap.Swap(s); old != nil {
		close(old.stale)
		m.watch.tell()
		if s.Len() < old.Len() {
			m.compactSoon(s)
		}
	}
}

// begin finds out, after the first look, what nobody has seen yet: the mail
// that still lies in new/, and what was not claimed when the mailbox was open
// before.
func (m *Mailbox) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.Snapshot()
	if m.recentFrom != 0 || s == nil {
		return
	}
	m.recentFrom = s.Next
	if m.left.validity == s.Validity && !m.past.on {
		m.recentFrom = min(m.left.from, s.Next)
	}
	if s.sum.waiting > 0 {
		for _, msg := range s.Range(0, s.Len()) {
			if msg.place() == inNew {
				m.recentFrom = min(msg.UID, m.recentFrom)
				break
			}
		}
	}
}

// Recent returns the UIDs, from up to but not including to, that no session has
// claimed as \Recent yet.
func (m *Mailbox) Recent() (from, to UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.Snapshot().Next
	return min(m.recentFrom, next), next
}

// ClaimRecent returns what Recent does, for one session only: no other, in any
// process, will be given these UIDs.
func (m *Mailbox) ClaimRecent() (from, to UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.Snapshot().Next
	if m.recentFrom < next && m.past.on {
		m.await()
		defer m.leave()
		m.claimWithOthers(next)
	}
	from, m.recentFrom = min(m.recentFrom, next), next
	return from, next
}
