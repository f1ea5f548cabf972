package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imapd/test/peer"
)

// TestInboxBeside serves a tree as mbsync makes it, where INBOX is a directory beside the
// others, by Dovecot with INBOX= and by our server with maildir_inbox: whoever is there
// second says what the first one said, of names, subscriptions, UIDs and UIDVALIDITY, and
// each sees what the other changes.
func TestInboxBeside(t *testing.T) {
	t.Parallel()
	theirs, ours := []peer.Starter{peer.Dovecot, peer.Imapd}, []peer.Starter{peer.Imapd, peer.Dovecot}
	for _, tt := range []struct {
		name, inbox string
		split       bool
		order       []peer.Starter
	}{
		{"Dovecot first", "INBOX", false, theirs},
		{"imapd first, control and index apart", "INBOX", true, ours},
		{"deeper, imapd first", "a/in", false, ours},
		{"deeper, Dovecot first, control and index apart", "a/in", true, theirs},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, user, o := isyncTree(t, tt.inbox, tt.split)
			checkInbox(t, dir, tt.inbox, tt.order[0](t, dir, o), tt.order[1](t, dir, o))
			if sum := read(t, user+"/maildirsize"); strings.Count(sum, "\n") < 5 {
				t.Errorf("maildirsize is not in step: %q", sum)
			}
		})
	}
}

// isyncTree makes a tree of mbsync's with INBOX in the directory inbox, and options to
// serve it; with split UID lists and indexes lie elsewhere. The files that are the user's
// are in the directory user.
func isyncTree(t *testing.T, inbox string, split bool) (dir, user string, o peer.Options) {
	t.Helper()
	dir = filepath.Join(unpack(t, "testdata/d-isync/native.tar.gz"), "native")
	o = peer.Options{FS: true, Inbox: inbox, Dovecot: []string{"mailbox_list_index = no"}} // it does not see what others make below the root
	if inbox != "INBOX" {
		mkdir(t, filepath.Join(dir, filepath.Dir(inbox)))
		if err := os.Rename(dir+"/INBOX", filepath.Join(dir, inbox)); err != nil {
			t.Fatal(err)
		}
	}
	user = dir
	if split {
		top := peer.TempDir(t)
		for _, side := range []string{top + "/control", top + "/index"} {
			mkdir(t, side)
			peer.Own(t, side)
		}
		o.Dovecot = append(o.Dovecot, "mail_location = maildir:"+dir+":LAYOUT=fs:INBOX="+dir+"/"+inbox+":CONTROL="+top+"/control:INDEX="+top+"/index")
		o.Imapd = []string{"maildir_control: " + top + "/control", "indexdirectory: " + top + "/index"}
		user = top + "/control"
	}
	write(t, user+"/maildirsize", "1000000S\n0 0\n")
	peer.Own(t, user)
	return dir, user, o
}

