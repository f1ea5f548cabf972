package maildir

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"imapd/maildir/tree"
	"imapd/maildir/uidlist"
	"imapd/maildir/unpack"
	"imapd/maildir/vfs"
)

// Errors that callers tell apart with errors.Is. Errors of the system, such as
// ENOSPC or EROFS, come through wrapped.
var (
	ErrNotFound    = tree.ErrNotFound
	ErrExists      = tree.ErrExists
	ErrHasChildren = tree.ErrHasChildren
	ErrLimit       = tree.ErrLimit // too many mailboxes
	ErrInbox       = errors.New("INBOX cannot be deleted")
	ErrGone        = errors.New("message has been expunged")
	ErrKeywords    = errors.New("no room for another keyword")
	ErrReadOnly    = errors.New("mailbox is read-only")
	ErrBusy        = tree.ErrBusy
	ErrNoUIDs      = errors.New("UIDs cannot be recorded")
	ErrUsedUp      = errors.New("all UIDs have been used")
	ErrDamaged     = unpack.ErrDamaged // a compressed message
	ErrTooBig      = unpack.ErrTooBig  // likewise
)

// Fsync says what is made durable before a command is answered OK. The data
// and names of APPEND, COPY and MOVE and the UID list always are, but for
// FsyncNever.
type Fsync uint8

const (
	FsyncOptimized Fsync = iota
	FsyncAlways          // renames for flags and unlinks as well
	FsyncNever           // nothing: for bulk imports
)

// Lock says what is done under dovecot-uidlist.lock.
type Lock uint8

const (
	LockAlways  Lock = iota // every rename and unlink: needed beside a live Dovecot
	LockNewUIDs             // only what gives UIDs or names keywords
)

// Options of a Host. The zero value is good.
type Options struct {
	Fsync    Fsync
	Lock     Lock
	ReadOnly bool // serve folders whose UIDs cannot be recorded
	// ImportIsync takes over UIDs of mbsync's native scheme.
	ImportIsync bool
	Poll        time.Duration // between looks at a watched mailbox; 0 means a minute
	NoNotify    bool          // poll only
	// FollowEarly is for processes that serve many clients: a large mailbox that was
	// selected is followed soon, in the background.
	FollowEarly bool
	LockWait    time.Duration // for dovecot-uidlist.lock; 0 means two minutes
	// IndexSingleHost promises that no other host opens a user's mailboxes, so
	// that imapd.index may lie where only this host sees it; see oneHistory.
	IndexSingleHost bool
	// Slots bounds the operations that work on one file system at the same time, so
	// that a hung disk does not become ten thousand threads. 0 means 64.
	Slots        int
	SlotsPerUser int                                // 0 means 8
	MaxMessage   int64                              // octets that a compressed message may hold; 0 means 4 GiB - 1
	Open         func(path string) (vfs.Dir, error) // nil means vfs.Open
	Log          *slog.Logger                       // nil means slog.Default

	granule time.Duration // what times of files are cut to, in tests; 0: they are taken as they are
}

// granule is Options.granule of every host of a program that the linker has built for
// a test: what package test races. There is no other way to set it.
var granule string

// cut returns the time of a file, in nanoseconds, as a file system with a coarser
// clock would have it.
func (o *Options) cut(t int64) int64 {
	if o.granule == 0 {
		return t
	}
	return t - t%int64(o.granule)
}

// OnWait returns a context under which commands that have to wait for the lock of a
// mailbox call tell, after some seconds and again from time to time, with how long they
// will wait before they give up. It is called by the goroutine that waits, and must
// not block, since others wait behind it.
func OnWait(ctx context.Context, tell func(left time.Duration)) context.Context {
	return uidlist.OnWait(ctx, tell)
}

