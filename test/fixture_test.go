package test

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imapd/test/peer"
)

// The fixtures are accounts that a Dovecot of flesh and blood has used for a
// while, with what it answered about them after its own indexes were removed:
// everything in the answers comes from the files that all servers share.
var fixtures = []struct {
	dir, maildir string
	fs           bool
}{
	{"a-dovecot-maildirpp", "Maildir", false},
	{"b-dovecot-fs", "mail", true},
}

// An account is what a server says of an account, or what it should say.
type account struct {
	Mailboxes map[string]mailbox
	List      map[string][]string // attributes by name
	Lsub      []string
}

type mailbox struct {
	UIDValidity, UIDNext, Unseen int
	Messages                     []message
}

type message struct {
	UID, Size      int
	Flags          []string // without \Recent
	Date, BodyHash string
}

// expected is the form of expected-noindex.json, as far as it is compared.
type expected struct {
	List      []listed
	Lsub      []listed
	Mailboxes map[string]struct {
		UIDValidity int
		UIDNext     int
		StatusCmd   []string `json:"status_cmd"`
		Messages    []struct {
			UID          int
			Size         int `json:"rfc822_size"`
			Flags        []string
			InternalDate string
			BodySHA256   string `json:"body_sha256"`
		}
	}
}

type listed struct {
	Name  string
	Attrs []string
}

// TestFixtures asks each server about each account, then a Dovecot that comes
// to work beside it: both must give Dovecot's own answers, also about mail that
// is delivered, appended and moved afterwards.
func TestFixtures(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures {
		t.Run(f.dir, func(t *testing.T) {
			t.Parallel()
			peer.Each(t, func(t *testing.T, start peer.Starter) {
				want := readExpected(t, filepath.Join("testdata", f.dir, "expected-noindex.json"))
				dir := filepath.Join(unpack(t, filepath.Join("testdata", f.dir, "account.tar.gz")), f.maildir)
				s := start(t, dir, peer.Options{FS: f.fs})
				c := s.Login(t, s.User)
				// The account's site makes Drafts at the first login.
				c.Try("CREATE Drafts")
				c.Do("SUBSCRIBE Drafts")
				compare(t, s.Kind, want, ask(c))
				compareSubscriptions(t, dir, want)

				d := peer.Dovecot(t, dir, peer.Options{FS: f.fs})
				beside := d.Login(t, d.User)
				compare(t, "Dovecot beside "+s.Kind, want, ask(beside))
				workBeside(t, dir, want, c, beside)
				compare(t, "Dovecot at the end", want, ask(beside))
				compare(t, s.Kind+" at the end", want, ask(c))
			})
		})
	}
}

// workBeside changes the account through both clients and from outside, and
// changes want alike.
func workBeside(t *testing.T, dir string, want account, ours, dovecot *peer.Client) {
	t.Helper()
	const text = "From: x@example.org\r\nSubject: beside\r\n\r\nText.\r\n"
	inbox := want.Mailboxes["INBOX"]
	add := func(b *mailbox, flags ...string) {
		b.Messages = append(b.Messages, message{UID: b.UIDNext, Size: len(text), Flags: flags,
			Date: "05-Mar-2024 10:00:00 +0000", BodyHash: hash(text)})
		b.UIDNext++
	}
	deliver(t, dir, strings.ReplaceAll(text, "\r\n", "\n"), time.Date(2024, 3, 5, 10, 0, 0, 0, time.UTC))
	ours.Do("SELECT INBOX") // moves it to cur/, and gives it its UID
	add(&inbox)
	dovecot.Do(`APPEND INBOX (\Seen) "05-Mar-2024 10:00:00 +0000" %s`, peer.Literal(text))
	add(&inbox, `\Seen`)
	ours.Do(`APPEND INBOX (\Flagged) "05-Mar-2024 10:00:00 +0000" %s`, peer.Literal(text))
	add(&inbox, `\Flagged`)
	n := len(inbox.Messages)
	ours.Do(`UID STORE %d +FLAGS (\Answered)`, inbox.Messages[n-3].UID)
	inbox.Messages[n-3].Flags = []string{`\Answered`}
	dovecot.Do("SELECT INBOX")
	dovecot.Do(`UID STORE %d +FLAGS (urgent)`, inbox.Messages[n-1].UID)
	inbox.Messages[n-1].Flags = []string{`\Flagged`, "urgent"}

	work := want.Mailboxes["Work"]
	ours.Do("UID COPY %d Work", inbox.Messages[n-2].UID)
	add(&work, `\Seen`)
	inbox.Unseen = unseen(inbox)
	want.Mailboxes["INBOX"], want.Mailboxes["Work"] = inbox, work
}

