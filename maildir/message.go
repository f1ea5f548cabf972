package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"imapd/imap/body"
	"imapd/maildir/index"
	"imapd/maildir/unpack"
	"imapd/maildir/vfs"
)

// fact is what has been found out about a file. It is a cache, in the records of
// the snapshot: the file is the truth, and is asked again where a fact is missing.
type fact struct {
	date    int64 // seconds since 1970
	size    int64 // octets on disk
	virtual int64 // octets as sent; -1: not known
	counted bool  // virtual comes from reading the file
}

// facts returns what the record of m knows.
func (m Message) facts() index.Facts {
	m.page.mu.Lock()
	defer m.page.mu.Unlock()
	return m.rec.Facts
}

// fact returns what the record of m knows, false if that is nothing.
func (m Message) fact() (fact, bool) {
	f := m.facts()
	if f.Size == index.NoSize {
		return fact{}, false
	}
	x := fact{date: int64(f.Date), size: int64(f.Size), virtual: -1}
	if v := f.Virtual &^ index.Counted; v != index.NoVirtual {
		x.virtual, x.counted = int64(v), f.Virtual&index.Counted != 0
	}
	return x, true
}

// learn notes f in the record of m, unless more is known, and returns what is
// known then. What does not fit into a record is not kept.
func (m Message) learn(f fact) fact {
	old, known := m.fact()
	if known && (old == f || old.counted && !f.counted && old.size == f.size && old.date == f.date) {
		return old
	}
	if f.date < 0 || f.date > math.MaxUint32 || f.size >= index.NoSize {
		return f
	}
	virtual := uint32(index.NoVirtual)
	if f.virtual >= 0 && f.virtual < index.NoVirtual {
		virtual = uint32(f.virtual)
		if f.counted {
			virtual |= index.Counted
		}
	}
	p := m.page
	p.mu.Lock()
	defer p.mu.Unlock()
	m.rec.Date, m.rec.Size, m.rec.Virtual = uint32(f.date), uint32(f.size), virtual
	p.newer = true
	return f
}

// learn notes f for the message u, in the snapshot that is published and in msg,
// which may be of an older one.
func (m *Mailbox) learn(msg Message, f fact) fact {
	if now, ok := m.Snapshot().lookup(msg.UID); ok && now.rec != msg.rec {
		now.learn(f)
	}
	return msg.learn(f)
}

