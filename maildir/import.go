package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imapd/maildir/courier"
	"imapd/maildir/dovecotindex"
	"imapd/maildir/index"
	"imapd/maildir/isync"
	"imapd/maildir/keywords"
	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
)

// A folder without a UID list may have been another server's. What clients know
// of it, the UIDs above all, is in that server's files then, and is taken over
// when the folder is first opened. The new list is written last: until it is
// there, whatever interrupts the work, everything begins again at the next
// look, and every step may be done twice. Nothing of the other server's files is
// changed, so that it can come back.
//
// It must not be running meanwhile. Its lock is taken all the same: an
// administrator who forgot to stop it loses a UID or two, not the file.

// maxForeignList is the largest list of another server that is read.
const maxForeignList = 256 << 20

// stampKey is the key of the field that a list which was taken over has in its
// header: the name of the program, and inode number and time of change of the
// file that its UIDs came from. Dovecot keeps fields that it does not know.
const stampKey = "Z"

func stampOf(program string, st *unix.Stat_t) string {
	return fmt.Sprintf(" %s%s.%d.%d", stampKey, program, st.Ino, st.Mtim.Sec)
}

// lockForeign takes the lock of the server whose state is about to be taken
// over, and reports whether it did. Nothing else may be held.
func (m *Mailbox) lockForeign(ctx context.Context) (unlock func() error, held bool, err error) {
	unlock = func() error { return nil }
	if m.Snapshot().settledDown() {
		return unlock, false, nil
	}
	if err := m.slot(ctx); err != nil {
		return unlock, false, err
	}
	has := !exists(m.control, uidlist.Name) && exists(m.dir, courier.UIDs)
	m.leave()
	if !has {
		return unlock, false, nil
	}
	l, err := m.host.locks.Acquire(ctx, m.tmp, courier.Lock)
	if err != nil {
		return unlock, false, err
	}
	return l.Unlock, true, nil
}

func exists(dir vfs.Dir, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir.Fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// takeOver makes the folder's first list from what another server has kept of
// it, and reports whether there was anything. The lock is held.
func (m *Mailbox) takeOver() (bool, error) {
	if m.list.known || m.list.file != nil || m.hadList() {
		return false, nil
	}
	taken, err := m.takeCourier()
	if err == nil && !taken && m.host.opt.ImportIsync {
		taken, err = m.takeIsync()
	}
	if err != nil {
		return false, fmt.Errorf("take over %s: %w", m.name, err)
	}
	return taken, nil
}

// hadList reports whether there are traces of a list that has been lost. The
// other server's may be older, and would give UIDs again that clients know.
func (m *Mailbox) hadList() bool {
	return exists(m.control, uidlist.Name) || exists(m.control, uidlist.Broken) || m.hasDovecotIndex() || hasIndex(m.dir) ||
		m.indexDir != nil && hasIndex(m.indexDir)
}

// hasIndex reports whether there is an index in d, whatever it is worth.
func hasIndex(d vfs.Dir) bool { return exists(d, index.Name) || exists(d, index.BrokenName) }

// firstList writes l, the UIDs of another program, as the folder's list.
func (m *Mailbox) firstList(l uidlist.List, program string) error {
	if _, err := uidlist.Rewrite(m.control, &l); err != nil {
		return err
	}
	m.host.opt.Log.Info("took over UIDs and keywords", "mailbox", m.name, "from", program, "uidvalidity", l.Validity, "messages", len(l.Entries))
	return m.list.read(m.control)
}

// takeCourier is takeOver from Courier-IMAP.
func (m *Mailbox) takeCourier() (bool, error) {
	b, st, err := vfs.ReadRegular(m.dir, courier.UIDs, maxForeignList)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case noFile(err):
		m.host.opt.Log.Warn("no UIDs taken over", "mailbox", m.name, "err", err)
		return false, nil
	case err != nil:
		return false, unread(err)
	case !m.foreignLocked:
		return false, ErrBusy // it has appeared just now
	}
	l, err := uidlist.Parse(b)
	if err != nil {
		m.host.opt.Log.Warn("no UIDs taken over", "mailbox", m.name, "err", courier.UIDs+" has no usable first line")
		if l.Validity, err = m.store.tree.NextValidity(); err != nil {
			return false, err
		}
		l.Entries, l.Next = nil, 1
	}
	if err := m.takeCourierKeywords(); err != nil {
		return false, err
	}
	l.Extra = stampOf("courier", &st)
	return true, m.firstList(l, "Courier")
}

// errUnread says that a file of another server cannot be read, for want of rights most
// likely. What is in it must not be left out: it is taken over once.
var errUnread = errors.New("another server's file cannot be read")

func unread(err error) error { return fmt.Errorf("%w: %w", errUnread, err) }

// noFile reports whether err says that something is no regular file of a
// possible size.
func noFile(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EFBIG) || errors.Is(err, unix.ENXIO)
}

