package test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"imapd/test/peer"
)

// courier is the Courier of Debian, whose packages cannot be installed beside Dovecot's.
type courier struct {
	imapd, deliverquota string
	env                 []string
}

func newCourier(t *testing.T) courier {
	t.Helper()
	libraries := []string{peer.Unpacked(t, "courier-authlib", "usr/lib")}
	for _, pkg := range []string{"libcourier-unicode4", "libgamin0"} {
		dirs, err := filepath.Glob(peer.Unpacked(t, pkg, "usr/lib") + "/*")
		if err != nil || len(dirs) != 1 {
			t.Fatal(dirs, err)
		}
		libraries = append(libraries, dirs...)
	}
	return courier{
		imapd:        peer.Unpacked(t, "courier-imap", "usr/bin/imapd"),
		deliverquota: peer.Unpacked(t, "courier-base", "usr/bin/deliverquota.courier"),
		env: []string{
			"LD_LIBRARY_PATH=" + strings.Join(libraries, ":"), "PROTOCOL=IMAP", "AUTHENTICATED=jane", "AUTHADDR=jane", "TCPREMOTEIP=127.0.0.1",
			"IMAP_CAPABILITY=IMAP4rev1 UIDPLUS CHILDREN NAMESPACE QUOTA", "IMAP_USELOCKS=0", "IMAP_ENHANCEDIDLE=0",
		},
	}
}

// command returns a program of Courier's that runs as the owner of the mail.
func (c courier) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env = c.env
	if uid, gid := peer.MailUID(); uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	return cmd
}

// session starts Courier's imapd on the Maildir dir for one client, who is logged in.
func (c courier) session(t *testing.T, dir string) *peer.Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := far.(*net.TCPConn).File()
	far.Close()
	if err != nil {
		t.Fatal(err)
	}
	cmd := c.command(c.imapd, dir)
	cmd.Stdin, cmd.Stdout = f, f
	err = cmd.Start()
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() })
	// It regrets that no program tells it of changes of files, and then greets.
	for b := make([]byte, 1); b[0] != '\n'; {
		if _, err := near.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	return peer.Preauth(t, near)
}

// deliver has Courier deliver a message, if there is room.
func (c courier) deliver(t *testing.T, dir string) {
	t.Helper()
	cmd := c.command(c.deliverquota, dir)
	cmd.Stdin = strings.NewReader("Subject: delivered\n\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// count has Courier count a copy of the Maildir dir anew, as it does when maildirsize
// is full.
func (c courier) count(t *testing.T, dir string) (octets, messages int) {
	t.Helper()
	again := filepath.Join(peer.TempDir(t), "Maildir")
	peer.CopyTree(t, dir, again)
	file := filepath.Join(again, "maildirsize")
	write(t, file, "1000000S,1000C\n"+strings.Repeat("           1            1\n", 250))
	peer.Own(t, again)
	c.deliver(t, again)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	if _, err := fmt.Sscan(lines[1], &octets, &messages); err != nil || len(lines) != 4 {
		t.Fatalf("%q: %v", text, err)
	}
	return octets, messages
}

// TestQuotaBesideCourier changes folders through our server and Courier's, with
// deliveries by Courier between. maildirsize must be what Courier counts, which is not
// what Dovecot does: it leaves out Trash, and messages with \Deleted.
func TestQuotaBesideCourier(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(peer.TempDir(t), "Maildir")
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "maildirsize")
	write(t, file, "1000000S,1000C\n           0            0\n") // as maildirmake -q makes it
	peer.Own(t, dir)
	c := newCourier(t)
	theirs := c.session(t, dir)
	s := peer.Imapd(t, dir, peer.Options{Imapd: []string{"maildir_separator: .", "maildir_prefix: INBOX."}})
	ours := s.Login(t, s.User)
	check := func(what string) {
		t.Helper()
		octets, messages := sumOf(t, file)
		if o, m := c.count(t, dir); o != octets || m != messages {
			t.Errorf("%s: maildirsize says %d octets, %d messages; Courier counts %d, %d", what, octets, messages, o, m)
		}
		answer := theirs.Do("GETQUOTAROOT INBOX")[1].Text
		if m := messageQuota.FindStringSubmatch(answer); m == nil || m[1] != strconv.Itoa(messages) {
			t.Errorf("%s: Courier says %s, maildirsize %d messages", what, answer, messages)
		}
	}
	text := func(n int) string { return "Subject: x\r\n\r\n" + strings.Repeat("text\r\n", n) }
	for i := range 4 {
		ours.Do(`APPEND INBOX (\Seen) %s`, peer.Literal(text(10*i)))
		theirs.Send(fmt.Sprintf(`a APPEND INBOX (\Seen) {%d}`, len(text(20*i))))
		theirs.Wait("+")
		theirs.Send(text(20 * i))
		theirs.Wait("a OK")
	}
	ours.Do(`APPEND INBOX (\Deleted) %s`, peer.Literal(text(3)))
	check("APPEND")
	c.deliver(t, dir)
	ours.Do("CREATE INBOX.Sub")
	ours.Do("CREATE INBOX.Trash")
	ours.Do("SELECT INBOX")
	ours.Do("COPY 1:4 INBOX.Sub")
	ours.Do("MOVE 1:3 INBOX.Trash")
	check("COPY, and MOVE to Trash")
	ours.Do(`STORE 1:4 +FLAGS (\Deleted)`)
	check("STORE")
	theirs.Do("SELECT INBOX")
	theirs.Do(`STORE 1 -FLAGS (\Deleted)`)
	ours.Do(`STORE 2 FLAGS (\Seen)`)
	check("STORE back")
	theirs.Do(`STORE 6 +FLAGS (\Deleted)`)
	ours.Do("EXPUNGE")
	check("EXPUNGE")
	ours.Do("SELECT INBOX.Sub")
	ours.Do(`STORE 1:2 +FLAGS (\Deleted)`)
	theirs.Do("SELECT INBOX.Sub")
	theirs.Do("EXPUNGE")
	check("Courier's EXPUNGE")
	ours.Do("SELECT INBOX.Trash")
	ours.Do("MOVE 1 INBOX")
	ours.Do(`STORE 1 +FLAGS (\Deleted)`)
	ours.Do("EXPUNGE")
	check("MOVE from Trash, and EXPUNGE there")
	ours.Do("UNSELECT")
	ours.Do("RENAME INBOX.Trash INBOX.Old")
	check("RENAME")
	theirs.Do("SELECT INBOX")
	ours.Do("DELETE INBOX.Sub")
	check("DELETE")
	// Ours counts anew as Courier did before.
	write(t, file, "1000000S,1000C\n"+strings.Repeat("           1            1\n", 250))
	ours.Do("SELECT INBOX")
	ours.Do(`STORE 1 +FLAGS (\Deleted)`)
	if data, err := os.ReadFile(file); err != nil || bytes.Count(data, []byte("\n")) != 2 {
		t.Errorf("not counted anew: %.100q, %v", data, err)
	}
	check("our count")
}
