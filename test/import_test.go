package test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imapd/test/peer"
)

// TestCourierFixture opens an account that Courier has had: everything that it
// told its clients stays true, and again for a Dovecot that comes afterwards.
func TestCourierFixture(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(unpack(t, "testdata/c-courier/account.tar.gz"), "Maildir")
	before := courierFiles(t, dir)
	want := readCourier(t, dir)
	names := peer.Options{Imapd: []string{"maildir_separator: .", "maildir_prefix: INBOX."}}
	s := peer.Imapd(t, dir, names)
	c := s.Login(t, s.User)
	compareMailboxes(t, "imapd", want, ask(c))
	subscribed := []string{"INBOX", "INBOX.&ZeVnLIqe-.&MOEw,DDr-", "INBOX.Entw&APw-rfe &- Co", "INBOX.Sent", "INBOX.Work", "INBOX.Work.Projects.2022"}
	if got := ask(c).Lsub; !slices.Equal(got, subscribed) {
		t.Errorf("subscribed to %q", got)
	}
	if n := strings.Count(s.Log(), "took over UIDs"); n != len(want) {
		t.Errorf("%d folders of %d were taken over:\n%s", n, len(want), s.Log())
	}
	again := peer.Imapd(t, dir, names)
	compareMailboxes(t, "another imapd", want, ask(again.Login(t, again.User)))
	if strings.Contains(again.Log(), "took over UIDs") {
		t.Errorf("taken over again:\n%s", again.Log())
	}
	if diff := cmp.Diff(before, courierFiles(t, dir)); diff != "" {
		t.Errorf("Courier's files (-before +after):\n%s", diff)
	}

	const text = "From: x@example.org\r\nSubject: after Courier\r\n\r\nText.\r\n"
	inbox := want["INBOX"]
	add := func(flags ...string) {
		inbox.Messages = append(inbox.Messages, message{UID: inbox.UIDNext, Size: len(text), Flags: flags,
			Date: "05-Mar-2024 10:00:00 +0000", BodyHash: hash(text)})
		inbox.UIDNext++
	}
	deliver(t, dir, strings.ReplaceAll(text, "\r\n", "\n"), time.Date(2024, 3, 5, 10, 0, 0, 0, time.UTC))
	c.Do("SELECT INBOX")
	add()
	c.Do(`APPEND INBOX (\Seen work) "05-Mar-2024 10:00:00 +0000" %s`, peer.Literal(text))
	add(`\Seen`, "work")
	c.Do("UID STORE 2 +FLAGS (urgent)")
	inbox.Messages[1].Flags = []string{`\Seen`, "urgent"}
	c.Do("UNSELECT")
	inbox.Unseen = unseen(inbox)
	want["INBOX"] = inbox
	compareMailboxes(t, "imapd at the end", want, ask(c))
	// Of 30 keywords in one folder these have no letter: Dovecot cannot see them.
	for _, k := range []string{"kw03", "kw11", "kw28", "kw29"} {
		for i := range want["INBOX.Keywords"].Messages {
			m := &want["INBOX.Keywords"].Messages[i]
			m.Flags = flags(slices.DeleteFunc(m.Flags, func(f string) bool { return f == k }))
		}
	}
	d := peer.Dovecot(t, dir, peer.Options{Dovecot: []string{"mail_location = maildir:" + dir + ":UTF-8",
		"namespace inbox {\n separator = .\n prefix = INBOX.\n}"}})
	got := ask(d.Login(t, d.User))
	delete(got.Mailboxes, "INBOX.Drafts")
	compareMailboxes(t, "Dovecot afterwards", want, got)
	if !slices.Equal(got.Lsub, subscribed) {
		t.Errorf("with Dovecot subscribed to %q", got.Lsub)
	}
	list, err := os.ReadFile(filepath.Join(dir, "dovecot-uidlist"))
	if err != nil || !strings.Contains(strings.SplitN(string(list), "\n", 2)[0], " Zcourier.") {
		t.Errorf("the list has lost its stamp: %.100q, %v", list, err)
	}
}

func compareMailboxes(t *testing.T, who string, want map[string]mailbox, got account) {
	t.Helper()
	if diff := cmp.Diff(want, got.Mailboxes); diff != "" {
		t.Errorf("%s (-want +got):\n%s", who, diff)
	}
}

