package maildir

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"imapd/maildir/index"
	"imapd/maildir/keywords"
	"imapd/maildir/uidlist"
)

// restore begins with what the index says of the folder, so that a look has only
// to find what is new. Without an index, or with one of another folder, nothing
// is restored. m.mu is held; there is no snapshot yet. It fails with errUnlocked where
// it must not go on without the lock.
func (m *Mailbox) restore(locked bool) error {
	h := &m.past
	if m.indexDir == nil {
		return nil
	}
	h.file.Dir, h.file.Far = m.indexDir, !localFiles(m.indexDir.Fd())
	h.file.ReadLimit()
	img, err := h.file.Load()
	if errors.Is(err, index.ErrDamaged) {
		img, err = m.loadAgain(err)
	}
	if err != nil {
		m.unknown()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return m.firstSight()
		case !errors.Is(err, index.ErrDamaged): // of that loadAgain has told
			m.blame("the index cannot be used", err)
		}
		return nil
	}
	s := m.fromImage(img)
	ours, err := m.resumeList(img)
	if err != nil || !ours {
		m.unknown()
		h.gone, h.saved, m.recentFrom = nil, index.Stamp{}, 0
		h.file.Close()
		return err
	}
	if err := m.keys.read(m.control); err != nil {
		return err
	}
	s.Validity, s.keywords = m.list.head.Validity, m.keys.names()
	s.Next = max(s.Next, UID(h.state.Next))
	h.on = h.file.Loaded()
	if h.on && m.backup(img) {
		if err := m.skipUIDs(s, locked); err != nil {
			m.restored = false
			return err
		}
	}
	if h.on && m.doubtful(img) {
		if s, err = m.floor(img, s); err != nil {
			m.lose(err)
		}
	}
	m.snap.Store(s)
	if h.saved != (index.Stamp{}) && m.keys.over.Mark() == h.saved[stampKeywords] {
		if h.saved != listOnly(h.saved) {
			m.clean = unpackStamp(h.saved) // the next look finds out what has changed since
		}
		m.keys.news = keywords.Changes{} // they are in the index
	}
	return nil
}

// backup is copied for certain: what has touched the index may be another process of
// ours that was writing when it was read.
func (m *Mailbox) backup(img *index.Image) bool {
	if !m.copied(img) || !img.Touched {
		return m.copied(img)
	}
	f := index.File{Dir: m.past.file.Dir, Far: m.past.file.Far}
	defer f.Close()
	if f.Lock(context.Background()) != nil {
		return false // nor can it be made this folder's
	}
	img, err := f.Peek() // floor is to find what is torn
	return err == nil && m.copied(img)
}

// skipUIDs has the list go on above all UIDs that may have been given since the backup
// was made that the index comes from, s: the list comes from it too, perhaps, and a
// UID that was told must not become another message's. How many there were nobody
// knows; it is taken that on the whole there was not more than one in a second, from
// the last change on that the index knows of. It is done before the index says that
// it is this folder's: whoever reads it then would give the first ones again.
func (m *Mailbox) skipUIDs(s *Snapshot, locked bool) error {
	h, l := &m.past, &m.list
	if h.saved != (index.Stamp{}) && unpackList(h.saved, uidlist.Header{}).stat == l.stat {
		return nil // it was not brought back
	}
	if !locked && !m.unlistable {
		return errUnlocked
	}
	passed := uint64(0)
	if now := m.now(); now > h.state.ModSeq {
		passed = (now - h.state.ModSeq) >> 20
	}
	if err := l.load(m.control); err != nil {
		return err
	}
	next := uint32(min(max(uint64(s.Next)+passed, uint64(l.next()))+restoredGap, uidlist.MaxUID+1))
	h.skipped = true
	m.host.opt.Log.Warn("the folder comes from a backup, UIDs are skipped", "mailbox", m.name, "uidnext", next)
	if !locked { // the index says it then, and the list, which is behind, is mended as soon as it can be
		h.skipTo = next
		s.Next, h.state.Next = UID(next), next
		return nil
	}
	was := l.head.Next
	if l.head.Next = next; l.damaged {
		return nil // it will be mended
	}
	err := l.rewrite(m.control, keepAll)
	if err != nil {
		l.head.Next = was // as the file has it
	}
	return err
}

// unknown begins a history that goes on from nothing, above all that was told before.
func (m *Mailbox) unknown() {
	h := &m.past
	mod := max(h.state.ModSeq, h.state.Ceiling, h.file.Limit())
	if h.file.Limit() == 0 && exists(m.control, uidlist.Name) { // it is no new folder
		mod = max(mod, m.now()+wayAhead)
	}
	h.state = index.State{ModSeq: mod, Limit: h.file.Limit()}
}

