package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/quota"
	"imapd/maildir/tree"
	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
)

// A Store is one user's folders. It is safe for use by several sessions.
type Store struct {
	host *Host
	tree *tree.Tree
	cfg  tree.Config
	// subscribed says that Courier's subscriptions need not be looked for.
	subscribed atomic.Bool
}

// Open returns the Store whose root is c.Root. It creates nothing; the root need
// not exist. The Host's locks and file system stand in for those of c. What a
// process left of a change of folders that was killed is put right first.
func (h *Host) Open(c tree.Config) (*Store, error) {
	c.Lock, c.Open, c.Seed, c.Journal, c.Log = h.locks.Lock, h.opt.Open, seed, journal{h}, h.opt.Log
	s := &Store{host: h, cfg: c}
	s.cfg.Slot = func() (func(), error) { return s.slot(context.Background()) }
	leave, err := s.slot(context.Background())
	if err != nil {
		return nil, err
	}
	defer leave()
	if s.tree, err = tree.Open(s.cfg); err != nil {
		return nil, err
	}
	if err := s.tree.Recover(); err != nil {
		h.opt.Log.Warn("cannot finish what a crash left", "root", c.Root, "err", err)
	}
	h.learn(c.Root)
	return s, nil
}

// seed writes the first UID list of a new folder.
func seed(control vfs.Dir, validity uint32) error {
	l := uidlist.New(validity)
	_, err := uidlist.Rewrite(control, &l)
	return err
}

// Init makes what is missing of the root, so that INBOX can be opened.
func (s *Store) Init() error {
	leave, err := s.slot(context.Background())
	if err != nil {
		return err
	}
	defer leave()
	return s.tree.Init()
}

// List returns the folders of the store, sorted by name.
func (s *Store) List() ([]tree.Folder, error) {
	leave, err := s.slot(context.Background())
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := s.tree.Recover(); err != nil {
		return nil, err
	}
	return s.tree.List()
}

// Look returns the folder name, all but HasChildren, at the cost of a stat(2).
// That there is none is no error.
func (s *Store) Look(name string) (tree.Folder, error) {
	leave, err := s.slot(context.Background())
	if err != nil {
		return tree.Folder{}, err
	}
	defer leave()
	return s.tree.Look(name)
}

// Separator returns the hierarchy separator that clients see.
func (s *Store) Separator() byte { return s.cfg.Separator }

// Prefix returns what the names of all folders but INBOX begin with.
func (s *Store) Prefix() string { return s.cfg.Prefix }

// Subscriptions returns the subscribed names, existing or not.
func (s *Store) Subscriptions() ([]string, error) {
	if err := s.importSubscriptions(); err != nil {
		return nil, err
	}
	return s.tree.Subscriptions()
}

// Subscribe adds name to the subscriptions; it need not exist.
func (s *Store) Subscribe(name string) error {
	if err := s.importSubscriptions(); err != nil {
		return err
	}
	return s.tree.Subscribe(name)
}

// Unsubscribe removes name from the subscriptions.
func (s *Store) Unsubscribe(name string) error {
	if err := s.importSubscriptions(); err != nil {
		return err
	}
	return s.tree.Unsubscribe(name)
}

// Create makes the folder name, with a UIDVALIDITY that no folder of the store
// has had.
func (s *Store) Create(_ context.Context, name string) error { return s.tree.Create(name) }

// Delete removes the folder name and all its messages. Folders below it stay.
func (s *Store) Delete(ctx context.Context, name string) error {
	if name == "INBOX" {
		return ErrInbox
	}
	m, err := s.Mailbox(ctx, name)
	if err != nil {
		// A container without messages of its own has nothing to lock.
		if errors.Is(err, ErrNotFound) {
			return s.tree.Delete(name)
		}
		return err
	}
	defer m.Release()
	lock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	rule := s.countingRule()
	if rule == quota.None {
		return s.tree.Delete(name)
	}
	path, _, err := s.tree.Path(name)
	if err != nil {
		return err
	}
	sum, err := s.folderTakes(rule, path)
	if err != nil {
		return err
	}
	err = s.tree.Delete(name)
	var st unix.Stat_t
	if err == nil || unix.Lstat(path, &st) == unix.ENOENT { // that may not be durable, but it is gone
		s.charge(quota.Usage{}.Minus(sum))
	}
	return err
}

// Rename gives the folder old, and the folders below it, a new name. Renaming
// INBOX moves its messages into a new folder and leaves INBOX empty (RFC 9051
// section 6.3.6).
func (s *Store) Rename(ctx context.Context, old, name string) error {
	from, err := s.Look(old)
	if err != nil {
		return err
	}
	if from.Name != "INBOX" {
		return s.renameFolders(old, name)
	}
	if err := s.Create(ctx, name); err != nil {
		return err
	}
	moved, err := s.moveAll(ctx, from.Name, name)
	if err != nil && !moved {
		return errors.Join(err, s.takeBack(context.WithoutCancel(ctx), name))
	}
	return err
}

