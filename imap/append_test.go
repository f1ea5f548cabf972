package imap

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imapd/control/config"

	"imapd/maildir/uidlist"
)

// What APPEND refuses leaves nothing behind, and the session in step.
func TestAppendRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) { c.Limits.Message, c.Limits.Messages, c.Limits.Skip = 1000, 5, 5000 })
	w.deliver("jane", "", "cur/1.h:2,", "x\n")
	for _, tt := range []struct{ name, send, want string }{
		{"too big, asked for", "INBOX {1001}", "NO [TOOBIG]"},
		{"too big, coming", "INBOX {1001+}\r\n" + strings.Repeat("x", 1001), "NO [TOOBIG]"},
		{"no mailbox", "Nowhere {3}", "NO [TRYCREATE]"},
		{"no mailbox, coming", "Nowhere {16+}\r\nx DELETE INBOX\r\n", "NO [TRYCREATE]"},
		{"no name", "../x {3+}\r\nabc", "NO [CANNOT]"},
		{"NUL", "INBOX {3+}\r\na\x00b", "BAD"},
		{"NUL in a literal8", "INBOX ~{3+}\r\na\x00b", "NO [UNKNOWN-CTE]"},
		{"bare LF in a literal8", "INBOX ~{3+}\r\na\nb", "NO [UNKNOWN-CTE]"},
		{"nothing", "INBOX {0+}\r\n", "NO [CANNOT]"},
		{"unknown flag", `INBOX (\Odd) {3+}` + "\r\nabc", "BAD"},
		{"bad date", `INBOX "32-Jan-2026 00:00:00 +0000" {3+}` + "\r\nabc", "BAD"},
		{"the second is nothing", "INBOX {3+}\r\nabc {0+}\r\n", "NO [CANNOT]"},
		{"the second is nothing, and a third", "INBOX {3+}\r\nabc {0+}\r\n {3+}\r\nabc", "NO [CANNOT]"},
		{"the second is too big", "INBOX {3+}\r\nabc {1001+}\r\n" + strings.Repeat("x", 1001), "NO [TOOBIG]"},
		{"the second is too big, and a third", "INBOX {3+}\r\nabc {1001+}\r\n" + strings.Repeat("x", 1001) + " {3+}\r\nabc", "NO [TOOBIG]"},
		{"the second has a NUL", "INBOX {3+}\r\nabc {3+}\r\na\x00b", "BAD"},
		{"the second has an unknown flag", `INBOX {3+}` + "\r\nabc (\\Odd) {3+}\r\nabc", "BAD"},
		{"the second has no space before it", "INBOX {3+}\r\nabc{3+}\r\nabc", "BAD"},
		{"the second is missing", "INBOX {3+}\r\nabc (\\Seen)", "BAD"},
		{"too many", "INBOX" + strings.Repeat(" {3+}\r\nabc", 6), "NO [LIMIT]"},
		{"no message", "INBOX", "BAD"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := w.login("jane")
			c.send("a APPEND " + tt.send + "\r\n")
			c.want("a " + tt.want)
			c.send("b NOOP\r\n")
			c.want("b OK")
		})
	}
	for dir, want := range map[string]int{"cur": 1, "new": 0, "tmp": 0} {
		if files, err := messageFiles(w, dir); err != nil || len(files) != want {
			t.Errorf("%s holds %v %v, want %d files", dir, files, err, want)
		}
	}
}

