package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// renewal is the command that imapd-maildir(5) has for a folder without UIDs.
var renewal = regexp.MustCompile(`(?m)^\.Dl (printf .* dovecot-uidlist)$`)

// TestUIDsUsedUp holds that clients are told so when no UID is left in a mailbox, that
// the command in the manual is a way forward which Dovecot takes as well, without a
// restart of either server, and that mail which is delivered is served all the same.
// Of Dovecot alone a new message makes an assertion fail.
func TestUIDsUsedUp(t *testing.T) {
	t.Parallel()
	dir := basic(t)
	used := func() {
		list := filepath.Join(dir, "dovecot-uidlist")
		data, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		head, lines, _ := strings.Cut(string(data), "\n")
		head = regexp.MustCompile(` N\d+`).ReplaceAllString(head, " N4294967295")
		write(t, list+".new", head+"\n"+lines)
		peer.Own(t, list+".new")
		if err := os.Rename(list+".new", list); err != nil {
			t.Fatal(err)
		}
	}
	ours := peer.Imapd(t, dir, peer.Options{})
	dovecot := peer.Dovecot(t, dir, peer.Options{})
	used()
	c := ours.Login(t, ours.User)
	c.Do("CREATE Other")
	c.Do("APPEND Other %s", peer.Literal("Subject: other\r\n\r\n"))
	refused := func() {
		t.Helper()
		c.Do("SELECT Other")
		for _, command := range []string{"APPEND INBOX " + peer.Literal("Subject: x\r\n\r\n"), "COPY 1 INBOX", "MOVE 1 INBOX"} {
			if _, answer := c.Try("%s", command); !strings.HasPrefix(answer, "NO [LIMIT] No UID is left in this mailbox") {
				t.Errorf("%.10s: %s", command, answer)
			}
		}
	}
	agree := func() selected {
		t.Helper()
		a, b := mess(t, c, "INBOX"), mess(t, dovecot.Login(t, dovecot.User), "INBOX")
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("we have %v, Dovecot %v", a, b)
		}
		return a
	}
	refused()
	was := agree() // both serve what has a UID
	manual, err := os.ReadFile("../man/imapd-maildir.5")
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command("sh", "-ec", strings.ReplaceAll(first(renewal, string(manual)), `\e`, `\`))
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	peer.Own(t, filepath.Join(dir, "dovecot-uidlist"))
	c.Do("SELECT Other")
	c.Do("MOVE 1 INBOX")
	now := agree()
	if now.UIDValidity <= was.UIDValidity || len(now.Messages) != len(was.Messages)+1 {
		t.Errorf("with a new list: %v, before: %v", now, was)
	}

	used()
	c.Do("APPEND Other %s", peer.Literal("Subject: other\r\n\r\n"))
	refused()
	deliver(t, dir, "Subject: new\n\n", time.Now())
	again := agree()
	if again.UIDValidity <= now.UIDValidity || len(again.Messages) != len(now.Messages)+1 {
		t.Errorf("after a delivery: %v, before: %v", again, now)
	}
}
