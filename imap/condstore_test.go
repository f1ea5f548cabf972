package imap

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"imapd/control/config"
	"imapd/maildir"
	"imapd/maildir/vfs"
)

var (
	highestCode  = regexp.MustCompile(`HIGHESTMODSEQ (\d+)`)
	fetchModSeq  = regexp.MustCompile(`^\* \d+ FETCH .*MODSEQ \((\d+)\)`)
	vanishedLine = regexp.MustCompile(`^\* VANISHED [\d:,]+$`)
)

// highest returns the HIGHESTMODSEQ that lines tell last, 0 if none.
func highest(lines ...string) (n uint64) {
	for _, l := range lines {
		if m := highestCode.FindStringSubmatch(l); m != nil {
			n, _ = strconv.ParseUint(m[1], 10, 63)
		}
	}
	return n
}

// resyncing logs in a client with QRESYNC and selects INBOX.
func (w *world) resyncing() *client {
	c := w.login("jane")
	c.must(" OK", "ENABLE QRESYNC")
	c.must(" OK", "SELECT INBOX")
	return c
}

// TestHeldExpunges holds that a client that cannot be told of an expunge yet is
// not led to believe that it knows all up to a modseq above it (RFC 7162 section
// 3.2): whatever it asks, and however that ends.
func TestHeldExpunges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ command, status string }{
		{"FETCH 1 (MODSEQ)", " OK [HIGHESTMODSEQ "},
		{"FETCH 1 FLAGS", " OK [HIGHESTMODSEQ "}, // the report shows one
		{"FETCH 1:4 (FLAGS) (CHANGEDSINCE 1)", " OK [HIGHESTMODSEQ "},
		{"FETCH 1 BODY[TEXT]", " OK [HIGHESTMODSEQ "},
		{"FETCH 2 (MODSEQ BODY[])", " NO [EXPUNGEISSUED]"},
		{`STORE 4 +FLAGS (\Seen)`, " OK [HIGHESTMODSEQ "},
		{`STORE 4 +FLAGS.SILENT (\Seen)`, " OK [HIGHESTMODSEQ "},
		{`STORE 1:4 +FLAGS (\Seen)`, " NO [EXPUNGEISSUED]"},
		{`STORE 1,4 (UNCHANGEDSINCE 1) +FLAGS (\Seen)`, " OK [MODIFIED 1,4]"},
		{`STORE 1:4 (UNCHANGEDSINCE 1) +FLAGS (\Seen)`, " NO [MODIFIED 1,4]"},
		{"SEARCH MODSEQ 1", " OK [HIGHESTMODSEQ "},
		{"SEARCH ALL", " OK [HIGHESTMODSEQ "},
		{"UID SEARCH 1:2", " OK [HIGHESTMODSEQ "},
		{"COPY 1 INBOX", " OK [COPYUID "},
	} {
		t.Run(tt.command, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			for i := range 4 {
				w.deliver("jane", "", fmt.Sprintf("cur/%d.h:2,", i), "\nx\n")
			}
			a, b := w.resyncing(), w.resyncing()
			b.must(" OK", `STORE 2:3 +FLAGS.SILENT (\Deleted)`)
			_, tagged := b.do("UID EXPUNGE 2")
			gone := highest(tagged)
			_, tagged = b.do("UID EXPUNGE 3")
			if again := highest(tagged); gone == 0 || again <= gone {
				t.Fatalf("expunged at %d and %d", gone, again)
			}
			b.must(" OK", `STORE 1 +FLAGS (\Flagged)`)

			untagged, tagged := a.do(tt.command)
			if !strings.HasPrefix(tagged, tt.status) {
				t.Errorf("got %q, want %q", tagged, tt.status)
			}
			all := append(untagged, tagged)
			for _, l := range all {
				if n := highest(l); n != 0 && n != gone-1 {
					t.Errorf("%s, and the expunge of %d has not been told", l, gone)
				}
			}
			shown := slices.ContainsFunc(untagged, fetchModSeq.MatchString)
			if said := highest(all...); !shown || said != gone-1 {
				t.Errorf("%q: shown %v, said %d, want %d", all, shown, said, gone-1)
			}
			if slices.ContainsFunc(untagged, vanishedLine.MatchString) {
				t.Errorf("VANISHED in %q", untagged)
			}
			// STATUS does not know more, until it has been told.
			untagged, tagged = a.do("STATUS INBOX (HIGHESTMODSEQ)")
			i := slices.IndexFunc(untagged, vanishedLine.MatchString)
			if i < 0 || highest(untagged[:i]...) != gone-1 || highest(tagged) <= gone {
				t.Errorf("STATUS: %q %s", untagged, tagged)
			}
			if untagged, tagged = a.do("FETCH 1 (MODSEQ)"); highest(tagged) != 0 {
				t.Errorf("afterwards: %q %s", untagged, tagged)
			}
		})
	}
}