func checkInbox(t *testing.T, dir, inbox string, first, second *peer.Server) {
	a := first.Login(t, first.User)
	before := ask(a)
	if n := len(before.Mailboxes["INBOX"].Messages); n != 21 || len(before.Mailboxes) != 16 {
		t.Fatalf("%s: INBOX has %d messages, there are %d mailboxes", first.Kind, n, len(before.Mailboxes))
	}
	b := second.Login(t, second.User)
	agree := func(after string) {
		t.Helper()
		diff := "never compared"
		eventually(t, func() string { return fmt.Sprintf("after %s (-%s +%s):\n%s", after, first.Kind, second.Kind, diff) }, func() bool {
			x, y := ask(a), ask(b)
			if inbox != "INBOX" { // Dovecot lists it with mailbox_list_index only, and has something in it
				delete(x.List, inbox)
				delete(y.List, inbox)
			}
			diff = cmp.Diff(x, y) // Dovecot looks at some files once a second
			return diff == ""
		})
	}
	text := peer.Literal("Subject: x\r\n\r\ntext\r\n")
	child := "INBOX"
	if inbox != "INBOX" {
		child = inbox // what is in its directory is called so
	}
	a.Do("CREATE %s/below", child)
	agree("nothing")
	for _, c := range []*peer.Client{a, b, a} {
		for _, command := range []string{"CREATE INBOX", "CREATE " + inbox, "DELETE INBOX", "RENAME Sent INBOX", "RENAME Sent " + inbox} {
			if _, answer := c.Try("%s", command); !strings.HasPrefix(answer, "NO") {
				t.Errorf("%s: %s", command, answer)
			}
		}
		c.Do("CREATE INBOX/New/Deep")
		c.Do("APPEND INBOX (\\Seen one) %s", text)
		c.Do("APPEND INBOX/New/Deep (two) %s", text)
		c.Do("SUBSCRIBE INBOX")
		c.Do("SUBSCRIBE INBOX/New/Deep")
		agree("additions")
		deliver(t, filepath.Join(dir, inbox), "Subject: delivered\n\nx\n", time.Unix(1700000000, 0))
		c.Do("SELECT INBOX")
		c.Do("STORE 1 +FLAGS (\\Flagged)")
		c.Do("COPY 1:3 INBOX/New/Deep")
		c.Do("MOVE 2 Sent")
		c.Do("UNSELECT")
		agree("changes")
		c.Do("RENAME INBOX/New/Deep Work/New")
		c.Do("UNSUBSCRIBE INBOX/New/Deep")
		agree("RENAME")
		c.Do("DELETE Work/New")
		agree("DELETE")
	}
	for _, stray := range []string{"/cur", "/new", "/dovecot-uidlist", "/dovecot-keywords", "/imapd.index", "/" + inbox + "/maildirsize", "/" + inbox + "/subscriptions"} {
		if _, err := os.Lstat(dir + stray); err == nil {
			t.Errorf("%s has been made", stray)
		}
	}
	for _, s := range []*peer.Server{first, second} {
		if s.Kind == "dovecot" { // ours may say that a folder has gone while it was at its index
			uncomplaining(t, s)
		}
	}
}

// TestInboxIsMade has our server make everything for a new user whose INBOX is a
// directory of its own, and rename INBOX.
func TestInboxIsMade(t *testing.T) {
	t.Parallel()
	top := peer.TempDir(t)
	dir := filepath.Join(top, "ann")
	s := peer.Imapd(t, top+"/%u", peer.Options{FS: true, Inbox: "INBOX", Users: []string{"ann", "bob"}, Imapd: []string{
		"autocreate_inbox_folders: Sent | INBOX/Lists", "autocreate_subscribe_folders: Sent"}})
	c := s.Login(t, s.User)
	names := func() (all []string) {
		for name := range ask(c).List {
			all = append(all, name)
		}
		slices.Sort(all)
		return all
	}
	if got := names(); !slices.Equal(got, []string{"INBOX", "INBOX/Lists", "Sent"}) {
		t.Errorf("made: %q", got)
	}
	if got := ask(c).Lsub; !slices.Equal(got, []string{"Sent"}) {
		t.Errorf("subscribed to %q", got)
	}
	c.Do("SELECT INBOX")
	c.Send("i IDLE")
	c.Wait("+ ")
	deliver(t, dir+"/INBOX", "Subject: delivered\n\nx\n", time.Unix(1700000000, 0))
	c.Wait("* 1 EXISTS")
	c.Send("DONE")
	c.Wait("i OK")
	c.Do("UNSELECT")
	c.Do("RENAME INBOX Old")
	if got := names(); !slices.Equal(got, []string{"INBOX", "INBOX/Lists", "Old", "Sent"}) {
		t.Errorf("after RENAME: %q", got)
	}
	all := ask(c).Mailboxes
	if len(all["INBOX"].Messages) != 0 || len(all["Old"].Messages) != 1 || all["INBOX"].UIDNext != 2 {
		t.Errorf("after RENAME: %+v", all)
	}
	if _, err := os.Lstat(dir + "/cur"); err == nil {
		t.Error("the Maildir itself has become a folder")
	}
}