func unseen(b mailbox) int {
	n := 0
	for _, m := range b.Messages {
		if !slices.Contains(m.Flags, `\Seen`) {
			n++
		}
	}
	return n
}

// deliver puts a message into new/ of the folder dir as a delivery agent does.
func deliver(t *testing.T, dir, text string, date time.Time) {
	t.Helper()
	name := fmt.Sprintf("%d.M1P1Q1.example", time.Now().UnixNano())
	tmp := filepath.Join(dir, "tmp", name)
	err := os.WriteFile(tmp, []byte(text), 0o600)
	if err == nil {
		err = os.Chtimes(tmp, date, date)
	}
	if err != nil {
		t.Fatal(err)
	}
	peer.Own(t, tmp)
	if err := os.Rename(tmp, filepath.Join(dir, "new", name)); err != nil {
		t.Fatal(err)
	}
}

// readExpected reads what Dovecot answered.
func readExpected(t *testing.T, file string) account {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var e expected
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	a := account{Mailboxes: map[string]mailbox{}, List: map[string][]string{}}
	messages := 0
	for name, b := range e.Mailboxes {
		m := mailbox{UIDValidity: b.UIDValidity, UIDNext: b.UIDNext}
		for _, x := range b.Messages {
			m.Messages = append(m.Messages, message{UID: x.UID, Size: x.Size, Flags: flags(x.Flags), Date: x.InternalDate, BodyHash: x.BodySHA256})
		}
		m.Unseen = unseen(m)
		messages += len(b.Messages)
		a.Mailboxes[name] = m
	}
	for _, l := range e.List {
		a.List[l.Name] = slices.Sorted(slices.Values(l.Attrs))
	}
	for _, l := range e.Lsub {
		a.Lsub = append(a.Lsub, l.Name)
	}
	slices.Sort(a.Lsub)
	// Counted in the fixture by hand, so that an empty answer cannot pass.
	if len(a.Mailboxes) != 16 || messages != 70 || len(a.List) != 18 || len(a.Lsub) != 8 {
		t.Fatalf("%s: %d mailboxes, %d messages, %d names, %d subscriptions", file, len(a.Mailboxes), messages, len(a.List), len(a.Lsub))
	}
	return a
}

func flags(all []string) []string {
	all = slices.DeleteFunc(slices.Clone(all), func(f string) bool { return f == `\Recent` })
	slices.Sort(all)
	if len(all) == 0 {
		return nil
	}
	return all
}

// compare reports what a server says otherwise than it should.
func compare(t *testing.T, who string, want, got account) {
	t.Helper()
	// Drafts was made by the test, so its UIDVALIDITY is of today.
	want.Mailboxes, got.Mailboxes = maps.Clone(want.Mailboxes), maps.Clone(got.Mailboxes)
	for _, a := range []account{want, got} {
		drafts := a.Mailboxes["Drafts"]
		drafts.UIDValidity = 0
		a.Mailboxes["Drafts"] = drafts
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", who, diff)
	}
}

// compareSubscriptions holds that the file says what LSUB says.
func compareSubscriptions(t *testing.T, dir string, want account) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "subscriptions"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(strings.TrimPrefix(string(text), "V\t2\n\n")), "\n")
	for i, l := range lines {
		lines[i] = strings.ReplaceAll(l, "\t", "/")
	}
	slices.Sort(lines)
	if diff := cmp.Diff(want.Lsub, lines); diff != "" {
		t.Errorf("subscriptions (-want +got):\n%s", diff)
	}
}

var (
	listLine  = regexp.MustCompile(`^\* (LIST|LSUB) \(([^)]*)\) "[/.]" (?:"((?:[^"\\]|\\.)*)"|(\S+))$`)
	codeLine  = regexp.MustCompile(`^\* OK \[(UIDVALIDITY|UIDNEXT) (\d+)\]`)
	fetchUID  = regexp.MustCompile(`[( ]UID (\d+)`)
	fetchSize = regexp.MustCompile(`[( ]RFC822\.SIZE (\d+)`)
	fetchDate = regexp.MustCompile(`[( ]INTERNALDATE "([^"]*)"`)
	fetchFlag = regexp.MustCompile(`[( ]FLAGS \(([^)]*)\)`)
	statusNum = regexp.MustCompile(`\(UNSEEN (\d+)\)$`)
)