// unlistedDisk is a Dir in which nothing can be made, so that UIDs do not last.
type unlistedDisk struct{ vfs.Dir }

func (d unlistedDisk) OpenDir(name string) (vfs.Dir, error) {
	sub, err := d.Dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return unlistedDisk{sub}, nil
}

func (d unlistedDisk) Create(string, os.FileMode) (vfs.File, error) { return nil, syscall.EROFS }

// TestNoModSeq holds that a mailbox whose UIDs do not last does not claim that its
// modseqs do (RFC 7162 section 3.1.2.2).
func TestNoModSeq(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *config.Config, o *Options) {
		o.Host = maildir.NewHost(maildir.Options{Log: slog.New(slog.DiscardHandler), ReadOnly: true, Open: func(path string) (vfs.Dir, error) {
			d, err := vfs.Open(path)
			if err != nil {
				return nil, err
			}
			return unlistedDisk{d}, nil
		}})
	})
	t.Cleanup(func() { w.opt.Host.Close() })
	w.deliver("jane", "", "cur/1.h:2,", "\nx\n")
	w.deliver("jane", "", "cur/2.h:2,", "\nx\n")
	c := w.login("jane")
	c.must(" OK", "SELECT INBOX")
	if got := c.must(" OK", "ENABLE QRESYNC"); len(got) != 2 || !strings.HasPrefix(got[1], "* OK [NOMODSEQ]") {
		t.Errorf("ENABLE QRESYNC: %q", got)
	}
	for _, command := range []string{
		"FETCH 1 MODSEQ",
		"FETCH 1 FLAGS (CHANGEDSINCE 1)",
		"UID FETCH 1 FLAGS (CHANGEDSINCE 1 VANISHED)",
		"SEARCH MODSEQ 1",
		`STORE 1 (UNCHANGEDSINCE 1) +FLAGS (\Seen)`,
	} {
		c.must(" BAD", command)
	}
	if got := c.must(" OK", "STATUS INBOX (HIGHESTMODSEQ)"); !slices.Equal(got, []string{"* STATUS INBOX (HIGHESTMODSEQ 0)"}) {
		t.Errorf("STATUS: %q", got)
	}
	validity := ""
	for _, command := range []string{"SELECT INBOX (CONDSTORE)", "SELECT INBOX (QRESYNC (%s 1 1:9))"} {
		if strings.Contains(command, "%") {
			command = fmt.Sprintf(command, validity)
		}
		got := c.must(" OK", command)
		all := strings.Join(got, "\n")
		if !strings.Contains(all, "* OK [NOMODSEQ]") || strings.Contains(all, "HIGHESTMODSEQ") || strings.Contains(all, "VANISHED") || strings.Contains(all, "FETCH") {
			t.Errorf("%s: %q", command, got)
		}
		validity = regexp.MustCompile(`UIDVALIDITY (\d+)`).FindStringSubmatch(all)[1]
	}
	if err := os.Remove(filepath.Join(w.root, "jane", "cur", "1.h:2,")); err != nil {
		t.Fatal(err)
	}
	if got := c.must(" OK", "NOOP"); !slices.Equal(got, []string{"* 1 EXPUNGE"}) {
		t.Errorf("NOOP: %q", got)
	}
}
