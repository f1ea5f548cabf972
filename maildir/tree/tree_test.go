package tree

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"imapd/imap/wire"
	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
)

// makeFolders makes directories with cur, new and tmp below root.
func makeFolders(t testing.TB, root string, names ...string) {
	t.Helper()
	for _, n := range names {
		for _, sub := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(root, n, sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func open(t testing.TB, cfg Config) *Tree {
	t.Helper()
	var locks uidlist.Locks
	cfg.Lock, cfg.Seed = locks.Lock, seed
	tree, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func seed(control vfs.Dir, validity uint32) error {
	l := uidlist.New(validity)
	_, err := uidlist.Rewrite(control, &l)
	return err
}

// describe writes each folder as its name and what LIST would say of it.
func describe(t testing.TB, tree *Tree) []string {
	t.Helper()
	list, err := tree.List()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range list {
		s := f.Name
		if !f.Exists {
			s += ` \Noselect`
		}
		if f.HasChildren {
			s += ` \HasChildren`
		}
		got = append(got, s)
	}
	return got
}

// unpack unpacks an account that Dovecot made.
func unpack(t *testing.T, fixture string) string {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "test", "testdata", fixture, "account.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.Clean("/"+h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o700)
		} else {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, b, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestFixtures compares LIST and LSUB of two accounts with what Dovecot said of
// them.
func TestFixtures(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fixture, maildir string
		layout           Layout
	}{{"a-dovecot-maildirpp", "Maildir", PlusPlus}, {"b-dovecot-fs", "mail", FS}} {
		root := filepath.Join(unpack(t, tt.fixture), tt.maildir)
		b, err := os.ReadFile(filepath.Join("..", "..", "test", "testdata", tt.fixture, "expected-noindex.json"))
		if err != nil {
			t.Fatal(err)
		}
		var want struct {
			List, Lsub []struct {
				Name  string
				Attrs []string
			}
		}
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		tree := open(t, Config{Root: root})
		if tree.Layout() != tt.layout || tree.Names() != UTF7 {
			t.Errorf("%s: layout %d, names %d", tt.fixture, tree.Layout(), tree.Names())
		}
		var list, lsub []string
		for _, f := range want.List {
			if f.Name == "Drafts" {
				continue // made by Dovecot at login
			}
			s := decodeName(t, f.Name)
			for _, attr := range []string{`\Noselect`, `\HasChildren`} {
				if slices.Contains(f.Attrs, attr) {
					s += " " + attr
				}
			}
			list = append(list, s)
		}
		for _, f := range want.Lsub {
			if f.Name != "Drafts" {
				lsub = append(lsub, decodeName(t, f.Name))
			}
		}
		got := describe(t, tree)
		slices.Sort(list)
		slices.Sort(got)
		if d := cmp.Diff(list, got); d != "" || len(got) != 17 {
			t.Errorf("%s: %d folders\n%s", tt.fixture, len(got), d)
		}
		subscribed, err := tree.Subscriptions()
		if d := cmp.Diff(lsub, subscribed); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", tt.fixture, err, d)
		}
	}
}

func decodeName(t *testing.T, s string) string {
	t.Helper()
	name, err := wire.DecodeUTF7(s)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDetect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		dirs   []string
		layout Layout
		names  Encoding
	}{
		{nil, PlusPlus, UTF7},
		{[]string{"."}, PlusPlus, UTF7},
		{[]string{".", ".A"}, PlusPlus, UTF7},
		{[]string{".", "A"}, FS, UTF7},
		{[]string{".", "A/B/C"}, FS, UTF7},
		{[]string{".", "backup", ".A"}, PlusPlus, UTF7},
		{[]string{".", ".Entwürfe"}, PlusPlus, UTF8},
		{[]string{".", ".Entw&APw-rfe"}, PlusPlus, UTF7},
		{[]string{".", ".A & B"}, PlusPlus, UTF8},
		{[]string{".", ".A &- B"}, PlusPlus, UTF7},
		{[]string{".", ".Entwürfe", ".Entw&APw-rfe", ".&ZeVnLIqe-"}, PlusPlus, UTF7},
		{[]string{".", "A/日本語"}, FS, UTF8},
		// A stray directory does not rename the folders that are there.
		{[]string{".", ".Gr&APwA3w-e", ".R&D"}, PlusPlus, UTF7},
		{[]string{".", ".Gr&APwA3w-e", ".R&D", ".A & B", ".Q&A"}, PlusPlus, UTF7},
		{[]string{".", ".Gr&APwA3w-e", ".\xff", ".\xfe"}, PlusPlus, UTF7},
		{[]string{".", ".\xff"}, PlusPlus, UTF7},
		{[]string{".", ".Gr&APwA3w-e", ".Entwürfe"}, PlusPlus, UTF7},
		{[]string{".", ".Gr&APwA3w-e", ".Entwürfe", ".Grüße"}, PlusPlus, UTF7},
		{[]string{".", ".A &- B", ".R&D"}, PlusPlus, UTF7},
		{[]string{".", ".A &- B", ".Entwürfe"}, PlusPlus, UTF7},
		{[]string{".", ".Gr&APwA3w-e", ".Entwürfe", ".Grüße", ".日本語"}, PlusPlus, UTF8},
		{[]string{".", ".Entwürfe", ".R&D", ".\xff"}, PlusPlus, UTF8},
	} {
		root := filepath.Join(t.TempDir(), "mail")
		makeFolders(t, root, tt.dirs...)
		tree := open(t, Config{Root: root})
		if tree.Layout() != tt.layout || tree.Names() != tt.names {
			t.Errorf("%q: layout %d, names %d; want %d, %d", tt.dirs, tree.Layout(), tree.Names(), tt.layout, tt.names)
		}
	}
	root := t.TempDir()
	makeFolders(t, root, "0123456789abcdef0123456789abcdef")
	if err := os.WriteFile(root+"/dovecot.list.index", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Root: root}); !errors.Is(err, ErrLayout) {
		t.Errorf("LAYOUT=index: %v", err)
	}
	if _, err := Open(Config{Root: root, Layout: FS, Prefix: "INBOX.", Separator: '/'}); err == nil {
		t.Error("a prefix that does not end in the separator")
	}
}

func TestPath(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 254)
	for _, tt := range []struct {
		cfg  Config
		name string
		want string // below the root; "" is ErrName
	}{
		{Config{Layout: PlusPlus}, "INBOX", "/"},
		{Config{Layout: PlusPlus}, "inBox", "/"},
		{Config{Layout: PlusPlus}, "A", "/.A"},
		{Config{Layout: PlusPlus}, "A/B", "/.A.B"},
		{Config{Layout: PlusPlus}, "inbox/B", "/.INBOX.B"},
		{Config{Layout: PlusPlus}, "a/INBOX", "/.a.INBOX"},
		{Config{Layout: PlusPlus}, "Entwürfe & Co/日本", "/.Entw&APw-rfe &- Co.&ZeVnLA-"},
		{Config{Layout: PlusPlus, Names: UTF8}, "Entwürfe & Co/日本", "/.Entwürfe & Co.日本"},
		{Config{Layout: PlusPlus}, long, "/." + long},
		{Config{Layout: PlusPlus}, "tab\there", "/.tab&AAk-here"},
		{Config{Layout: PlusPlus}, long + "x", ""},
		{Config{Layout: PlusPlus}, "", ""},
		{Config{Layout: PlusPlus}, "/", ""},
		{Config{Layout: PlusPlus}, "/A", ""},
		{Config{Layout: PlusPlus}, "A/", "/.A"},
		{Config{Layout: PlusPlus}, "inbox/", "/"},
		{Config{Layout: PlusPlus}, "A//", ""},
		{Config{Layout: PlusPlus}, "A//B", ""},
		{Config{Layout: PlusPlus}, "A.B", ""},
		{Config{Layout: PlusPlus}, "..", ""},
		{Config{Layout: PlusPlus}, "../../etc", ""},
		{Config{Layout: PlusPlus}, "a\x00b", ""},
		{Config{Layout: PlusPlus}, "a\nb", ""},
		{Config{Layout: PlusPlus}, "a\xffb", ""},
		{Config{Layout: PlusPlus}, strings.Repeat("a/", 64) + "a", ""},
		{Config{Layout: PlusPlus}, strings.Repeat("ü", 501), ""},
		{Config{Layout: PlusPlus, Separator: '.'}, "A.B", "/.A.B"},
		{Config{Layout: PlusPlus, Separator: '.'}, "A/B", ""},
		{Config{Layout: PlusPlus, Separator: '.', Prefix: "INBOX."}, "INBOX", "/"},
		{Config{Layout: PlusPlus, Separator: '.', Prefix: "INBOX."}, "INBOX.Sent", "/.Sent"},
		{Config{Layout: PlusPlus, Separator: '.', Prefix: "INBOX."}, "Inbox.Sent.a", "/.Sent.a"},
		{Config{Layout: PlusPlus, Separator: '.', Prefix: "INBOX."}, "INBOX.inbox.a", "/.INBOX.a"},
		{Config{Layout: PlusPlus, Separator: '.', Prefix: "INBOX."}, "INBOX.inbox", ""},
		{Config{Layout: PlusPlus, Separator: '.', Prefix: "INBOX."}, "INBOX.", "/"},
		{Config{Layout: PlusPlus, Separator: '.', Prefix: "INBOX."}, "Sent", ""},
		{Config{Layout: FS}, "INBOX", "/"},
		{Config{Layout: FS}, "A/B", "/A/B"},
		{Config{Layout: FS}, "inbox/B", "/INBOX/B"},
		{Config{Layout: FS}, "A.B/.c", "/A.B/.c"},
		{Config{Layout: FS}, strings.Repeat("x/", 60) + "ü", "/" + strings.Repeat("x/", 60) + "&APw-"},
		{Config{Layout: FS}, "A/..", ""},
		{Config{Layout: FS}, "./A", ""},
		{Config{Layout: FS}, "..A", ""},
		{Config{Layout: FS}, "A/cur", ""},
		{Config{Layout: FS}, "tmp", ""},
		{Config{Layout: FS}, "new/A", ""},
		{Config{Layout: FS}, strings.Repeat("x", 256), ""},
		{Config{Layout: FS, Separator: '.'}, "A.B", "/A/B"},
		{Config{Layout: FS, Separator: '.'}, "A/B", ""},
	} {
		tt.cfg.Root = "/nowhere"
		tree := open(t, tt.cfg)
		mail, control, err := tree.Path(tt.name)
		if tt.want == "" {
			if !errors.Is(err, ErrName) {
				t.Errorf("%q: %s, %v; want ErrName", tt.name, mail, err)
			}
			continue
		}
		if want := strings.TrimSuffix("/nowhere"+tt.want, "/"); err != nil || mail != want || control != want {
			t.Errorf("%q: %s, %s, %v; want %s", tt.name, mail, control, err, want)
		}
	}
	tree := open(t, Config{Root: "/nowhere", Control: "/elsewhere"})
	if _, control, _ := tree.Path("INBOX"); control != "/elsewhere/.INBOX" {
		t.Errorf("control of INBOX: %s", control)
	}
	tree = open(t, Config{Root: "/nowhere", Control: "/elsewhere", Layout: FS})
	if _, control, _ := tree.Path("INBOX"); control != "/elsewhere/INBOX" {
		t.Errorf("control of INBOX: %s", control)
	}
	if _, control, _ := tree.Path("A/B"); control != "/elsewhere/A/B" {
		t.Errorf("control of A/B: %s", control)
	}
}

