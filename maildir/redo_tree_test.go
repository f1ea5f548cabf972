package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imapd/maildir/intents"
	"imapd/maildir/tree"
)

// A grove is a tree of folders, in a layout, with the UID lists in the folders or
// elsewhere.
type grove struct {
	layout  tree.Layout
	control bool
}

// open opens the store of the grove below dir.
func (g grove) open(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	c := tree.Config{Root: dir + "/mail", Layout: g.layout, Separator: '/'}
	if g.control {
		c.Control = dir + "/control"
	}
	h := NewHost(o)
	t.Cleanup(func() { h.Close() })
	s, err := h.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// describe lists the folders with their UIDVALIDITY and what is in them.
func describe(t *testing.T, s *Store) (l []string) {
	t.Helper()
	folders, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if !f.Exists {
			continue
		}
		m, err := s.Mailbox(context.Background(), f.Name)
		if err != nil {
			t.Fatal(err)
		}
		l = append(l, fmt.Sprintf("%s %d %q", f.Name, m.Snapshot().Validity, bodies(t, m)))
		m.Release()
	}
	slices.Sort(l)
	return l
}

// killed runs op in a process that is killed before each of its changes, and calls
// check with what there was, and with what a process finds that comes later.
func (g grove) killed(t *testing.T, op func(*Store) error, check func(before, after []string, err error) bool) {
	t.Helper()
	for at := 1; ; at++ {
		dir := t.TempDir()
		good := g.open(t, dir, Options{})
		if err := good.Init(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"A", "A/1", "A/2", "A/3", "A/3/x", "A/4", "Aside"} {
			if err := good.Create(context.Background(), name); err != nil {
				t.Fatal(err)
			}
			m, err := good.Mailbox(context.Background(), name)
			if err != nil {
				t.Fatal(err)
			}
			(&box{t: t}).append(m, name+"\n", FlagSet{})
			m.Release()
		}
		before := describe(t, good)
		k := &kill{at: at}
		victim := g.open(t, dir, Options{Open: k.open})
		k.arm(true)
		err := op(victim)
		k.arm(false)
		(&box{t: t, path: dir + "/mail"}).ageLocks()
		after := describe(t, g.open(t, dir, Options{}))
		if !check(before, after, err) {
			t.Fatalf("%+v, killed before change %d: %v\n%s\nwas\n%s", g, at, err, strings.Join(after, "\n"), strings.Join(before, "\n"))
		}
		for _, left := range []string{dir + "/mail/" + intents.Name, dir + "/mail/..DOVECOT-TRASHED", dir + "/control/..DOVECOT-TRASHED"} {
			if st, err := os.Stat(left); err == nil && (st.IsDir() || st.Size() > 0) {
				t.Errorf("%+v, killed before change %d: %s is left", g, at, filepath.Base(left))
			}
		}
		if k.n < at {
			if err != nil || at < 4 {
				t.Fatalf("%+v, %d changes: %v", g, at-1, err)
			}
			t.Logf("%+v: %d kill points", g, at-1)
			return
		}
	}
}

func groves(t *testing.T, test func(t *testing.T, g grove)) {
	for _, g := range []grove{{tree.PlusPlus, false}, {tree.PlusPlus, true}, {tree.FS, false}, {tree.FS, true}} {
		t.Run(fmt.Sprintf("%+v", g), func(t *testing.T) {
			t.Parallel()
			test(t, g)
		})
	}
}

// A RENAME of a folder with five below it whose process is killed anywhere has
// moved all of them or none, once somebody opens the store (I19).
func TestKilledRename(t *testing.T) {
	t.Parallel()
	groves(t, func(t *testing.T, g grove) {
		g.killed(t, func(s *Store) error { return s.Rename(context.Background(), "A", "Z/moved") }, func(before, after []string, err error) bool {
			moved := slices.Clone(before)
			for i, line := range moved {
				if name, rest, _ := strings.Cut(line, " "); name == "A" || strings.HasPrefix(name, "A/") {
					moved[i] = "Z/moved" + name[1:] + " " + rest
				}
			}
			slices.Sort(moved)
			return slices.Equal(after, moved) || err != nil && slices.Equal(after, before)
		})
	})
}

// A DELETE that is killed anywhere has removed the folder or not, and leaves the
// others.
func TestKilledDelete(t *testing.T) {
	t.Parallel()
	groves(t, func(t *testing.T, g grove) {
		g.killed(t, func(s *Store) error { return s.Delete(context.Background(), "A") }, func(before, after []string, err error) bool {
			rest := slices.DeleteFunc(slices.Clone(before), func(line string) bool { return strings.HasPrefix(line, "A ") })
			return slices.Equal(after, rest) || err != nil && slices.Equal(after, before)
		})
	})
}

// A rename that cannot go on, because the new name has been given to something
// else, is taken back.
func TestRedoRenameBack(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	for _, name := range []string{"A", "A/1", "A/2"} {
		if err := b.st.Create(context.Background(), name); err != nil {
			t.Fatal(err)
		}
	}
	moves := []tree.Move{{From: ".A", To: ".Z"}, {From: ".A.1", To: ".Z.1"}, {From: ".A.2", To: ".Z.2"}}
	journal{b.host}.Intend(b.dir, moves)(false)
	os.Rename(filepath.Join(b.path, ".A"), filepath.Join(b.path, ".Z"))
	os.Mkdir(filepath.Join(b.path, ".Z.2"), 0o700)
	b.start(Options{})
	for _, name := range []string{".A", ".A.1", ".A.2", ".Z.2"} {
		if _, err := os.Stat(filepath.Join(b.path, name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(b.path, ".Z")); err == nil || intents.Waiting(b.dir) {
		t.Error("not taken back")
	}
	// What no rename of ours can have said is not done.
	for _, m := range []tree.Move{{From: "cur", To: ".x"}, {From: ".A", To: "../x"}, {From: ".A", To: ".b/c"}, {From: "/etc", To: ".x"}, {From: ".A", To: ""}} {
		journal{b.host}.Intend(b.dir, []tree.Move{m, {From: ".A.1", To: ".Z.1"}})(false)
		b.start(Options{})
		if _, err := os.Stat(filepath.Join(b.path, ".A")); err != nil || intents.Waiting(b.dir) {
			t.Errorf("%v: %v", m, err)
		}
	}
}
