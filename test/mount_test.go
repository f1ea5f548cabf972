package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"imapd/test/peer"
)

// TestDiskFull holds that a full disk is told to the client and leaves nothing
// half-made: neither in the folder nor in the session.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	peer.Need(t, "dovecot")
	for kind, size := range map[string]int64{"tmpfs": 1 << 20, "ext4": 4 << 20} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			diskFull(t, volume(t, kind, size))
		})
	}
}

// TestListDiskFull holds that an administrator sees who is on, and can end their
// sessions, where the list cannot be written, and is told the name of the file that he
// cannot write either.
func TestListDiskFull(t *testing.T) {
	t.Parallel()
	disk := volume(t, "tmpfs", 1<<20)
	must(0, os.Mkdir(disk+"/proc", 0o755))(t)
	peer.Own(t, disk+"/proc")
	s := peer.Imapd(t, basic(t), peer.Options{Imapd: []string{"proc_path: " + disk + "/proc"}})
	early := s.Login(t, s.User)
	fill(t, disk)
	early.Do("SELECT INBOX")
	late := s.Login(t, s.User)
	late.Do("SELECT INBOX")
	if !strings.Contains(s.Log(), "who is on is not listed dir="+disk+"/proc err=\"write ") {
		t.Error("the disk is not full")
	}
	all := who(t, s)
	if len(all) != 2 || all[0].User != s.User || all[0].Mailbox != "INBOX" || all[1].User != s.User || all[1].Mailbox != "INBOX" {
		t.Errorf("who is on: %+v", all)
	}
	askctl(t, s, 0, "kick", s.User)
	early.Wait("* BYE")
	late.Wait("* BYE")
	eventually(t, func() string { return fmt.Sprintf("%+v", who(t, s)) }, func() bool { return len(who(t, s)) == 0 })

	write(t, s.Dir()+"/elsewhere.conf", "configdirectory: "+disk+"\n")
	c := ctl(t, s, "motd", "x")
	c.Args = append(c.Args[:1:1], "-C", s.Dir()+"/elsewhere.conf", "motd", "x")
	must(0, os.Mkdir(disk+"/msg", 0o755))(t)
	if got := finish(t, c); got.code != 71 || !strings.Contains(got.err, ": write "+disk+"/msg/.motd.") && !strings.Contains(got.err, ": openat "+disk+"/msg/.motd.") {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
}

// diskFull fills disk and looks what becomes of a Maildir there.
func diskFull(t *testing.T, disk string) {
	dir := disk + "/Maildir"
	peer.CopyTree(t, basic(t), dir)
	s := peer.Imapd(t, dir, peer.Options{})
	c := s.Login(t, s.User)
	c.Do("SELECT INBOX")

	text := "Subject: large\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 2000)
	stored := 4
	answer := ""
	for ; stored < 100; stored++ {
		if _, answer = c.Try("APPEND INBOX (\\Seen) %s", peer.Literal(text)); !strings.HasPrefix(answer, "OK") {
			break
		}
	}
	if !strings.HasPrefix(answer, "NO [OVERQUOTA]") {
		t.Fatalf("APPEND to a full disk: %s", answer)
	}
	if err := os.WriteFile(disk+"/delivery", []byte("Subject: new\n\nx\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	peer.Own(t, disk)
	// Then in small steps, until neither a list nor a keyword can be written.
	fill(t, disk)
	for _, command := range []string{
		"APPEND INBOX {20+}\r\nSubject: small\r\n\r\nx\r\n",
		"APPEND INBOX (new-keyword) {20+}\r\nSubject: small\r\n\r\nx\r\n",
		"APPEND Sent {20+}\r\nSubject: small\r\n\r\nx\r\n",
		"UID STORE 1 +FLAGS (another-keyword)",
	} {
		if _, answer := c.Try("%s", command); !strings.HasPrefix(answer, "NO [OVERQUOTA]") {
			t.Errorf("%.50s: %s", command, answer)
		}
	}
	leftOver(t, dir)
	if got := len(files(t, dir)); got != stored {
		t.Errorf("the folder holds %d files, want %d", got, stored)
	}
	// What needs no room goes on, a line in the list that finds room in its last
	// page too, and what is there is whole.
	c.Do("UID STORE 1 +FLAGS (\\Flagged)")
	if err := os.Rename(disk+"/delivery", dir+"/new/9999999999.h"); err != nil {
		t.Fatal(err)
	}
	s.Login(t, s.User).Do("SELECT INBOX")
	ours := askMailbox(c, "INBOX")
	if len(ours.Messages) != stored+1 {
		t.Errorf("the mailbox has %d messages, want %d", len(ours.Messages), stored+1)
	}
	compareElsewhere(t, dir, ours)
	// A client makes room itself.
	c.Do("SELECT INBOX")
	c.Do("UID STORE 8:* +FLAGS.SILENT (\\Deleted)")
	c.Do("EXPUNGE")
	if got := askMailbox(c, "INBOX"); len(got.Messages) != 4 || got.UIDNext != ours.UIDNext {
		t.Errorf("after the EXPUNGE there is %+v", got)
	}
	c.Do("APPEND INBOX (new-keyword) {20+}\r\nSubject: small\r\n\r\nx\r\n")
	leftOver(t, dir)
}

// compareElsewhere holds that a Dovecot sees the same INBOX in a copy of the
// Maildir.
func compareElsewhere(t *testing.T, dir string, ours mailbox) {
	t.Helper()
	elsewhere := peer.TempDir(t) + "/Maildir"
	peer.CopyTree(t, dir, elsewhere)
	d := peer.Dovecot(t, elsewhere, peer.Options{})
	if diff := cmp.Diff(ours, askMailbox(d.Login(t, d.User), "INBOX")); diff != "" {
		t.Errorf("Dovecot sees another mailbox (-imapd +dovecot):\n%s", diff)
	}
}

// fill takes what room is left below dir.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(dir + "/ballast")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for piece := make([]byte, 4096); ; {
		if _, err := f.Write(piece); err != nil {
			return
		}
	}
}

// leftOver reports files that should not have stayed: in tmp/ of any folder,
// locks, and half-written lists.
func leftOver(t *testing.T, maildir string) {
	t.Helper()
	// In tmp/ there is also the file that will be a lock, and never in another's way.
	for _, pattern := range []string{"tmp/[0-9]*", ".*/tmp/[0-9]*", "*.lock", ".*/*.lock", "*.tmp", ".*/*.tmp"} {
		found, err := filepath.Glob(filepath.Join(maildir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if filepath.Base(f) == "imapd.index.lock" {
				continue // never removed
			}
			t.Errorf("left over: %s", f)
		}
	}
	lists, _ := filepath.Glob(filepath.Join(maildir, ".*", "dovecot-uidlist"))
	for _, list := range append(lists, maildir+"/dovecot-uidlist") {
		b, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(b, []byte("\n")) {
			t.Errorf("%s does not end with a whole line", list)
		}
	}
}

// TestReadOnly holds that a Maildir that cannot be written can be read.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir := basic(t)
	want := account{Mailboxes: map[string]mailbox{}}
	mounts(t, dir, dir, "", unix.MS_BIND, "")
	s := peer.Imapd(t, dir, peer.Options{})
	names := []string{"INBOX", "Work", "Sent"}
	c := s.Login(t, s.User)
	for _, name := range names {
		want.Mailboxes[name] = askMailbox(c, name)
	}
	// What is written again and again stays open for a second.
	readOnly := func() error { return unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "") }
	err := readOnly()
	for begin := time.Now(); err == unix.EBUSY && time.Since(begin) < 30*time.Second; err = readOnly() {
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, session := range []string{"one that was there before", "a new one"} {
		if _, answer := c.Try("SELECT INBOX"); !strings.HasPrefix(answer, "OK [READ-ONLY]") {
			t.Errorf("%s: SELECT: %s", session, answer)
		}
		for _, command := range []string{
			"UID STORE 1 +FLAGS (\\Flagged)",
			"UID STORE 1 +FLAGS (new-keyword)",
			"EXPUNGE",
			"UID MOVE 1 Sent",
			"UID COPY 1 Sent",
			"APPEND INBOX {20+}\r\nSubject: small\r\n\r\nx\r\n",
			"CREATE Other",
			"DELETE Work",
			"RENAME Work Play",
			"SUBSCRIBE Work/Projects",
		} {
			if _, answer := c.Try("%s", command); !strings.HasPrefix(answer, "NO [") || strings.Contains(answer, "SERVERBUG") {
				t.Errorf("%s: %.40s: %s", session, command, answer)
			}
		}
		for _, name := range names {
			if diff := cmp.Diff(want.Mailboxes[name], askMailbox(c, name)); diff != "" {
				t.Errorf("%s: %s (-before +now):\n%s", session, name, diff)
			}
		}
		c = s.Login(t, s.User)
	}
}