// TestNameFaults holds what a client is told of a name that cannot be, and that it is
// text that any client can show.
func TestNameFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cfg       Config
		name, why string
	}{
		{Config{Layout: PlusPlus}, "a.b", "it contains a '.'"},
		{Config{Layout: PlusPlus, Separator: '.'}, "a/b", "it contains a '/'"},
		{Config{Layout: PlusPlus}, "a\nb", "it contains a control character"},
		{Config{Layout: PlusPlus}, "a\tb", "it contains a control character"},
		{Config{Layout: PlusPlus}, "a//b", "a part of it is empty"},
		{Config{Layout: PlusPlus}, "~a", "it begins with '~'"},
		{Config{Layout: PlusPlus}, "a\xff", "it is not UTF-8"},
		{Config{Layout: PlusPlus}, strings.Repeat("x", 300), "it is too long"},
		{Config{Layout: PlusPlus}, strings.Repeat("x/", 80) + "x", "it has too many levels"},
		{Config{Layout: PlusPlus, Separator: '.', Prefix: "Entwürfe."}, "a", "it does not begin with Entw&APw-rfe."},
		{Config{Layout: FS}, "a/cur", "a part of it is '.', 'cur', 'new' or 'tmp', or begins with '..'"},
		{Config{Layout: FS}, "dovecot-uidlist", "a part of it is the name of a file of the server"},
	} {
		tt.cfg.Root = t.TempDir()
		var fault *NameError
		if err := open(t, tt.cfg).Create(tt.name); !errors.As(err, &fault) || !errors.Is(err, ErrName) || fault.Why != tt.why {
			t.Errorf("%q: %v, want %s", tt.name, err, tt.why)
		}
	}
}

