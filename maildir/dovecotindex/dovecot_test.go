package dovecotindex

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imapd/maildir/vfs"
	"imapd/test/peer"
)

// TestDovecot has a Dovecot set 30 keywords, take some away and expunge, and
// reads what it writes: the log alone, an index that is complete up to
// somewhere in the log, and one whose log was rotated.
func TestDovecot(t *testing.T) {
	t.Parallel()
	peer.Need(t, "dovecot")
	rewrite := []string{"mail_index_rewrite_min_log_bytes = 1", "mail_index_rewrite_max_log_bytes = 1"}
	for _, tt := range []struct {
		name  string
		lines []string
		files []string // that must be there at the end
	}{
		{"log", []string{"mail_index_rewrite_min_log_bytes = 10 M", "mail_index_rewrite_max_log_bytes = 10 M"}, []string{logName}},
		{"index", rewrite, []string{logName, indexName}},
		{"rotated", append(rewrite, "mail_index_log_rotate_min_size = 1", "mail_index_log_rotate_max_size = 512", "mail_index_log_rotate_min_age = 1 s"),
			[]string{logName, indexName, oldName}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(peer.TempDir(t), "Maildir")
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			s := peer.Dovecot(t, path, peer.Options{Dovecot: tt.lines})
			want, highest := keywordsBy(t, s, path)
			for _, f := range tt.files {
				if _, err := os.Stat(filepath.Join(path, f)); err != nil {
					t.Error(err)
				}
			}
			got, err := Read(openDir(t, path), validityOf(t, path))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, byName(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.HighestModSeq < highest || got.HighestModSeq > highest+50 {
				t.Errorf("highest modseq %d, Dovecot said %d", got.HighestModSeq, highest)
			}
		})
	}
}

// keywordsBy changes keywords through Dovecot and returns which messages have
// which, and the last HIGHESTMODSEQ.
func keywordsBy(t *testing.T, s *peer.Server, path string) (map[string][]uint32, uint64) {
	t.Helper()
	want := map[string][]uint32{}
	set := func(uid uint32, name string) { want[name] = append(want[name], uid) }
	c := s.Login(t, s.User)
	for range 12 {
		c.Do("APPEND INBOX %s", peer.Literal("Subject: x\r\n\r\ny\r\n"))
	}
	c.Do("ENABLE CONDSTORE")
	c.Do("SELECT INBOX")
	for i := range 30 {
		name, uid := fmt.Sprintf("kw%02d", i+1), uint32(i%12+1)
		c.Do("UID STORE %d +FLAGS (%s)", uid, name)
		set(uid, name)
	}
	c.Do("UID STORE 3:8 +FLAGS.SILENT (KW29 kw30)")
	want["kw29"], want["kw30"] = []uint32{3, 4, 5, 6, 7, 8}, []uint32{3, 4, 5, 6, 7, 8}
	c.Do("UNSELECT") // it writes
	c.Do("SELECT INBOX")
	c.Do("UID STORE 4 -FLAGS (kw30)")
	want["kw30"] = []uint32{3, 5, 6, 7, 8}
	c.Do(`UID STORE 5 FLAGS (\Seen kw28)`)
	want["kw28"], want["kw29"], want["kw30"] = []uint32{4, 5}, []uint32{3, 4, 6, 7, 8}, []uint32{3, 6, 7, 8}
	for _, name := range []string{"kw05", "kw17"} { // both had only UID 5
		want[name] = nil
	}
	c.Do("UNSELECT")
	c.Do("SELECT INBOX")
	c.Do(`UID STORE 7 +FLAGS (\Deleted)`)
	c.Do("EXPUNGE")
	for name, uids := range want {
		want[name] = slices.DeleteFunc(uids, func(u uint32) bool { return u == 7 })
		if len(want[name]) == 0 {
			want[name] = nil
		}
	}
	c.Do(`APPEND INBOX (kw27 late) %s`, peer.Literal("Subject: x\r\n\r\ny\r\n"))
	set(13, "kw27")
	set(13, "late")
	c.Do("UNSELECT")
	text := ""
	for _, r := range c.Do("STATUS INBOX (HIGHESTMODSEQ)") {
		text += r.Text
	}
	n, err := strconv.ParseUint(regexp.MustCompile(`HIGHESTMODSEQ (\d+)`).FindStringSubmatch(text)[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	c.Do("LOGOUT")
	return want, n
}

func byName(x Index) map[string][]uint32 {
	m := map[string][]uint32{}
	for _, k := range x.Keywords {
		m[k.Name] = slices.Collect(k.UIDs())
	}
	return m
}

func openDir(t testing.TB, path string) vfs.Dir {
	t.Helper()
	dir, err := vfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// validityOf reads UIDVALIDITY from the list.
func validityOf(t *testing.T, path string) uint32 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path, "dovecot-uidlist"))
	if err != nil {
		t.Fatal(err)
	}
	field := strings.Fields(string(text))[1]
	n, err := strconv.ParseUint(strings.TrimPrefix(field, "V"), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}
