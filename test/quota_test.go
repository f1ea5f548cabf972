package test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"imapd/test/peer"
)

// dovecotQuota has Dovecot count in maildirsize, as sites do that come from Courier.
var dovecotQuota = []string{
	"mail_plugins = quota", "protocol imap {\n mail_plugins = quota imap_quota\n}",
	"plugin {\n quota = maildir:User quota\n quota_rule = *:storage=1G:messages=1000\n}",
}

// sumOf returns what the lines of a maildirsize add up to.
func sumOf(t *testing.T, file string) (octets, messages int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, lines, _ := strings.Cut(string(text), "\n")
	for line := range strings.Lines(lines) {
		var o, m int
		if _, err := fmt.Sscan(line, &o, &m); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		octets, messages = octets+o, messages+m
	}
	return octets, messages
}

var sizeInName = regexp.MustCompile(`,S=(\d+)`)

// countOf counts the messages below dir as everybody does: S= if it is there.
func countOf(t *testing.T, dir string) (octets, messages int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		parent := filepath.Base(filepath.Dir(path))
		if err != nil || e.IsDir() || parent != "cur" && parent != "new" {
			return err
		}
		messages++
		if m := sizeInName.FindStringSubmatch(e.Name()); m != nil {
			n, err := strconv.Atoi(m[1])
			octets += n
			return err
		}
		info, err := e.Info()
		if err == nil {
			octets += int(info.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return octets, messages
}

var messageQuota = regexp.MustCompile(`MESSAGE (\d+) 1000`)

// TestQuotaBesideDovecot changes folders through both servers. maildirsize must be
// what a count gives, and what Dovecot tells its clients.
func TestQuotaBesideDovecot(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, size string }{
		{"made by Dovecot", ""},
		{"made by Courier", "1073741824S,1000C\n           0            0\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(peer.TempDir(t), "Maildir")
			for _, sub := range []string{"cur", "new", "tmp"} {
				if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			file := filepath.Join(dir, "maildirsize")
			if tt.size != "" {
				write(t, file, tt.size)
			}
			d := peer.Dovecot(t, dir, peer.Options{Dovecot: dovecotQuota})
			ours := peer.Imapd(t, dir, peer.Options{})
			a, b := d.Login(t, d.User), ours.Login(t, ours.User)
			check := func(what string) {
				t.Helper()
				octets, messages := sumOf(t, file)
				if o, m := countOf(t, dir); o != octets || m != messages {
					t.Errorf("%s: maildirsize says %d octets, %d messages; there are %d, %d", what, octets, messages, o, m)
				}
				m := messageQuota.FindStringSubmatch(d.Login(t, d.User).Do("GETQUOTAROOT INBOX")[1].Text)
				if m == nil || m[1] != strconv.Itoa(messages) {
					t.Errorf("%s: Dovecot says %v messages, maildirsize %d", what, m, messages)
				}
			}
			text := func(n int) string { return peer.Literal("Subject: x\r\n\r\n" + strings.Repeat("text\r\n", n)) }
			for i := range 4 {
				a.Do("APPEND INBOX (\\Seen) %s", text(10*i))
				b.Do("APPEND INBOX (\\Seen) %s", text(20*i))
			}
			check("APPEND")
			b.Do("CREATE Sub")
			b.Do("SELECT INBOX")
			b.Do("COPY 1:4 Sub")
			b.Do("MOVE 5,6 Sub")
			check("COPY and MOVE")
			a.Do("SELECT Sub")
			a.Do("COPY 1:3 INBOX")
			a.Do("STORE 1:2 +FLAGS (\\Deleted)")
			a.Do("EXPUNGE")
			check("Dovecot's COPY and EXPUNGE")
			b.Do("SELECT INBOX")
			b.Do("STORE 2:4 +FLAGS (\\Deleted)")
			b.Do("EXPUNGE")
			check("EXPUNGE")
			b.Do("RENAME Sub Other")
			b.Do("DELETE Other")
			check("DELETE")
			if first, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(first), "1073741824S,1000C\n") {
				t.Errorf("%.40q, %v", first, err)
			}
		})
	}
}