// fact returns what stat(2) says of the file of msg, from the cache if it can.
func (m *Mailbox) fact(msg Message) (fact, error) {
	if f, ok := msg.fact(); ok {
		return f, nil
	}
	ctx := context.Background()
	var f fact
	err := m.withFile(ctx, msg, func(dir vfs.Dir, name string) error {
		var st unix.Stat_t
		if err := unix.Fstatat(dir.Fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		f = factOf(&st, msg.base())
		if f.virtual < 0 {
			f.virtual = packedSize(dir, name, &st, msg.base())
		}
		return nil
	})
	if err == nil {
		m.learn(msg, f)
	}
	return f, err
}

// factOf believes the W= of a name only if its S= is the size of the file and
// the two can be of one message.
func factOf(st *unix.Stat_t, base []byte) fact {
	return fact{date: st.Mtim.Sec, size: st.Size, virtual: claimedSize(base, st.Size)}
}

// withFile calls fn with the directory and name of the file of msg, and again
// with its new name while fn fails with ENOENT and the message still exists.
func (m *Mailbox) withFile(ctx context.Context, msg Message, fn func(vfs.Dir, string) error) error {
	for try := 0; ; try++ {
		if err := m.slot(ctx); err != nil {
			return err
		}
		err := fn(m.dirOf(msg.place()), string(msg.name()))
		m.leave()
		if !errors.Is(err, unix.ENOENT) {
			return err
		}
		if try == tries {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.lost([]UID{msg.UID}) {
				return fmt.Errorf("%s: UID %d: %w", m.name, msg.UID, ErrGone)
			}
			return m.unsteady()
		}
		m.distrust(try)
		// Whoever reads a message may be in the middle of a response.
		if serr := m.Sync(OnWait(ctx, nil), Look); serr != nil {
			return serr
		}
		now, ok := m.Snapshot().lookup(msg.UID)
		if !ok || m.Snapshot().Validity == 0 {
			return fmt.Errorf("%s: UID %d: %w", m.name, msg.UID, ErrGone)
		}
		msg = now
	}
}

// distrust has the next look find out: a file was not where we believed it, for
// the try-th time.
func (m *Mailbox) distrust(try int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clean = stamp{}
	if try > 0 {
		m.track.unsound()
	}
}

// Date returns the INTERNALDATE of msg, which is the time of its file, in whole
// seconds. The error is ErrGone if the message is.
func (m *Mailbox) Date(msg Message) (time.Time, error) {
	f, err := m.fact(msg)
	return time.Unix(f.date, 0), err
}

// Size returns the octets of msg as a client gets them, with CRLF. It comes from
// the file's name where stat(2) bears that out, else from counting.
func (m *Mailbox) Size(msg Message) (int64, error) {
	f, err := m.fact(msg)
	if err != nil || f.virtual >= 0 {
		return f.virtual, err
	}
	file, err := m.OpenMessage(context.Background(), msg)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	n, err := body.VirtualSize(file, file.Size())
	if err != nil {
		return 0, err
	}
	file.SetVirtual(n)
	return n, nil
}

// A File is the open file of a message. It does not change while it is open, but
// for what another program may do that breaks the rules of Maildir.
type File struct {
	m    *Mailbox
	ctx  context.Context // of whoever reads it
	msg  Message
	fd   int // -1 where mail is set
	st   fact
	mail *unpacked // of a compressed file, else nil
}

// OpenMessage opens the file of msg, wherever it has been renamed to. The error
// is ErrGone if the message is gone. A file that is not a regular one is not
// opened. A compressed one is unpacked, and read as the mail that it holds; where
// that cannot be the error is ErrDamaged or ErrTooBig. The caller closes it.
func (m *Mailbox) OpenMessage(ctx context.Context, msg Message) (*File, error) {
	f := &File{m: m, ctx: ctx, msg: msg}
	var st unix.Stat_t
	var format unpack.Format
	err := m.withFile(ctx, msg, func(dir vfs.Dir, name string) error {
		var err error
		if f.fd, st, err = vfs.OpenRegular(dir, name); err != nil {
			return err
		}
		if format, err = isPacked(f.fd, &st, msg.base()); err != nil {
			unix.Close(f.fd)
			return fmt.Errorf("%s: UID %d: %w", m.name, msg.UID, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	f.st = factOf(&st, msg.base())
	if format != unpack.Plain {
		err = f.unpack(format, &st, msg.base())
		unix.Close(f.fd)
		f.fd = -1
	}
	if err != nil {
		return nil, err
	}
	f.st = m.learn(msg, f.st)
	return f, nil
}

// ReadAt reads octets as they are on disk, or would be if the file were not
// compressed.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if f.mail != nil {
		return f.readMail(p, off)
	}
	n, err := (*rawFile)(f).ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: UID %d: %w", f.m.name, f.msg.UID, err)
	}
	return n, err
}

func (f *File) readMail(p []byte, off int64) (int, error) {
	if err := f.m.slot(f.ctx); err != nil {
		return 0, err
	}
	defer f.m.leave()
	return f.mail.ReadAt(p, off)
}

// A rawFile is a File as it is on disk.
type rawFile File

func (f *rawFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.m.slot(f.ctx); err != nil {
		return 0, err
	}
	defer f.m.leave()
	return vfs.ReadFullAt(f.fd, p, off)
}

// Size returns the octets that ReadAt reads.
func (f *File) Size() int64 {
	if f.mail != nil {
		return f.mail.Size()
	}
	return f.st.size
}

// Date returns the INTERNALDATE.
func (f *File) Date() time.Time { return time.Unix(f.st.date, 0) }

// Virtual returns the octets with CRLF, if they have been counted.
func (f *File) Virtual() (n int64, counted bool) { return f.st.virtual, f.st.counted }

// SetVirtual tells what counting the octets with CRLF gave. From now on it is the
// message's size, whatever its name claims.
func (f *File) SetVirtual(n int64) {
	f.st.virtual, f.st.counted = n, true
	f.m.learn(f.msg, f.st)
}

// Close gives back what the open file takes.
func (f *File) Close() error {
	if f.mail != nil {
		return f.mail.release()
	}
	return unix.Close(f.fd)
}