// takeIsync is takeOver from mbsync's native scheme: the UIDs are in the names.
func (m *Mailbox) takeIsync() (bool, error) {
	f, err := isync.Open(m.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, isync.ErrDamaged):
		m.host.opt.Log.Warn("no UIDs taken over", "mailbox", m.name, "err", err)
		return false, nil
	case errors.Is(err, isync.ErrBusy):
		return false, fmt.Errorf("%w: %w", ErrBusy, err)
	case err != nil:
		return false, unread(err)
	}
	defer f.Close()
	files, err := m.files()
	if err != nil {
		return false, err
	}
	l := uidlist.List{Header: uidlist.Header{Validity: f.Validity, Next: f.Highest + 1, Extra: stampOf("isync", f.Stat())}}
	bases := map[string]bool{}
	for _, file := range files {
		base := file.base()
		if uid, ok := f.UID(base); ok && uid <= uidlist.MaxUID && uidlist.ValidBase(base) && !bases[base] {
			bases[base] = true
			l.Entries = append(l.Entries, uidlist.Entry{UID: uid, Base: base})
		}
	}
	slices.SortFunc(l.Entries, func(a, b uidlist.Entry) int {
		if a.UID != b.UID {
			return cmpInt(int64(a.UID), int64(b.UID))
		}
		return arrivalOrder(a.Base, b.Base)
	})
	// Copies of a file have its UID; the first has been there longest.
	l.Entries = slices.CompactFunc(l.Entries, func(a, b uidlist.Entry) bool { return a.UID == b.UID })
	return true, m.firstList(l, "isync")
}

// files returns what is in new/ and cur/.
func (m *Mailbox) files() ([]file, error) {
	var all []file
	for _, p := range []place{inNew, inCur} {
		_, err := scanDir(m.dirOf(p).Fd(), func(name []byte) {
			if len(name) <= 255 {
				all = append(all, file{name: string(name), place: p})
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// What only Dovecot's index knows of a folder.
type indexed struct {
	modseq   ModSeq              // the highest that Dovecot has told clients
	keywords map[string][]string // that have no letter, by base name
}

// firstSight finds out what Dovecot knows of a folder of which we know nothing
// yet, nor have known anything: keywords that have no letter are taken over by the
// first look under the lock. m.mu is held.
func (m *Mailbox) firstSight() error {
	if exists(m.control, keywords.OverflowName) || exists(m.indexDir, index.BrokenName) || !m.hasDovecotIndex() {
		return nil
	}
	if err := m.list.read(m.control); err != nil || !m.list.known {
		return err
	}
	if err := m.keys.read(m.control); err != nil {
		return err
	}
	in := m.importIndex()
	m.past.state.ModSeq = max(m.past.state.ModSeq, uint64(in.modseq))
	m.importing = in.keywords
	return nil
}

// takeKeywords takes over what firstSight has found. The lock is held.
func (m *Mailbox) takeKeywords() error {
	if len(m.importing) == 0 {
		return nil
	}
	dropped, err := m.addOverflow(m.importing)
	if len(dropped) > 0 {
		m.host.opt.Log.Warn("no room for keywords", "mailbox", m.name, "keywords", dropped)
	}
	if err == nil {
		m.importing = nil
	}
	return err
}

// dovecotDirs are where Dovecot's index of the folder may be. An administrator has
// indexdirectory for what was INDEX= in Dovecot, which names what is in it as we do.
func (m *Mailbox) dovecotDirs() []vfs.Dir {
	if m.indexDir == nil || m.store.tree.IndexInFolder() {
		return []vfs.Dir{m.dir}
	}
	return []vfs.Dir{m.indexDir, m.dir}
}

func (m *Mailbox) hasDovecotIndex() bool {
	return slices.ContainsFunc(m.dovecotDirs(), dovecotindex.In)
}

// dovecotIndex reads Dovecot's index: where it has left one behind when it was told to
// keep them elsewhere, the one that it wrote last. Modseqs are above those of both.
// What cannot be read is logged and left out.
func (m *Mailbox) dovecotIndex() dovecotindex.Index {
	var last dovecotindex.Index
	highest, most := uint64(0), m.now()+wayAhead
	for _, d := range m.dovecotDirs() {
		x, err := dovecotindex.Read(d, m.list.head.Validity)
		if err != nil {
			m.host.opt.Log.Warn("reading Dovecot's index", "mailbox", m.name, "err", err)
		}
		if x.HighestModSeq > most {
			// Dovecot counts changes: it is one wrong octet, of files without a checksum.
			m.host.opt.Log.Warn("Dovecot's index has no possible modseq", "mailbox", m.name, "modseq", x.HighestModSeq)
			x.HighestModSeq = 0
		}
		highest = max(highest, x.HighestModSeq)
		if x.Written > last.Written {
			last = x
		}
	}
	last.HighestModSeq = highest
	return last
}

// importIndex takes from Dovecot's index what is to be taken over, for a folder of which
// we know nothing yet but the list and dovecot-keywords, both read. m.mu is held.
func (m *Mailbox) importIndex() indexed {
	x := m.dovecotIndex()
	in := indexed{modseq: ModSeq(x.HighestModSeq), keywords: map[string][]string{}}
	names := map[uint32][]string{}
	for _, k := range x.Keywords {
		if m.keys.table.Index(k.Name) >= 0 || !atom(k.Name) {
			continue // file names say who has it
		}
		for uid := range k.UIDs() {
			names[uid] = append(names[uid], k.Name)
		}
	}
	if len(names) == 0 || m.list.file == nil {
		return in
	}
	_, _, err := m.list.file.Each(func(e uidlist.Entry) {
		if all := names[e.UID]; len(all) > 0 {
			in.keywords[strings.Clone(e.Base)] = all
		} else {
			delete(in.keywords, e.Base) // it had another UID before
		}
	})
	if err != nil {
		m.host.opt.Log.Warn("reading Dovecot's index", "mailbox", m.name, "err", err)
	}
	return in
}