// TestLook looks at names that are there in every way that a name can be.
func TestLook(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		layout            Layout
		make, name, canon string
		exists, container bool
	}{
		{PlusPlus, "cur", "inbox", "INBOX", true, false},
		{PlusPlus, "new", "INBOX", "INBOX", false, false},
		{PlusPlus, ".A/cur", "A/", "A", true, false},
		{PlusPlus, ".A.B/cur", "A", "A", false, false},
		{PlusPlus, ".A/new", "A", "A", true, false},
		{PlusPlus, ".A/tmp", "A", "A", false, false},
		{FS, "A/new", "A", "A", false, true},
		{PlusPlus, ".INBOX.B/cur", "inBox/B", "INBOX/B", true, false},
		{FS, "A/B/cur", "A", "A", false, true},
		{FS, "A/B/cur", "A/B", "A/B", true, false},
		{FS, "A/B/cur", "A/C", "A/C", false, false},
	} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, tt.make), 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := open(t, Config{Root: root, Layout: tt.layout}).Look(tt.name)
		if err != nil || f.Name != tt.canon || f.Exists != tt.exists || f.Container != tt.container {
			t.Errorf("%s with %s: %+v, %v", tt.name, tt.make, f, err)
		}
	}
	if _, err := open(t, Config{Root: "/nowhere"}).Look("../x"); !errors.Is(err, ErrName) {
		t.Errorf("../x: %v", err)
	}
}

