package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imapd/maildir/uidlist"
	"imapd/test/peer"
)

// TestControlBesideDovecot has both servers work on one account whose control files
// lie elsewhere, in both layouts. Each must see the other's UIDs, keywords and
// subscriptions, and nothing of them may lie among the mail.
func TestControlBesideDovecot(t *testing.T) {
	t.Parallel()
	for layout, fs := range map[string]bool{"maildir++": false, "fs": true} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			top := peer.TempDir(t)
			dir, control := filepath.Join(top, "Maildir"), filepath.Join(top, "control")
			for _, sub := range []string{control, dir, dir + "/cur", dir + "/new", dir + "/tmp"} {
				mkdir(t, sub)
			}
			location := "mail_location = maildir:" + dir + ":CONTROL=" + control
			if fs {
				location += ":LAYOUT=fs"
			}
			d := peer.Dovecot(t, dir, peer.Options{FS: fs, Dovecot: []string{location}})
			ours := peer.Imapd(t, dir, peer.Options{FS: fs, Imapd: []string{"maildir_control: " + control}})
			peer.Own(t, top)
			a, b := ours.Login(t, ours.User), d.Login(t, d.User)
			text := peer.Literal("Subject: x\r\n\r\ntext\r\n")
			for i, c := range []*peer.Client{a, b} {
				other := []*peer.Client{b, a}[i]
				c.Do("CREATE Box%d", i)
				c.Do("CREATE Box%d/Sub", i)
				c.Do("SUBSCRIBE Box%d", i)
				c.Do("APPEND INBOX (key%d) %s", i, text)
				other.Do("APPEND INBOX (other%d) %s", i, text)
				c.Do("APPEND Box%d/Sub (\\Seen key) %s", i, text)
				other.Do("RENAME Box%d New%d", i, i)
				other.Do("APPEND New%d/Sub %s", i, text)
				c.Do("APPEND New%d/Sub %s", i, text)
			}
			ask := func(c *peer.Client) string {
				var said []string
				for _, name := range []string{"INBOX", "New0", "New0/Sub", "New1/Sub"} {
					said = append(said, c.Do("STATUS %s (MESSAGES UIDNEXT UIDVALIDITY)", name)[0].Text)
					c.Do("EXAMINE %s", name)
					for _, r := range c.Do("UID FETCH 1:* FLAGS") {
						said = append(said, r.Text)
					}
				}
				for _, r := range c.Do(`LSUB "" *`) {
					said = append(said, r.Text)
				}
				return strings.ReplaceAll(strings.Join(said, "\n"), `\Recent`, "")
			}
			got, want := ask(a), ask(b)
			if normal(got) != normal(want) {
				t.Errorf("we say\n%s\nDovecot\n%s", normal(got), normal(want))
			}
			for _, name := range []string{"INBOX (MESSAGES 4", "New0/Sub (MESSAGES 3", "New1/Sub (MESSAGES 3"} {
				if !strings.Contains(got, name) {
					t.Errorf("no %s in\n%s", name, got)
				}
			}
			stray, err := filepath.Glob(dir + "/*dovecot-*")
			more, err2 := filepath.Glob(dir + "/*/dovecot-*")
			stray = slices.DeleteFunc(append(stray, more...), func(path string) bool {
				return filepath.Base(filepath.Dir(path)) == "tmp" && uidlist.IsAside(filepath.Base(path)) // kept for a moment
			})
			if err != nil || err2 != nil || len(stray) > 0 {
				t.Errorf("among the mail: %q, %v, %v", stray, err, err2)
			}
			inbox := map[bool]string{false: ".INBOX", true: "INBOX"}[fs]
			for _, file := range []string{inbox + "/dovecot-uidlist", inbox + "/dovecot-keywords", "subscriptions"} {
				if _, err := os.Stat(filepath.Join(control, file)); err != nil {
					t.Error(err)
				}
			}
			a.Do("DELETE New0/Sub")
			if left, _ := filepath.Glob(control + "/*New0*Sub*"); len(left) > 0 {
				t.Errorf("left %q", left)
			}
		})
	}
}

// normal sorts the flags of a response, and drops what servers word differently.
func normal(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(flags(strings.Fields(strings.NewReplacer("(", "( ", ")", " )").Replace(line))), " "))
	}
	return strings.Join(lines, "\n")
}