// A Host is everything that this process holds of Maildirs: the open
// mailboxes, each once however many sessions have it selected, the locks, and
// the watch on the file system.
type Host struct {
	opt    Options
	locks  *uidlist.Locks // all that this process holds
	slots  chan struct{}  // see slot
	name   string         // of this machine, as it stands in file names
	hub    hub
	packed packedCache
	scans  atomic.Int64     // directories read
	clock  func() time.Time // for modseqs
	boot   func() [16]byte  // of the machine
	// localLocks is vfs.LocalLocks.
	localLocks func(fd int) bool
	early      sync.WaitGroup // goroutines that nobody waits for but Close; added to with mu, while not closed

	mu    sync.Mutex // held briefly, never over I/O
	boxes map[folderID]*Mailbox
	gates map[string]*gate  // by the root of the user's Maildir
	disks map[uint64]*disk  // by device
	homes map[string]uint64 // devices by directory; see learn
	// unclaimed remembers, of mailboxes that nobody has open, which messages
	// are not \Recent to anybody yet. A mailbox without such has no entry.
	unclaimed map[folderID]unclaimed
	// blamed are the folders of whose index the log says what is wrong; see blame.
	blamed map[folderID]struct{}
	rotten map[folderID]struct{} // likewise of damage that costs time only; see rotten

	// kept are the mailboxes without a reference, the longest unused first.
	kept       []*Mailbox
	keptOctets int // what all of them take in memory, roughly
	mostKept   int
	keptTimer  *time.Timer // closes the oldest; nil while there is none
	closed     bool        // nothing is kept any more
}

// unclaimed is Mailbox.recentFrom for one UIDVALIDITY.
type unclaimed struct {
	validity uint32
	from     UID
}

// folderID tells folders apart, whatever path they were reached by.
type folderID struct{ dev, ino uint64 }

// mostRemembered bounds what is remembered of folders that are not open: some of them
// are not there any more.
const mostRemembered = 10_000

// remember notes v of the folder id, and forgets another one if there are too many.
func remember[V any](of map[folderID]V, id folderID, v V) {
	if _, ok := of[id]; !ok && len(of) >= mostRemembered {
		for other := range of {
			delete(of, other)
			break
		}
	}
	of[id] = v
}

// NewHost returns a Host with nothing open.
func NewHost(o Options) *Host {
	if o.Poll == 0 {
		o.Poll = time.Minute
	}
	if o.LockWait == 0 {
		o.LockWait = 2 * time.Minute
	}
	if o.Slots == 0 {
		o.Slots = 64
	}
	if o.SlotsPerUser == 0 {
		o.SlotsPerUser = 8
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = defaultMaxMessage
	}
	if o.Open == nil {
		o.Open = vfs.Open
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if d, err := time.ParseDuration(granule); err == nil {
		o.granule = d
	}
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "localhost"
	}
	h := &Host{
		opt: o, locks: &uidlist.Locks{Log: o.Log}, slots: make(chan struct{}, max(o.Slots, mostSlots)), name: fileHost(name),
		boxes: map[folderID]*Mailbox{}, gates: map[string]*gate{}, disks: map[uint64]*disk{}, homes: map[string]uint64{},
		unclaimed: map[folderID]unclaimed{}, blamed: map[folderID]struct{}{}, rotten: map[folderID]struct{}{}, mostKept: mostKept(),
	}
	h.hub.host = h
	// With room for the two events of a rename nobody waits for nobody.
	h.hub.open = func() (*fsnotify.Watcher, error) { return fsnotify.NewBufferedWatcher(64) }
	h.clock, h.boot, h.localLocks = time.Now, bootID, vfs.LocalLocks
	return h
}

// fileHost writes '/' and ':' of a host name as Maildir's convention says.
func fileHost(name string) string {
	b := make([]byte, 0, len(name))
	for _, c := range []byte(name) {
		switch c {
		case '/':
			b = append(b, `\057`...)
		case ':':
			b = append(b, `\072`...)
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

// Close ends the watch and lets go of all folders. A mailbox that is released
// afterwards is closed at once.
func (h *Host) Close() error {
	h.dropKept()
	h.packed.close()
	return h.hub.close()
}
