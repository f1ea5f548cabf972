package maildir

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"runtime/debug"
	"slices"

	"golang.org/x/sys/unix"

	"imapd/maildir/index"
	"imapd/maildir/keywords"
	"imapd/maildir/uidlist"
)

// restore begins with what the index says of the folder, so that a look has only
// to find what is new. Without an index, or with one of another folder, nothing
// is restored. m.mu is held; there is no snapshot yet.
func (m *Mailbox) restore() error {
	h := &m.past
	if m.indexDir == nil {
		return nil
	}
	h.file.Dir = m.indexDir
	img, err := h.file.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return m.firstSight()
	}
	if err != nil {
		m.host.opt.Log.Warn("the index cannot be used, changes are counted anew", "mailbox", m.name, "err", err)
		return nil
	}
	s := m.fromImage(img)
	ours, err := m.resumeList(img)
	if err != nil || !ours {
		h.state = index.State{ModSeq: max(h.state.ModSeq, h.state.Ceiling)}
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
	if h.on && m.doubtful(img) {
		if s, err = m.floor(img, s); err != nil {
			m.lose(err)
		}
	}
	m.snap.Store(s)
	if h.saved != (index.Stamp{}) && m.keys.over.Mark() == h.saved[stampKeywords] {
		m.clean = unpackStamp(h.saved)   // the next look finds out what has changed since
		m.keys.news = keywords.Changes{} // they are in the index
	}
	return nil
}

// fromImage returns the snapshot that an index holds, and takes over its state.
func (m *Mailbox) fromImage(img *index.Image) *Snapshot {
	h := &m.past
	h.state, h.gone, h.saved, h.line = img.State, img.Gone, img.State.Stamp, img.Line
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
	s.Next = max(UID(img.State.Next), s.sum.last+1)
	h.state.ModSeq = max(h.state.ModSeq, floor)
	if len(img.Tail) > 0 {
		s = m.replay(s, img.Tail)
	}
	return s
}

// lift has records that changed before floor count as changed then.
func lift(recs []record, floor uint64) {
	if floor == 0 {
		return
	}
	for i := range recs {
		if recs[i].ModSeq() < floor {
			recs[i].SetModSeq(floor)
		}
	}
}

