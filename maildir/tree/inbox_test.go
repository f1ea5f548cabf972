package tree

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// inboxes are trees with an INBOX of its own: the directory of INBOX, and what is listed
// beside INBOX and Work when there are Work, INBOX/Sub and a folder below INBOX's.
var inboxes = []struct {
	inbox string
	list  []string
}{
	{"INBOX", []string{`INBOX \HasChildren`, `INBOX/Sub`, `INBOX/below`, `Work`}},
	{"in", []string{`INBOX \HasChildren`, `INBOX/Sub`, `Work`, `in \Noselect \HasChildren`, `in/below`}},
	{"a/in", []string{`INBOX \HasChildren`, `INBOX/Sub`, `Work`, `a \Noselect \HasChildren`, `a/in \Noselect \HasChildren`, `a/in/below`}},
	{"&ZeVnLIqe-", []string{`INBOX \HasChildren`, `INBOX/Sub`, `Work`, `日本語 \Noselect \HasChildren`, `日本語/below`}},
}

// TestInbox holds that INBOX is where Config.Inbox says, and that no other mailbox has
// its directory, whatever the tree looks like otherwise.
func TestInbox(t *testing.T) {
	t.Parallel()
	for _, tt := range inboxes {
		for _, side := range []string{"", "/side"} {
			dir := t.TempDir()
			root := dir + "/Mail"
			c := Config{Root: root, Inbox: tt.inbox, Layout: FS, Names: UTF7}
			control := root + "/" + tt.inbox
			if side != "" {
				c.Control = dir + side
				control = c.Control + "/INBOX"
			}
			tree := open(t, c)
			if got := describe(t, tree); !slices.Equal(got, []string{`INBOX \Noselect`}) {
				t.Errorf("%s: before: %q", tt.inbox, got)
			}
			for range 2 {
				if err := tree.Init(); err != nil {
					t.Fatal(err)
				}
			}
			alone := describe(t, tree)
			if strings.Contains(tt.inbox, "/") {
				alone = slices.DeleteFunc(alone, func(s string) bool { return strings.HasPrefix(s, `a \Noselect`) })
			}
			if !slices.Equal(alone, []string{`INBOX`}) {
				t.Errorf("%s: at first: %q", tt.inbox, alone)
			}
			if there(root + "/cur") {
				t.Errorf("%s: the root has become a folder", tt.inbox)
			}
			mail, lists, err := tree.Path("inbox")
			if mail != root+"/"+tt.inbox || lists != control || err != nil || !there(control) {
				t.Errorf("%s: mail in %s, list in %s, %v", tt.inbox, mail, lists, err)
			}
			makeFolders(t, root, "Work", "INBOX/Sub", tt.inbox+"/below", ".") // the root's cur is nobody's
			if got := describe(t, tree); !slices.Equal(got, tt.list) {
				t.Errorf("%s: %q, want %q", tt.inbox, got, tt.list)
			}
			if f, err := tree.Look("INBOX"); !f.Exists || err != nil {
				t.Errorf("%s: %+v, %v", tt.inbox, f, err)
			}
		}
	}
}

// TestInboxStays holds that nothing that is done to other mailboxes moves or removes
// INBOX.
func TestInboxStays(t *testing.T) {
	t.Parallel()
	for _, tt := range inboxes {
		root := t.TempDir()
		tree := open(t, Config{Root: root, Inbox: tt.inbox, Layout: FS, Names: UTF7})
		if err := tree.Init(); err != nil {
			t.Fatal(err)
		}
		makeFolders(t, root, "Work", "INBOX/Sub", tt.inbox+"/below", "a")
		message := root + "/" + tt.inbox + "/cur/1.x"
		if err := os.WriteFile(message, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		own, ok := tree.decodeAny(tt.inbox)
		if !ok {
			t.Fatal("not decoded")
		}
		for what, err := range map[string]error{
			"create":     tree.Create(own),
			"create/":    tree.Create(own + "/"),
			"delete":     tree.Delete(own),
			"rename":     tree.Rename(own, "x"),
			"rename to":  tree.Rename("Work", own),
			"rename to2": tree.Rename("INBOX/Sub", own),
		} {
			if !errors.Is(err, ErrName) && !errors.Is(err, ErrExists) {
				t.Errorf("%s: %s: %v", tt.inbox, what, err)
			}
		}
		if _, _, err := tree.Path(own); own != "INBOX" && !errors.Is(err, ErrName) {
			t.Errorf("%s can be opened: %v", own, err)
		}
		if strings.Contains(tt.inbox, "/") {
			if err := tree.Rename("a", "b"); !errors.Is(err, ErrName) {
				t.Errorf("rename of what INBOX is in: %v", err)
			}
			if err := tree.Delete("a"); err != nil {
				t.Error(err)
			}
			if err := tree.Delete("a"); !errors.Is(err, ErrHasChildren) {
				t.Errorf("deletion of what INBOX is in: %v", err)
			}
		}
		if err := errors.Join(tree.Rename("INBOX/Sub", "Sub"), tree.Rename("Sub", "INBOX/Deep/Sub"), tree.Delete("INBOX/Deep/Sub"),
			tree.Create("INBOX/New"), tree.Delete("INBOX/New")); err != nil {
			t.Errorf("%s: %v", tt.inbox, err)
		}
		if !there(message) {
			t.Errorf("%s: the message has gone", tt.inbox)
		}
		if found := leftovers(t, root); len(found) > 0 {
			t.Errorf("%s: left %q", tt.inbox, found)
		}
	}
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// decodeAny returns the name that the directory rel would have for clients.
func (t *Tree) decodeAny(rel string) (string, bool) {
	parts := strings.Split(rel, "/")
	for i := range parts {
		p, ok := t.decodePart(parts[i])
		if !ok {
			return "", false
		}
		parts[i] = p
	}
	return strings.Join(parts, "/"), true
}

// TestInboxRefused holds which places INBOX cannot have.
func TestInboxRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{
		{Inbox: "INBOX"}, {Inbox: "INBOX", Layout: PlusPlus}, {Inbox: "../INBOX", Layout: FS}, {Inbox: "a/../..", Layout: FS},
	} {
		c.Root = t.TempDir()
		if _, err := Open(c); !errors.Is(err, ErrLayout) {
			t.Errorf("%q in layout %d: %v", c.Inbox, c.Layout, err)
		}
	}
	for _, inbox := range []string{"", "."} {
		if tree := open(t, Config{Root: "/x", Inbox: inbox, Layout: FS}); tree.inbox != "/x" {
			t.Errorf("%q: %s", inbox, tree.inbox)
		}
	}
	if tree := open(t, Config{Root: "/x/", Inbox: "a//INBOX/", Layout: FS}); tree.inbox != filepath.Join("/x", "a", "INBOX") {
		t.Error(tree.inbox)
	}
}
