package tree

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imapd/imap/wire"
	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
	"imapd/test/peer"
)

var listLine = regexp.MustCompile(`^\* LIST \(([^)]*)\) "/" (?:"(.*)"|(.*))$`)

// describeDovecot is describe for what Dovecot lists.
func describeDovecot(t *testing.T, c *peer.Client) []string {
	t.Helper()
	var got []string
	for _, r := range c.Do(`LIST "" "*"`) {
		m := listLine.FindStringSubmatch(r.Text)
		if m == nil {
			t.Fatalf("%q", r.Text)
		}
		s := decodeName(t, m[2]+m[3])
		for _, attr := range []string{`\Noselect`, `\HasChildren`} {
			if slices.Contains(strings.Fields(m[1]), attr) {
				s += " " + attr
			}
		}
		got = append(got, s)
	}
	slices.Sort(got)
	return got
}

func quote(name string) string { return `"` + wire.EncodeUTF7(name) + `"` }

// TestSameAsDovecot makes the same changes to a tree of ours and to one of
// Dovecot's. After each both must list the same; and at the end a Dovecot must
// list our tree as it does its own.
func TestSameAsDovecot(t *testing.T) {
	t.Parallel()
	peer.Need(t, "dovecot")
	names := []string{"A", "A/B", "A/B/C", "N", "N/C", "Q/R", "INBOX/s", "ü & x", "ü & x/y"}
	for _, tt := range []struct {
		layout Layout
		inbox  string
	}{{PlusPlus, ""}, {FS, ""}, {FS, "INBOX"}, {FS, "box/in"}} {
		t.Run(fmt.Sprint(tt.layout, tt.inbox), func(t *testing.T) {
			t.Parallel()
			layout := tt.layout
			dir := peer.TempDir(t)
			makeFolders(t, dir, "ours/"+tt.inbox, "theirs/"+tt.inbox)
			on := func(root string) peer.Options {
				o := peer.Options{FS: layout == FS, Dovecot: []string{"mailbox_list_index = no"}}
				if tt.inbox != "" {
					o.Dovecot = append(o.Dovecot, "mail_location = maildir:"+root+":LAYOUT=fs:INBOX="+root+"/"+tt.inbox)
				}
				return o
			}
			d := peer.Dovecot(t, dir+"/theirs", on(dir+"/theirs"))
			c := d.Login(t, d.User)
			tree := open(t, Config{Root: dir + "/ours", Inbox: tt.inbox, Layout: layout, Names: UTF7})
			random := rand.New(rand.NewPCG(2, 3))
			count := map[string]int{}
			for i := range 250 {
				a, b := names[random.IntN(len(names))], names[random.IntN(len(names))]
				var command string
				var err error
				switch random.IntN(5) {
				case 0, 1:
					command, err = "CREATE "+quote(a), tree.Create(a)
				case 2:
					command, err = "DELETE "+quote(a), tree.Delete(a)
				default:
					if odd(t, tree, a, b) {
						continue
					}
					command, err = "RENAME "+quote(a)+" "+quote(b), tree.Rename(a, b)
				}
				_, answer := c.Try("%s", command)
				if strings.HasPrefix(answer, "OK") != (err == nil) {
					t.Fatalf("%d: %s: %s, ours %v\n%q", i, command, answer, err, describe(t, tree))
				}
				count[fmt.Sprint(strings.Fields(command)[0], err == nil)]++
				ours := describe(t, tree)
				slices.Sort(ours)
				if layout == PlusPlus { // without its index Dovecot leaves these out
					ours = slices.DeleteFunc(ours, func(s string) bool { return strings.Contains(s, `\Noselect`) })
				}
				all := describeDovecot(t, c)
				if tt.inbox == "box/in" { // Dovecot counts INBOX as a child of what it is in
					i := slices.Index(all, `box \Noselect \HasChildren`)
					all[max(i, 0)] = `box \Noselect`
				}
				if d := cmp.Diff(all, ours); d != "" {
					t.Fatalf("%d: after %s: %s\n%s", i, command, answer, d)
				}
			}
			if len(count) != 6 {
				t.Errorf("not all outcomes came up: %v", count)
			}
			theirs := peer.Dovecot(t, dir+"/ours", on(dir+"/ours"))
			if d := cmp.Diff(describeDovecot(t, c), describeDovecot(t, theirs.Login(t, theirs.User))); d != "" {
				t.Errorf("Dovecot on our tree\n%s", d)
			}
		})
	}
}