// takeBack removes the folder name, which was made for a command that failed. Others
// have seen it meanwhile: with mail in it it stays.
func (s *Store) takeBack(ctx context.Context, name string) error {
	m, err := s.Mailbox(ctx, name)
	if err != nil {
		return err
	}
	defer m.Release()
	lock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if empty, err := m.empty(ctx); err != nil || !empty {
		return err
	}
	return s.tree.Delete(name)
}

// empty reports whether there is no message in the folder, with a UID or without. The
// lock is held.
func (m *Mailbox) empty(ctx context.Context) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.slot(ctx); err != nil {
		return false, err
	}
	defer m.leave()
	none := true
	for _, d := range []vfs.Dir{m.new, m.cur} {
		if _, err := scanDir(d.Fd(), func([]byte) { none = false }); err != nil {
			return false, err
		}
	}
	return none, nil
}

// renameFolders renames old and the folders below it. What becomes Courier's Trash, or
// has been it, may count otherwise.
func (s *Store) renameFolders(old, name string) error {
	from, to, err := s.paths(old, name)
	if err != nil {
		return err
	}
	rule := quota.None
	if s.isTrash(from) || s.isTrash(to) {
		rule = s.countingRule()
	}
	if rule != quota.Courier {
		return s.tree.Rename(old, name)
	}
	was, err := s.folderTakes(rule, from)
	if err != nil {
		return err
	}
	if err := s.tree.Rename(old, name); err != nil {
		return err
	}
	is, err := s.folderTakes(rule, to)
	if err != nil {
		s.outOfStep(err)
		return nil
	}
	s.charge(is.Minus(was))
	return nil
}

// paths returns where the mail of two folders is.
func (s *Store) paths(a, b string) (first, second string, err error) {
	leave, err := s.slot(context.Background())
	if err != nil {
		return "", "", err
	}
	defer leave()
	if first, _, err = s.tree.Path(a); err == nil {
		second, _, err = s.tree.Path(b)
	}
	return first, second, err
}

// moveAll moves the messages of one folder into another. It reports whether
// there is any in the other.
func (s *Store) moveAll(ctx context.Context, from, to string) (moved bool, err error) {
	src, err := s.Mailbox(ctx, from)
	if err != nil {
		return false, err
	}
	defer src.Release()
	dst, err := s.Mailbox(ctx, to)
	if err != nil {
		return false, err
	}
	defer dst.Release()
	snap := src.Snapshot()
	uids := make([]UID, 0, snap.Len())
	for _, m := range snap.Range(0, snap.Len()) {
		uids = append(uids, m.UID)
	}
	c, err := src.Move(ctx, uids, dst)
	return len(c.To) > 0, err
}

// Mailbox opens the folder name, or shares it with whoever has it open, and
// looks at it once. Each call must be paired with a Release.
func (s *Store) Mailbox(ctx context.Context, name string) (*Mailbox, error) {
	m, err := s.share(ctx, name)
	if err != nil {
		return nil, err
	}
	return m.opened(ctx)
}

// Target is Mailbox for who puts messages into the folder and asks nothing of it.
// One that has been looked at before is not looked at again: whoever adds reads
// under the lock what he must know.
func (s *Store) Target(ctx context.Context, name string) (*Mailbox, error) {
	m, err := s.share(ctx, name)
	if err != nil || m.Snapshot().settledDown() {
		return m, err
	}
	return m.opened(ctx)
}

func (s *Store) share(ctx context.Context, name string) (*Mailbox, error) {
	leave, err := s.slot(ctx)
	if err != nil {
		return nil, err
	}
	m, stale, err := s.shareHere(name)
	leave()
	s.host.closeSoon(stale)
	return m, err
}

func (s *Store) shareHere(name string) (m *Mailbox, stale []*Mailbox, err error) {
	path, control, err := s.tree.Path(name)
	if err != nil {
		return nil, nil, err
	}
	return s.host.share(s, name, path, control)
}

// opened looks at m for a new user, and returns it.
func (m *Mailbox) opened(ctx context.Context) (*Mailbox, error) {
	if err := m.Sync(ctx, Look); err != nil {
		m.Release()
		return nil, err
	}
	m.begin()
	return m, nil
}

// share returns the Mailbox of the folder at path with one more reference. The caller
// closes what is stale.
func (h *Host) share(s *Store, name, path, control string) (m *Mailbox, stale []*Mailbox, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, nil, openError(name, err)
	}
	id := folderID{uint64(st.Dev), st.Ino}
	at := siteOf(path, control)
	h.mu.Lock()
	m, stale = h.take(id, at)
	h.mu.Unlock()
	if m != nil {
		return m, stale, nil
	}
	m = &Mailbox{host: h, store: s, name: name, path: path, refs: 1}
	if err := m.openDirs(path, control); err != nil {
		m.closeDirs()
		return nil, stale, openError(name, err)
	}
	m.spare.Dir, m.spare.Slots = m.tmp, (*mailboxSlots)(m)
	m.site = siteOf(path, control)
	h.mu.Lock()
	other, also := h.take(m.id, m.site)
	stale = append(stale, also...)
	if other != nil {
		h.mu.Unlock()
		m.closeDirs()
		return other, stale, nil
	}
	h.boxes[m.id] = m
	m.left = h.unclaimed[m.id]
	delete(h.unclaimed, m.id)
	m.gate, m.disk = h.gate(s.cfg.Root), h.disk(m.id.dev)
	h.mu.Unlock()
	m.sweep(time.Now())
	return m, stale, nil
}