// courierFiles returns what the files say that are Courier's alone.
func courierFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	paths, err := filepath.Glob(filepath.Join(dir, "courier*"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(dir, ".*", "courier*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(paths, more...) {
		err := filepath.WalkDir(p, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			files[path] = string(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(files) < 50 {
		t.Fatalf("only %d files of Courier", len(files))
	}
	return files
}

var courierStatus = regexp.MustCompile(`UIDNEXT (\d+) UIDVALIDITY (\d+) UNSEEN (\d+)\)$`)

// readCourier reads what Courier answered. It put a CR before every LF, also
// where there was one: of such messages size and text are those of the file.
func readCourier(t *testing.T, dir string) map[string]mailbox {
	t.Helper()
	text, err := os.ReadFile("testdata/c-courier/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var e expected
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	all := map[string]mailbox{}
	messages := 0
	for name, b := range e.Mailboxes {
		n := courierStatus.FindStringSubmatch(b.StatusCmd[0])
		if n == nil {
			t.Fatalf("%s: %q", name, b.StatusCmd)
		}
		m := mailbox{UIDNext: number(n[1]), UIDValidity: number(n[2]), Unseen: number(n[3])}
		for _, x := range b.Messages {
			m.Messages = append(m.Messages, message{UID: x.UID, Size: x.Size, Flags: flags(x.Flags), Date: x.InternalDate, BodyHash: x.BodySHA256})
		}
		messages += len(m.Messages)
		all[name] = m
	}
	if len(all) != 12 || messages != 64 {
		t.Fatalf("%d mailboxes, %d messages", len(all), messages)
	}
	crlf, err := os.ReadFile(filepath.Join(dir, ".Work/new/1646300006.H678P777.mx.example.org,S=335"))
	if err != nil {
		t.Fatal(err)
	}
	if doubled := strings.ReplaceAll(string(crlf), "\n", "\r\n"); hash(doubled) != all["INBOX.Work"].Messages[4].BodyHash {
		t.Fatal("the message with CRLF is not the one that Courier spoiled")
	}
	m := &all["INBOX.Work"].Messages[4]
	m.Size, m.BodyHash = len(crlf), hash(string(crlf))
	return all
}

var highestModSeq = regexp.MustCompile(`HIGHESTMODSEQ (\d+)`)

// TestDovecotIndexFixture opens the accounts of Dovecot with its indexes: keywords
// that stand nowhere else are there, and no modseq that clients know is undercut.
func TestDovecotIndexFixture(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures {
		t.Run(f.dir, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join("testdata", f.dir, "expected.json")
			want := readExpected(t, file)
			var told struct {
				Mailboxes map[string]struct{ HighestModSeq any }
			}
			text, err := os.ReadFile(file)
			if err == nil {
				err = json.Unmarshal(text, &told)
			}
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(unpackAll(t, filepath.Join("testdata", f.dir, "account.tar.gz")), f.maildir)
			s := peer.Imapd(t, dir, peer.Options{FS: f.fs})
			c := s.Login(t, s.User)
			c.Try("CREATE Drafts")
			c.Do("SUBSCRIBE Drafts")
			compare(t, "imapd", want, ask(c))
			found := 0
			for name, b := range told.Mailboxes {
				before := number(fmt.Sprint(b.HighestModSeq))
				for _, r := range c.Do("STATUS %q (HIGHESTMODSEQ)", name) {
					if now := number(first(highestModSeq, r.Text)); now < before || now == 0 {
						t.Errorf("%s: HIGHESTMODSEQ %d after Dovecot's %d", name, now, before)
					}
				}
				if before > 1 {
					found++
				}
			}
			if found < 10 {
				t.Errorf("Dovecot told only %d", found)
			}
			if log := s.Log(); strings.Contains(log, "Dovecot's index") {
				t.Errorf("log:\n%s", log)
			}
			again := peer.Imapd(t, dir, peer.Options{FS: f.fs})
			compare(t, "another imapd", want, ask(again.Login(t, again.User)))
		})
	}
}

// TestDovecotIndexElsewhere is TestDovecotIndexFixture where Dovecot's INDEX= has become
// indexdirectory, and its CONTROL= maildir_control: of 31 keywords in a folder none is lost.
func TestDovecotIndexElsewhere(t *testing.T) {
	t.Parallel()
	for _, fs := range []bool{false, true} {
		for _, split := range []bool{false, true} {
			t.Run(fmt.Sprintf("fs %v, split %v", fs, split), func(t *testing.T) {
				t.Parallel()
				top := peer.TempDir(t)
				dir := filepath.Join(top, "Maildir")
				for _, sub := range []string{dir, top + "/index", top + "/control"} {
					mkdir(t, sub)
					peer.Own(t, sub)
				}
				location := "mail_location = maildir:" + dir
				options := []string{"indexdirectory: " + top + "/index/%u", "index_single_host: yes"}
				if fs {
					location += ":LAYOUT=fs"
				}
				location += ":INDEX=" + top + "/index/%u"
				if split {
					location += ":CONTROL=" + top + "/control/%u"
					options = append(options, "maildir_control: "+top+"/control/%u")
				}
				d := peer.Dovecot(t, dir, peer.Options{FS: fs, Dovecot: []string{location}})
				want, modseqs := manyKeywords(d.Login(t, d.User), "INBOX", "Sub", "Sub/Deep", "Gr&APwA3w-e")
				d.Stop()
				s := peer.Imapd(t, dir, peer.Options{FS: fs, Imapd: options})
				c := s.Login(t, s.User)
				compareMailboxes(t, "imapd", want, ask(c))
				for name, before := range modseqs {
					for _, r := range c.Do("STATUS %q (HIGHESTMODSEQ)", name) {
						if now := number(first(highestModSeq, r.Text)); now < before || before < 31 {
							t.Errorf("%s: HIGHESTMODSEQ %d after Dovecot's %d", name, now, before)
						}
					}
				}
				if log := s.Log(); strings.Contains(log, "Dovecot's index") {
					t.Errorf("log:\n%s", log)
				}
			})
		}
	}
}

// manyKeywords gives a message of each mailbox, which is made, 31 keywords. It returns
// what a server says of the mailboxes then, and their HIGHESTMODSEQ.
func manyKeywords(c *peer.Client, names ...string) (map[string]mailbox, map[string]int) {
	want, modseqs := map[string]mailbox{}, map[string]int{}
	for _, name := range names {
		c.Try("CREATE %q", name)
		c.Do("APPEND %q %s", name, peer.Literal("Subject: x\r\n\r\ntext\r\n"))
		c.Do("SELECT %q", name)
		for i := range 31 {
			c.Do("STORE 1 +FLAGS (kw%02d)", i+1)
		}
		c.Do("UNSELECT")
		want[name] = askMailbox(c, name)
		for _, r := range c.Do("STATUS %q (HIGHESTMODSEQ)", name) {
			modseqs[name] = number(first(highestModSeq, r.Text))
		}
	}
	return want, modseqs
}

// TestIsyncFixture opens trees that mbsync made in its native scheme.
func TestIsyncFixture(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/d-isync/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var trees map[string]map[string]isyncFolder
	if err := json.Unmarshal(text, &trees); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		tree  string
		fs    bool
		inbox string
	}{{"mpp", false, ""}, {"native", true, "INBOX"}} {
		t.Run(tt.tree, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(unpack(t, "testdata/d-isync/"+tt.tree+".tar.gz"), tt.tree)
			want := map[string]mailbox{}
			for path, f := range trees[tt.tree] {
				name := strings.TrimPrefix(path, "/")
				if !tt.fs {
					name = strings.ReplaceAll(strings.TrimPrefix(name, "."), ".", "/")
				}
				if name == "" {
					name = "INBOX"
				}
				want[name] = f.mailbox(t, filepath.Join(dir, path))
			}
			if len(want) != 16 {
				t.Fatalf("%d mailboxes", len(want))
			}
			s := peer.Imapd(t, dir, peer.Options{FS: tt.fs, Inbox: tt.inbox, Imapd: []string{"maildir_import_isync: yes"}})
			compareMailboxes(t, "imapd", want, ask(s.Login(t, s.User)))
			if n := strings.Count(s.Log(), "took over UIDs"); n != len(want) {
				t.Errorf("%d folders of %d were taken over:\n%s", n, len(want), s.Log())
			}
			d := peer.Dovecot(t, dir, peer.Options{FS: tt.fs, Inbox: tt.inbox})
			compareMailboxes(t, "Dovecot afterwards", want, ask(d.Login(t, d.User)))
		})
	}
}

// An isyncFolder is what mbsync's files say of one.
type isyncFolder struct {
	UIDValidity, MaxUID int
	Messages            []struct {
		Name, Sub, Info, SHA256 string
		UID                     int
		Mtime                   int64
	}
}

// mailbox returns what a server must say of the folder at path.
func (f isyncFolder) mailbox(t *testing.T, path string) mailbox {
	t.Helper()
	letters := map[rune]string{'D': `\Draft`, 'F': `\Flagged`, 'R': `\Answered`, 'S': `\Seen`, 'T': `\Deleted`}
	m := mailbox{UIDValidity: f.UIDValidity, UIDNext: f.MaxUID + 1}
	for _, x := range f.Messages {
		text, err := os.ReadFile(filepath.Join(path, x.Sub, x.Name))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != x.SHA256 {
			t.Fatalf("%s is not what it was", x.Name)
		}
		sent := strings.ReplaceAll(string(text), "\n", "\r\n")
		var set []string
		for _, c := range x.Info {
			if name, ok := letters[c]; ok {
				set = append(set, name)
			}
		}
		m.Messages = append(m.Messages, message{UID: x.UID, Size: len(sent), Flags: flags(set), BodyHash: hash(sent),
			Date: time.Unix(x.Mtime, 0).UTC().Format("02-Jan-2006 15:04:05 -0700")})
	}
	slices.SortFunc(m.Messages, func(a, b message) int { return a.UID - b.UID })
	m.Unseen = unseen(m)
	return m
}
