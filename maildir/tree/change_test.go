package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// errInjected is what an operation fails with that a test chose.
var errInjected = errors.New("injected")

// A failing file system lets so many mutations happen and fails the next one,
// and that one only.
type failing struct {
	vfs.Dir
	left *atomic.Int64
}

func (d failing) fail() bool { return d.left.Add(-1) == -1 }

func failAfter(n int) (open func(string) (vfs.Dir, error), failed func() bool) {
	var left atomic.Int64
	left.Store(int64(n))
	open = func(path string) (vfs.Dir, error) {
		d, err := vfs.Open(path)
		return failing{d, &left}, err
	}
	return open, func() bool { return left.Load() < 0 }
}

func (d failing) OpenDir(name string) (vfs.Dir, error) {
	sub, err := d.Dir.OpenDir(name)
	return failing{sub, d.left}, err
}

func (d failing) Create(name string, perm os.FileMode) (vfs.File, error) {
	if d.fail() {
		return nil, errInjected
	}
	return d.Dir.Create(name, perm)
}

func (d failing) Rename(name string, to vfs.Dir, newname string) error {
	if d.fail() {
		return errInjected
	}
	return d.Dir.Rename(name, to, newname)
}

func (d failing) RenameNoReplace(name string, to vfs.Dir, newname string) error {
	if d.fail() {
		return errInjected
	}
	return d.Dir.RenameNoReplace(name, to, newname)
}

func (d failing) Mkdir(name string, perm os.FileMode) error {
	if d.fail() {
		return errInjected
	}
	return d.Dir.Mkdir(name, perm)
}

func (d failing) Unlink(name string) error {
	if d.fail() {
		return errInjected
	}
	return d.Dir.Unlink(name)
}

