package maildir

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"slices"

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
	count   int           // of lines
	foreign bool          // has lines that another process wrote and we have not synced
	// again says that the file may call a message otherwise than it did before:
	// it was read anew, or has a second line of one base name. Every file of
	// the folder must be looked up again, and only a look that has done so takes
	// this back: until then no edit trusts a name (heedList).
	again bool
	// searched says that a look has seen to all lines that were read: the snapshot
	// has their messages, or they have none.
	searched bool
	recalled bool // remember has been here

	// lines is what the file says, live and stale lines; nil: not loaded, for
	// what is in the index is known without it.
	lines *lines
	// some is what find has found in a list that is not loaded, and searches how
	// often it was searched.
	some     map[string]uint32 // 0: it has no line
	searches int
}

// lines maps base names to UIDs.
type lines struct {
	hashTable       // of the base names, in the order of the lines
	uids      []UID // by number of the line
	doubled   UID   // the highest of a line whose base name had another UID before; valid once the table is built
	guids     guids // of messages whose base name is not their GUID
}

// guids holds the GUIDs of some messages, in pieces of text: most are of lines whose
// message is gone, and there may be millions of them.
type guids struct {
	uids   []UID // ascending
	at     []uint32
	pieces [][]byte // each GUID behind its length
}

// A GUID is a name, mostly; more than mostGUIDs of text are not held.
const (
	longestGUID = 255
	guidPiece   = 1 << 16
	mostGUIDs   = 64 << 20
)

func (g *guids) add(u UID, guid string) {
	last := len(g.pieces) - 1
	if len(guid) > longestGUID || len(g.uids) > 0 && u <= g.uids[len(g.uids)-1] {
		return
	}
	if last < 0 || len(g.pieces[last])+1+len(guid) > guidPiece {
		if last++; last == mostGUIDs/guidPiece {
			return
		}
		g.pieces = append(g.pieces, nil)
	}
	g.uids, g.at = append(g.uids, u), append(g.at, uint32(last*guidPiece+len(g.pieces[last])))
	g.pieces[last] = append(append(g.pieces[last], byte(len(guid))), guid...)
}

// of returns the GUID of u, if it is held.
func (g *guids) of(u UID) string {
	i, ok := slices.BinarySearch(g.uids, u)
	if !ok {
		return ""
	}
	text := g.pieces[g.at[i]/guidPiece][g.at[i]%guidPiece:]
	return string(text[1 : 1+int(text[0])])
}

func newLines(n int) *lines {
	t := &lines{hashTable: hashTable{seed: maphash.MakeSeed(), hashes: make([]uint64, 0, n)}, uids: make([]UID, 0, n)}
	vfs.Prefault(t.hashes)
	vfs.Prefault(t.uids)
	return t
}

// index makes the table.
func (t *lines) index() {
	if t.slots == nil {
		t.build(t.again)
	}
}

// again notes that line i has the base name that line old has.
func (t *lines) again(i, old int) {
	if t.uids[i] != t.uids[old] {
		t.doubled = max(t.doubled, t.uids[i])
	}
}

// set adds a line.
func (t *lines) set(base string, u UID) {
	h := maphash.String(t.seed, base)
	t.uids = append(t.uids, u)
	if t.slots == nil {
		t.hashes = append(t.hashes, h)
	} else if old := t.add(h); old >= 0 {
		t.again(len(t.hashes)-1, old)
	}
}

func (t *lines) enter(e uidlist.Entry) {
	t.set(e.Base, UID(e.UID))
	if e.Extra == "" {
		return
	}
	if g, ok := e.Field('G'); ok {
		t.guids.add(UID(e.UID), g)
	}
}

// only returns t without the lines for whose UID keep is false.
func (t *lines) only(keep func(UID) bool) *lines {
	n := &lines{hashTable: hashTable{seed: t.seed}}
	for i, u := range t.uids {
		if keep(u) {
			n.hashes, n.uids = append(n.hashes, t.hashes[i]), append(n.uids, u)
		}
	}
	for _, u := range t.guids.uids {
		if keep(u) {
			n.guids.add(u, t.guids.of(u))
		}
	}
	return n
}

