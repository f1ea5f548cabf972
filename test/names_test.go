package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imapd/test/peer"
)

// TestDovecotNames holds that clients find the folders that Dovecot has shown them
// under the names that they know, when a site does what the table in README.md says.
func TestDovecotNames(t *testing.T) {
	t.Parallel()
	readme := read(t, filepath.Join(top, "README.md"))
	for _, tt := range []struct {
		name      string
		namespace string // in Dovecot's configuration
		fs        bool
		row       string   // of the table
		options   []string // that it names
	}{
		{"no separator", " separator =", false, "| no separator, as Debian has it; folders are .Work.2026 | maildir_separator: . |", []string{"maildir_separator: ."}},
		{"slash", " separator = /", false, "| separator = /, or no separator and LAYOUT=fs | nothing: it is the default |", nil},
		{"no separator, fs", " separator =", true, "| ...:LAYOUT=fs | found by itself, or maildir_layout: fs; never behind the path |", []string{"maildir_layout: fs"}},
		{"prefix", " separator = .\n prefix = INBOX.", false, "| prefix = INBOX. | maildir_prefix: INBOX. |", []string{"maildir_separator: .", "maildir_prefix: INBOX."}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(readme, tt.row) {
				t.Fatalf("README.md has no row %s", tt.row)
			}
			dir := basic(t)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			folders := []string{"", ".Work", ".Work.2026", ".Gr&APwA3w-e"}
			if tt.fs {
				folders = []string{"", "Work", "Work/2026", "Gr&APwA3w-e"}
			}
			for _, f := range folders {
				for _, sub := range []string{"cur", "new", "tmp"} {
					if err := os.MkdirAll(filepath.Join(dir, f, sub), 0o700); err != nil {
						t.Fatal(err)
					}
				}
			}
			names := func(s *peer.Server) (all []string) {
				c := s.Login(t, s.User)
				for _, command := range []string{`LIST "" *`, `LIST "" %`, "NAMESPACE"} {
					for _, r := range c.Do("%s", command) {
						if _, list, ok := strings.Cut(r.Text, ") "); ok && command != "NAMESPACE" {
							r.Text = strings.ReplaceAll(list, `"`, "") // attributes are another matter
						}
						all = append(all, command+" "+r.Text)
					}
				}
				slices.Sort(all)
				return all
			}
			d := peer.Dovecot(t, dir, peer.Options{FS: tt.fs, Dovecot: []string{"namespace inbox {\n" + tt.namespace + "\n}"}})
			want := names(d)
			d.Stop()
			s := peer.Imapd(t, dir, peer.Options{Imapd: tt.options})
			if got := names(s); !slices.Equal(got, want) || len(got) < 6 {
				t.Errorf("imapd:   %q\nDovecot: %q", got, want)
			}
		})
	}
}
