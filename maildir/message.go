package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imapd/imap/body"
	"imapd/maildir/vfs"
)

// facts is what has been found out about files. It is a cache: the file is the
// truth, and is asked again where a fact is missing.
type facts struct {
	mu sync.Mutex // innermost, never held over I/O
	of map[UID]fact
}

type fact struct {
	date    int64 // seconds since 1970
	size    int64 // octets on disk
	virtual int64 // octets as sent; -1: not known
	counted bool  // virtual comes from reading the file
}

func (f *facts) get(u UID) (fact, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, ok := f.of[u]
	return x, ok
}

// put notes x unless more is known, and returns what is known then.
func (f *facts) put(u UID, x fact) fact {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of == nil {
		f.of = map[UID]fact{}
	}
	if old := f.of[u]; old.counted && old.size == x.size && old.date == x.date && !x.counted {
		return old
	}
	f.of[u] = x
	return x
}

func (f *facts) forget(uids []UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range uids {
		delete(f.of, u)
	}
}

// fact returns what stat(2) says of the file of msg, from the cache if it can.
func (m *Mailbox) fact(msg Message) (fact, error) {
	if f, ok := m.facts.get(msg.UID); ok {
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
		return nil
	})
	if err == nil {
		m.facts.put(msg.UID, f)
	}
	return f, err
}

// factOf believes the W= of a name only if its S= is the size of the file and
// the two can be of one message.
func factOf(st *unix.Stat_t, base []byte) fact {
	f := fact{date: st.Mtim.Sec, size: st.Size, virtual: -1}
	w := sizeField(base, ",W=")
	if sizeField(base, ",S=") == st.Size && st.Size <= w && w <= 2*st.Size {
		f.virtual = w
	}
	return f
}

// withFile calls fn with the directory and name of the file of msg, and again
// with its new name while fn fails with ENOENT and the message still exists.
func (m *Mailbox) withFile(ctx context.Context, msg Message, fn func(vfs.Dir, string) error) error {
	for try := 0; ; try++ {
		if err := m.slot(ctx); err != nil {
			return err
		}
		err := fn(m.dirOf(msg.rec.place), string(msg.name()))
		m.leave()
		if !errors.Is(err, unix.ENOENT) {
			return err
		}
		if try == tries {
			return fmt.Errorf("%s: UID %d is renamed all the time: %w", m.name, msg.UID, ErrBusy)
		}
		m.distrust()
		if serr := m.Sync(ctx, Look); serr != nil {
			return serr
		}
		now, ok := m.Snapshot().lookup(msg.UID)
		if !ok || m.Snapshot().Validity == 0 {
			return fmt.Errorf("%s: UID %d: %w", m.name, msg.UID, ErrGone)
		}
		msg = now
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
	m   *Mailbox
	uid UID
	fd  int
	st  fact
}

// OpenMessage opens the file of msg, wherever it has been renamed to. The error
// is ErrGone if the message is gone. A file that is not a regular one is not
// opened. The caller closes it.
func (m *Mailbox) OpenMessage(ctx context.Context, msg Message) (*File, error) {
	f := &File{m: m, uid: msg.UID}
	err := m.withFile(ctx, msg, func(dir vfs.Dir, name string) error {
		fd, st, err := vfs.OpenRegular(dir, name)
		if err != nil {
			return err
		}
		f.fd, f.st = fd, factOf(&st, msg.base())
		return nil
	})
	if err != nil {
		return nil, err
	}
	f.st = m.facts.put(f.uid, f.st)
	return f, nil
}

// ReadAt reads octets as they are on disk.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	n, err := vfs.ReadFullAt(f.fd, p, off)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: UID %d: %w", f.m.name, f.uid, err)
	}
	return n, err
}

// Size returns the octets on disk.
func (f *File) Size() int64 { return f.st.size }

// Date returns the INTERNALDATE.
func (f *File) Date() time.Time { return time.Unix(f.st.date, 0) }

// Virtual returns the octets with CRLF, if they have been counted.
func (f *File) Virtual() (n int64, counted bool) { return f.st.virtual, f.st.counted }

// SetVirtual tells what counting the octets with CRLF gave. From now on it is the
// message's size, whatever its name claims.
func (f *File) SetVirtual(n int64) {
	f.st.virtual, f.st.counted = n, true
	f.m.facts.put(f.uid, f.st)
}

// Close gives the descriptor back.
func (f *File) Close() error { return unix.Close(f.fd) }
