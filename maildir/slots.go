package maildir

import (
	"context"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A disk that hangs keeps whoever asks it for something, with a thread of the kernel
// for each. So operations take slots before they begin, and who finds none waits
// without a thread. Three bounds hold at once: of one user, so that one who opens a
// hundred sessions delays himself; of one file system, so that users whose mail lies
// elsewhere go on; and of the process, for where each user has a file system of his
// own (automounted homes, subvolumes of btrfs) one server that hangs is many of them.
//
// What counts is where the mail is: a control directory or an index elsewhere is
// worked on in the same slot.
//
// A slot is the innermost lock: whoever has one waits for no other slot, no Mailbox.mu
// and no dot lock, of which each attempt has a slot of its own. What follows upon the
// end of a slot, as unlocking does, has none: on a disk that hangs nobody comes so far.
//
// Before a folder is opened nobody knows its file system, and asking is what may hang.
// Then that of the Maildir counts, which is guessed from its path and what was found
// when others beside it were opened (learn).

// mostSlots bounds the operations of the process, unless one file system may have
// more. The Go runtime gives up at 10,000 threads.
const mostSlots = 1024

// mostHomes bounds what is learnt, where each user has a file system of his own.
const mostHomes = 10_000

// A gate bounds how many operations of one user work on disk at a time.
type gate struct {
	root  string
	slots chan struct{}
	turns chan struct{} // see turn

	// Guarded by Host.mu:
	refs    int        // mailboxes that are not closed, and operations of Stores
	closing []*Mailbox // to be closed, by one goroutine; see keep.go
}

// turn waits until at most one other session unpacks a message for this user: that
// may take 64 MB each. done ends the turn.
func (g *gate) turn(ctx context.Context) error {
	select {
	case g.turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) done() { <-g.turns }

// A disk bounds how many operations work on one file system at a time.
type disk struct {
	dev   uint64
	slots chan struct{}
	refs  int // as those of a gate; guarded by Host.mu
}

// gate returns the gate of the user whose Maildir is root, with one more
// reference. h.mu is held.
func (h *Host) gate(root string) *gate {
	g := h.gates[root]
	if g == nil {
		g = &gate{root: root, slots: make(chan struct{}, h.opt.SlotsPerUser), turns: make(chan struct{}, 2)}
		h.gates[root] = g
	}
	g.refs++
	return g
}

// disk returns the disk that is the device dev, with one more reference. h.mu is
// held.
func (h *Host) disk(dev uint64) *disk {
	d := h.disks[dev]
	if d == nil {
		d = &disk{dev: dev, slots: make(chan struct{}, h.opt.Slots)}
		h.disks[dev] = d
	}
	d.refs++
	return d
}

// ungate gives a reference to each back. h.mu is held.
func (h *Host) ungate(g *gate, d *disk) {
	if g.refs--; g.refs == 0 {
		delete(h.gates, g.root)
	}
	if d.refs--; d.refs == 0 {
		delete(h.disks, d.dev)
	}
}

// bounds are those of one operation: of its user, of its disk, of the process.
type bounds [3]chan struct{}

// enter waits for a slot of each and takes them.
func (b *bounds) enter(ctx context.Context) error {
	for i, slots := range b {
		select {
		case slots <- struct{}{}:
			continue // mostly, and several times as fast as with what follows
		default:
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			for _, taken := range b[:i] {
				<-taken
			}
			return ctx.Err()
		}
	}
	return nil
}

func (b *bounds) leave() {
	for _, slots := range b {
		<-slots
	}
}

// slot takes what an operation on m needs; leave gives it back.
func (m *Mailbox) slot(ctx context.Context) error {
	b := bounds{m.gate.slots, m.disk.slots, m.host.slots}
	return b.enter(ctx)
}

// await is slot for what no client can give up.
func (m *Mailbox) await() { m.slot(context.Background()) }

func (m *Mailbox) leave() {
	b := bounds{m.gate.slots, m.disk.slots, m.host.slots}
	b.leave()
}

// mailboxSlots is a Mailbox for those who try to lock it.
type mailboxSlots Mailbox

func (m *mailboxSlots) Enter(ctx context.Context) error { return (*Mailbox)(m).slot(ctx) }
func (m *mailboxSlots) Leave()                          { (*Mailbox)(m).leave() }

// slot takes what an operation needs that is not of one mailbox; leave gives it back.
func (s *Store) slot(ctx context.Context) (leave func(), err error) {
	h := s.host
	h.mu.Lock()
	g, d := h.gate(s.cfg.Root), h.disk(h.home(s.cfg.Root))
	h.mu.Unlock()
	b := bounds{g.slots, d.slots, h.slots}
	err = b.enter(ctx)
	leave = func() {
		if err == nil {
			b.leave()
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ungate(g, d)
	}
	if err != nil {
		leave()
	}
	return leave, err
}

// home returns the device on which root is likely to be; 0: nobody knows. h.mu is
// held.
func (h *Host) home(root string) uint64 {
	for dir := filepath.Clean(root); ; dir = filepath.Dir(dir) {
		if dev, ok := h.homes[dir]; ok || len(dir) <= 1 {
			return dev
		}
	}
}

// learn notes on which device root is, and with it all below the highest directory
// above it that is on the same; but not the root directory, below which all is.
func (h *Host) learn(root string) {
	var st unix.Stat_t
	if unix.Stat(root, &st) != nil {
		return // it is still to be made
	}
	dev := uint64(st.Dev)
	h.mu.Lock()
	known := h.home(root) == dev
	h.mu.Unlock()
	if known {
		return
	}
	top := filepath.Clean(root)
	for dir := filepath.Dir(top); len(dir) > 1 && unix.Stat(dir, &st) == nil && uint64(st.Dev) == dev; dir = filepath.Dir(dir) {
		top = dir
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.homes) >= mostHomes {
		clear(h.homes)
	}
	h.homes[top] = dev
}