// fromImage returns the snapshot that an index holds, and takes over its state.
func (m *Mailbox) fromImage(img *index.Image) *Snapshot {
	h := &m.past
	h.state, h.gone, h.saved, h.line = img.State, img.Gone, img.State.Stamp, img.Line
	h.state.Next = max(h.state.Next, h.skipTo)
	m.recentFrom = max(m.recentFrom, UID(img.State.Recent))
	var floor uint64
	for i := range img.Tail {
		if e := &img.Tail[i]; e.Kind == index.Floored {
			floor = max(floor, e.Range.ModSeq)
		}
	}
	pages := make([]*page, len(img.Pages))
	for i, p := range img.Pages {
		lift(p.Recs, floor)
		pages[i] = &page{recs: p.Recs, placed: img.Order != nil}
		pages[i].lazy.Store(p.Names)
		pages[i].finish().more = m.readMore(pages[i])
	}
	var dirs []*dir
	for len(pages) > 0 {
		n := min(dirLen, len(pages))
		dirs = append(dirs, newDir(pages[:n:n]))
		pages = pages[n:]
	}
	s := newSnapshot(img.Validity, 1, ModSeq(max(img.State.ModSeq, floor)), m.keys.names()).with(dirs)
	if img.Order != nil {
		s.foretold = &foretold{img.Order}
	}
	s.Next = max(UID(h.state.Next), s.sum.last+1)
	h.state.ModSeq = max(h.state.ModSeq, floor)
	if len(img.Tail) > 0 {
		s = m.replay(s, img.Tail)
	}
	if h.state.Limit == 0 { // an older version wrote it, which knows of no limit
		h.state.Limit = h.file.Limit()
	}
	return s
}

// resumeList goes on with dovecot-uidlist where the index was saved, without
// reading it if it has not changed. It reports whether the index is about this
// list. A folder whose list has been deleted gets it back from the index.
func (m *Mailbox) resumeList(img *index.Image) (ours bool, err error) {
	l := &m.list
	if saved := m.past.saved; saved != (index.Stamp{}) {
		err = l.resume(m.control, unpackList(saved, uidlist.Header{Version: 3, Validity: img.Validity, GUID: img.GUID}))
	} else {
		err = l.read(m.control)
	}
	if err != nil {
		return false, err
	}
	if !l.known {
		return m.restoreList(img), nil
	}
	return l.head.Validity == img.Validity && (l.head.GUID == img.GUID || l.damaged && l.head.GUID == ""), nil
}

// restoreList takes over what the index knows of a list that is gone, or says
// nothing any more. The look under the lock writes it.
func (m *Mailbox) restoreList(img *index.Image) (ours bool) {
	if img.Ino != m.curIno() || img.Validity == 0 {
		return false
	}
	m.host.opt.Log.Warn("the UID list is gone, restoring it from the index", "mailbox", m.name)
	l := &m.list
	next := uint64(max(m.past.state.Next, l.head.Next, 1)) + restoredGap
	l.head = uidlist.Header{Version: 3, Validity: img.Validity, Next: uint32(min(next, uidlist.MaxUID+1)), GUID: img.GUID}
	l.known, l.damaged = true, true
	return true
}

// restoredGap is how far above the last UID that the index knows a restored list
// goes on, at least: UIDs may have been given that the index had not heard of.
const restoredGap = 10_000

func (m *Mailbox) curIno() uint64 {
	var st unix.Stat_t
	if unix.Fstat(m.cur.Fd(), &st) != nil {
		return 0
	}
	return st.Ino
}

// Places in an index.Stamp behind those of the stamp itself.
const (
	stampSize     = 11 // octets of the list that were understood
	stampLines    = 12
	stampNext     = 13 // of the list; above it, from bit 32 on, list.mark
	stampKeywords = 14
)

// packStamp returns s, and how far the list has been read, as the index keeps it.
func (m *Mailbox) packStamp(s stamp) index.Stamp {
	return index.Stamp{
		s.cur.dev, s.cur.ino, uint64(s.cur.mtime), s.new.dev, s.new.ino, uint64(s.new.mtime),
		s.list.dev, s.list.ino, s.list.size, uint64(s.list.mtime), uint64(s.list.ctime),
		stampSize: uint64(m.list.size), stampLines: uint64(m.list.count), stampNext: uint64(m.list.head.Next) | uint64(m.list.mark())<<32,
		stampKeywords: m.keys.over.Mark(),
	}
}

// listOnly returns what s says of the list, and of the keywords beside it. Where it is
// all that an index says the process before us was killed, or ended so soon after a
// change that another one could not have been told from it: the directories must be
// read, but what was found there must not be looked up in the list.
func listOnly(s index.Stamp) index.Stamp {
	clear(s[:6])
	return s
}

func unpackStamp(s index.Stamp) stamp {
	return stamp{
		cur: dirStamp{s[0], s[1], int64(s[2])}, new: dirStamp{s[3], s[4], int64(s[5])},
		list: fileStamp{s[6], s[7], s[8], int64(s[9]), int64(s[10])},
	}
}

// unpackList returns how far the list with the header head was read.
func unpackList(s index.Stamp, head uidlist.Header) reached {
	head.Next = uint32(s[stampNext])
	return reached{
		stat: uidlist.Stat{Dev: s[6], Ino: s[7], Size: int64(s[8]), MtimeNs: int64(s[9]), CtimeNs: int64(s[10])},
		size: int64(s[stampSize]), count: int(s[stampLines]), head: head, mark: uint32(s[stampNext] >> 32),
	}
}
