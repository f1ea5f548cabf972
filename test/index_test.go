package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imapd/test/peer"
)

// TestIndexDirectory holds that where only one host sees the indexes clients are
// told modseqs if the administrator says that there is no other, and else not: the
// other one would give the same to other changes.
func TestIndexDirectory(t *testing.T) {
	t.Parallel()
	for _, single := range []bool{false, true} {
		top := peer.TempDir(t)
		dir := filepath.Join(top, "Maildir")
		lay(t, dir, "1.h:2,", "Subject: x\n\nx\n")
		mkdir(t, top+"/index")
		peer.Own(t, top+"/index")
		options := []string{"indexdirectory: " + top + "/index"}
		want, not := "[NOMODSEQ]", "HIGHESTMODSEQ"
		if single {
			options = append(options, "index_single_host: yes")
			want, not = not, want
		}
		s := peer.Imapd(t, dir, peer.Options{Imapd: options})
		c := s.Login(t, s.User)
		var all strings.Builder
		for _, r := range c.Do("SELECT INBOX (CONDSTORE)") {
			all.WriteString(r.Text + "\n")
		}
		if !strings.Contains(all.String(), want) || strings.Contains(all.String(), not) {
			t.Errorf("index_single_host %v: SELECT says\n%s", single, all.String())
		}
		c.Do("STORE 1 +FLAGS (\\Flagged)")
		c.Do("LOGOUT")
		if _, err := os.Stat(top + "/index/.INBOX/imapd.index"); err != nil {
			t.Errorf("index_single_host %v: %v", single, err)
		}
	}
}
