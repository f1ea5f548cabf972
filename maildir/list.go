package maildir

import (
	"errors"
	"hash/maphash"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
)

// list is what we know of a folder's dovecot-uidlist: its header, and which
// UID each base name has. It is guarded by Mailbox.mu.
type list struct {
	file *uidlist.File // kept open: the inode number of a replaced file is reused at once
	stat uidlist.Stat  // of file, when it was read
	size int64         // octets of it that were understood, whole lines

	head    uidlist.Header
	known   bool // head holds a UIDVALIDITY
	damaged bool // must be rewritten before a line is appended
	lines   int
	foreign bool // has lines that another process wrote and we have not synced

	// uids maps the hash of a base name to its UID, for live and stale lines.
	// A hash with a random seed, not the name: 100,000 strings would cost the
	// garbage collector what the pages save it.
	uids map[uint64]UID
	seed maphash.Seed
	// guids holds the GUIDs of messages whose base name is not their GUID.
	guids map[UID]string
}

func (l *list) uid(base []byte) (UID, bool) {
	u, ok := l.uids[maphash.Bytes(l.seed, base)]
	return u, ok
}

func (l *list) has(base string) bool {
	_, ok := l.uids[maphash.String(l.seed, base)]
	return ok
}

func (l *list) set(base string, u UID) { l.uids[maphash.String(l.seed, base)] = u }

func (l *list) enter(entries []uidlist.Entry) {
	for _, e := range entries {
		l.set(e.Base, UID(e.UID))
		if g, ok := e.Field('G'); ok {
			l.guids[UID(e.UID)] = strings.Clone(g)
		}
	}
}

// next returns the lowest UID above all that the file mentions.
func (l *list) next() UID { return UID(l.head.Next) }

func (l *list) close() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

// read brings l up to what dir holds now. A file that has only grown is read
// from where the last reading ended. Without a file, what was known stays, and
// must be written anew.
func (l *list) read(dir vfs.Dir) error {
	if l.uids == nil {
		l.uids, l.seed, l.guids = map[uint64]UID{}, maphash.MakeSeed(), map[UID]string{}
	}
	st, err := uidlist.StatFile(dir)
	if errors.Is(err, fs.ErrNotExist) {
		l.close()
		l.damaged = true
		return nil
	}
	if err != nil {
		return err
	}
	if l.file != nil && st == l.stat {
		return nil
	}
	if l.file != nil && st.Dev == l.stat.Dev && st.Ino == l.stat.Ino && st.Size > l.stat.Size && !l.damaged {
		return l.readTail()
	}
	return l.readAll(dir)
}

func (l *list) readAll(dir vfs.Dir) error {
	f, err := uidlist.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		l.close()
		l.damaged = true
		return nil
	}
	if err != nil {
		return err
	}
	p, st, err := f.Read()
	if err != nil && !errors.Is(err, uidlist.ErrHeader) {
		f.Close()
		return err
	}
	l.close()
	l.file, l.stat = f, st
	l.take(p, err == nil)
	return nil
}

// take sets l to p. A list whose header cannot be read keeps the UIDVALIDITY
// that we know.
func (l *list) take(p uidlist.List, usable bool) {
	l.size, l.lines, l.foreign = p.Size, p.Lines, true
	l.damaged = !usable || p.NeedsRewrite()
	switch {
	case usable:
		l.head, l.known = p.Header, true
	case l.known:
		l.head.Next = max(l.head.Next, p.Next)
	default:
		return
	}
	l.uids = make(map[uint64]UID, len(p.Entries))
	l.guids = map[UID]string{}
	l.enter(p.Entries)
}

func (l *list) readTail() error {
	t, st, err := l.file.ReadTail(l.size, uint32(l.next()-1))
	if err != nil {
		return err
	}
	l.stat = st
	l.size += t.Size
	l.lines += t.Lines
	l.head.Next = max(l.head.Next, t.Next)
	l.foreign = l.foreign || len(t.Entries) > 0
	l.damaged = t.Damage.Any()
	l.enter(t.Entries)
	return nil
}

// sync makes the lines durable that another process may have appended a moment
// ago: before a UID is announced its line must survive a power cut, whoever
// wrote it.
func (l *list) sync(dir vfs.Dir) error {
	if !l.foreign {
		return nil
	}
	err := uidlist.Sync(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return nil // not ours to sync
	}
	if err == nil {
		l.foreign = false
	}
	return err
}

// append adds entries to the file, durably. The lock is held and l has been
// read under it.
func (l *list) append(dir vfs.Dir, entries []uidlist.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	st, err := uidlist.Append(dir, entries)
	if err != nil {
		l.stat = uidlist.Stat{} // read it again
		return err
	}
	l.size, l.stat = st.Size, st
	l.lines += len(entries)
	l.enter(entries)
	l.head.Next = max(l.head.Next, entries[len(entries)-1].UID+1)
	return nil
}

// rewrite replaces the file by what edit makes of its entries, durably. The
// lock is held.
func (l *list) rewrite(dir vfs.Dir, edit func([]uidlist.Entry) []uidlist.Entry) error {
	var p uidlist.List
	if l.file != nil {
		var err error
		if p, _, err = l.file.Read(); err != nil && !errors.Is(err, uidlist.ErrHeader) {
			return err
		}
	}
	p.Header = l.head
	p.Entries = edit(p.Entries)
	if _, err := uidlist.Rewrite(dir, &p); err != nil {
		return err
	}
	return l.readAll(dir)
}