func (t *lines) uid(h uint64) (UID, bool) {
	t.index()
	i := t.find(h)
	if i < 0 {
		return 0, false
	}
	return t.uids[i], true
}

func (l *list) uid(base []byte) (UID, bool) {
	if l.lines == nil {
		u := UID(l.some[string(base)])
		return u, u != 0
	}
	return l.lines.uid(l.lines.hash(base))
}

func (l *list) has(base string) bool {
	_, ok := l.uid([]byte(base))
	return ok
}

// guid returns the GUID of a message whose base name is not its GUID.
func (l *list) guid(u UID) string {
	if l.lines == nil {
		return ""
	}
	return l.lines.guids.of(u)
}

// fresh forgets all lines.
func (l *list) fresh(n int) {
	l.lines, l.some, l.searches, l.recalled = newLines(n), nil, 0, false
}

// enter adds a line, unless they will be loaded all at once.
func (l *list) enter(e uidlist.Entry) {
	l.some = nil
	if l.lines == nil {
		return
	}
	l.lines.index()
	old := l.lines.doubled
	l.lines.enter(e)
	l.again = l.again || l.lines.doubled != old
}

// next returns the lowest UID above all that the file mentions.
func (l *list) next() UID { return UID(l.head.Next) }

func (l *list) close() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

// absent reports whether err says that there is no list, or something in its place
// that cannot be one.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, uidlist.ErrNoFile)
}

