package tree

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// indexOf opens the index directory of a folder and returns where it is.
func indexOf(t *testing.T, tree *Tree, name string) string {
	t.Helper()
	path, _, err := tree.Path(name)
	if err != nil {
		t.Fatal(err)
	}
	mail, err := vfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer mail.Close()
	d, err := tree.OpenIndex(name, mail)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	return strings.TrimSuffix(d.Path(), "/.")
}

// TestIndexPath holds where the index of a folder is.
func TestIndexPath(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		layout         Layout
		control, index string // below the directory of the test
		inbox, sub     string
	}{
		{PlusPlus, "", "", "/mail", "/mail/.A.B"},
		{PlusPlus, "/control", "", "/mail", "/mail/.A.B"},
		{PlusPlus, "/control", "/mail", "/mail", "/mail/.A.B"},
		{PlusPlus, "", "/some/index", "/some/index/.INBOX", "/some/index/.A.B"},
		{PlusPlus, "/control", "/control", "/control/.INBOX", "/control/.A.B"},
		{FS, "", "", "/mail", "/mail/A/B"},
		{FS, "", "/some/index", "/some/index/INBOX", "/some/index/A/B"},
	} {
		dir := t.TempDir()
		cfg := Config{Root: dir + "/mail", Layout: tt.layout}
		if tt.control != "" {
			cfg.Control = dir + tt.control
		}
		if tt.index != "" {
			cfg.Index = dir + tt.index
		}
		tree := open(t, cfg)
		if err := tree.Init(); err != nil {
			t.Fatal(err)
		}
		if err := tree.Create("A/B"); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"INBOX": tt.inbox, "A/B": tt.sub} {
			if got := indexOf(t, tree, name); got != dir+want {
				t.Errorf("layout %d, control %q, index %q: %s has %s, want %s", tt.layout, tt.control, tt.index, name, got, dir+want)
			}
		}
	}
}

// TestIndexFollows holds that an index goes where its folder goes, and that a new
// folder does not get one of before.
func TestIndexFollows(t *testing.T) {
	t.Parallel()
	for i, layout := range []Layout{PlusPlus, FS, FS} {
		dir := t.TempDir()
		tree := open(t, Config{Root: dir + "/mail", Inbox: []string{"", "", "INBOX"}[i], Index: dir + "/index", Layout: layout})
		if err := tree.Init(); err != nil {
			t.Fatal(err)
		}
		do := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		write := func(name, text string) {
			do(os.WriteFile(indexOf(t, tree, name)+"/imapd.index", []byte(text), 0o600))
		}
		check := func(name, want string) {
			t.Helper()
			if b, _ := os.ReadFile(indexOf(t, tree, name) + "/imapd.index"); string(b) != want {
				t.Errorf("layout %d: %s has the index %q, want %q", layout, name, b, want)
			}
		}
		do(tree.Create("A"))
		do(tree.Create("A/B"))
		write("A", "of A")
		write("A/B", "of B")
		write("INBOX", "of INBOX")
		// What somebody's crash has left where A will go.
		stale := dir + "/index/" + map[Layout]string{PlusPlus: ".Z", FS: "Z"}[layout]
		do(os.MkdirAll(stale, 0o700))
		do(os.WriteFile(stale+"/imapd.index", []byte("stale"), 0o600))
		do(tree.Rename("A", "Z"))
		check("Z", "of A")
		check("Z/B", "of B")
		do(tree.Create("A"))
		check("A", "")
		do(tree.Delete("Z"))
		check("Z/B", "of B")
		do(tree.Create("Z"))
		check("Z", "")
		check("INBOX", "of INBOX")
		if found := leftovers(t, dir); len(found) > 0 {
			t.Errorf("layout %d: left %q", layout, found)
		}
	}
}

// TestSideModes holds that what lies in trees beside the mail has the mode and
// group of the mail, so that whoever shares a folder can work with it.
func TestSideModes(t *testing.T) {
	t.Parallel()
	for _, layout := range []Layout{PlusPlus, FS} {
		dir := t.TempDir()
		root := dir + "/mail"
		group := os.Getegid()
		makeFolders(t, root, ".", map[Layout]string{PlusPlus: ".Old", FS: "Old"}[layout])
		if os.Geteuid() == 0 {
			group = 21000
		}
		for _, sub := range []string{"", "/.Old", "/Old"} {
			if _, err := os.Stat(root + sub); err != nil {
				continue
			}
			if err := os.Chown(root+sub, -1, group); err != nil {
				t.Fatal(err)
			}
			if err := unix.Chmod(root+sub, 0o2770); err != nil {
				t.Fatal(err)
			}
		}
		tree := open(t, Config{Root: root, Control: dir + "/side/control", Index: dir + "/side/index", Layout: layout})
		if err := tree.Subscribe("Old"); err != nil { // before anything else has made the directory
			t.Fatal(err)
		}
		if err := tree.Create("New"); err != nil {
			t.Fatal(err)
		}
		paths := []string{dir + "/side", dir + "/side/control", dir + "/side/control/subscriptions"}
		for _, name := range []string{"INBOX", "Old", "New"} {
			path, control, _ := tree.Path(name)
			mail, err := vfs.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			d, err := tree.OpenControl(control, mail)
			if err != nil {
				t.Fatal(err)
			}
			d.Close()
			mail.Close()
			paths = append(paths, control, indexOf(t, tree, name))
		}
		for _, path := range paths {
			var st unix.Stat_t
			want := uint32(unix.S_IFDIR | 0o2770)
			if strings.HasSuffix(path, "subscriptions") {
				want = unix.S_IFREG | 0o660
			}
			if err := unix.Stat(path, &st); err != nil || st.Mode != want || int(st.Gid) != group {
				t.Errorf("layout %d, %s: mode %o, group %d, %v; want %o, %d", layout, path, st.Mode, st.Gid, err, want, group)
			}
		}
	}
}