// resumeList goes on with dovecot-uidlist where the index was saved, without
// reading it if it has not changed. It reports whether the index is about this
// list. A folder whose list has been deleted gets it back from the index.
func (m *Mailbox) resumeList(img *index.Image) (ours bool, err error) {
	l := &m.list
	st, err := uidlist.StatFile(m.control)
	if errors.Is(err, fs.ErrNotExist) {
		return m.restoreList(img), nil
	}
	if err != nil {
		return false, err
	}
	if saved := m.past.saved; saved != (index.Stamp{}) && sameList(unpackList(saved), st) {
		err = l.resume(m.control, unpackList(saved), int64(saved[stampSize]), int(saved[stampLines]), uidlist.Header{
			Version: 3, Validity: img.Validity, Next: uint32(saved[stampNext]), GUID: img.GUID,
		})
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

// sameList reports whether the list that looked like old looks like now because
// nobody has written to it, or because lines were appended.
func sameList(old, now uidlist.Stat) bool {
	return old == now || old.Dev == now.Dev && old.Ino == now.Ino && old.Size < now.Size
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
	l.head = uidlist.Header{Version: 3, Validity: img.Validity, Next: uint32(min(next, uidlist.MaxUID)), GUID: img.GUID}
	l.known, l.damaged = true, true
	return true
}

// restoredGap is how far above the last UID that the index knows a restored list
// goes on: UIDs may have been given that the index had not heard of.
const restoredGap = 10_000

// copied reports whether the index came here by other means than our writing it.
// Where files may get other inode numbers by themselves nobody can say.
func (m *Mailbox) copied(img *index.Image) bool {
	return img.Ino != m.curIno() || img.Copied && m.settle == localSettle
}

// doubtful reports whether clients may have been told more than img knows of: by
// a process that lost it in a power cut, or before img was brought back.
func (m *Mailbox) doubtful(img *index.Image) bool {
	return m.past.state.Boot != m.host.boot && !m.past.state.Clean || m.copied(img) || img.Torn
}

// floor has every message count as changed now, durably, and returns the
// snapshot that says so.
func (m *Mailbox) floor(img *index.Image, s *Snapshot) (*Snapshot, error) {
	h := &m.past
	if err := h.file.Lock(context.Background()); err != nil {
		return s, err
	}
	defer h.file.Unlock()
	events, err := h.file.Tail(true)
	if len(events) > 0 || errors.Is(err, index.ErrReplaced) { // another process was first
		if img, err = h.file.Load(); err != nil {
			return s, err
		}
		s = m.fromImage(img)
		s.Validity, s.keywords = m.list.head.Validity, m.keys.names()
	}
	if err != nil || !m.doubtful(img) {
		return s, err
	}
	mod := max(uint64(m.tick()), h.state.Ceiling+1)
	h.state.ModSeq, h.state.Ceiling, h.state.Boot, h.state.Clean = mod, mod+ahead, m.host.boot, false
	s = s.lifted(ModSeq(mod))
	h.forget(mod)
	if m.copied(img) {
		// Only a new index can say that it is this folder's, and this file.
		h.line = rand.Uint64()
		return s, m.writeIndex(s)
	}
	var b index.Batch
	b.Floor(mod)
	b.State(&h.state)
	return s, h.file.Append(&b, m.host.opt.Fsync != FsyncNever)
}

// forget begins the history of expunges at mod. Where a floor is needed messages may
// be missing of which the index never knew: one that came last is told when the UID
// list has it, its record is on disk some time later, and its file may be gone sooner.
func (h *history) forget(mod uint64) { h.gone, h.state.Since = nil, mod }

// lifted returns s, which nobody else has yet, with every message changed at mod.
func (s *Snapshot) lifted(mod ModSeq) *Snapshot {
	for i, d := range s.dirs {
		for _, p := range d.pages {
			lift(p.recs, uint64(mod))
			p.finish()
		}
		s.dirs[i] = newDir(d.pages)
	}
	n := s.with(s.dirs)
	n.ModSeq = mod
	return n
}

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
	stampNext     = 13
	stampKeywords = 14
)

// packStamp returns s, and how far the list has been read, as the index keeps it.
func (m *Mailbox) packStamp(s stamp) index.Stamp {
	return index.Stamp{
		s.cur.dev, s.cur.ino, uint64(s.cur.mtime), s.new.dev, s.new.ino, uint64(s.new.mtime),
		s.list.dev, s.list.ino, s.list.size, uint64(s.list.mtime), uint64(s.list.ctime),
		stampSize: uint64(m.list.size), stampLines: uint64(m.list.count), stampNext: uint64(m.list.head.Next),
		stampKeywords: m.keys.over.Mark(),
	}
}

func unpackStamp(s index.Stamp) stamp {
	return stamp{
		cur: dirStamp{s[0], s[1], int64(s[2])}, new: dirStamp{s[3], s[4], int64(s[5])},
		list: fileStamp{s[6], s[7], s[8], int64(s[9]), int64(s[10])},
	}
}

func unpackList(s index.Stamp) uidlist.Stat {
	return uidlist.Stat{Dev: s[6], Ino: s[7], Size: int64(s[8]), MtimeNs: int64(s[9]), CtimeNs: int64(s[10])}
}

// ModSeqs reports whether the mailbox remembers when messages change, and makes
// it do so if it can: from now on modseqs may be told to a client. It is false
// where there is no place for an index (NOMODSEQ, RFC 7162 section 3.1.2.2).
func (m *Mailbox) ModSeqs() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := &m.past
	if len(m.importing) > 0 {
		return false // an index would say that all has been taken over
	}
	if h.lost {
		m.recover()
	}
	if m.Snapshot() == nil || h.lost {
		return false
	}
	if !h.on {
		if err := m.makeIndex(); err != nil {
			m.lose(err)
			return false
		}
	}
	if uint64(m.Snapshot().ModSeq) < h.state.Ceiling && h.state.Boot == m.host.boot && !h.state.Clean {
		return true
	}
	return m.declare() == nil
}

// declare makes the ceiling durable that modseqs may be told below.
func (m *Mailbox) declare() error {
	h := &m.past
	if err := h.file.Lock(context.Background()); err != nil {
		return err
	}
	defer h.file.Unlock()
	if m.takeOthers(); !h.on {
		return index.ErrReplaced
	}
	if !m.raise(m.Snapshot().ModSeq) {
		return nil
	}
	var b index.Batch
	b.State(&h.state)
	return h.file.Append(&b, m.host.opt.Fsync != FsyncNever)
}

