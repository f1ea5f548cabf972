package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imapd/imap"
)

// TestExtensions holds that every extension has its words in the manual, and
// every command a transcript: an extension is whole or it is not there.
func TestExtensions(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile(filepath.Join(top, "man", "imapd.8"))
	if err != nil {
		t.Fatal(err)
	}
	_, list, found := strings.Cut(string(manual), ".Sh COMMANDS AND EXTENSIONS")
	list, _, _ = strings.Cut(list, "\n.Sh ")
	if !found {
		t.Fatal("imapd.8 has no section COMMANDS AND EXTENSIONS")
	}
	extensions := imap.Extensions()
	if len(extensions) < 10 {
		t.Errorf("only %d extensions: %v", len(extensions), extensions)
	}
	for _, name := range extensions {
		if !regexp.MustCompile(`(?m)^\.It Cm ` + regexp.QuoteMeta(name) + `\b`).MatchString(list) {
			t.Errorf("%s: no row in COMMANDS AND EXTENSIONS of imapd.8", name)
		}
	}
	played := commandsPlayed(t)
	for _, name := range imap.Commands() {
		if !played[name] {
			t.Errorf("%s: no transcript in imap/testdata", name)
		}
	}
}

// commandsPlayed returns the commands that the transcripts send.
func commandsPlayed(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(top, "imap", "testdata", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	sent := regexp.MustCompile(`(?mi)^\w+ C: \S+ ((?:UID )?[A-Z0-9-]+)`)
	played := map[string]bool{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range sent.FindAllStringSubmatch(string(text), -1) {
			played[strings.ToUpper(m[1])] = true
		}
	}
	return played
}
