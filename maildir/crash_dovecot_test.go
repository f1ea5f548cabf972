package maildir_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"imapd/maildir"
	"imapd/maildir/tree"
	"imapd/test/peer"
)

// A keepsake is a site after a crash, and what we found there in the end.
type keepsake struct {
	site
	folders map[string]folder
	what    string
}

// keepEach says which of the sites, those of one script counted apart, Dovecot
// is asked about.
func keepEach() int {
	if soaking() {
		return 10
	}
	return 1
}

func (c *counts) keep(s site, all map[string]folder, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, keepsake{s, all, what})
}

// askDovecot holds that Dovecot finds the same UIDs and flags as we did, and
// nothing to complain about.
func (c *counts) askDovecot(t *testing.T) {
	t.Helper()
	peer.Own(t, c.dir)
	for _, layout := range []tree.Layout{tree.PlusPlus, tree.FS} {
		d := peer.Dovecot(t, c.dir+"/%u/Maildir", peer.Options{FS: layout == tree.FS})
		asked := 0
		for _, k := range c.kept {
			if (k.layout == tree.FS) != (layout == tree.FS) {
				continue
			}
			asked++
			client := d.Login(t, filepath.Base(k.dir))
			for _, name := range slices.Sorted(maps.Keys(k.folders)) {
				if got, want := examine(client, name), tell(k.folders[name]); got != want {
					t.Errorf("after %s, Dovecot finds in %s of %s\n%s\nwant\n%s", k.what, name, k.dir, got, want)
				}
			}
			client.Do("LOGOUT")
		}
		if asked == 0 {
			t.Error("Dovecot was asked about no folder")
		}
		for line := range strings.Lines(d.Log()) {
			if strings.Contains(line, "Error") || strings.Contains(line, "Warning") {
				t.Errorf("Dovecot says: %s", line)
			}
		}
		t.Logf("Dovecot finds the same in %d sites", asked)
		d.Stop()
	}
}

// tell describes a folder as examine does.
func tell(f folder) string {
	var b strings.Builder
	fmt.Fprintf(&b, "UIDVALIDITY %d UIDNEXT %d", f.Validity, f.Next)
	for _, u := range slices.Sorted(maps.Keys(f.Mails)) {
		fmt.Fprintf(&b, "\n%d (%s)", u, f.Mails[u].Flags)
	}
	return b.String()
}

var (
	validityCode = regexp.MustCompile(`\[UIDVALIDITY (\d+)\]`)
	nextCode     = regexp.MustCompile(`\[UIDNEXT (\d+)\]`)
	fetched      = regexp.MustCompile(`FETCH \(UID (\d+) FLAGS \(([^)]*)\)\)`)
)

// examine returns the UIDs and flags of a mailbox.
func examine(c *peer.Client, name string) string {
	f := folder{Mails: map[maildir.UID]mail{}}
	for _, r := range c.Do("EXAMINE %q", name) {
		if m := validityCode.FindStringSubmatch(r.Text); m != nil {
			n, _ := strconv.ParseUint(m[1], 10, 32)
			f.Validity = uint32(n)
		}
		if m := nextCode.FindStringSubmatch(r.Text); m != nil {
			n, _ := strconv.ParseUint(m[1], 10, 32)
			f.Next = maildir.UID(n)
		}
	}
	for _, r := range c.Do("UID FETCH 1:* (UID FLAGS)") {
		if m := fetched.FindStringSubmatch(r.Text); m != nil {
			n, _ := strconv.ParseUint(m[1], 10, 32)
			flags := slices.DeleteFunc(strings.Fields(m[2]), func(f string) bool { return f == `\Recent` })
			slices.Sort(flags)
			f.Mails[maildir.UID(n)] = mail{Flags: strings.Join(flags, " ")}
		}
	}
	return tell(f)
}
