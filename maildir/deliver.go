package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"imapd/maildir/intents"
	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
)

// serial tells apart the names that this process makes in one microsecond.
var serial atomic.Uint64

// freshName returns a name that no file has, without the size fields.
func (h *Host) freshName() string {
	now := time.Now()
	b := strconv.AppendInt(make([]byte, 0, 64), now.Unix(), 10)
	b = append(b, ".M"...)
	b = strconv.AppendInt(b, int64(now.Nanosecond()/1000), 10)
	b = append(b, 'P')
	b = strconv.AppendInt(b, int64(os.Getpid()), 10)
	b = append(b, 'Q')
	b = strconv.AppendUint(b, serial.Add(1), 10)
	b = append(b, '.')
	return string(append(b, h.name...))
}

// freshBase returns a base name that neither a file nor a line of m has.
func (h *Host) freshBase(m *Mailbox) string {
	for {
		if b := h.freshName(); !m.list.has(b) {
			return b
		}
	}
}

func withSizes(name string, size, virtual int64) string {
	b := append([]byte(name), ",S="...)
	b = strconv.AppendInt(b, size, 10)
	b = append(b, ",W="...)
	return string(strconv.AppendInt(b, virtual, 10))
}

// A Delivery is a message on its way into a mailbox: a file in tmp/. It is used
// by one goroutine.
type Delivery struct {
	m       *Mailbox
	ctx     context.Context // of the command that brings it
	file    vfs.File
	tmp     string // name in tmp/
	buf     *[]byte
	size    int64 // octets on disk
	virtual int64 // octets as sent, with CRLF
	held    bool  // a CR is held back: it goes if a LF follows
	last    byte  // of what is on disk
	err     error
}

const deliveryBuffer = 64 << 10

var deliveryBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, deliveryBuffer)
	return &b
}}

// NewMessage makes a file in tmp/ to write a message to. Abort must be called in
// the end, whatever happens.
func (m *Mailbox) NewMessage(ctx context.Context) (*Delivery, error) {
	if err := m.slot(ctx); err != nil {
		return nil, err
	}
	defer m.leave()
	name := m.host.freshName()
	f, err := vfs.CreateLike(m.tmp, name)
	if err != nil {
		return nil, err
	}
	return &Delivery{m: m, ctx: ctx, file: f, tmp: name, buf: deliveryBuffers.Get().(*[]byte)}, nil
}

var crlf = []byte("\r\n")

// Write adds p to the message. CRLF is stored as LF; a CR that stands alone
// stays. An error sticks.
func (d *Delivery) Write(p []byte) (int, error) {
	n := len(p)
	if d.err != nil || n == 0 {
		return 0, d.err
	}
	if d.held && p[0] != '\n' {
		d.put(crlf[:1])
	}
	if d.held = p[n-1] == '\r'; d.held {
		p = p[:n-1]
	}
	for d.err == nil {
		i := bytes.Index(p, crlf)
		if i < 0 {
			d.put(p)
			break
		}
		d.put(p[:i])
		p = p[i+1:]
	}
	if d.err != nil {
		return 0, d.err
	}
	return n, nil
}

func (d *Delivery) put(p []byte) {
	for len(p) > 0 && d.err == nil {
		b := *d.buf
		n := copy(b[len(b):cap(b)], p)
		*d.buf, p = b[:len(b)+n], p[n:]
		if len(*d.buf) == cap(b) {
			d.flush()
		}
	}
}

func (d *Delivery) flush() {
	b := *d.buf
	if len(b) == 0 || d.err != nil {
		return
	}
	d.size += int64(len(b))
	d.virtual += int64(len(b) + bytes.Count(b, crlf[1:]) - bytes.Count(b, crlf))
	if d.last == '\r' && b[0] == '\n' {
		d.virtual--
	}
	d.last = b[len(b)-1]
	*d.buf = b[:0]
	if d.err = d.m.slot(d.ctx); d.err != nil {
		return
	}
	defer d.m.leave()
	_, d.err = d.file.Write(b)
}

// finish makes the data durable, gives the file its date, and closes it. To do it
// again does nothing.
func (d *Delivery) finish(date time.Time) error {
	if d.file == nil {
		return d.err
	}
	if d.held {
		d.held = false
		d.put(crlf[:1])
	}
	d.flush()
	if d.err == nil {
		d.err = d.settle(date)
	}
	return d.err
}

// settle is what finish does once all is written.
func (d *Delivery) settle(date time.Time) error {
	if err := d.m.slot(d.ctx); err != nil {
		return err
	}
	defer d.m.leave()
	if err := d.file.SetTime(date); err != nil {
		return err
	}
	if d.m.host.opt.Fsync != FsyncNever {
		// All of it, not fdatasync: the date is part of the message.
		if err := d.file.Sync(); err != nil {
			return err
		}
	}
	err := d.file.Close()
	d.file = nil
	d.recycle()
	return err
}

// recycle gives the buffer back.
func (d *Delivery) recycle() {
	if d.buf != nil {
		*d.buf = (*d.buf)[:0]
		deliveryBuffers.Put(d.buf)
		d.buf = nil
	}
}

// Abort removes what is left of the message in tmp/. After a successful Append
// it does nothing.
func (d *Delivery) Abort() {
	if d.file != nil || d.tmp != "" {
		d.discard()
	}
	d.recycle()
	if d.err == nil {
		d.err = fs.ErrClosed
	}
}

// discard removes the file, also for a client that has gone.
func (d *Delivery) discard() {
	d.m.await()
	defer d.m.leave()
	if d.file != nil {
		d.file.Close()
		d.file = nil
	}
	if d.tmp != "" {
		d.m.tmp.Unlink(d.tmp)
		d.tmp = ""
	}
}