// TestLimits sets them; folders that are there already are not hidden by them.
func TestLimits(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, ".Long enough to be over", "cur"), 0o700); err != nil {
		t.Fatal(err)
	}
	tree := open(t, Config{Root: root, MaxName: 8, MaxFolders: 3}) // that one among them
	if err := tree.Create("Ninechars"); !errors.Is(err, ErrName) {
		t.Errorf("a long name: %v", err)
	}
	if err := tree.Rename("Long enough to be over", "Ninechars"); !errors.Is(err, ErrName) {
		t.Errorf("a long new name: %v", err)
	}
	for i, want := range []error{nil, nil, ErrLimit} {
		if err := tree.Create("Eight/0" + strconv.Itoa(i)); !errors.Is(err, want) {
			t.Errorf("folder %d: %v, want %v", i, err, want)
		}
	}
	list, err := tree.List()
	if err != nil || !slices.ContainsFunc(list, func(f Folder) bool { return f.Name == "Long enough to be over" && f.Exists }) {
		t.Errorf("%v, %v", list, err)
	}
}

// TestList lists what other programs may have left in a root.
func TestList(t *testing.T) {
	t.Parallel()
	root, outside := t.TempDir(), t.TempDir()
	makeFolders(t, root, ".", ".A", ".A.B", ".N.C", ".INBOX", ".INBOX.sub", ".inbox.low", "..dd", ".bad..name", ".trail.", ".x..",
		".&ZeVnLIqe-", ".&bad", ".Entwürfe", ".a*b", ".A b", ".tab&AAk-x", ".nl&AAo-x", ".&AEE-", "plain")
	makeFolders(t, outside, "ext")
	os.MkdirAll(root+"/.nocur/new", 0o700)
	os.WriteFile(root+"/.file", nil, 0o600)
	os.Symlink(".A", root+"/.link")
	os.Symlink("/nonexistent", root+"/.dangling")
	os.Symlink(outside+"/ext", root+"/.ext")
	want := []string{`INBOX \HasChildren`, `INBOX/sub`, `A \HasChildren`, `A/B`, `A b`, `N \Noselect \HasChildren`, `N/C`, `a*b`, `ext`, `link`, `nocur`,
		"tab\tx", `日本語`}
	if d := cmp.Diff(want, describe(t, open(t, Config{Root: root, Names: UTF7}))); d != "" {
		t.Error(d)
	}
	want = []string{`INBOX \HasChildren`, `INBOX.A \HasChildren`, `INBOX.A.B`, `INBOX.A b`, `INBOX.Entwürfe`, `INBOX.INBOX \Noselect \HasChildren`, `INBOX.INBOX.sub`,
		`INBOX.N \Noselect \HasChildren`, `INBOX.N.C`, `INBOX.a*b`, `INBOX.ext`, `INBOX.link`, `INBOX.nocur`}
	got := describe(t, open(t, Config{Root: root, Names: UTF8, Separator: '.', Prefix: "INBOX."}))
	got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "&") })
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestListFS holds that loops of symbolic links end.
func TestListFS(t *testing.T) {
	t.Parallel()
	root, outside := t.TempDir(), t.TempDir()
	makeFolders(t, root, ".", "A", "A/B", "N/C", "INBOX/sub", "inbox", ".hid", "Entwürfe", "x/cur/y", "..DOVECOT-TRASHED/1")
	makeFolders(t, outside, ".", "Sub")
	os.MkdirAll(root+"/empty/deep", 0o700)
	os.WriteFile(root+"/file", nil, 0o600)
	os.Symlink("A", root+"/link")
	os.Symlink("..", root+"/loop")
	os.Symlink(".", root+"/self")
	os.Symlink(root, outside+"/Sub/back")
	os.Symlink(outside, root+"/ext")
	got := describe(t, open(t, Config{Root: root, Layout: FS, Names: UTF7}))
	got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "loop/") })
	want := []string{`INBOX \HasChildren`, `INBOX/sub`, `.hid`, `A \HasChildren`, `A/B`, `N \Noselect \HasChildren`, `N/C`,
		`empty \Noselect \HasChildren`, `empty/deep \Noselect`, `ext \HasChildren`, `ext/Sub \HasChildren`, `ext/Sub/back`,
		`link \HasChildren`, `link/B`, `loop \Noselect \HasChildren`, `self`, `x`}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestWalkEnds holds that links between a few directories do not make a walk without end:
