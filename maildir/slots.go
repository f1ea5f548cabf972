package maildir

import "context"

// A disk that hangs keeps whoever asks it for something, with a thread of the kernel
// for each. So operations take slots before they begin, and who finds none waits
// without a thread. Three bounds hold at once: of one user, so that one who opens a
// hundred sessions delays himself; of one file system, so that users whose mail lies
// elsewhere go on; and of the process, for where each user has a file system of his
// own (automounted homes, subvolumes of btrfs) one server that hangs is many of them.
//
// What counts is where the mail is: a control directory or an index elsewhere is
// worked on in the same slot.

// mostSlots bounds the operations of the process, unless one file system may have
// more. The Go runtime gives up at 10,000 threads.
const mostSlots = 1024

// A gate bounds how many operations of one user work on disk at a time.
type gate struct {
	slots chan struct{}
	turns chan struct{} // see turn
	refs  int           // mailboxes that are open; guarded by Host.mu
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
	slots chan struct{}
	refs  int // mailboxes that are open; guarded by Host.mu
}

// gate returns the gate of the user whose Maildir is root, with one more
// reference. h.mu is held.
func (h *Host) gate(root string) *gate {
	g := h.gates[root]
	if g == nil {
		g = &gate{slots: make(chan struct{}, h.opt.SlotsPerUser), turns: make(chan struct{}, 2)}
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
		d = &disk{slots: make(chan struct{}, h.opt.Slots)}
		h.disks[dev] = d
	}
	d.refs++
	return d
}

// ungate gives the references of m back. h.mu is held.
func (h *Host) ungate(m *Mailbox) {
	if m.gate.refs--; m.gate.refs == 0 {
		delete(h.gates, m.store.cfg.Root)
	}
	if m.disk.refs--; m.disk.refs == 0 {
		delete(h.disks, m.id.dev)
	}
}

// slot waits for a slot of the user, one of the disk and one of the process, and
// takes them; leave gives them back. It is the innermost lock.
func (m *Mailbox) slot(ctx context.Context) error {
	for i, slots := range m.bounds() {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			for _, taken := range m.bounds()[:i] {
				<-taken
			}
			return ctx.Err()
		}
	}
	return nil
}

func (m *Mailbox) leave() {
	for _, slots := range m.bounds() {
		<-slots
	}
}

func (m *Mailbox) bounds() *[3]chan struct{} {
	return &[3]chan struct{}{m.gate.slots, m.disk.slots, m.host.slots}
}
