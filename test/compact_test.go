package test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"imapd/test/peer"
)

// TestPassingThrough holds that a folder through which mail passes keeps a short UID
// list while clients have it open: in our server, in another process of it, and in a
// Dovecot that is in the middle of a session. All of them go on with the same UIDs.
func TestPassingThrough(t *testing.T) {
	t.Parallel()
	dir := basic(t)
	ours, dovecot := peer.Imapd(t, dir, peer.Options{}), peer.Dovecot(t, dir, peer.Options{})
	conn, process, err := ours.Inetd(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		process.Wait()
	})
	busy := ours.Login(t, ours.User)
	all := map[string]*peer.Client{"imapd": busy, "another process": ours.LoginOn(t, conn, ours.User), "Dovecot": dovecot.Login(t, ours.User)}
	busy.Do("CREATE Passing")
	for i := range 3 {
		busy.Do("APPEND Passing (\\Flagged work) %s", peer.Literal(fmt.Sprintf("Subject: stays %d\r\n\r\n", i)))
	}
	for _, c := range all {
		c.Do("SELECT Passing")
	}
	const batch, batches = 50, 60
	for range batches {
		busy.Do("APPEND Passing%s", strings.Repeat(` (\Deleted) `+peer.Literal("Subject: passes\r\n\r\nx\r\n"), batch))
		busy.Do("EXPUNGE")
	}
	list := filepath.Join(dir, ".Passing", "dovecot-uidlist")
	lines := func() int { return strings.Count(read(t, list), "\n") - 1 }
	eventually(t, func() string { return fmt.Sprintf("the list has %d lines", lines()) }, func() bool { return lines() < 1003 })
	want := passing(busy)
	if len(want) != 4 || !strings.HasPrefix(want[0], fmt.Sprintf("* STATUS Passing (MESSAGES 3 UIDNEXT %d ", 4+batch*batches)) {
		t.Fatalf("imapd: %q", want)
	}
	agree := func() {
		t.Helper()
		for who, c := range all {
			if got := passing(c); !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", who, got, want)
			}
		}
	}
	agree()
	for _, who := range []string{"Dovecot", "another process"} {
		all[who].Do("APPEND Passing %s", peer.Literal("Subject: more\r\n\r\n"))
	}
	want = append(want, fmt.Sprint(4+batch*batches, " []"), fmt.Sprint(5+batch*batches, " []"))
	want[0] = strings.NewReplacer("MESSAGES 3", "MESSAGES 5", fmt.Sprint("UIDNEXT ", 4+batch*batches), fmt.Sprint("UIDNEXT ", 6+batch*batches)).Replace(want[0])
	agree()
	uncomplaining(t, dovecot)
	uncomplaining(t, ours)
}

// passing returns what a client knows of the mailbox that it has selected: its state,
// UIDs and flags.
func passing(c *peer.Client) []string {
	c.Do("NOOP")
	all := []string{c.Do("STATUS Passing (MESSAGES UIDNEXT UIDVALIDITY)")[0].Text}
	for _, r := range c.Do("UID FETCH 1:* (UID FLAGS)") {
		m := uidFlags.FindStringSubmatch(r.Text)
		if m == nil {
			return append(all, r.Text)
		}
		flags := slices.DeleteFunc(strings.Fields(m[2]), func(f string) bool { return f == `\Recent` })
		slices.Sort(flags)
		all = append(all, fmt.Sprint(m[1], " ", flags))
	}
	return all
}

var uidFlags = regexp.MustCompile(`FETCH \(UID (\d+) FLAGS \(([^)]*)\)\)`)
