package imap

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imapd/control/config"
)

// What APPEND refuses leaves nothing behind, and the session in step.
func TestAppendRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) { c.Limits.Message = 1000; c.Limits.Skip = 5000 })
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
		{"two messages", "INBOX {3+}\r\nabc {3+}\r\nabc", "BAD"},
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
		files, err := os.ReadDir(filepath.Join(w.root, "jane", dir))
		if err != nil || len(files) != want {
			t.Errorf("%s holds %v %v, want %d files", dir, files, err, want)
		}
	}
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
		if files, err := os.ReadDir(filepath.Join(w.root, "jane", dir)); err != nil || len(files) != 0 {
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