// each of these has twice as many names as the one before.
func TestWalkEnds(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	makeFolders(t, root, ".", "Work")
	for i := range 12 {
		makeFolders(t, root, fmt.Sprintf("d%d", i))
		for _, link := range []string{"a", "b"} {
			if err := os.Symlink(fmt.Sprintf("../d%d", i+1), fmt.Sprintf("%s/d%d/%s", root, i, link)); err != nil {
				t.Fatal(err)
			}
		}
	}
	makeFolders(t, root, "d12")
	opened := 0
	tree := open(t, Config{Root: root, Layout: FS, Open: func(path string) (vfs.Dir, error) {
		d, err := vfs.Open(path)
		return countedDir{d, &opened}, err
	}})
	tree.maxWalk = 500
	if _, err := tree.List(); !errors.Is(err, ErrLimit) {
		t.Errorf("List: %v", err)
	}
	if err := tree.Rename("Work", "Play"); !errors.Is(err, ErrLimit) {
		t.Errorf("Rename: %v", err)
	}
	if e := tree.Names(); e != UTF7 || Encoding(tree.names.Load()) != UTF7 {
		t.Errorf("Names: %d, and it is not kept", e)
	}
	if most := 3 * (tree.maxWalk + 50); opened > most {
		t.Errorf("%d directories were opened, want %d", opened, most)
	}
}