// read brings l up to what dir holds now. A file that has only grown is read
// from where the last reading ended. Without a file, what was known stays, and
// must be written anew.
func (l *list) read(dir vfs.Dir) error {
	st, err := uidlist.StatFile(dir)
	if absent(err) {
		l.close()
		if l.lines == nil {
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
	if l.file != nil && st.SameFile(l.stat) && st.Size > l.stat.Size && !l.damaged {
		if l.lines == nil {
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
	next, again := l.next(), l.again
	if err := l.readAll(dir); err != nil || l.damaged {
		return err
	}
	l.lines.index()
	l.again = again || l.lines.doubled >= next
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
	t := newLines(min(f.About(), maxLines))
	p, st, err := f.Each(t.enter)
	if err != nil && !errors.Is(err, uidlist.ErrHeader) {
		f.Close()
		return err
	}
	l.close()
	l.file, l.stat = f, st
	l.take(p, t, err == nil)
	return nil
}

// maxLines is how many lines are expected of a list, at most, before it is read.
const maxLines = 1 << 21

// take sets l to p, whose lines are in t. A list whose header cannot be read keeps
// the UIDVALIDITY that we know.
func (l *list) take(p uidlist.List, t *lines, usable bool) {
	l.size, l.count, l.foreign = p.Size, p.Lines, true
	p.Damage.Renumber = slices.DeleteFunc(p.Damage.Renumber, func(base string) bool {
		_, ok := t.uid(maphash.String(t.seed, base))
		return ok
	})
	l.damaged, l.cut = !usable || p.NeedsRewrite(), p.Damage.Cut
	switch {
	case usable:
		l.head, l.known = p.Header, true
	case l.known:
		l.head.Next = max(l.head.Next, p.Next)
	default:
		if l.lines == nil {
			l.fresh(0)
		}
		return
	}
	l.lines, l.some, l.searches, l.recalled = t, nil, 0, false
	l.again, l.searched = true, false
}

// remember adds what was published of the messages of s and is in no line of a
// damaged list. Without this they would count as expunged, and their files as new.
func (l *list) remember(s *Snapshot) {
	if !l.damaged || l.recalled || s.Validity != l.head.Validity {
		return
	}
	l.recalled = true
	l.lines.index()
	taken := make(map[UID]bool, len(l.lines.uids))
	for _, u := range l.lines.uids {
		taken[u] = true
	}
	for _, msg := range s.Range(0, s.Len()) {
		if base := msg.base(); len(base) > 0 && !taken[msg.UID] && !l.has(string(base)) {
			l.lines.set(string(base), msg.UID)
		}
	}
}

// outdate has l count as damaged if it is older than what was published of s, as one
// is that comes from a backup: its next UIDs may have been given, and lines are missing.
func (l *list) outdate(s *Snapshot) {
	if s != nil && l.known && s.Validity == l.head.Validity && l.next() < s.Next {
		l.damaged = true
	}
}

// unload forgets the lines of a list that is as it was read, until they are loaded.
func (l *list) unload() {
	if l.file != nil && !l.damaged && l.lines != nil {
		l.lines, l.some, l.searches = nil, nil, 0
	}
}

// load reads the lines of a list that was resumed or unloaded.
func (l *list) load(dir vfs.Dir) error {
	if l.lines != nil {
		return nil
	}
	before, again, searched := l.stat, l.again, l.searched
	if err := l.readAll(dir); err != nil {
		return err
	}
	if l.lines == nil {
		l.fresh(0)
	}
	if l.stat == before {
		l.again, l.searched = again, searched
	}
	return nil
}

// For how many base names a list is searched rather than loaded, and how often: a
// process for one client asks once, others go on asking.
const (
	fewNames    = 64
	fewSearches = 2
)

// find makes sure that uid knows of bases, whether they are in the list or not.
// Other names may be known only once the list is loaded. It holds until the list is
// read or written again.
func (l *list) find(dir vfs.Dir, bases []string) error {
	switch {
	case l.lines != nil:
		return nil
	case l.file == nil || l.damaged || len(bases) > fewNames || l.searches == fewSearches:
		return l.load(dir)
	case len(bases) == 0 || l.looked(bases):
		return nil
	}
	l.searches++
	found := make(map[string]uint32, len(bases))
	for _, b := range bases {
		found[b] = 0
	}
	err := l.file.Find(l.size, found)
	if st, serr := l.file.Stat(); err != nil || serr != nil || st != l.stat {
		return l.load(dir) // it is not as it was: then a new reading says what that means
	}
	l.some = found
	return nil
}

// looked reports whether all of bases have been searched for.
func (l *list) looked(bases []string) bool {
	for _, b := range bases {
		if _, ok := l.some[b]; !ok {
			return false
		}
	}
	return true
}

// reached is how far a list was read by a process before us.
type reached struct {
	stat  uidlist.Stat
	size  int64 // see list
	count int
	head  uidlist.Header
	mark  uint32
}

// resume goes on where a process before us has come to. The lines are read when they
// are needed. Another list is read as a whole.
func (l *list) resume(dir vfs.Dir, from reached) error {
	f, err := uidlist.Open(dir)
	if err != nil {
		return l.read(dir) // which says what that means
	}
	if !from.in(f) {
		f.Close()
		return l.read(dir)
	}
	l.close()
	l.file, l.stat, l.size, l.count, l.head, l.known, l.searched = f, from.stat, from.size, from.count, from.head, true, true
	return l.read(dir)
}

// in reports whether f is the list that was read: nobody has written to it since, or
// lines were appended only. Nobody has kept it open meanwhile, so another list may have
// its inode number by now: on xfs every second one that replaces another.
func (r *reached) in(f *uidlist.File) bool {
	now, err := f.Stat()
	if err != nil || now == r.stat {
		return err == nil
	}
	if !now.SameFile(r.stat) || now.Size <= r.stat.Size {
		return false
	}
	mark, err := f.Mark(r.size)
	return err == nil && mark == r.mark
}

// mark is how another process tells the file as far as it was read, 0 if it has been
// written to since: nobody can say what then.
func (l *list) mark() uint32 {
	if l.file == nil {
		return 0
	}
	mark, err := l.file.Mark(l.size)
	if now, serr := l.file.Stat(); err != nil || serr != nil || now != l.stat {
		return 0
	}
	return mark
}

func (l *list) readTail() error {
	fresh := false
	t, st, err := l.file.ReadTail(l.size, uint32(l.next()-1), func(e uidlist.Entry) {
		fresh = true
		l.enter(e)
	})
	if err != nil {
		return err
	}
	l.stat = st
	l.size += t.Size
	l.count += t.Lines
	l.head.Next = max(l.head.Next, t.Next)
	l.foreign = l.foreign || fresh
	l.searched = l.searched && !fresh
	l.damaged = t.Damage.Any()
	return nil
}

// sync makes the lines durable that another process may have appended a moment
// ago: before a UID is announced its line must survive a power cut, whoever
// wrote it.
func (l *list) sync(dir vfs.Dir) error {
	if !l.foreign || l.file == nil {
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
	st, err := uidlist.Append(dir, l.stat, entries)
	if err != nil {
		l.stat = uidlist.Stat{} // read it again
		if errors.Is(err, uidlist.ErrChanged) {
			err = fmt.Errorf("%w: %w", ErrBusy, err) // it may be better the next time
		}
		return err
	}
	l.size, l.stat = st.Size, st
	l.count += len(entries)
	for _, e := range entries {
		l.enter(e)
	}
	l.head.Next = max(l.head.Next, entries[len(entries)-1].UID+1)
	return nil
}

// compact replaces the file by one without the lines for whose UID keep is false,
// durably. The lock is held, l has been read under it and is not damaged. What it says
// of the others it says still.
func (l *list) compact(dir vfs.Dir, keep func(UID) bool) error {
	count, st, err := l.file.Compact(dir, l.stat, l.head.Next, func(u uint32) bool { return keep(UID(u)) })
	if err != nil {
		return err // the next reading finds the new one, should it be in its place
	}
	f, err := uidlist.Open(dir)
	if err != nil {
		return err
	}
	l.close()
	l.file, l.stat, l.size, l.count, l.foreign = f, st, st.Size, count, false
	l.some, l.searches = nil, 0
	if l.lines != nil {
		l.lines = l.lines.only(keep)
	}
	return nil
}

// rewrite replaces the file by what edit makes of its entries, durably: it gets one
// after the other, their strings valid during the call, and then none once, and writes
// what is to be there, UIDs ascending and below that of head. The lock is held, and the
// lines are loaded.
func (l *list) rewrite(dir vfs.Dir, edit func(e uidlist.Entry, write func(uidlist.Entry) error) error) error {
	if l.file != nil {
		if st, err := l.file.Stat(); err != nil {
			return err
		} else if st != l.stat {
			return fmt.Errorf("%w: %w", ErrBusy, uidlist.ErrChanged) // the next look reads it
		}
	}
	head := l.head
	_, err := uidlist.RewriteEach(dir, &head, func(write func(uidlist.Entry) error) error {
		if err := l.each(func(e uidlist.Entry) error { return edit(e, write) }); err != nil {
			return err
		}
		return edit(uidlist.Entry{}, write)
	})
	if err != nil {
		return err
	}
	l.lines = nil // not twice in memory
	return l.readAll(dir)
}

// each yields the entries of the file but those whose base name comes again below. The
// lines are loaded.
func (l *list) each(yield func(uidlist.Entry) error) (err error) {
	if l.file == nil {
		return nil
	}
	l.lines.index()
	_, _, rerr := l.file.Each(func(e uidlist.Entry) {
		i := l.lines.find(maphash.String(l.lines.seed, e.Base))
		if err == nil && (i < 0 || l.lines.uids[i] == UID(e.UID)) {
			err = yield(e)
		}
	})
	if rerr != nil && !errors.Is(rerr, uidlist.ErrHeader) {
		return rerr
	}
	return err
}

// keepAll is rewrite's edit that changes nothing.
func keepAll(e uidlist.Entry, write func(uidlist.Entry) error) error {
	if e.UID == 0 {
		return nil
	}
	return write(e)
}
