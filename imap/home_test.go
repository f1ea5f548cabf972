package imap

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"imapd/control/config"
)

// TestNewUser makes the folders of the configuration for a user who has no
// Maildir, and for nobody else.
func TestNewUser(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, prefix, old string
		separator         byte
		list, lsub        []string
	}{
		{"plain", "", "Old/2024", '/', []string{
			`* LIST (\HasNoChildren) "/" INBOX`, `* LIST (\Noselect \HasChildren) "/" Old`, `* LIST (\HasNoChildren) "/" Old/2024`,
			`* LIST (\HasNoChildren \Sent) "/" Sent`, `* LIST (\HasNoChildren \Trash) "/" W&APwA5A-h`,
		}, []string{`* LSUB (\Sent) "/" Sent`}},
		{"prefix", "INBOX.", "Old.2024", '.', []string{
			`* LIST (\HasChildren) "." INBOX`, `* LIST (\Noselect \HasChildren) "." INBOX.Old`, `* LIST (\HasNoChildren) "." INBOX.Old.2024`,
			`* LIST (\HasNoChildren \Sent) "." INBOX.Sent`, `* LIST (\HasNoChildren \Trash) "." INBOX.W&APwA5A-h`,
		}, []string{`* LSUB (\Sent) "." INBOX.Sent`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *config.Config, _ *Options) {
				c.MaildirPrefix, c.MaildirSeparator = tt.prefix, tt.separator
				c.AutocreateInboxFolders = []string{"Sent", "Wüäh", tt.old, "../out"}
				c.AutocreateSubscribeFolders = []string{"Sent"}
				c.SpecialUse = map[string]string{`\Trash`: "Wüäh"}
			})
			c := w.login("new")
			if got := c.must(" OK", `LIST "" *`); !slices.Equal(got, tt.list) {
				t.Errorf("LIST: %q, want %q", got, tt.list)
			}
			if got := c.must(" OK", `LSUB "" *`); !slices.Equal(got, tt.lsub) {
				t.Errorf("LSUB: %q, want %q", got, tt.lsub)
			}
			c.must(" OK", "SELECT INBOX")
			if _, err := os.Stat(filepath.Join(w.root, "out")); err == nil {
				t.Error("a folder outside of the Maildir")
			}

			// What the user has removed does not come back.
			c.must(" OK", "DELETE "+tt.prefix+"Sent")
			c.must(" NO [NONEXISTENT]", "STATUS "+tt.prefix+"Sent (MESSAGES)")
			c.must(" OK", "LOGOUT")
			w.login("new").must(" NO [NONEXISTENT]", "STATUS "+tt.prefix+"Sent (MESSAGES)")
		})
	}
}
