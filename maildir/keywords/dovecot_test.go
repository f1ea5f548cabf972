package keywords

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imapd/maildir/vfs"
	"imapd/test/peer"
)

// TestDovecotReads holds that a Dovecot that has the folder open notices each
// rewrite, also when they follow each other at once.
func TestDovecotReads(t *testing.T) {
	t.Parallel()
	peer.Need(t, "dovecot")
	path := filepath.Join(peer.TempDir(t), "Maildir")
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := vfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	message := filepath.Join(path, "cur", "1700000000.M1P1.host:2,")
	if err := os.WriteFile(message, []byte("Subject: x\n\ny\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := peer.Dovecot(t, path, peer.Options{})
	c := d.Login(t, d.User)
	c.Do("SELECT INBOX")
	var table Table
	var stat Stat
	var want []string
	for i := range 8 {
		table[i] = fmt.Sprintf("kw%d", i)
		want = append(want, table[i])
		if stat, err = Write(dir, table, stat); err != nil {
			t.Fatal(err)
		}
		peer.Own(t, path)
		next := message + string(rune('a'+i))
		if err := os.Rename(message, next); err != nil {
			t.Fatal(err)
		}
		message = next
		c.Do("NOOP")
		text := c.Do("FETCH 1 FLAGS")[0].Text
		flags := strings.Fields(strings.TrimRight(text[strings.Index(text, "FLAGS (")+7:], ")"))
		flags = slices.DeleteFunc(flags, func(f string) bool { return f[0] == '\\' })
		slices.Sort(flags)
		if !slices.Equal(flags, want) {
			t.Fatalf("Dovecot: %q, want %q", text, want)
		}
	}
}