// makeIndex writes the first index of a folder, or goes on with the one that
// another process has made meanwhile.
func (m *Mailbox) makeIndex() error {
	h := &m.past
	if m.indexDir == nil {
		return fs.ErrNotExist
	}
	h.file.Dir = m.indexDir
	if err := h.file.Lock(context.Background()); err != nil {
		return err
	}
	defer h.file.Unlock()
	ours, mine := m.Snapshot(), h.state
	img, err := h.file.Load()
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, index.ErrDamaged):
		return err // it may be good: another process goes on with it
	case err == nil && img.Validity == ours.Validity:
		h.state.ModSeq = max(h.state.ModSeq, img.State.Ceiling)
	}
	if err != nil || img.Validity != ours.Validity || img.GUID != m.list.head.GUID || m.copied(img) || !h.file.Loaded() {
		if h.state.Since == 0 {
			h.gone, h.state.Since = nil, max(uint64(ours.ModSeq), h.state.ModSeq)
		}
		h.line = rand.Uint64()
		if ours.Len() >= forgetFrom {
			// That of a large folder is where its opening takes most memory. Its
			// list may not be asked again: then it is read when it is needed.
			m.list.unload()
			debug.FreeOSMemory()
		}
		return m.writeIndex(ours)
	}
	h.state.ModSeq = mine.ModSeq
	s, err := m.join(img, mine, ours, h.lost)
	if err == nil {
		m.publish(s)
	}
	return err
}

// join goes on with the index img, which another process has made while we, whose
// state is mine, had none or another one, and returns the snapshot that follows
// from ours and it. With floor modseqs have been told that it knows nothing of.
// Its lock is held.
func (m *Mailbox) join(img *index.Image, mine index.State, ours *Snapshot, floor bool) (*Snapshot, error) {
	h := &m.past
	theirs := m.fromImage(img)
	// What we gave on our own may have been given by them too, for other changes.
	h.state.ModSeq = max(h.state.ModSeq, mine.ModSeq, mine.Ceiling)
	if floor {
		// And a client that we told what we gave may have missed what they did:
		// everything counts as changed now, once.
		mod := m.tick()
		h.state.ModSeq = uint64(mod)
		theirs = theirs.lifted(mod)
		h.forget(uint64(mod))
		m.raise(mod)
		var b index.Batch
		b.Floor(uint64(mod))
		b.State(&h.state)
		if err := h.file.Append(&b, m.host.opt.Fsync != FsyncNever); err != nil {
			return ours, err
		}
	}
	w := m.difference(theirs, ours)
	mod := m.stampChanges(&w)
	if err := m.append(&w, mod); err != nil {
		return ours, err
	}
	m.clean, h.on = stamp{}, true
	m.track.unsound()
	return m.outcome(&w), nil
}

// difference returns what theirs lacks of what we know. Of what they know and we
// do not, or otherwise, the files say whether it is still so.
func (m *Mailbox) difference(theirs, ours *Snapshot) work {
	w := work{snap: theirs, next: ours.Next}
	for _, old := range theirs.Range(0, theirs.Len()) {
		msg, ok := ours.lookup(old.UID)
		if ok && msg.same(old) || !ok && old.UID >= ours.Next || m.isThere(old.place(), string(old.name())) {
			continue
		}
		if !ok {
			w.changes = append(w.changes, change{uid: old.UID, remove: true})
		} else if m.isThere(msg.place(), string(msg.name())) {
			w.changes = append(w.changes, change{uid: old.UID, entry: entryOf(msg)})
		}
	}
	lo, ok := ours.Find(theirs.sum.last)
	if ok {
		lo++
	}
	for _, msg := range ours.Range(lo, ours.Len()) {
		if !m.past.buried(msg.UID, 0) {
			w.added = append(w.added, entryOf(msg))
		}
	}
	return w
}

// writeIndex writes the index of s anew. Its lock is held.
func (m *Mailbox) writeIndex(s *Snapshot) error {
	h := &m.past
	mod := max(s.ModSeq, ModSeq(h.state.ModSeq))
	m.raise(mod)
	h.state.ModSeq = uint64(mod)
	h.state.Next = uint32(s.Next)
	h.state.Recent = uint32(m.recentFrom)
	folder := index.Folder{Validity: s.Validity, GUID: m.list.head.GUID, Ino: m.curIno(), Line: h.line}
	src := &pageSource{s, m.foundOrder(s)}
	m.found = nil
	if err := h.file.Replace(folder, &h.state, h.gone, src); err != nil {
		return err
	}
	m.disorder = false
	if s.foretold != nil {
		s.foretold.order = nil // it keeps the file that was replaced
	}
	h.on, h.saved = true, h.state.Stamp
	if s.Len() >= forgetFrom {
		debug.FreeOSMemory() // of the names, which are in the file now
	}
	for _, d := range s.dirs {
		for _, p := range d.pages {
			p.mu.Lock()
			p.newer = false
			p.mu.Unlock()
		}
	}
	return nil
}