// A countedDir counts the directories that are opened below it.
type countedDir struct {
	vfs.Dir
	opened *int
}

func (c countedDir) OpenDir(name string) (vfs.Dir, error) {
	*c.opened++
	d, err := c.Dir.OpenDir(name)
	return countedDir{d, c.opened}, err
}

// BenchmarkList lists 1,000 folders.
func BenchmarkList(b *testing.B) {
	root := b.TempDir()
	makeFolders(b, root, ".")
	for i := range 1000 {
		makeFolders(b, root, fmt.Sprintf(".Projects.%d.Entw&APw-rfe", i))
	}
	for b.Loop() {
		if list, err := open(b, Config{Root: root}).List(); err != nil || len(list) != 2002 {
			b.Fatal(len(list), err)
		}
	}
}

func TestInit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree := open(t, Config{Root: dir + "/a/Maildir", Control: dir + "/b"})
	if got := describe(t, tree); !slices.Equal(got, []string{`INBOX \Noselect`}) {
		t.Errorf("before: %q", got)
	}
	for range 2 {
		if err := tree.Init(); err != nil {
			t.Fatal(err)
		}
	}
	if got := describe(t, tree); !slices.Equal(got, []string{`INBOX`}) {
		t.Errorf("after: %q", got)
	}
	for _, path := range []string{"/a/Maildir/cur", "/a/Maildir/new", "/a/Maildir/tmp", "/b/.INBOX"} {
		if info, err := os.Stat(dir + path); err != nil || info.Mode() != os.ModeDir|0o700 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}

// TestTreeLock holds that our lock and a POSIX one, as Dovecot's, exclude each
// other, and that the file goes with the lock.
func TestTreeLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, err := vfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	other, err := os.Create(dir + "/" + treeLock)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	flock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(other.Fd(), unix.F_SETLK, &flock); err != nil {
		t.Fatal(err)
	}
	if _, err := tryTreeLock(root); err != ErrBusy {
		t.Errorf("under a POSIX lock: %v", err)
	}
	// The close of a descriptor above has dropped the POSIX lock, as such locks
	// do; only one process in the world should ever hold both kinds.
	unlock, err := tryTreeLock(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.FcntlFlock(other.Fd(), unix.F_SETLK, &flock); err == nil {
		t.Error("a POSIX lock was given under ours")
	}
	if _, err := tryTreeLock(root); err != ErrBusy {
		t.Errorf("second lock: %v", err)
	}
	unlock()
	if _, err := os.Stat(dir + "/" + treeLock); err == nil {
		t.Error("the lock file is still there")
	}
}

func TestLockIsUsed(t *testing.T) {
	t.Parallel()
	busy := errors.New("busy")
	tree, err := Open(Config{Root: t.TempDir(), Lock: func(context.Context, vfs.Dir, string) (func() error, error) { return nil, busy }})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Subscribe("A"); !errors.Is(err, busy) {
		t.Errorf("subscribe without the lock: %v", err)
	}
}
