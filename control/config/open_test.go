package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOpener holds that every file of a configuration is opened by the opener
// that was given.
func TestOpener(t *testing.T) {
	t.Parallel()
	main := conf(t, "configdirectory: /var/lib/imap\n@include: more.conf\n")
	more := filepath.Join(filepath.Dir(main), "more.conf")
	var opened []string
	shown := filepath.Join(t.TempDir(), "shown")
	if err := os.WriteFile(shown, []byte("servername: secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, problems, err := Load(main, "imap", func(path string) (*os.File, error) {
		opened = append(opened, path)
		if path == more { // which the process itself could not open
			path = shown
		}
		return Open(path)
	})
	if err != nil || len(problems) > 0 || c.ServerName != "secret" {
		t.Errorf("got %v %v, server %q", err, problems, c.ServerName)
	}
	if want := []string{main, more}; !slices.Equal(opened, want) {
		t.Errorf("opened %s", strings.Join(opened, " "))
	}
}
