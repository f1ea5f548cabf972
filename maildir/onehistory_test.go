package maildir

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/maildir/index"
	"imapd/maildir/tree"
	"imapd/maildir/vfs"
)

// An unlockable is a file system whose locks fail with err, nil: they work.
type unlockable struct {
	vfs.Dir
	err error
}

func (d unlockable) open(path string) (vfs.Dir, error) {
	v, err := vfs.Open(path)
	return unlockable{v, d.err}, err
}

func (d unlockable) OpenDir(name string) (vfs.Dir, error) {
	v, err := d.Dir.OpenDir(name)
	return unlockable{v, d.err}, err
}

func (d unlockable) Create(name string, perm os.FileMode) (vfs.File, error) {
	f, err := d.Dir.Create(name, perm)
	return unlockableFile{f, d.err}, err
}

func (d unlockable) Update(name string) (vfs.File, error) {
	f, err := d.Dir.Update(name)
	return unlockableFile{f, d.err}, err
}

type unlockableFile struct {
	vfs.File
	err error
}

func (f unlockableFile) TryLock() (bool, error) {
	if f.err != nil {
		return false, os.NewSyscallError("lock", f.err)
	}
	return f.File.TryLock()
}

// Modseqs are told only where all who serve a mailbox share one history: where they
// have the same index and take turns at it, or are promised to be one host.
func TestOneHistory(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                 string
		apart, single, local bool  // where the index is; the option; locks are local
		lock                 error // of the file system
		told                 bool
		kept                 bool // an index is made
	}{
		{name: "in the folder", told: true, kept: true},
		{name: "in the folder, one host", single: true, told: true, kept: true},
		{name: "elsewhere", apart: true, kept: true},
		{name: "elsewhere, one host", apart: true, single: true, told: true, kept: true},
		{name: "in the folder, locks of this host", local: true, kept: true},
		{name: "in the folder, locks of this host, one host", local: true, single: true, told: true, kept: true},
		{name: "no lockd", lock: unix.ENOLCK},
		{name: "no locks", lock: unix.EOPNOTSUPP},
		{name: "no locks of open files", lock: unix.EINVAL},
		{name: "no locks, one host", lock: unix.ENOLCK, single: true},
		{name: "no locks, elsewhere, one host", lock: unix.ENOLCK, apart: true, single: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, Options{NoNotify: true}) // whose host can do all
			b.deliver("cur", "1.h:2,", "x\n")
			cfg := tree.Config{Root: b.path, Separator: '/'}
			at := b.path
			if tt.apart {
				cfg.Index = t.TempDir()
				at = filepath.Join(cfg.Index, ".INBOX")
			}
			serve := func() *Host {
				h := NewHost(Options{NoNotify: true, IndexSingleHost: tt.single, Open: unlockable{err: tt.lock}.open})
				h.localLocks = func(int) bool { return tt.local }
				return h
			}
			check := func(when string) {
				t.Helper()
				h := serve()
				defer h.Close()
				s, err := h.Open(cfg)
				if err != nil {
					t.Fatal(err)
				}
				m, err := s.Mailbox(t.Context(), "INBOX")
				if err != nil {
					t.Fatal(err)
				}
				defer m.Release()
				for range 2 {
					if got := m.ModSeqs(); got != tt.told {
						t.Errorf("%s: modseqs are told: %v, want %v", when, got, tt.told)
					}
				}
				if done, err := m.SetFlags(t.Context(), []UID{1}, AddFlags, FlagSet{System: Flagged}); err != nil || len(done.Gone) > 0 {
					t.Errorf("%s: STORE: %v, %v", when, done, err)
				}
			}
			check("at first")
			if _, err := os.Stat(filepath.Join(at, index.Name)); (err == nil) != tt.kept {
				t.Errorf("an index has been made: %v, want %v", err == nil, tt.kept)
			}
			check("again")
			if tt.apart {
				return
			}
			b.sync(Serve)
			b.remembering() // another host goes on with one meanwhile
			b.flag(1)
			check("with an index")
		})
	}
}
