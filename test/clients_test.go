package test

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imapd/test/peer"
)

// The tests here run real clients and look at what they did: at the files of
// the Maildir, and at what they fetched.

// run runs a program with home as its home directory and returns its output.
func run(t *testing.T, home string, program string, args ...string) string {
	t.Helper()
	c := exec.Command(program, args...)
	c.Env = append(os.Environ(), "HOME="+home, "USER=jane", "LC_ALL=C.UTF-8", "TERM=xterm")
	c.WaitDelay = time.Second
	timer := time.AfterFunc(time.Minute, func() { c.Process.Kill() })
	defer timer.Stop()
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	return string(out)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// text returns one of the setup's messages, with LF line ends.
func text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../imap/testdata/files/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCurl(t *testing.T) {
	t.Parallel()
	peer.Need(t, "curl")
	peer.Each(t, func(t *testing.T, start peer.Starter) {
		dir := basic(t)
		s := start(t, dir, peer.Options{})
		home := peer.TempDir(t)
		curl := func(url string, args ...string) string {
			t.Helper()
			return run(t, home, "curl", append([]string{"-sS", "--cacert", s.CertFile, "-u", s.User + ":" + peer.Password, url}, args...)...)
		}
		plain, secure := "imap://"+s.Addr, "imaps://localhost:"+port(s.TLSAddr)
		if got, want := curl(plain+"/INBOX;UID=4"), strings.ReplaceAll(text(t, "multipart.eml"), "\n", "\r\n"); got != want {
			t.Errorf("message 4: got %q, want %q", got, want)
		}
		if got, want := curl(secure+"/INBOX;UID=2;SECTION=TEXT"), "Thank you, see you in the caf=C3=A9.\r\n"; got != want {
			t.Errorf("text of message 2: got %q, want %q", got, want)
		}
		if got := curl(plain+"/", "--ssl-reqd"); !strings.Contains(got, `"/" Work/Projects`) { // STARTTLS, checked against CertFile
			t.Errorf("list of mailboxes: %q", got)
		}
		if got, want := strings.TrimSpace(curl(plain+"/INBOX?UNANSWERED%20SEEN")), "* SEARCH 1 2 3"; !strings.HasPrefix(got, want) {
			t.Errorf("search: got %q, want %q", got, want)
		}
		if got, want := onDisk(t, dir), map[int]string{1: "S", 2: "Sa", 4: "FS", 7: "RSb"}; !maps.Equal(got, want) {
			t.Errorf("after fetching: %v, want %v", got, want) // 2 was read
		}
		write(t, home+"/up.eml", strings.ReplaceAll(text(t, "new.eml"), "\n", "\r\n"))
		curl(secure+"/Sent", "-T", home+"/up.eml")
		if got, want := contents(t, dir+"/.Sent"), []string{text(t, "reply.eml"), text(t, "new.eml")}; !slices.Equal(got, sortedText(want)) {
			t.Errorf("Sent holds %q, want %q", got, want)
		}
		curl(plain+"/INBOX", "-X", `STORE 1 +Flags \Deleted`)
		curl(plain+"/INBOX", "-X", "EXPUNGE")
		if got, want := onDisk(t, dir), map[int]string{2: "Sa", 4: "FS", 7: "RSb"}; !maps.Equal(got, want) {
			t.Errorf("after EXPUNGE: %v, want %v", got, want)
		}
	})
}

func sortedText(all []string) []string { return slices.Sorted(slices.Values(all)) }

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

func TestImaplib(t *testing.T) {
	t.Parallel()
	peer.Need(t, "python3")
	peer.Each(t, func(t *testing.T, start peer.Starter) {
		dir := basic(t)
		s := start(t, dir, peer.Options{})
		run(t, peer.TempDir(t), "python3", "testdata/client.py", port(s.Addr), port(s.TLSAddr), s.CertFile, s.User, peer.Password)
		if got, want := onDisk(t, dir), map[int]string{2: "Fa", 4: "FS", 7: "RSb"}; !maps.Equal(got, want) {
			t.Errorf("INBOX on disk: %v, want %v", got, want)
		}
		if got, want := onDisk(t, dir+"/.New.Sub"), map[int]string{1: "S", 2: "DS"}; !maps.Equal(got, want) {
			t.Errorf("New/Sub on disk: %v, want %v", got, want)
		}
		subscriptions, err := os.ReadFile(dir + "/subscriptions")
		if err != nil || !strings.Contains(string(subscriptions), "New\tSub\n") {
			t.Errorf("subscriptions: %q, %v", subscriptions, err)
		}
	})
}

// TestMbsync synchronizes both ways, each time twice: the second run must not
// change anything on either side.
func TestMbsync(t *testing.T) {
	t.Parallel()
	peer.Need(t, "mbsync")
	peer.Each(t, func(t *testing.T, start peer.Starter) {
		dir := basic(t)
		s := start(t, dir, peer.Options{})
		home := peer.TempDir(t)
		near := home + "/near"
		write(t, home+"/rc", fmt.Sprintf(`
IMAPStore far
Host localhost
Port %s
User %s
Pass %s
SSLType IMAPS
CertificateFile %s

MaildirStore near
Path %s/
Inbox %s/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
CopyArrivalDate yes
SyncState *
`, port(s.TLSAddr), s.User, peer.Password, s.CertFile, near, near))
		if err := os.Mkdir(near, 0o700); err != nil {
			t.Fatal(err)
		}
		sync := func(what string) {
			t.Helper()
			run(t, home, "mbsync", "-c", home+"/rc", "-a")
			far, here := tree(t, dir), tree(t, near)
			run(t, home, "mbsync", "-c", home+"/rc", "-a")
			if diff := cmp.Diff(append(far, here...), append(tree(t, dir), tree(t, near)...)); diff != "" {
				t.Errorf("%s: the second run changed something (-first +second):\n%s", what, diff)
			}
			for _, pair := range [][2]string{{dir, near + "/INBOX"}, {dir + "/.Work", near + "/Work"}, {dir + "/.Work.Projects", near + "/Work/Projects"}} {
				if diff := cmp.Diff(contents(t, pair[0]), contents(t, pair[1])); diff != "" {
					t.Errorf("%s: %s (-server +client):\n%s", what, pair[1], diff)
				}
			}
		}
		sync("first")
		flags := func(folder, subject string) string { return letters(t, near+"/"+folder, subject) }
		if got := flags("INBOX", "Report with attachment"); got != "FS" {
			t.Errorf("flags of UID 4 at the client: %q", got)
		}

		// The client's changes: a flag, a removal, a new message and a new folder.
		rename(t, near+"/INBOX", "Minutes of the meeting", "FS")
		remove(t, near+"/INBOX", "Fwd: Minutes")
		write(t, near+"/Work/cur/1700000000.1_1.client:2,S", text(t, "new.eml"))
		for _, sub := range []string{"", "/cur", "/new", "/tmp"} {
			if err := os.Mkdir(near+"/Made"+sub, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		sync("changes of the client")
		if got, want := onDisk(t, dir), map[int]string{1: "FS", 2: "a", 4: "FS"}; !maps.Equal(got, want) {
			t.Errorf("INBOX on disk: %v, want %v", got, want)
		}
		if got := onDisk(t, dir+"/.Work"); len(got) != 1 || got[2] != "S" { // UID 1 had \Deleted: Expunge Both
			t.Errorf("Work on disk: %v", got)
		}
		if _, err := os.Stat(dir + "/.Made/cur"); err != nil {
			t.Error(err)
		}

		// The server's: a flag, a removal, a delivery.
		c := s.Login(t, s.User)
		c.Do("SELECT INBOX")
		c.Do(`UID STORE 2 +FLAGS (\Answered \Seen)`)
		c.Do(`UID STORE 4 +FLAGS (\Deleted)`)
		c.Do("EXPUNGE")
		deliver(t, dir, text(t, "new.eml"), time.Date(2024, 3, 5, 10, 0, 0, 0, time.UTC))
		sync("changes of the server")
		if got := flags("INBOX", "=?UTF-8?Q?Re:"); got != "PRS" { // P for $Forwarded
			t.Errorf("flags of UID 2 at the client: %q", got)
		}
		if got := len(files(t, near+"/INBOX")); got != 3 {
			t.Errorf("%d messages at the client", got)
		}
	})
}

// find returns the file of the message in folder with that subject.
func find(t *testing.T, folder, subject string) string {
	t.Helper()
	for _, path := range files(t, folder) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\nSubject: "+subject) {
			return path
		}
	}
	t.Fatalf("%s: no message with subject %q", folder, subject)
	return ""
}

// letters returns the flag letters of the message with that subject.
func letters(t *testing.T, folder, subject string) string {
	t.Helper()
	_, flags, _ := strings.Cut(find(t, folder, subject), ":2,")
	return flags
}

// rename gives the message other flag letters.
func rename(t *testing.T, folder, subject, flags string) {
	t.Helper()
	path := find(t, folder, subject)
	base, _, _ := strings.Cut(filepath.Base(path), ":2,")
	if err := os.Rename(path, filepath.Join(folder, "cur", base+":2,"+flags)); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, folder, subject string) {
	t.Helper()
	if err := os.Remove(find(t, folder, subject)); err != nil {
		t.Fatal(err)
	}
}

// dense removes empty lines: offlineimap writes multipart messages anew.
func dense(all []string) []string {
	for i, text := range all {
		all[i] = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' }), "\n")
	}
	return all
}

func TestOfflineimap(t *testing.T) {
	t.Parallel()
	peer.Need(t, "offlineimap")
	peer.Each(t, func(t *testing.T, start peer.Starter) {
		dir := basic(t)
		s := start(t, dir, peer.Options{})
		home := peer.TempDir(t)
		write(t, home+"/rc", fmt.Sprintf(`
[general]
metadata = %s/meta
accounts = all
[Account all]
localrepository = here
remoterepository = there
[Repository here]
type = Maildir
localfolders = %s/here
[Repository there]
type = IMAP
remotehost = localhost
remoteport = %s
remoteuser = %s
remotepass = %s
ssl = yes
sslcacertfile = %s
`, home, home, port(s.TLSAddr), s.User, peer.Password, s.CertFile))
		here := home + "/here"
		sync := func() { t.Helper(); run(t, home, "offlineimap", "-c", home+"/rc", "-o", "-u", "basic") }
		sync()
		for far, near := range map[string]string{dir: here + "/INBOX", dir + "/.Work": here + "/Work", dir + "/.Sent": here + "/Sent"} {
			if diff := cmp.Diff(dense(contents(t, far)), dense(contents(t, near))); diff != "" {
				t.Errorf("%s (-server +client):\n%s", near, diff)
			}
		}
		rename(t, here+"/INBOX", "Minutes of the meeting", "FS")
		remove(t, here+"/INBOX", "Fwd: Minutes")
		write(t, here+"/Sent/cur/1700000000_0.1.client:2,S", text(t, "new.eml"))
		sync()
		if got, want := onDisk(t, dir), map[int]string{1: "FS", 2: "a", 4: "FS"}; !maps.Equal(got, want) {
			t.Errorf("INBOX on disk: %v, want %v", got, want)
		}
		if got, want := onDisk(t, dir+"/.Sent"), map[int]string{1: "S", 2: "S"}; !maps.Equal(got, want) {
			t.Errorf("Sent on disk: %v, want %v", got, want)
		}
		before := append(tree(t, dir), tree(t, here)...)
		sync()
		if diff := cmp.Diff(before, append(tree(t, dir), tree(t, here)...)); diff != "" {
			t.Errorf("another run changed something:\n%s", diff)
		}
	})
}
