package imap

import (
	"os"
	"path/filepath"
	"testing"

	"imapd/control/config"
)

// A user without a Maildir gets one at the first login, with what the
// configuration asks for, and later logins leave it alone.
func TestNewUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) {
		c.AutocreateInboxFolders = []string{"Drafts", "Sent"}
		c.AutocreateSubscribeFolders = []string{"Sent"}
	})
	c := w.login("fresh")
	c.must(" OK [READ-WRITE]", "SELECT INBOX")
	c.must(" OK [READ-WRITE]", "SELECT Drafts")
	root := filepath.Join(w.root, "fresh")
	if b, err := os.ReadFile(filepath.Join(root, "subscriptions")); err != nil || string(b) != "V\t2\n\nSent\n" && string(b) != "Sent\n" {
		t.Errorf("subscriptions %q, %v", b, err)
	}
	if err := os.RemoveAll(filepath.Join(root, ".Drafts")); err != nil {
		t.Fatal(err)
	}
	w.login("fresh").must(" NO [NONEXISTENT]", "SELECT Drafts")
}

// The layout, the separator and the prefix are those of the configuration.
func TestPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) {
		c.MaildirLayout = config.LayoutFS
		c.MaildirPrefix = "INBOX."
		c.MaildirSeparator = '.'
	})
	w.deliver("u", "Work/New", "cur/1.a:2,", note)
	c := w.login("u")
	c.must(" OK", "SELECT INBOX.Work.New")
	if got := c.must(" OK", "NAMESPACE"); got[0] != `* NAMESPACE (("INBOX." ".")) NIL NIL` {
		t.Errorf("got %q", got)
	}
}

// A user whose mail cannot be opened is told so, and is not logged in.
func TestNoHome(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) { c.Maildir = "~/Maildir" })
	c := w.dial()
	c.line()
	c.must(" NO [UNAVAILABLE]", "LOGIN u secret")
	c.must(" BAD", "SELECT INBOX")
}