// Appending is a message to be added: what was written and what it gets.
type Appending struct {
	*Delivery
	Flags FlagSet
	Date  time.Time // INTERNALDATE; zero means now
}

// Finish makes the data durable and gives back what the message holds but for its
// file, so that others may follow it. Nothing can be written to it any more.
func (a *Appending) Finish() error {
	if a.Date.IsZero() {
		a.Date = time.Now()
	}
	return a.finish(a.Date)
}

// Append adds msgs, which were made by m.NewMessage, in their order. It adds all
// of them or none, and they are durable when it returns.
func (m *Mailbox) Append(ctx context.Context, msgs []Appending) (validity uint32, uids []UID, err error) {
	for i := range msgs {
		if err := msgs[i].Finish(); err != nil {
			return 0, nil, err
		}
	}
	var held *intents.Held
	defer func() { held.Close() }()
	a := &adding{prepare: func(map[string]bool) (add []newcomer, err error) {
		add = make([]newcomer, len(msgs))
		for i := range msgs {
			if add[i], err = m.arriving(&msgs[i]); err != nil {
				return nil, err
			}
		}
		held = m.intendPlacing(add)
		return add, nil
	}}
	err = m.arrive(ctx, len(msgs), a)
	held.Done()
	if err != nil {
		return 0, nil, err
	}
	m.arrived(msgs)
	return a.validity, a.uids, nil
}

// A newcomer is a message that admit gives a name and a UID.
type newcomer struct {
	base  string
	extra string // fields of its line in the UID list
	marks Marks
	put   func(name string) error // places the file in cur/ under name
	from  vfs.Dir                 // where the file is that gets the name
	name  string                  // that it has there
}

// admit places the files of all, makes names and UIDs durable and publishes, in this
// order. Each is placed whole or not at all, and then its error says why; where
// admit fails itself none is there. The lock and m.mu are held, and the list was read
// under them.
func (m *Mailbox) admit(all []*adding) error {
	var add []newcomer
	single := true
	for _, a := range all {
		add = append(add, a.add...)
		single = single && len(a.add) == 1 && !a.copies
	}
	if len(add) == 0 {
		for _, a := range all {
			a.validity = m.list.head.Validity
		}
		return nil
	}
	snap := m.Snapshot()
	next := max(snap.Next, m.list.next())
	if err := m.recordOverflow(add); err != nil {
		return err
	}
	entries := make([]entry, 0, len(add))
	lines := make([]uidlist.Entry, 0, len(add))
	for _, a := range all {
		placed, err := m.place(a, next+UID(len(entries)))
		if a.err = err; err != nil {
			continue
		}
		for i, e := range placed {
			lines = append(lines, uidlist.Entry{UID: uint32(e.uid), Base: a.add[i].base, Extra: a.add[i].extra})
		}
		entries = append(entries, placed...)
	}
	if len(entries) == 0 {
		return nil
	}
	for _, a := range all {
		if a.err == nil && a.placed != nil {
			a.placed()
		}
	}
	if err := m.makeDurable(lines, single); err != nil {
		return errors.Join(err, m.retract(entries))
	}
	_, err := m.record(snap, nil, entries, next+UID(len(entries)))
	return err
}

// place gives the messages of a their names in cur/, and the UIDs from next on.
func (m *Mailbox) place(a *adding, next UID) ([]entry, error) {
	if len(a.add) > uidsFrom(next) {
		m.sayUsedUp()
		return nil, fmt.Errorf("%s: %w", m.name, ErrUsedUp)
	}
	placed := make([]entry, 0, len(a.add))
	a.validity, a.uids = m.list.head.Validity, make([]UID, 0, len(a.add))
	for _, n := range a.add {
		name := withFlags(n.base, n.marks.Flags)
		if err := n.put(name); err != nil {
			return nil, errors.Join(err, m.retract(placed))
		}
		m.own(created, inCur, name)
		e := newEntry(next+UID(len(placed)), inCur, name, n.marks)
		e.facts.Saved = uint32(time.Now().Unix())
		placed = append(placed, e)
		a.uids = append(a.uids, e.uid)
	}
	return placed, nil
}

// sayUsedUp says in the log why nothing can be added.
func (m *Mailbox) sayUsedUp() {
	if !m.usedUp {
		m.usedUp = true
		m.host.opt.Log.Warn("all UIDs have been used, no message can be added before the mailbox has a new UIDVALIDITY",
			"mailbox", m.name, "uidvalidity", m.list.head.Validity)
	}
}

// makeDurable makes the names in cur/ durable, and the lines, which it appends to
// the UID list. That is the commit of what must be placed whole, so the names come
// first. Where, with single, each message is for itself the list does: a journaling file system
// has the names on disk with it, and syncing them finds nothing left to do. A power
// cut between the two leaves a line without a file, which means nothing.
func (m *Mailbox) makeDurable(lines []uidlist.Entry, single bool) error {
	list := func() error { return m.list.append(m.control, lines) }
	steps := []func() error{m.cur.Sync, list}
	switch {
	case m.host.opt.Fsync == FsyncNever:
		steps = steps[1:]
	case single:
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// retract removes files that were placed for a command that failed. Nobody has been
// told of them.
func (m *Mailbox) retract(placed []entry) error {
	var errs []error
	for _, e := range placed {
		err := m.cur.Unlink(e.name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		if err == nil {
			m.own(unlinked, inCur, e.name)
		}
	}
	return errors.Join(errs...)
}