// strayAge is how old a file in tmp/ must be to be nobody's: Maildir's own rule.
const strayAge = 36 * time.Hour

// sweep removes what deliveries that never ended have left in tmp/, and locks
// that were never taken. INBOX's directory may hold thousands of folders; there
// the names of locks may stay.
func (m *Mailbox) sweep(now time.Time) {
	var st unix.Stat_t
	err := sweepDir(m.tmp, now, func(string) bool { return true })
	if unix.Fstat(m.control.Fd(), &st) == nil && st.Nlink < sweepFolders {
		err = errors.Join(err, sweepDir(m.control, now, uidlist.IsAside))
	}
	if err != nil && !unwritable(err) {
		m.host.opt.Log.Warn("cannot remove what a crash left", "mailbox", m.name, "err", err)
	}
}

// sweepFolders is how many directories may be in one that is swept.
const sweepFolders = 100

// sweepDir removes the files of d that are old and for whose names stray is true.
func sweepDir(d vfs.Dir, now time.Time, stray func(name string) bool) error {
	var strays []string
	_, err := scanDir(d.Fd(), func(name []byte) {
		var st unix.Stat_t
		n := string(name)
		if stray(n) && unix.Fstatat(d.Fd(), n, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && now.Sub(time.Unix(st.Ctim.Unix())) > strayAge {
			strays = append(strays, n)
		}
	})
	for _, n := range strays {
		if err == nil {
			err = d.Unlink(n)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // another process sweeps too
		}
	}
	return err
}

// Release gives back what Store.Mailbox returned.
func (m *Mailbox) Release() {
	h := m.host
	if !h.release(m) {
		return
	}
	m.await()
	_, err := m.stamp() // a folder that has been deleted is not worth keeping
	m.leave()
	worth := err == nil && m.Snapshot() != nil
	if worth {
		m.tidySoon()
	}
	h.giveBack(m, time.Now(), worth)
}

func openError(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return err
}

func (m *Mailbox) openDirs(path, control string) (err error) {
	open := m.host.opt.Open
	if m.dir, err = open(path); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(m.dir.Fd(), &st); err != nil {
		return err
	}
	m.id = folderID{uint64(st.Dev), st.Ino}
	m.cur, err = m.dir.OpenDir("cur")
	if errors.Is(err, fs.ErrNotExist) {
		if f, lerr := m.store.tree.Look(m.name); lerr == nil && f.Exists { // it has lost its cur/
			m.cur, err = m.openOrMake("cur")
		}
	}
	if err != nil {
		return err
	}
	if m.new, err = m.openOrMake("new"); err != nil {
		return err
	}
	if m.tmp, err = m.openOrMake("tmp"); err != nil {
		return err
	}
	m.control, err = open(control)
	if errors.Is(err, fs.ErrNotExist) {
		m.control, err = m.store.tree.OpenControl(control, m.dir)
	}
	if err != nil {
		return err
	}
	if m.indexDir, m.noIndex = m.store.tree.OpenIndex(m.name, m.dir); m.noIndex != nil {
		m.indexDir = nil // served without an index, see ModSeqs
	}
	m.atomic = atomicScans(m.cur.Fd()) && atomicScans(m.new.Fd())
	m.local = localFiles(m.cur.Fd()) && localFiles(m.new.Fd())
	return err
}

// openOrMake opens a part of the folder that a careless tool left out.
func (m *Mailbox) openOrMake(name string) (vfs.Dir, error) {
	d, err := m.dir.OpenDir(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(m.dir.Fd(), &st); err != nil {
		return nil, err
	}
	if err := m.dir.Mkdir(name, fs.FileMode(st.Mode&0o777)); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return m.dir.OpenDir(name)
}

func (m *Mailbox) closeDirs() {
	m.host.hub.remove(m)
	for _, d := range []vfs.Dir{m.dir, m.cur, m.new, m.tmp, m.control, m.indexDir} {
		if d != nil {
			d.Close()
		}
	}
	m.past.file.Close()
	m.list.close()
}

// lock takes the lock that all writers of the folder share. Nothing else may be
// held.
func (m *Mailbox) lock(ctx context.Context) (*uidlist.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, m.host.opt.LockWait)
	defer cancel()
	l, err := m.host.locks.AcquireWith(ctx, m.control, uidlist.LockName, &m.spare)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("%s: %w", m.name, ErrBusy)
	}
	if err != nil {
		return nil, openError(m.name, err)
	}
	return l, nil
}