// ask asks a server for all that is compared.
func ask(c *peer.Client) account {
	a := account{Mailboxes: map[string]mailbox{}, List: map[string][]string{}}
	for _, r := range c.Do(`LIST "" *`) {
		if m := listLine.FindStringSubmatch(r.Text); m != nil {
			// \Marked and \UnMarked come and go with what Dovecot has in memory.
			a.List[m[3]+m[4]] = slices.DeleteFunc(slices.Sorted(strings.FieldsSeq(m[2])), func(a string) bool { return strings.HasSuffix(a, "arked") })
		}
	}
	for _, r := range c.Do(`LSUB "" *`) {
		if m := listLine.FindStringSubmatch(r.Text); m != nil {
			a.Lsub = append(a.Lsub, m[3]+m[4])
		}
	}
	slices.Sort(a.Lsub)
	for name, attributes := range a.List {
		if !slices.Contains(attributes, `\Noselect`) {
			a.Mailboxes[name] = askMailbox(c, name)
		}
	}
	return a
}

func askMailbox(c *peer.Client, name string) mailbox {
	var b mailbox
	for _, r := range c.Do("EXAMINE %q", name) {
		switch m := codeLine.FindStringSubmatch(r.Text); {
		case m == nil:
		case m[1] == "UIDNEXT":
			b.UIDNext = number(m[2])
		default:
			b.UIDValidity = number(m[2])
		}
	}
	if b.UIDNext > 1 {
		for _, r := range c.Do("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])") {
			if len(r.Literals) == 1 {
				b.Messages = append(b.Messages, message{
					UID: number(first(fetchUID, r.Text)), Size: number(first(fetchSize, r.Text)), Date: first(fetchDate, r.Text),
					Flags: flags(strings.Fields(first(fetchFlag, r.Text))), BodyHash: hash(r.Literals[0]),
				})
			}
		}
	}
	c.Do("UNSELECT")
	for _, r := range c.Do("STATUS %q (UNSEEN)", name) {
		b.Unseen = number(first(statusNum, r.Text))
	}
	return b
}

// first returns what the first group of a pattern matches.
func first(pattern *regexp.Regexp, text string) string {
	if m := pattern.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// unpack unpacks an account, with the times that are INTERNALDATEs and without
// Dovecot's indexes, and returns the directory.
func unpack(t *testing.T, file string) string {
	t.Helper()
	return unpackSome(t, file, func(name string) bool {
		return !strings.HasPrefix(name, "dovecot.index") && !strings.HasPrefix(name, "dovecot.list.index") && name != "dovecot.mailbox.log"
	})
}

// unpackAll is unpack with Dovecot's indexes.
func unpackAll(t *testing.T, file string) string {
	t.Helper()
	return unpackSome(t, file, func(string) bool { return true })
}

// unpackSome unpacks the files for whose name want returns true.
func unpackSome(t *testing.T, file string, want func(name string) bool) string {
	t.Helper()
	dir := peer.TempDir(t)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err == nil && want(filepath.Base(h.Name)) {
			err = unpackEntry(dir, h, r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func unpackEntry(dir string, h *tar.Header, r io.Reader) error {
	path := filepath.Join(dir, h.Name)
	switch {
	case h.Typeflag == tar.TypeDir:
		return os.MkdirAll(path, 0o700)
	case h.Typeflag == tar.TypeLink:
		return os.Link(filepath.Join(dir, h.Linkname), path) // a copy made by COPY
	case h.Typeflag == tar.TypeSymlink:
		return os.Symlink(h.Linkname, path)
	case h.Typeflag != tar.TypeReg:
		return fmt.Errorf("%s: an entry of type %c", h.Name, h.Typeflag)
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, os.FileMode(h.Mode).Perm())
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, r); err == nil {
		err = out.Close()
	}
	if err == nil {
		err = os.Chtimes(path, h.ModTime, h.ModTime)
	}
	return err
}