// odd reports whether Dovecot does something odd when it renames a to b: if two
// folders would become one it answers OK and moves some of the folders, and if a
// does not exist it makes the parent of b in the fs layout; a parent that does not
// exist it renames to a b that does. We do nothing.
func odd(t *testing.T, tree *Tree, a, b string) bool {
	t.Helper()
	list, err := tree.List()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(list, func(f Folder) bool { return f.Name == a }) {
		return tree.Layout() == FS
	}
	exists := func(name string) bool {
		return slices.ContainsFunc(list, func(f Folder) bool { return f.Exists && f.Name == name })
	}
	if tree.Layout() == PlusPlus && !exists(a) && exists(b) {
		return true
	}
	for _, f := range list {
		rest, ok := strings.CutPrefix(f.Name, a+"/")
		if ok && f.Exists && exists(b+"/"+rest) {
			return true
		}
	}
	return false
}

// TestBesideDovecot holds that Dovecot finds the UIDVALIDITY, folders and
// subscriptions that we write, and counts on where we stopped, as we do.
func TestBesideDovecot(t *testing.T) {
	t.Parallel()
	for _, layout := range []Layout{PlusPlus, FS} {
		t.Run(fmt.Sprint(layout), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(peer.TempDir(t), "Maildir")
			makeFolders(t, dir, ".")
			d := peer.Dovecot(t, dir, peer.Options{FS: layout == FS})
			c := d.Login(t, d.User)
			tree := open(t, Config{Root: dir, Layout: layout})
			seen := map[string]bool{}
			for i := range 6 {
				name := fmt.Sprintf("f%d/ü", i)
				if i%2 == 0 {
					c.Do("CREATE %s", quote(name))
				} else if err := tree.Create(name); err != nil {
					t.Fatal(err)
				}
				peer.Own(t, dir)
				validity := c.Do("STATUS %s (UIDVALIDITY)", quote(name))[0].Text
				validity = validity[strings.LastIndexByte(validity, ' ')+1 : len(validity)-1]
				mail, control, err := tree.Path(name)
				if err != nil {
					t.Fatal(err)
				}
				if got := fmt.Sprint(listOf(t, control).Validity); got != validity || seen[validity] {
					t.Errorf("%s: UIDVALIDITY %s for Dovecot, %s in the file; all: %v", mail, validity, got, seen)
				}
				seen[validity] = true
				if i%2 == 0 {
					c.Do("SUBSCRIBE %s", quote(name))
				} else if err := tree.Subscribe(name); err != nil {
					t.Fatal(err)
				}
				peer.Own(t, dir)
			}
			if err := tree.Unsubscribe("f0/ü"); err != nil {
				t.Fatal(err)
			}
			peer.Own(t, dir)
			c.Do("UNSUBSCRIBE %s", quote("f1/ü"))
			var lsub []string
			for _, r := range c.Do(`LSUB "" "*"`) {
				lsub = append(lsub, decodeName(t, r.Text[strings.LastIndexByte(r.Text, ' ')+1:]))
			}
			want := []string{"f2/ü", "f3/ü", "f4/ü", "f5/ü"}
			got, err := tree.Subscriptions()
			if !slices.Equal(lsub, want) || !slices.Equal(got, want) || err != nil {
				t.Errorf("subscribed: Dovecot %q, ours %q, %v", lsub, got, err)
			}
			if log := d.Log(); strings.Contains(log, "Error") || strings.Contains(log, "Warning") {
				t.Errorf("Dovecot says: %s", log)
			}
			names, _ := os.ReadDir(dir)
			for _, n := range names {
				if strings.HasSuffix(n.Name(), ".lock") || strings.HasSuffix(n.Name(), ".tmp") || strings.HasPrefix(n.Name(), "..") {
					t.Errorf("left over: %s", n.Name())
				}
			}
		})
	}
}

func listOf(t *testing.T, path string) uidlist.List {
	t.Helper()
	dir, err := vfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	l, _, err := uidlist.ReadFile(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return l
}
