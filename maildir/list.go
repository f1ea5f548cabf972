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
	known   bool          // head holds a UIDVALIDITY
	damaged bool          // must be rewritten before a line is appended
	cut     uidlist.Entry // see uidlist.Damage
	lines   int
	foreign bool // has lines that another process wrote and we have not synced
	// again says that the file may call a message otherwise than it did before:
	// it was read anew, or has a second line of one base name. Every file of
	// the folder must be looked up again.
	again    bool
	recalled bool // remember has been here

	// uids maps the hash of a base name to its UID, for live and stale lines.
	// A hash with a random seed, not the name: 100,000 strings would cost the
	// garbage collector what the pages save it. nil: not loaded, for what is in
	// the index is known without it.
	uids map[uint64]UID
	seed maphash.Seed
	// guids holds the GUIDs of messages whose base name is not their GUID.
	guids map[UID]string
}

func (l *list) uid(base []byte) (UID, bool) {
	if len(l.uids) == 0 { // perhaps without a seed
		return 0, false
	}
	u, ok := l.uids[maphash.Bytes(l.seed, base)]
	return u, ok
}

func (l *list) has(base string) bool {
	if len(l.uids) == 0 {
		return false
	}
	_, ok := l.uids[maphash.String(l.seed, base)]
	return ok
}

func (l *list) set(base string, u UID) { l.uids[maphash.String(l.seed, base)] = u }

// fresh forgets all lines.
func (l *list) fresh(n int) {
	l.uids, l.seed, l.guids = make(map[uint64]UID, n), maphash.MakeSeed(), map[UID]string{}
	l.recalled = false
}

// enter adds lines, unless they will be loaded all at once.
func (l *list) enter(entries []uidlist.Entry) {
	if l.uids == nil {
		return
	}
	for _, e := range entries {
		h := maphash.String(l.seed, e.Base)
		if old, ok := l.uids[h]; ok && old != UID(e.UID) {
			l.again = true
		}
		l.uids[h] = UID(e.UID)
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
	st, err := uidlist.StatFile(dir)
	if errors.Is(err, fs.ErrNotExist) {
		l.close()
		if l.uids == nil {
			l.fresh(0)
		}
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
		if l.uids == nil {
			return l.catchUp(dir)
		}
		return l.readTail()
	}
	return l.readAll(dir)
}

// catchUp loads a list that was resumed and has grown since. What it said of
// messages before it says still, unless a new line has a base name that was
// there.
func (l *list) catchUp(dir vfs.Dir) error {
	lines, next, again := l.lines, l.next(), l.again
	if err := l.readAll(dir); err != nil || l.damaged {
		return err
	}
	added := 0
	for _, u := range l.uids {
		if u >= next {
			added++
		}
	}
	l.again = again || l.lines-lines != added
	return nil
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
	l.damaged, l.cut = !usable || p.NeedsRewrite(), p.Damage.Cut
	switch {
	case usable:
		l.head, l.known = p.Header, true
	case l.known:
		l.head.Next = max(l.head.Next, p.Next)
	default:
		if l.uids == nil {
			l.fresh(0)
		}
		return
	}
	l.fresh(len(p.Entries))
	l.enter(p.Entries)
	l.again = true
}

// remember adds what was published of the messages of s and is in no line of a
// damaged list. Without this they would count as expunged, and their files as new.
func (l *list) remember(s *Snapshot) {
	if !l.damaged || l.recalled || s.Validity != l.head.Validity {
		return
	}
	l.recalled = true
	taken := make(map[UID]bool, len(l.uids))
	for _, u := range l.uids {
		taken[u] = true
	}
	for _, msg := range s.Range(0, s.Len()) {
		if base := msg.base(); len(base) > 0 && !taken[msg.UID] && !l.has(string(base)) {
			l.set(string(base), msg.UID)
		}
	}
}

// load reads the lines of a list that was resumed.
func (l *list) load(dir vfs.Dir) error {
	if l.uids != nil {
		return nil
	}
	before, again := l.stat, l.again
	if err := l.readAll(dir); err != nil {
		return err
	}
	if l.uids == nil {
		l.fresh(0)
	}
	if l.stat == before {
		l.again = again
	}
	return nil
}

// resume goes on with a list that looked as st says, of which the first size octets
// were read by a process before us. Its lines are read when they are needed.
func (l *list) resume(dir vfs.Dir, st uidlist.Stat, size int64, lines int, head uidlist.Header) error {
	f, err := uidlist.Open(dir)
	if err != nil {
		return err
	}
	now, err := f.Stat()
	if err != nil || now.Dev != st.Dev || now.Ino != st.Ino || now.Size < st.Size {
		f.Close()
		return l.read(dir)
	}
	l.close()
	l.file, l.stat, l.size, l.lines, l.head, l.known = f, st, size, lines, head, true
	return l.read(dir)
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
	if err := l.load(dir); err != nil {
		return err
	}
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
