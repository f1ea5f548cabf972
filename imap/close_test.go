package imap

import (
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"imapd/control/config"
	"imapd/maildir"
	"imapd/maildir/faultfs"
)

// CLOSE has no NO (RFC 9051 section 6.4.1): that messages could not be removed is a
// warning, and the mailbox is closed.
func TestCloseFails(t *testing.T) {
	t.Parallel()
	var fs faultfs.FS
	w := newWorld(t, func(_ *config.Config, o *Options) {
		o.Host = maildir.NewHost(maildir.Options{Open: fs.Open, Log: slog.New(o.Log.Handler())})
	})
	t.Cleanup(func() { w.opt.Host.Close() })
	w.deliver("u", "", "cur/1.h:2,T", note)
	c := w.login("u")
	c.must(" OK", "SELECT INBOX")
	fs.Arm(func(c faultfs.Call) error {
		if strings.Contains(c.Path, "1.h:2,T") && c.Changes {
			return syscall.EACCES
		}
		return nil
	})
	if got := fmt.Sprint(c.must(" OK", "CLOSE")); got != "[* NO [NOPERM] Permission denied]" {
		t.Errorf("got %s", got)
	}
	if log := w.log.String(); !strings.Contains(log, "cmd=CLOSE user=u mailbox=INBOX") {
		t.Errorf("log: %s", log)
	}
	c.must(" BAD", "CHECK")
	fs.Disarm()
	if got := fmt.Sprint(c.must(" OK", "STATUS INBOX (MESSAGES)")); got != "[* STATUS INBOX (MESSAGES 1)]" {
		t.Errorf("got %s", got)
	}
	c.must(" OK", "SELECT INBOX")
	if got := c.must(" OK", "CLOSE"); len(got) > 0 {
		t.Errorf("got %q", got)
	}
}
