package test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
	"imapd/test/transcript"
)

// basic makes an account with the messages of the transcripts' setup "basic":
// INBOX holds UIDs 1 (S), 2 (a), 4 (FS) and 7 (RSb), Work holds UID 1 (DT).
func basic(t testing.TB) (maildir string) {
	t.Helper()
	return basicIn(t, peer.TempDir(t))
}

// basicIn makes the Maildir of basic in a directory.
func basicIn(t testing.TB, dir string) (maildir string) {
	t.Helper()
	setup, err := transcript.LoadSetup("../imap/testdata", "basic")
	if err != nil {
		t.Fatal(err)
	}
	maildir = filepath.Join(dir, "Maildir")
	if err := setup.Build(maildir); err != nil {
		t.Fatal(err)
	}
	return maildir
}

// onDisk returns the flag letters of the messages of a folder by UID, as the
// list of UIDs and the names of the files say. Messages without a UID count
// as 0.
func onDisk(t *testing.T, folder string) map[int]string {
	t.Helper()
	list, err := os.ReadFile(filepath.Join(folder, "dovecot-uidlist"))
	if err != nil {
		t.Fatal(err)
	}
	uids := map[string]int{}
	for _, line := range strings.Split(string(list), "\n")[1:] {
		head, base, ok := strings.Cut(line, ":")
		if number, _, _ := strings.Cut(head, " "); ok {
			uids[base], _ = strconv.Atoi(number)
		}
	}
	found := map[int]string{}
	for _, path := range files(t, folder) {
		base, flags, _ := strings.Cut(filepath.Base(path), ":2,")
		found[uids[base]] = flags
	}
	return found
}

// files lists the messages of a folder.
func files(t *testing.T, folder string) []string {
	t.Helper()
	var all []string
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(folder, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, filepath.Join(folder, sub, e.Name()))
		}
	}
	return all
}

// contents returns the texts of a folder's messages, sorted, with LF line ends
// and without the header fields that the programs of the tests add.
func contents(t *testing.T, folder string) []string {
	t.Helper()
	var all []string
	for _, path := range files(t, folder) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var kept []string
		for line := range strings.Lines(strings.ReplaceAll(string(text), "\r\n", "\n")) {
			if !strings.HasPrefix(line, "X-TUID:") && !strings.HasPrefix(line, "X-OfflineIMAP:") {
				kept = append(kept, line)
			}
		}
		all = append(all, strings.Join(kept, ""))
	}
	slices.Sort(all)
	return all
}

// tree lists all files below dir with their sizes, to see whether any changed.
// The files in which servers keep their records are left out: they may rewrite
// them.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), "dovecot") || strings.HasPrefix(d.Name(), "imapd.") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all = append(all, path+" "+strconv.FormatInt(info.Size(), 10))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// eventually waits until good, and fails with what says after 20 s.
func eventually(t *testing.T, what func() string, good func() bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !good() {
		select {
		case <-limit:
			t.Fatal(what())
		case <-look.C:
		}
	}
}