// forgetFrom is from how many messages on it is worth some milliseconds to give the
// memory of their names back at once.
const forgetFrom = 250_000

// dropFrom is from how many messages on names are not kept in memory: a smaller
// folder that changes all the time would read them again and again.
const dropFrom = 50_000

// pageSource has the index written from a snapshot. What the names of its pages take
// in memory is given back where there are many: they are read again when they are asked for.
type pageSource struct {
	s     *Snapshot
	order []uint32
}

// Order implements index.Source. It is asked for once, and of a large folder it is
// large.
func (x *pageSource) Order() []uint32 {
	o := x.order
	x.order = nil
	return o
}

// foundOrder returns the UIDs in the order in which the files of s were found last,
// nil if nobody knows.
func (m *Mailbox) foundOrder(s *Snapshot) []uint32 {
	if m.found != nil || s.order() == nil {
		return m.found
	}
	_, uids, free, err := s.order().Read()
	if err != nil {
		return nil
	}
	defer free()
	return slices.Clone(uids)
}

// Written implements index.Source.
func (x *pageSource) Written(page int, names *index.Names) {
	for _, d := range x.s.dirs {
		if page >= len(d.pages) {
			page -= len(d.pages)
			continue
		}
		p := d.pages[page]
		p.lazy.Store(names.Of(p.recs))
		if x.s.Len() >= dropFrom {
			p.names.Store(nil)
		}
		return
	}
}

// Pages implements index.Source.
func (x *pageSource) Pages(yield func(recs []index.Record, size int, names func() ([]byte, error)) error) error {
	buf := make([]record, 0, pageLen)
	for _, d := range x.s.dirs {
		for _, p := range d.pages {
			p.mu.Lock()
			buf = append(buf[:0], p.recs...)
			p.mu.Unlock()
			err := yield(buf, p.namesLen(), func() ([]byte, error) {
				if b := p.names.Load(); b != nil {
					return *b, nil
				}
				return p.lazy.Load().Read()
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// save writes down what makes the next opening cheap: how the folder looked when
// all was known, and what has been learned of files. It is not needed for
// anything else. m.mu is held.
func (m *Mailbox) save(closing bool) {
	h := &m.past
	s := m.Snapshot()
	if !h.on || s == nil || s.Validity == 0 {
		return
	}
	now := index.Stamp{}
	if m.clean != (stamp{}) && !m.list.damaged {
		now = m.packStamp(m.clean)
	}
	b := m.learned(s)
	mark := closing && !h.state.Clean
	if now == h.saved && b.Empty() && !mark && !m.disorder {
		return
	}
	if mark && m.host.opt.Fsync != FsyncNever {
		mark = m.cur.Sync() == nil && m.new.Sync() == nil
	}
	if err := h.file.Lock(context.Background()); err != nil {
		return
	}
	defer h.file.Unlock()
	if m.takeOthers(); !h.on || m.Snapshot() != s {
		return // others have changed the folder: what we know is not all
	}
	st := h.state
	st.Stamp, st.Boot = now, m.host.boot
	st.Next = max(st.Next, uint32(s.Next))
	st.Clean = st.Clean || mark
	b.State(&st)
	if err := h.file.Append(b, mark); err == nil {
		h.state, h.saved = st, now
	}
	if m.disorder {
		m.rewrite()
	}
	m.compact()
}

// learned returns a batch of the facts that the index does not have yet.
func (m *Mailbox) learned(s *Snapshot) *index.Batch {
	var b index.Batch
	for _, d := range s.dirs {
		for _, p := range d.pages {
			p.mu.Lock()
			if p.newer {
				p.newer = false
				for i := range p.recs {
					if p.recs[i].Size != index.NoSize {
						b.Learned(p.recs[i].UID, p.recs[i].Facts)
					}
				}
			}
			p.mu.Unlock()
		}
	}
	return &b
}
