package test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imapd/test/peer"
)

// odd are messages that two servers could see in two ways.
var odd = []string{
	"Subject: plain\r\n\r\nText.\r\n",
	"Subject: no end of line\r\n\r\nText.",
	"Subject: nothing but a header\r\n",
	"Subject: no body\r\n\r\n",
	"No header at all",
	"\r\n",
	"\n",
	"Subject: bare LF\n\nText\nand more\n",
	"Subject: both\r\n\r\nCRLF\r\nLF\nCR\rand more\r\n",
	"Subject: CR CR LF\r\r\n\r\r\nText\r\r\r\n\r",
	"Subject: LF CR\n\r\n\rText\n\r",
	"Subject: 8 bit \xc3\xa4 \xe4 \xff\r\n\r\n\x80\x81\r\n",
	"Subject: long\r\n\r\n" + strings.Repeat("x", 70000) + "\r\n" + strings.Repeat("y\r\n", 30000),
	"From somebody Mon Jan  1 00:00:00 2024\r\nSubject: mbox\r\n\r\n.\r\n..\r\n",
}

// TestInterchange holds that what either server writes is at once the same for
// the other: UID, size, date, flags, keywords, and each octet.
func TestInterchange(t *testing.T) {
	t.Parallel()
	dir := basic(t)
	servers := []*peer.Server{peer.Imapd(t, dir, peer.Options{}), peer.Dovecot(t, dir, peer.Options{})}
	var clients []*peer.Client
	for _, s := range servers {
		c := s.Login(t, s.User)
		c.Do("SELECT INBOX")
		clients = append(clients, c)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 100 {
		writer, reader := clients[i%2], clients[1-i%2]
		text := odd[i/2%len(odd)]
		set := slices.DeleteFunc(slices.Clone(stored), func(string) bool { return random.IntN(2) > 0 })
		date := time.Unix(random.Int64N(1700000000), 0).In(time.FixedZone("", random.IntN(27)*1800-12*3600))
		_, answer := writer.Try("APPEND INBOX (%s) %q %s", strings.Join(set, " "), date.Format("_2-Jan-2006 15:04:05 -0700"), peer.Literal(text))
		uid := number(first(uidCode, answer))
		if uid == 0 {
			t.Fatalf("%d: APPEND of %q to %s: %s", i, text, servers[i%2].Kind, answer)
		}
		m := see(t, reader, uid)
		if diff := cmp.Diff(see(t, writer, uid), m); diff != "" {
			t.Errorf("%d: %.60q written by %s (-writer +reader):\n%s", i, text, servers[i%2].Kind, diff)
		}
		want := message{UID: uid, Flags: flags(set), Size: m.Size, BodyHash: m.BodyHash, Date: date.UTC().Format("02-Jan-2006 15:04:05 -0700")}
		// On disk there is LF for CRLF: what has other line ends gets the usual ones.
		if !strings.ContainsAny(strings.ReplaceAll(text, "\r\n", ""), "\r\n") {
			want.Size, want.BodyHash = len(text), hash(text)
		}
		if diff := cmp.Diff(want, m); diff != "" {
			t.Errorf("%d: %.60q written by %s (-want +got):\n%s", i, text, servers[i%2].Kind, diff)
		}
		reader.Do(`UID STORE %d FLAGS (\Flagged word-%d)`, uid, i%5)
		if got, want := see(t, writer, uid).Flags, []string{`\Flagged`, fmt.Sprintf("word-%d", i%5)}; !slices.Equal(got, want) {
			t.Errorf("%d: flags set by %s: %q, want %q", i, servers[1-i%2].Kind, got, want)
		}
		reader.Do("UID COPY %d Work", uid)
		if i%4 > 1 {
			reader.Do("UID MOVE %d Sent", uid)
		}
	}
	for _, name := range []string{"INBOX", "Work", "Sent"} {
		if diff := cmp.Diff(askMailbox(clients[0], name), askMailbox(clients[1], name)); diff != "" {
			t.Errorf("%s (-imapd +dovecot):\n%s", name, diff)
		}
	}
	uncomplaining(t, servers[1])
}

// see returns a message as a client with INBOX selected sees it now.
func see(t *testing.T, c *peer.Client, uid int) message {
	t.Helper()
	c.Do("NOOP")
	for _, r := range c.Do("UID FETCH %d (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])", uid) {
		if len(r.Literals) == 1 {
			date, err := time.Parse("_2-Jan-2006 15:04:05 -0700", first(fetchDate, r.Text))
			if err != nil {
				t.Error(err)
			}
			return message{
				UID: number(first(fetchUID, r.Text)), Size: number(first(fetchSize, r.Text)), Date: date.UTC().Format("02-Jan-2006 15:04:05 -0700"),
				Flags: flags(strings.Fields(first(fetchFlag, r.Text))), BodyHash: hash(r.Literals[0]),
			}
		}
	}
	t.Fatalf("no UID %d", uid)
	return message{}
}
