package maildir_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imapd/maildir"
	"imapd/maildir/index"
	"imapd/maildir/tree"
	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
	"imapd/test/belief"
	"imapd/test/peer"
)

// The words of the tests for what clients know.
type (
	mail   = belief.Mail
	folder = belief.Folder
	added  = belief.Added
	effect = belief.Effect
)

// A site is where the folders of a script lie.
type site struct {
	dir    string // holds Maildir, and Control if that is apart
	layout tree.Layout
	apart  bool
	index  bool // imapd.index lies in Index
}

func (s site) root() string { return s.dir + "/Maildir" }

func (s site) config() tree.Config {
	c := tree.Config{Root: s.root(), Layout: s.layout, Separator: '/'}
	if s.apart {
		c.Control = s.dir + "/Control"
	}
	if s.index {
		c.Index = s.dir + "/Index"
	}
	return c
}

// A session is one process that serves a site to one client.
type session struct {
	site
	host     *maildir.Host
	st       *maildir.Store
	boxes    map[string]*maildir.Mailbox
	selected map[string]bool // of boxes: clients are told their modseqs
	given    []maildir.UID   // by the last command
	rebooted bool
	open     func(path string) (vfs.Dir, error)
}

// quiet takes what a server says about the faults that it is made to meet.
var quiet = slog.New(slog.DiscardHandler)

func (s site) serve(o maildir.Options) (*session, error) {
	// Only a lock that a fault has left behind is ever waited for.
	o.NoNotify, o.Log, o.LockWait, o.IndexSingleHost = true, quiet, 300*time.Millisecond, s.index
	if o.Open == nil {
		o.Open = vfs.Open
	}
	h := maildir.NewHost(o)
	st, err := h.Open(s.config())
	if err != nil {
		h.Close()
		return nil, err
	}
	return &session{site: s, host: h, st: st, boxes: map[string]*maildir.Mailbox{}, selected: map[string]bool{}, open: o.Open}, nil
}

// box returns a mailbox, opened by the first call.
func (s *session) box(name string) (*maildir.Mailbox, error) {
	if m := s.boxes[name]; m != nil {
		return m, nil
	}
	m, err := s.st.Mailbox(context.Background(), name)
	if err == nil {
		s.boxes[name] = m
	}
	return m, err
}

// enter is box for a client that selects the mailbox.
func (s *session) enter(name string) (*maildir.Mailbox, error) {
	m, err := s.box(name)
	if err == nil {
		s.selected[name] = m.ModSeqs()
	}
	return m, err
}

// leave closes a mailbox.
func (s *session) leave(name string) {
	if m := s.boxes[name]; m != nil {
		m.Release()
		delete(s.boxes, name)
		delete(s.selected, name)
	}
}

// reboot has the machine have been started anew before this process.
func (s *session) reboot() {
	s.host.Reboot()
	s.rebooted = true
}

func (s *session) close() {
	for name := range s.boxes {
		s.leave(name)
	}
	s.host.Close()
}

