package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/test/peer"
)

// A rotten folder is what other programs, broken disks and malicious users of
// the same machine leave behind.
type rotten struct {
	name  string
	make  func(t *testing.T, folder string) // which exists, with cur, new and tmp
	send  string                            // after SELECT; readRotten if empty
	want  string
	count int // messages that must be there in the end; 0: it cannot be selected
	spend int64
}

const readRotten = "a UID FETCH 1:* (FLAGS RFC822.SIZE BODY.PEEK[])\r\nb STORE 1:* +FLAGS (\\Answered)\r\nc NOOP\r\n"

// file returns a maker of one file.
func file(name, text string) func(*testing.T, string) {
	return func(t *testing.T, folder string) { write(t, filepath.Join(folder, name), text) }
}

// node makes a FIFO or another thing that is no file.
func node(t *testing.T, path string, mode uint32) {
	t.Helper()
	if err := syscall.Mknod(path, mode|0o600, 0); err != nil {
		t.Fatal(err)
	}
}

// device makes a device, if we may: only root can.
func device(t *testing.T, path string, kind, major, minor uint32) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := unix.Mknod(path, kind|0o600, int(unix.Mkdev(major, minor))); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func TestAttackFiles(t *testing.T) {
	t.Parallel()
	x := strings.Repeat
	list := []rotten{
		{name: "links", count: 1, make: func(t *testing.T, dir string) {
			link(t, "/etc/passwd", dir+"/cur/1.link:2,S")
			link(t, "2.real:2,S", dir+"/cur/3.link:2,S")
			link(t, "/nowhere", dir+"/cur/4.link:2,S")
			link(t, "/etc", dir+"/new/5.link")
			link(t, "6.link:2,", dir+"/cur/6.link:2,")
		}},
		{name: "no files", count: 1, make: func(t *testing.T, dir string) {
			node(t, dir+"/cur/1.fifo:2,S", syscall.S_IFIFO)
			node(t, dir+"/new/2.fifo", syscall.S_IFIFO)
			node(t, dir+"/tmp/3.fifo", syscall.S_IFIFO)
			if err := os.MkdirAll(dir+"/cur/4.dir:2,S/cur", 0o700); err != nil {
				t.Fatal(err)
			}
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/cur/5.sock:2,S"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
		}},
		{name: "devices", count: 1, make: func(t *testing.T, dir string) {
			device(t, dir+"/cur/1.zero:2,S", syscall.S_IFCHR, 1, 5) // has no end
			device(t, dir+"/new/3.zero", syscall.S_IFCHR, 1, 5)
			device(t, dir+"/tmp/4.zero", syscall.S_IFCHR, 1, 5)
			device(t, dir+"/cur/5.tty:2,S", syscall.S_IFCHR, 5, 0)
			device(t, dir+"/cur/6.loop:2,S", syscall.S_IFBLK, 7, 0)
			device(t, dir+"/new/7.loop", syscall.S_IFBLK, 7, 0)
		}},
		{name: "one base name twice", count: 3, make: func(t *testing.T, dir string) {
			write(t, dir+"/cur/1.twice:2,S", "Subject: one\n\n1\n")
			write(t, dir+"/cur/1.twice:2,FS", "Subject: two\n\n22\n")
		}},
		{name: "one base name in new and cur", count: 3, make: func(t *testing.T, dir string) {
			write(t, dir+"/cur/1.twice:2,S", "Subject: one\n\n1\n")
			write(t, dir+"/new/1.twice", "Subject: two\n\n22\n")
		}},
		{name: "one file twice", count: 3, make: func(t *testing.T, dir string) {
			write(t, dir+"/cur/1.a:2,S", "Subject: one\n\n1\n")
			if err := os.Link(dir+"/cur/1.a:2,S", dir+"/cur/1.b:2,S"); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "strange names", count: 11, make: func(t *testing.T, dir string) {
			for i, name := range []string{"1\n2", "\xff\xfe", "ä:2,", "x:2,zyxXYZ?", "x;2,S", "no-info", ":2,S", "a:1,S", "a:2", "a:2,SSSS", "b:2,S:2,F"} {
				write(t, dir+"/cur/"+name, fmt.Sprintf("Subject: %d\n\n", i))
			}
			write(t, dir+"/cur/.hidden:2,S", "Subject: hidden\n\n")
		}},
		{name: "name of 255", count: 2, make: file("cur/"+x("n", 251)+":2,S", "Subject: x\n\n"), want: "a OK, b NO [CANNOT], c OK"},
		{name: "sizes that lie", count: 4, make: func(t *testing.T, dir string) {
			write(t, dir+"/cur/1.a,S=1,W=1:2,", "Subject: one\n\n1\n")
			write(t, dir+"/cur/1.b,S=99999999999,W=99999999999:2,", "Subject: two\n\n22\n")
			write(t, dir+"/cur/1.c,S=-5,W=18446744073709551615,S=3:2,", "Subject: two\n\n22\n")
		}},
		{name: "message of gigabytes", make: func(t *testing.T, dir string) {
			f, err := os.Create(dir + "/cur/3.sparse:2,S")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(huge()); err != nil {
				t.Fatal(err)
			}
		}, send: "a FETCH 2 RFC822.SIZE\r\nb FETCH 2 BODY.PEEK[]<400000000.100>\r\nc FETCH 2 BODY.PEEK[]<4294967290.10>\r\n", count: 2},
		{name: "list that is a FIFO", count: 1, make: func(t *testing.T, dir string) { node(t, dir+"/dovecot-uidlist", syscall.S_IFIFO) }},
		{name: "list that is a directory", count: 1, make: func(t *testing.T, dir string) { mkdir(t, dir+"/dovecot-uidlist") }},
		{name: "list that is a link", count: 1, make: func(t *testing.T, dir string) { link(t, "/etc/passwd", dir+"/dovecot-uidlist") }},
		{name: "list of zeros", count: 1, make: func(t *testing.T, dir string) {
			write(t, dir+"/dovecot-uidlist", "")
			if err := os.Truncate(dir+"/dovecot-uidlist", 1<<32); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "list that is a hole", count: 1, make: func(t *testing.T, dir string) {
			write(t, dir+"/dovecot-uidlist", "3 V1 N9 G"+x("0a", 16)+"\n7 :2.real\n")
			if err := os.Truncate(dir+"/dovecot-uidlist", 1<<30-1); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "list of messages that are gone", count: 1, make: func(t *testing.T, dir string) {
			b := []byte("3 V1 N2\n") // without a GUID, so that it is written anew
			for i := range 1 << 19 {
				b = fmt.Appendf(b, "%d W%d G%032x :%d.M%dP1.host,S=%d\n", i+1, i, i, i, i, i)
			}
			write(t, dir+"/dovecot-uidlist", string(b))
		}, spend: 128},
		{name: "list of odd fields", count: 1, make: file("dovecot-uidlist", "3 V1 N2\n1 W\x00 :2.real\n")},
		{name: "list of 1 MB", count: 1, make: file("dovecot-uidlist", "3 V1 N2\n"+x("1 :x\n", 200000)), spend: 64}, // read, mended, and read again
		{name: "list of one line", count: 1, make: file("dovecot-uidlist", "3 V1 N2"+x(" Gx", 3<<20)), spend: 40},
		{name: "keywords that are a FIFO", count: 1, make: func(t *testing.T, dir string) { node(t, dir+"/dovecot-keywords", syscall.S_IFIFO) }},
		{name: "keywords that are none", count: 1, make: file("dovecot-keywords", "0 \\Seen\n1 a b\n2\n-1 x\n99999999999 y\n0 z\n"+x("k", 100000)+"\n\x00\n3 )\n4 "+x("q", 5000)+"\n")},
		{name: "folder without new", count: 1, make: func(t *testing.T, dir string) { removeAll(t, dir+"/new") }},
		{name: "tmp that is a file", want: "a NO [NONEXISTENT]", make: func(t *testing.T, dir string) {
			removeAll(t, dir+"/tmp")
			write(t, dir+"/tmp", "")
		}},
		{name: "tmp full of files", count: 2, make: func(t *testing.T, dir string) {
			for i := range 5000 {
				write(t, fmt.Sprintf("%s/tmp/%d.x", dir, i), "")
			}
		}, send: "a APPEND FOLDER {12+}\r\nSubject: x\r\n\r\nb NOOP\r\nc NOOP\r\n"},
		{name: "lock that nobody holds", count: 1, make: file("dovecot-uidlist.lock", "999999:"+hostname())},
	}
	for i, text := range []string{"", "\n", "3", "3 V", "3 V0 N0\n1 :x\n", "9 V1 N2\n1 :x\n", "3 V1 N2\n1 :", "3 V1 N5\n4 :b\n3 :a\n", "3 V1 N5\n3 :a\n3 :b\n",
		"3 V1 N4294967295\n4294967294 :a\n", "3 V4294967295 N4294967295\n4294967295 :x\n", "3 V1 N2\n99999999999999999999 :x\n", "3 V1 N3\n1\x00 :x\n2 :\x00\n", "\xff\xfe\x00", "1 1 2\n1 x\n", "3 V1 N2 G" + x("z", 99999) + "\n"} {
		list = append(list, rotten{name: "list " + strconv.Itoa(i), count: 1, make: file("dovecot-uidlist", text)})
	}
	attackFolders(t, list)
}

// attackFolders makes the folders and lets a client use them.
func attackFolders(t *testing.T, list []rotten) {
	t.Helper()
	dir := basicMany(t, false)
	jane := strings.Replace(dir, "%u", "jane", 1)
	var rows []attack
	for i := range list {
		r := &list[i]
		folder := "F" + strconv.Itoa(i)
		lay(t, jane+"/."+folder, "2.real:2,S", "Subject: real\n\ntext\n")
		r.make(t, jane+"/."+folder)
		peer.Own(t, jane+"/."+folder)
		if r.send == "" {
			r.send = readRotten
		}
		if r.want == "" {
			r.want = "a OK, b OK, c OK"
		}
		a := attack{name: r.name, in: folder, send: say(strings.ReplaceAll(r.send, "FOLDER", folder)), want: r.want, spend: r.spend}
		if r.count == 0 {
			a.in, a.send = user, say("a SELECT "+folder+"\r\n")
		}
		rows = append(rows, a)
	}
	s := newTarget(t, dir, peer.Options{})
	s.run(t, rows)
	c := s.Login(t, "jane")
	for i, r := range list {
		if r.count == 0 {
			continue
		}
		got := c.Do("STATUS F%d (MESSAGES)", i)
		if want := fmt.Sprintf("* STATUS F%d (MESSAGES %d)", i, r.count); got[0].Text != want {
			t.Errorf("%s: got %s, want %s", r.name, got[0].Text, want)
		}
	}
}

// TestAttackFolders has links between folders, to themselves and to what is
// none of the user's, and names that are more than names.
func TestAttackFolders(t *testing.T) {
	t.Parallel()
	for _, fs := range []bool{false, true} {
		dir := basicMany(t, fs)
		jane := strings.Replace(dir, "%u", "jane", 1)
		// Maildir++ has nothing in the place of children.
		dot, children, etc := ".", "a OK, b OK, c NO [CANNOT], d OK", "[NONEXISTENT]"
		if fs {
			dot, children, etc = "", "a NO [NOPERM], b NO [CANNOT], c NO [CANNOT], d NO [CANNOT]", "[CANNOT]"
		}
		link(t, ".", jane+"/"+dot+"Self")
		link(t, "..", jane+"/"+dot+"Up")
		link(t, "../../joe/Maildir", jane+"/"+dot+"Joe")
		link(t, "/etc", jane+"/"+dot+"Etc")
		link(t, dot+"Loop", jane+"/"+dot+"Loop")
		link(t, "/nowhere", jane+"/"+dot+"Nowhere")
		node(t, jane+"/"+dot+"Fifo", syscall.S_IFIFO)
		write(t, jane+"/"+dot+"File", "x")
		for _, name := range []string{"&Jjo", "\xff", "a\nb", "&AGE-", "x ", "*%", "\"q\\"} {
			lay(t, jane+"/"+dot+name, "1.x:2,", "Subject: x\n\n")
		}
		peer.Own(t, jane)
		rows := []attack{
			{name: "list of all", in: user, send: say("a LIST \"\" *\r\nb LSUB \"\" *\r\nc LIST (SUBSCRIBED RECURSIVEMATCH) \"\" % RETURN (CHILDREN STATUS (MESSAGES UNSEEN SIZE))\r\nd LIST \"\" * RETURN (STATUS (MESSAGES) SPECIAL-USE)\r\n"),
				want: "a OK, b OK, c OK, d OK"},
			{name: "list of all in IMAP4rev2", in: user, send: say("a ENABLE IMAP4rev2\r\nb LIST \"\" * RETURN (STATUS (MESSAGES))\r\n"), want: "a OK, b OK"},
			{name: "no folders", in: user, send: say("a SELECT Loop\r\nb SELECT Nowhere\r\nc SELECT Fifo\r\nd SELECT File\r\ne STATUS Etc (MESSAGES)\r\nf SELECT Up\r\n"),
				want: "a NO [UNAVAILABLE], b NO [NONEXISTENT], c NO [NONEXISTENT], d NO [NONEXISTENT], e NO [NONEXISTENT], f NO [NONEXISTENT]"},
			{name: "children of no folders", in: user, send: say("a CREATE Etc/x\r\nb CREATE File/x\r\nc CREATE Fifo\r\nd RENAME Work File/y\r\n"), want: children},
			{name: "delete what is linked", in: user, send: say("a DELETE Joe\r\nb DELETE Etc\r\nc DELETE Loop\r\nd DELETE Fifo\r\n"), want: "a OK, b NO " + etc + ", c NO [UNAVAILABLE], d NO [NONEXISTENT]"},
		}
		if fs {
			rows = append(rows, attack{name: "directories that we need", in: user,
				send: say("a CREATE cur\r\nb CREATE x/new\r\nc CREATE tmp/x\r\nd DELETE cur\r\ne SELECT tmp\r\nf RENAME Work new\r\ng SELECT cur\r\n"),
				want: "a NO [CANNOT], b NO [CANNOT], c NO [CANNOT], d NO [CANNOT], e NO [CANNOT], f NO [CANNOT], g NO [CANNOT]"})
		}
		s := newTarget(t, dir, peer.Options{FS: fs})
		s.run(t, rows)
		for _, want := range []string{"* STATUS INBOX (MESSAGES 4)", "* STATUS Work (MESSAGES 1)"} {
			if got := s.bystander.Do("%s", strings.TrimPrefix(want[:strings.LastIndexByte(want, ' ')], "* ")+")"); got[0].Text != want {
				t.Errorf("the other user's mail: got %s, want %s", got[0].Text, want)
			}
		}
	}
}

// huge is the size of a message that lies about nothing and takes no space.
func huge() int64 {
	if os.Getenv("IMAPD_SOAK") != "" {
		return 5 << 30
	}
	return 500 << 20
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func removeAll(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}