// A message that is coming is read away where it cannot be stored, up to the size that
// could be: the client is told why, whatever limit_skip is.
func TestAppendRefusedAboveSkip(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) {
		c.Limits.Message, c.Limits.Messages, c.Limits.Skip = 20000, 1, 5000
	})
	w.deliver("jane", "", "cur/1.h:2,", "x\n")
	coming := func(n int) string { return fmt.Sprintf("{%d+}\r\n%s", n, strings.Repeat("x", n)) }
	for _, tt := range []struct{ send, want string }{
		{"Nowhere " + coming(10000), "a NO [TRYCREATE]"},
		{"../x " + coming(20000), "a NO [CANNOT]"},
		{"INBOX {3+}\r\nabc " + coming(10000), "a NO [LIMIT]"},
		{"Nowhere " + coming(20001), "* BYE [TOOBIG]"},
		{"INBOX " + coming(20001), "* BYE [TOOBIG]"},
	} {
		c := w.login("jane")
		c.send("a APPEND " + tt.send + "\r\n")
		c.want(tt.want)
		if tt.want[0] == 'a' {
			c.must(" OK", "NOOP")
		}
	}
}

// messageFiles returns the names in a part of jane's INBOX, without the lock file
// that is kept there for a moment.
func messageFiles(w *world, dir string) ([]string, error) {
	files, err := os.ReadDir(filepath.Join(w.root, "jane", dir))
	var names []string
	for _, f := range files {
		if !uidlist.IsAside(f.Name()) {
			names = append(names, f.Name())
		}
	}
	return names, err
}

// A client that goes away in the middle of a message leaves nothing behind.
func TestAppendBroken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("jane", "", "cur/1.h:2,", "x\n")
	c := w.login("jane")
	c.send("a APPEND INBOX {100000}\r\n")
	c.want("+")
	c.send(strings.Repeat("x", 70000))
	c.conn.Close()
	<-c.done
	for _, dir := range []string{"new", "tmp"} {
		if files, err := messageFiles(w, dir); err != nil || len(files) != 0 {
			t.Errorf("%s holds %v %v", dir, files, err)
		}
	}
}

// The octets of a message come back as they were, but for line ends.
func TestAppendStores(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("jane", "", "cur/1.h:2,", "x\n")
	c := w.login("jane")
	text := "Subject: x\r\n\r\n" + strings.Repeat("line\r\nlone\rcr\r\nlf\n", 9000)
	c.send("a APPEND INBOX (\\Flagged work) \"01-Feb-2024 00:00:00 +0000\" {" + number(uint32(len(text))) + "+}\r\n" + text + "\r\n")
	c.want("a OK [APPENDUID ")
	files, err := filepath.Glob(filepath.Join(w.root, "jane", "cur", "*:2,Fa"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	got, err := os.ReadFile(files[0])
	if want := strings.ReplaceAll(text, "\r\n", "\n"); err != nil || !bytes.Equal(got, []byte(want)) {
		t.Errorf("stored %d octets, want %d %v", len(got), len(want), err)
	}
	if st, err := os.Stat(files[0]); err != nil || st.ModTime().Unix() != 1706745600 {
		t.Error("INTERNALDATE", st.ModTime(), err)
	}
}

// The messages of one APPEND wait for the last one without a file open, and all
// go away with a client that does.
func TestMultiAppendBroken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("jane", "", "cur/1.h:2,", "x\n")
	c := w.login("jane")
	tmp := filepath.Join(w.root, "jane", "tmp")
	c.send("a APPEND INBOX" + strings.Repeat(" {6+}\r\nabc\r\nd", 300) + " {5}\r\n")
	c.want("+")
	if files, err := filepath.Glob(tmp + "/[0-9]*"); err != nil || len(files) != 301 {
		t.Errorf("tmp holds %d files, %v", len(files), err)
	}
	open := 0
	fds, err := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, tmp+"/") && !uidlist.IsAside(filepath.Base(to)) {
			open++
		}
	}
	if err != nil || open > 1 {
		t.Errorf("%d files are open, %v", open, err)
	}
	c.conn.Close()
	<-c.done
	for dir, want := range map[string]int{"cur": 1, "new": 0, "tmp": 0} {
		if files, err := messageFiles(w, dir); err != nil || len(files) != want {
			t.Errorf("%s holds %d files, %v", dir, len(files), err)
		}
	}
}
