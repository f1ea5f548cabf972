package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imapd/test/peer"
)

// TestIndexDirectory holds that where only one host sees the indexes clients are
// told modseqs if the administrator says that there is no other, and else not: the
// other one would give the same to other changes. Indexes, and what maildir_control has,
// lie where Dovecot has them.
func TestIndexDirectory(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fs         bool
		inbox, sub string
	}{{false, ".INBOX", ".Sub.Deep"}, {true, "INBOX", "Sub/Deep"}} {
		for _, control := range []string{"", "control", "index"} {
			for _, single := range []bool{false, true} {
				t.Run(fmt.Sprintf("fs %v, control %q, single %v", tt.fs, control, single), func(t *testing.T) {
					t.Parallel()
					top := peer.TempDir(t)
					dir := filepath.Join(top, "Maildir")
					lay(t, dir, "1.h:2,", "Subject: x\n\nx\n")
					lay(t, filepath.Join(dir, tt.sub), "1.h:2,", "Subject: x\n\nx\n")
					for _, side := range []string{top + "/index", top + "/control"} {
						mkdir(t, side)
						peer.Own(t, side)
					}
					options := []string{"indexdirectory: " + top + "/index"}
					lists := dir
					if control != "" {
						lists = filepath.Join(top, control)
						options = append(options, "maildir_control: "+lists)
					}
					if single {
						options = append(options, "index_single_host: yes")
					}
					checkIndexDirectory(t, peer.Imapd(t, dir, peer.Options{FS: tt.fs, Imapd: options}), single)
					inboxList := filepath.Join(lists, tt.inbox)
					if control == "" {
						inboxList = dir
					}
					for _, want := range []string{
						filepath.Join(top, "index", tt.inbox, "imapd.index"), filepath.Join(top, "index", tt.sub, "imapd.index"),
						inboxList + "/dovecot-uidlist", filepath.Join(lists, tt.sub, "dovecot-uidlist"), lists + "/subscriptions",
					} {
						inode(t, want)
					}
					wantOnly(t, dir, control != "")
				})
			}
		}
	}
}

// checkIndexDirectory changes something in two mailboxes of s, and holds that their
// modseqs are told, or not.
func checkIndexDirectory(t *testing.T, s *peer.Server, told bool) {
	t.Helper()
	want, not := "[NOMODSEQ]", "HIGHESTMODSEQ"
	if told {
		want, not = not, want
	}
	c := s.Login(t, s.User)
	for _, name := range []string{"INBOX", "Sub/Deep"} {
		var all strings.Builder
		for _, r := range c.Do("SELECT %s (CONDSTORE)", name) {
			all.WriteString(r.Text + "\n")
		}
		if !strings.Contains(all.String(), want) || strings.Contains(all.String(), not) {
			t.Errorf("SELECT %s says\n%s", name, all.String())
		}
		c.Do("STORE 1 +FLAGS (\\Flagged)")
		c.Do("SUBSCRIBE %s", name)
	}
	c.Do("LOGOUT")
}

// wantOnly holds that below dir there is no index, and with lists nothing else of a
// server's either but in tmp.
func wantOnly(t *testing.T, dir string, lists bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		in := filepath.Base(filepath.Dir(path))
		if err == nil && (strings.HasPrefix(e.Name(), "imapd.index") || lists && !e.IsDir() && in != "cur" && in != "tmp") {
			t.Errorf("%s is not where it should be", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
