package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/google/go-cmp/cmp"

	"imapd/test/peer"
)

// TestFixtureLists asks what TestFixtures leaves out: LIST in its extended form,
// attributes in LSUB, and STATUS alone and with LIST.
func TestFixtureLists(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures {
		t.Run(f.dir, func(t *testing.T) {
			t.Parallel()
			peer.Each(t, func(t *testing.T, start peer.Starter) {
				want := readLists(t, filepath.Join("testdata", f.dir, "expected-noindex.json"))
				dir := filepath.Join(unpack(t, filepath.Join("testdata", f.dir, "account.tar.gz")), f.maildir)
				s := start(t, dir, peer.Options{FS: f.fs})
				c := s.Login(t, s.User)
				c.Try("CREATE Drafts")
				c.Do("SUBSCRIBE Drafts")
				for _, q := range []struct {
					command string
					want    map[string]string
				}{
					{`LIST "" *`, want.list},
					{`LSUB "" *`, want.lsub},
					{`LIST "" * RETURN (SUBSCRIBED CHILDREN SPECIAL-USE)`, want.extended},
					{`LIST (SUBSCRIBED) "" * RETURN (CHILDREN SPECIAL-USE)`, want.subscribed},
				} {
					if diff := cmp.Diff(q.want, askList(c, q.command)); diff != "" {
						t.Errorf("%s (-want +got):\n%s", q.command, diff)
					}
				}
				alone := map[string]string{}
				for name := range want.status {
					maps.Copy(alone, askStatus(c, "STATUS \""+name+"\" ("+statusWords+")"))
				}
				if diff := cmp.Diff(want.status, alone); diff != "" {
					t.Errorf("STATUS (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(want.status, askStatus(c, `LIST "" * RETURN (STATUS (`+statusWords+"))")); diff != "" {
					t.Errorf("LIST RETURN (STATUS) (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// statusWords are in the order in which Dovecot answers.
const statusWords = "MESSAGES UIDNEXT UNSEEN SIZE"

// lists are attributes, sorted, and data of STATUS by the name of the mailbox.
type lists struct{ list, lsub, extended, subscribed, status map[string]string }

func readLists(t *testing.T, file string) lists {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		List, Lsub []listed
		Extended   []string `json:"list_extended"`
		Subscribed []string `json:"list_extended_subscribed"`
		Mailboxes  map[string]struct {
			StatusCmd []string `json:"status_cmd"`
		}
	}
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	l := lists{status: map[string]string{}, list: attributes(e.List), lsub: attributes(e.Lsub), extended: parseList(e.Extended), subscribed: parseList(e.Subscribed)}
	for _, m := range e.Mailboxes {
		maps.Copy(l.status, parseStatus(m.StatusCmd))
	}
	if len(l.list) != 18 || len(l.lsub) != 8 || len(l.extended) != 18 || len(l.subscribed) != 8 || len(l.status) != 16 {
		t.Fatalf("%s: %d, %d, %d, %d, %d", file, len(l.list), len(l.lsub), len(l.extended), len(l.subscribed), len(l.status))
	}
	return l
}

func attributes(all []listed) map[string]string {
	m := map[string]string{}
	for _, l := range all {
		m[l.Name] = strings.Join(slices.Sorted(slices.Values(l.Attrs)), " ")
	}
	return m
}

func parseList(lines []string) map[string]string {
	m := map[string]string{}
	for _, line := range lines {
		if f := listLine.FindStringSubmatch(line); f != nil {
			// \Marked and \UnMarked come and go with what Dovecot has in memory.
			words := slices.DeleteFunc(slices.Sorted(strings.FieldsSeq(f[2])), func(a string) bool { return strings.HasSuffix(a, "arked") })
			m[f[3]+f[4]] = strings.Join(words, " ")
		}
	}
	return m
}

var (
	statusLine = regexp.MustCompile(`^\* STATUS (?:"([^"]*)"|(\S+)) \(([^)]*)\)`)
	modseqPair = regexp.MustCompile(` ?HIGHESTMODSEQ \d+`)
)

func parseStatus(lines []string) map[string]string {
	m := map[string]string{}
	for _, line := range lines {
		if f := statusLine.FindStringSubmatch(line); f != nil {
			m[f[1]+f[2]] = modseqPair.ReplaceAllString(f[3], "")
		}
	}
	return m
}

func askList(c *peer.Client, command string) map[string]string { return parseList(texts(c, command)) }

func askStatus(c *peer.Client, command string) map[string]string {
	return parseStatus(texts(c, command))
}

func texts(c *peer.Client, command string) (lines []string) {
	for _, r := range c.Do("%s", command) {
		lines = append(lines, r.Text)
	}
	return lines
}

// TestGoIMAPLists lets a client read what the mailbox commands answer.
func TestGoIMAPLists(t *testing.T) {
	t.Parallel()
	peer.Each(t, func(t *testing.T, start peer.Starter) {
		s := start(t, basic(t), peer.Options{})
		c := must(imapclient.DialInsecure(s.Addr, nil))(t)
		defer c.Close()
		if err := c.Login(s.User, peer.Password).Wait(); err != nil {
			t.Fatal(err)
		}
		for _, step := range []*imapclient.Command{
			c.Create("Entwürfe/2024", nil), c.Subscribe("Entwürfe/2024"), c.Unsubscribe("Work"), c.Delete("Trash"), c.Rename("Sent", "Gesendet", nil),
		} {
			if err := step.Wait(); err != nil {
				t.Fatal(err)
			}
		}
		for _, q := range []struct {
			pattern string
			options *imap.ListOptions
			want    []string
		}{
			{"%", nil, []string{
				`Drafts \Drafts \HasNoChildren`, `Entwürfe \HasChildren \Noselect`, `Gesendet \HasNoChildren`, `INBOX \HasNoChildren`, `Work \HasChildren`, `Ärger \HasNoChildren`,
			}},
			{"%", &imap.ListOptions{SelectSubscribed: true, SelectRecursiveMatch: true}, []string{
				`Entwürfe \NonExistent children`, `Gone \NonExistent \Subscribed`, `INBOX \Subscribed`, `Work children`,
			}},
			{"*", &imap.ListOptions{SelectSpecialUse: true, ReturnSubscribed: true, ReturnChildren: true}, []string{`Drafts \Drafts \HasNoChildren`}},
			{"Entw*", &imap.ListOptions{ReturnSubscribed: true, ReturnStatus: &imap.StatusOptions{NumMessages: true, Size: true}}, []string{
				`Entwürfe \NonExistent`, `Entwürfe/2024 \Subscribed 0 messages of 0 octets`,
			}},
		} {
			var got []string
			for _, l := range must(c.List("", q.pattern, q.options).Collect())(t) {
				got = append(got, describe(l))
			}
			slices.Sort(got)
			if diff := cmp.Diff(q.want, got); diff != "" {
				t.Errorf("%s, %+v (-want +got):\n%s", q.pattern, q.options, diff)
			}
		}
		status := must(c.Status("Work", &imap.StatusOptions{NumMessages: true, UIDNext: true, UIDValidity: true, NumUnseen: true, Size: true}).Wait())(t)
		if *status.NumMessages != 1 || status.UIDNext != 2 || status.UIDValidity != 1700000002 || *status.NumUnseen != 1 || *status.Size == 0 {
			t.Errorf("STATUS: %+v", status)
		}
		space := must(c.Namespace().Wait())(t)
		if len(space.Personal) != 1 || space.Personal[0].Delim != '/' || space.Personal[0].Prefix != "" {
			t.Errorf("NAMESPACE: %+v", space)
		}
	})
}

// describe writes what a client has understood of a LIST response.
func describe(l *imap.ListData) string {
	words := []string{}
	for _, a := range l.Attrs {
		if !strings.HasSuffix(string(a), "arked") {
			words = append(words, string(a))
		}
	}
	slices.Sort(words)
	words = append([]string{l.Mailbox}, words...)
	if l.ChildInfo != nil && l.ChildInfo.Subscribed {
		words = append(words, "children")
	}
	if l.Status != nil {
		words = append(words, fmt.Sprint(*l.Status.NumMessages), "messages of", fmt.Sprint(*l.Status.Size), "octets")
	}
	return strings.Join(words, " ")
}