// look returns all that a client can find out.
func (s *session) look(a maildir.Access) (map[string]folder, error) {
	list, err := s.st.List()
	if err != nil {
		return nil, err
	}
	all := map[string]folder{}
	for _, f := range list {
		if !f.Exists {
			continue
		}
		known := s.boxes[f.Name] != nil
		m, err := s.box(f.Name)
		if err == nil {
			err = m.Sync(context.Background(), a)
		}
		if err == nil {
			all[f.Name], err = lookInto(m)
		}
		if !known {
			s.leave(f.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return all, nil
}

func lookInto(m *maildir.Mailbox) (folder, error) {
	told := m.ModSeqs() // as SELECT asks; false where the index cannot be written
	return read(m, told)
}

// told returns what clients have been told of the mailboxes that they have
// selected.
func (s *session) told() (all []folder, err error) {
	for name, modseqs := range s.selected {
		f, err := read(s.boxes[name], modseqs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, f)
	}
	return all, nil
}

// resync is what a client is told that comes back to a mailbox.
func (s *session) resync(name string, mirror folder) (belief.News, error) {
	known := s.boxes[name] != nil
	m, err := s.box(name)
	if err != nil {
		return belief.News{}, err
	}
	if !known {
		defer s.leave(name)
	}
	if !m.ModSeqs() {
		return belief.News{}, errors.New("no modseqs")
	}
	gone, complete := m.Expunged(mirror.ModSeq)
	snap := m.Snapshot()
	news := belief.News{Flags: map[maildir.UID]string{}}
	for u := range mirror.Mails {
		went := !complete || slices.ContainsFunc(gone, func(x maildir.Expunged) bool { return x.First <= u && u <= x.Last })
		if _, there := snap.Find(u); went && !there {
			news.Vanished = append(news.Vanished, u)
		}
	}
	for _, msg := range snap.Range(0, snap.Len()) {
		if msg.ModSeq > mirror.ModSeq {
			news.Flags[msg.UID] = flagNames(snap, msg)
		}
	}
	return news, nil
}

// flagNames returns the flags of a message as mail has them.
func flagNames(s *maildir.Snapshot, msg maildir.Message) string {
	names := s.AppendFlagNames(nil, msg.Marks())
	slices.Sort(names)
	return strings.Join(names, " ")
}

// read returns what the snapshot of m says.
func read(m *maildir.Mailbox, modseqs bool) (folder, error) {
	snap := m.Snapshot()
	f := folder{Validity: snap.Validity, Next: snap.Next, Mails: map[maildir.UID]mail{}}
	if modseqs {
		f.ModSeq = snap.ModSeq
	}
	last := maildir.UID(0)
	for _, msg := range snap.Range(0, snap.Len()) {
		if msg.UID <= last || msg.UID >= snap.Next {
			return f, fmt.Errorf("UID %d after %d, UIDNEXT %d", msg.UID, last, snap.Next)
		}
		last = msg.UID
		file, err := m.OpenMessage(context.Background(), msg)
		if err != nil {
			return f, err
		}
		text := make([]byte, file.Size())
		_, err = file.ReadAt(text, 0)
		date := file.Date().Unix()
		file.Close()
		if err != nil {
			return f, err
		}
		f.Mails[msg.UID] = mail{Text: string(text), Date: date, Flags: flagNames(snap, msg)}
	}
	return f, nil
}

// sound holds that other programs find the folder as we do: a list without
// damage that names each file, and no lock if somebody has changed it since.
// A list that could not be written may be behind for a while; see mendable.
func (s site) sound(name string, f folder, changed, behind bool) error {
	t, err := tree.Open(s.config())
	if err != nil {
		return err
	}
	path, control, err := t.Path(name)
	if err != nil {
		return err
	}
	d, err := vfs.Open(control)
	if err != nil {
		return err
	}
	defer d.Close()
	l, _, err := uidlist.ReadFile(d)
	if err != nil {
		return err
	}
	if l.Damage.Any() || l.Validity != f.Validity || l.Next != uint32(f.Next) && !(behind && l.Next < uint32(f.Next)) {
		return fmt.Errorf("the list has V%d N%d, must have V%d N%d, and the damage %+v", l.Validity, l.Next, f.Validity, f.Next, l.Damage)
	}
	uids := map[string]maildir.UID{}
	for _, e := range l.Entries {
		uids[e.Base] = maildir.UID(e.UID)
	}
	found := map[string]bool{}
	for _, sub := range []string{"/new", "/cur"} {
		entries, err := os.ReadDir(path + sub)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Name()[0] == '.' { // no message to anybody
				continue
			}
			base, _, _ := strings.Cut(e.Name(), ":")
			if _, ok := f.Mails[uids[base]]; !ok {
				return fmt.Errorf("%s/%s is nobody's: UID %d", sub, e.Name(), uids[base])
			}
			found[base] = true
		}
	}
	if len(found) != len(f.Mails) {
		return fmt.Errorf("%d files and %d messages", len(found), len(f.Mails))
	}
	if _, err := os.Lstat(control + "/" + uidlist.LockName); changed && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the lock is still there: %v", err)
	}
	return nil
}

// age lets the locks of the dead be so old that they may be broken. One that
// does not say whose it is, which it does until it is linked, lasts for minutes:
// they have passed.
func (s site) age(t *testing.T) {
	t.Helper()
	old := time.Now().Add(-3 * time.Second)
	err := filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".lock") || e.Name() == index.LockName {
			return err
		}
		if b, err := os.ReadFile(path); err != nil || len(b) == 0 || b[0] == 0 || b[len(b)-1] == 0 || !strings.Contains(string(b), ":") {
			return errors.Join(err, os.Remove(path))
		}
		return os.Chtimes(path, old, old)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// forget removes the indexes.
func (s site) forget(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == index.Name {
			err = os.Remove(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// shelf is where the files of the tests lie: in memory, where it can be, for
// there are thousands of trees.
func shelf(t *testing.T) string {
	t.Helper()
	if info, err := os.Stat("/dev/shm"); err != nil || !info.IsDir() {
		return peer.TempDir(t)
	}
	dir, err := os.MkdirTemp("/dev/shm", "imapd-crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
