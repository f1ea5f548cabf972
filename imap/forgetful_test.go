package imap

import (
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imapd/control/config"
	"imapd/maildir"
	"imapd/maildir/faultfs"
	"imapd/maildir/index"
)

// A client that has been told of modseqs hears that there are none any more, and is
// told no other, from when they cannot be remembered (RFC 7162 section 3.1.2.2).
func TestModSeqsEnd(t *testing.T) {
	t.Parallel()
	var fs faultfs.FS
	w := newWorld(t, func(_ *config.Config, o *Options) {
		log := o.Log
		o.Host = maildir.NewHost(maildir.Options{Open: fs.Open, Log: slog.New(log.Handler())})
	})
	t.Cleanup(func() { w.opt.Host.Close() })
	for _, name := range []string{"cur/1.h:2,", "cur/2.h:2,"} {
		w.deliver("jane", "", name, "Subject: x\n\nx\n")
	}
	c, plain := w.resyncing(), w.login("jane")
	plain.must(" OK", "SELECT INBOX")
	if lines, _ := c.do(`STORE 1 +FLAGS (\Seen)`); !strings.Contains(strings.Join(lines, "\n"), "MODSEQ (") {
		t.Fatalf("no modseq: %q", lines)
	}
	fs.Arm(func(c faultfs.Call) error {
		if c.Changes && strings.HasPrefix(filepath.Base(c.Path), index.Name) {
			return syscall.EIO
		}
		return nil
	})
	for i, command := range []string{`STORE 1 +FLAGS (\Flagged)`, `STORE 2 +FLAGS.SILENT (\Flagged)`, "NOOP"} {
		lines, done := c.do(command)
		all := strings.Join(append(lines, done), "\n")
		if strings.Contains(all, "MODSEQ (") || strings.Contains(all, "HIGHESTMODSEQ") || strings.Contains(all, "[NOMODSEQ]") != (i == 0) || !strings.Contains(done, " OK ") {
			t.Errorf("%s: %s", command, all)
		}
	}
	if lines, done := c.do("FETCH 1 (MODSEQ)"); !strings.Contains(done, " BAD ") {
		t.Errorf("%q %s", lines, done)
	}
	if lines, _ := plain.do("NOOP"); strings.Contains(strings.Join(lines, "\n"), "MODSEQ") {
		t.Errorf("a client without CONDSTORE is told %q", lines)
	}
}