// leftovers returns what is in the tree that belongs to no folder.
func leftovers(t *testing.T, dirs ...string) (found []string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			n := e.Name()
			if strings.HasPrefix(n, "imapd-new.") || n == trashName || n == treeLock || strings.HasSuffix(n, ".lock") || strings.HasSuffix(n, ".tmp") {
				found = append(found, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return found
}

// TestFaults makes each step of each change fail. Afterwards the change was
// made whole or not at all, and nothing lies about but what a next change
// takes away.
func TestFaults(t *testing.T) {
	t.Parallel()
	changes := map[string]func(*Tree) error{
		"create": func(t *Tree) error { return t.Create("New/Sub") },
		"delete": func(t *Tree) error { return t.Delete("A") },
		"rename": func(t *Tree) error { return t.Rename("A", "Z/Y") },
	}
	for what, change := range changes {
		for _, layout := range []Layout{PlusPlus, FS} {
			for _, control := range []bool{false, true} {
				for n := 0; ; n++ {
					if !fault(t, what, change, layout, control, n) {
						if n < 4 {
							t.Errorf("%s: only %d steps", what, n)
						}
						break
					}
				}
			}
		}
	}
}

// A tallied directory is one of those that are open, and fails the sync that a test
// chose.
type tallied struct {
	vfs.Dir
	tally *tally
}

type tally struct{ open, syncs int }

func (y *tally) add(d vfs.Dir, err error) (vfs.Dir, error) {
	if err != nil {
		return nil, err
	}
	y.open++
	return tallied{d, y}, nil
}

func (d tallied) OpenDir(name string) (vfs.Dir, error) { return d.tally.add(d.Dir.OpenDir(name)) }

func (d tallied) Close() error {
	d.tally.open--
	return d.Dir.Close()
}

func (d tallied) Sync() error {
	if d.tally.syncs--; d.tally.syncs == 0 {
		return errInjected
	}
	return d.Dir.Sync()
}

// TestSyncFaults holds that no directory stays open, whichever cannot be synced.
func TestSyncFaults(t *testing.T) {
	t.Parallel()
	changes := map[string]func(*Tree) error{
		"create":    func(t *Tree) error { return t.Create("New/Sub") },
		"delete":    func(t *Tree) error { return t.Delete("A") },
		"rename":    func(t *Tree) error { return t.Rename("A", "Z/Y") },
		"subscribe": func(t *Tree) error { return t.Subscribe("A") },
	}
	for what, change := range changes {
		for _, layout := range []Layout{PlusPlus, FS} {
			for n := 1; ; n++ {
				dir := t.TempDir()
				y := tally{syncs: -1}
				tree := open(t, Config{Root: dir + "/mail", Control: dir + "/control", Layout: layout,
					Open: func(path string) (vfs.Dir, error) { return y.add(vfs.Open(path)) }})
				if err := errors.Join(tree.Init(), tree.Create("A")); err != nil {
					t.Fatal(err)
				}
				y.syncs = n
				err := change(tree)
				if err != nil && !errors.Is(err, errInjected) || y.open > 0 {
					t.Errorf("%s, layout %d, sync %d: %d directories are open, %v", what, layout, n, y.open, err)
				}
				if y.syncs > 0 {
					break
				}
			}
		}
	}
}

// fault reports whether step n of the change was reached.
func fault(t *testing.T, what string, change func(*Tree) error, layout Layout, control bool, n int) bool {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{Root: dir + "/mail", Layout: layout}
	if control {
		cfg.Control, cfg.Index = dir+"/control", dir+"/index"
	}
	good := open(t, cfg)
	if err := good.Init(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"A", "A/B", "A/C", "X"} {
		if err := good.Create(name); err != nil {
			t.Fatal(err)
		}
		if control {
			indexOf(t, good, name)
		}
	}
	before := validities(t, good)
	var failed func() bool
	cfg.Open, failed = failAfter(n)
	err := change(open(t, cfg))
	if err != nil && !errors.Is(err, errInjected) {
		t.Errorf("%s, layout %d, step %d: %v", what, layout, n, err)
	}
	after := validities(t, good)
	if err != nil && after != before {
		t.Errorf("%s, layout %d, control %v, step %d failed:\n%s\nwas before\n%s", what, layout, control, n, after, before)
	}
	if err == nil && after == before {
		t.Errorf("%s, layout %d, step %d: no change", what, layout, n)
	}
	// The next change finds nothing in its way and tidies up.
	good.Create("Tidy")
	good.Delete("Tidy")
	os.Remove(dir + "/mail/" + treeLock) // its removal was the step that failed
	if found := leftovers(t, dir); len(found) > 0 {
		for _, path := range found {
			if !strings.Contains(path, "/tmp/imapd-new.") { // likewise
				t.Errorf("%s, layout %d, control %v, step %d: left %q", what, layout, control, n, path)
			}
		}
	}
	return failed()
}

// validities lists the folders with their UIDVALIDITY.
func validities(t *testing.T, tree *Tree) string {
	t.Helper()
	list, err := tree.List()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range list {
		if f.Exists && f.Name != "INBOX" {
			_, control, _ := tree.Path(f.Name)
			fmt.Fprintln(&b, f.Name, listOf(t, control).Validity)
		}
	}
	return b.String()
}

// TestMode holds that a new folder has mode and group of the root, whatever the
// umask and the mode of tmp.
func TestMode(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	makeFolders(t, root, ".")
	if err := unix.Chmod(root, 0o2775); err != nil {
		t.Fatal(err)
	}
	group := os.Getegid()
	if os.Geteuid() == 0 {
		group = 21000
		if err := os.Chown(root, -1, group); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(t, Config{Root: root}).Create("A"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint32{
		".A": unix.S_IFDIR | 0o2775, ".A/cur": unix.S_IFDIR | 0o2775, ".A/maildirfolder": unix.S_IFREG | 0o664, ".A/dovecot-uidlist": unix.S_IFREG | 0o664,
	} {
		var st unix.Stat_t
		if err := unix.Stat(root+"/"+path, &st); err != nil || st.Mode != want || int(st.Gid) != group {
			t.Errorf("%s: mode %o, group %d, %v; want %o, %d", path, st.Mode, st.Gid, err, want, group)
		}
	}
}

// TestRefusals holds the errors of changes that cannot be made.
func TestRefusals(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 250)
	for _, tt := range []struct {
		layout Layout
		change func(*Tree) error
		want   error
	}{
		{PlusPlus, func(t *Tree) error { return t.Create("INBOX") }, ErrExists},
		{PlusPlus, func(t *Tree) error { return t.Create("A") }, ErrExists},
		{PlusPlus, func(t *Tree) error { return t.Create("~a") }, ErrName},
		{PlusPlus, func(t *Tree) error { return t.Create("a\tb") }, ErrName},
		{PlusPlus, func(t *Tree) error { return t.Create("a\u0085b") }, ErrName},
		{PlusPlus, func(t *Tree) error { return t.Create("a\x7fb") }, ErrName},
		{PlusPlus, func(t *Tree) error { return t.Create("a//") }, ErrName},
		{PlusPlus, func(t *Tree) error { return t.Create("cur") }, nil},
		{PlusPlus, func(t *Tree) error { return t.Create("New/") }, nil},
		{FS, func(t *Tree) error { return t.Create("A/") }, ErrExists},
		{FS, func(t *Tree) error { return t.Create("cur") }, ErrName},
		{FS, func(t *Tree) error { return t.Create("subscriptions") }, ErrName},
		{FS, func(t *Tree) error { return t.Create("A/dovecot-uidlist") }, ErrName},
		{FS, func(t *Tree) error { return t.Create("A/dovecot.index.log") }, ErrName},
		{FS, func(t *Tree) error { return t.Create("subscription lists") }, nil},
		{FS, func(t *Tree) error { return t.Create("file/x") }, ErrName},
		{PlusPlus, func(t *Tree) error { return t.Delete("INBOX") }, ErrName},
		{PlusPlus, func(t *Tree) error { return t.Delete("nope") }, ErrNotFound},
		{PlusPlus, func(t *Tree) error { return t.Delete("N") }, ErrNotFound},
		{FS, func(t *Tree) error { return t.Delete("N") }, ErrHasChildren},
		{FS, func(t *Tree) error { return t.Delete("N/x/y") }, ErrNotFound},
		{PlusPlus, func(t *Tree) error { return t.Rename("INBOX", "x") }, ErrName},
		{PlusPlus, func(t *Tree) error { return t.Rename("A", "inbox") }, ErrExists},
		{PlusPlus, func(t *Tree) error { return t.Rename("A", "A") }, ErrExists},
		{PlusPlus, func(t *Tree) error { return t.Rename("A", "A/x") }, ErrName},
		{PlusPlus, func(t *Tree) error { return t.Rename("nope", "x") }, ErrNotFound},
		{PlusPlus, func(t *Tree) error { return t.Rename("A", long) }, nil},
		{PlusPlus, func(t *Tree) error { return t.Rename("A", long+"xyz") }, ErrName}, // A/B
		{PlusPlus, func(t *Tree) error { return t.Rename("N", "A") }, ErrExists},
		{PlusPlus, func(t *Tree) error { return t.Rename("A", "N") }, nil},
		{FS, func(t *Tree) error { return t.Rename("A", "N") }, ErrExists},
		{FS, func(t *Tree) error { return t.Rename("A", "N/C/D") }, nil},
		{FS, func(t *Tree) error { return t.Rename("A", strings.Repeat("a/", 63)+"a") }, ErrName}, // A/B
	} {
		tree := open(t, Config{Root: t.TempDir(), Layout: tt.layout})
		if err := tree.Init(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"A", "A/B", "N/C"} {
			if err := tree.Create(name); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(tree.root+"/file", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		before := validities(t, tree)
		err := tt.change(tree)
		if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("layout %d: %v, want %v", tt.layout, err, tt.want)
		}
		if after := validities(t, tree); tt.want != nil && after != before {
			t.Errorf("%v, but\n%s became\n%s", err, before, after)
		}
	}
}

// TestDeleteLink holds that what a linked folder leads to stays.
func TestDeleteLink(t *testing.T) {
	t.Parallel()
	for layout, name := range map[Layout]string{PlusPlus: ".link", FS: "link"} {
		root, outside := t.TempDir(), t.TempDir()
		makeFolders(t, root, ".")
		makeFolders(t, outside, ".", "child")
		if err := os.Symlink(outside, root+"/"+name); err != nil {
			t.Fatal(err)
		}
		tree := open(t, Config{Root: root, Layout: layout})
		if err := tree.Delete("link"); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(outside + "/child/cur"); err != nil {
			t.Error(err)
		}
		if got := describe(t, tree); !slices.Equal(got, []string{"INBOX"}) {
			t.Errorf("%q", got)
		}
	}
}

// TestOldControl holds that the UIDs of a folder that is gone do not come back
// with a new one of its name.
func TestOldControl(t *testing.T) {
	t.Parallel()
	for _, layout := range []Layout{PlusPlus, FS} {
		dir := t.TempDir()
		tree := open(t, Config{Root: dir + "/mail", Control: dir + "/control", Layout: layout})
		if err := tree.Init(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"A", "A/B"} {
			if err := tree.Create(name); err != nil {
				t.Fatal(err)
			}
		}
		mail, control, _ := tree.Path("A")
		was := listOf(t, control).Validity
		if layout == FS {
			os.RemoveAll(mail + "/cur")
		} else {
			os.RemoveAll(mail)
		}
		child := listOf(t, control+map[Layout]string{PlusPlus: ".B", FS: "/B"}[layout]).Validity
		if err := tree.Create("A"); err != nil {
			t.Fatal(err)
		}
		now := listOf(t, control).Validity
		if now <= was || listOf(t, control+map[Layout]string{PlusPlus: ".B", FS: "/B"}[layout]).Validity != child || child == 0 {
			t.Errorf("layout %d: UIDVALIDITY %d, then %d; of the child %d", layout, was, now, child)
		}
	}
}

// TestRenameOntoOldControl holds that neither are they in the way of a folder that gets
// that name, nor become its own.
func TestRenameOntoOldControl(t *testing.T) {
	t.Parallel()
	for _, layout := range []Layout{PlusPlus, FS} {
		for _, own := range []bool{true, false} { // the folder that is renamed has a list
			dir := t.TempDir()
			tree := open(t, Config{Root: dir + "/mail", Control: dir + "/control", Layout: layout})
			if err := tree.Init(); err != nil {
				t.Fatal(err)
			}
			want := map[string]uint32{}
			for _, name := range []string{"Gone", "Gone/B", "A", "A/B"} {
				if err := tree.Create(name); err != nil {
					t.Fatal(err)
				}
				_, control, _ := tree.Path(name)
				want[name] = listOf(t, control).Validity
			}
			for _, name := range []string{"Gone/B", "Gone", "A/B", "A"} {
				mail, control, _ := tree.Path(name)
				switch {
				case strings.HasPrefix(name, "Gone"):
					os.RemoveAll(mail)
				case !own:
					os.RemoveAll(control)
				}
			}
			if err := tree.Rename("A", "Gone"); err != nil {
				t.Errorf("layout %d: %v", layout, err)
			}
			for name, was := range map[string]string{"Gone": "A", "Gone/B": "A/B"} {
				_, control, _ := tree.Path(name)
				if _, err := os.Stat(control); !own && errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if got := listOf(t, control).Validity; !own || got != want[was] {
					t.Errorf("layout %d: %s has UIDVALIDITY %d, %s had %d", layout, name, got, was, want[was])
				}
			}
			if found := leftovers(t, dir); len(found) > 0 {
				t.Errorf("layout %d: left %q", layout, found)
			}
		}
	}
}

// TestConcurrentChanges lets goroutines make and remove the same folders.
func TestConcurrentChanges(t *testing.T) {
	t.Parallel()
	for _, layout := range []Layout{PlusPlus, FS} {
		root := t.TempDir()
		tree := open(t, Config{Root: root, Layout: layout})
		if err := tree.Init(); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 20 {
					name, other := fmt.Sprintf("A/%d", i%3), fmt.Sprintf("B/%d", (i+g)%3)
					for _, err := range []error{tree.Create(name), tree.Rename(name, other), tree.Delete(other)} {
						if err != nil && !errors.Is(err, ErrExists) && !errors.Is(err, ErrNotFound) {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		list, err := tree.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			if f.Exists && f.Name != "INBOX" {
				if err := tree.Delete(f.Name); err != nil {
					t.Error(err)
				}
			}
		}
		if found := leftovers(t, root); len(found) > 0 {
			t.Errorf("left %q", found)
		}
	}
}

func TestNextValidity(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	tree := open(t, Config{Root: root})
	first, err := tree.NextValidity()
	if age := time.Now().Unix() - int64(first); err != nil || age < 0 || age > 600 {
		t.Fatalf("%d, %v", first, err)
	}
	main := root + "/" + validityName
	for i, damage := range []func(){
		func() {},
		func() { os.WriteFile(main, []byte("junk"), 0o600) },
		func() { os.WriteFile(main, []byte("00000000"), 0o600) },
		func() { os.WriteFile(main, nil, 0o600) },
		func() { os.Remove(main) },
		func() { os.WriteFile(main, fmt.Appendf(nil, "%08x", first), 0o600) }, // from a backup
		func() { os.WriteFile(main, []byte("00000005"), 0o600) },
		func() { os.WriteFile(root+"/"+validityName+".zzz", nil, 0o600) },
	} {
		damage()
		if v, err := tree.NextValidity(); err != nil || v != first+uint32(i)+1 {
			t.Errorf("%d: %d, %v; want %d", i, v, err, first+uint32(i)+1)
		}
	}
	var mu sync.Mutex
	seen := map[uint32]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				v, err := tree.NextValidity()
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				if seen[v] {
					t.Errorf("%d was given twice", v)
				}
				seen[v] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	os.WriteFile(root+"/"+validityName+".ffffffff", nil, 0o600)
	os.WriteFile(main, []byte("ffffffff"), 0o600)
	if v, err := tree.NextValidity(); err != nil || v != 1 {
		t.Errorf("after the last: %d, %v", v, err)
	}
}

// A folder whose process was killed while it was being built is removed by a later
// one, when it is old.
func TestSweepBuilt(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	makeFolders(t, root, ".")
	for _, d := range []string{"imapd-new.1/cur", "else"} {
		if err := os.MkdirAll(root+"/tmp/"+d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	tmp, err := vfs.Open(root + "/tmp")
	if err != nil {
		t.Fatal(err)
	}
	defer tmp.Close()
	sweepBuilt(tmp, time.Now())
	if !isThere(tmp, "imapd-new.1") {
		t.Error("what is being built was removed")
	}
	sweepBuilt(tmp, time.Now().Add(strayAge+time.Minute))
	if isThere(tmp, "imapd-new.1") || !isThere(tmp, "else") {
		t.Error("it stays, or something else went")
	}
}

// What lies in the place of the counter's copy is not followed nor waited for, and keeps
// nobody from his folder.
func TestNextValidityWithoutCopy(t *testing.T) {
	t.Parallel()
	for what, put := range map[string]func(path string) error{
		"a directory":               func(p string) error { return os.Mkdir(p, 0o700) },
		"a FIFO":                    func(p string) error { return unix.Mkfifo(p, 0o600) },
		"a link":                    func(p string) error { return os.Symlink("target", p) },
		"a link that leads nowhere": func(p string) error { return os.Symlink("nowhere", p) },
	} {
		root := t.TempDir()
		makeFolders(t, root, ".")
		if err := errors.Join(os.WriteFile(root+"/target", []byte("00000007"), 0o600), put(root+"/"+validityName)); err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		tree := open(t, Config{Root: root, Log: slog.New(slog.NewTextHandler(&log, nil))})
		first, err := tree.NextValidity()
		if err != nil || time.Since(time.Unix(int64(first), 0)) > time.Hour {
			t.Errorf("%s: UIDVALIDITY %d, %v", what, first, err)
		}
		if next, err := tree.NextValidity(); err != nil || next != first+1 {
			t.Errorf("%s: UIDVALIDITY %d after %d, %v", what, next, first, err)
		}
		if !strings.Contains(log.String(), root+"/"+validityName) {
			t.Errorf("%s: the log says %q", what, log.String())
		}
		if b, _ := os.ReadFile(root + "/target"); string(b) != "00000007" {
			t.Errorf("%s was followed: %q", what, b)
		}
	}
}
