package test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"imapd/maildir"
	"imapd/test/belief"
	"imapd/test/peer"
	"imapd/test/strict"
)

// A teller is the client that tells a story; its connection may end. It has QRESYNC,
// and keeps what it is told of each mailbox.
type teller struct {
	*testing.T
	conn   net.Conn
	r      *strict.Reader
	said   bytes.Buffer // what came since the last command was sent
	mirror strict.Mirror
	caches map[string]*strict.Cache // by mailbox
	cache  *strict.Cache            // of the one that is selected; nil: none
}

func newTeller(t *testing.T, s *peer.Server) *teller {
	t.Helper()
	conn, err := s.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &teller{T: t, conn: conn, caches: map[string]*strict.Cache{}}
	c.r = strict.NewReader(io.TeeReader(conn, &c.said))
	return c
}

// ask sends a command and returns what was said, and the tagged answer, "" if
// none came.
func (c *teller) ask(text string) (said, answer string) {
	c.Helper()
	if name, ok := strings.CutPrefix(text, "SELECT "); ok {
		if c.caches[name] == nil {
			c.caches[name] = &strict.Cache{}
		}
		c.cache = c.caches[name]
	}
	c.said.Reset()
	c.conn.SetDeadline(time.Now().Add(answerTime))
	if _, err := fmt.Fprintf(c.conn, "t %s\r\n", text); err != nil {
		return "", ""
	}
	for {
		r, err := c.r.Next()
		if err != nil { // the end, in the middle of a line perhaps
			return c.said.String(), ""
		}
		if err := c.mirror.Take(r); err != nil {
			c.Errorf("%.40q: %v", text, err)
		}
		if r.HasCode("NOMODSEQ") { // nothing to come back with, and EXPUNGE as of old
			maps.DeleteFunc(c.caches, func(_ string, x *strict.Cache) bool { return x == c.cache })
			c.cache = nil
		}
		if c.cache != nil {
			if err := c.cache.Take(&c.mirror, r); err != nil {
				c.Errorf("%.40q: %v", text, err)
			}
		}
		if r.Tag == "t" {
			_, answer, _ = strings.Cut(c.said.String(), "\nt ")
			if answer == "" { // the first line of all
				answer = strings.TrimPrefix(c.said.String(), "t ")
			}
			return c.said.String(), strings.TrimSpace(answer)
		}
	}
}

// learn asks for the flags of messages that are new to the client, and holds that
// each number means the message that it should (I14).
func (c *teller) learn() (answer string) {
	c.Helper()
	n := len(c.mirror.Messages())
	if c.cache == nil || n == 0 {
		return "OK"
	}
	if known := c.cache.Known(&c.mirror); known < n {
		if _, answer = c.ask(fmt.Sprintf("FETCH %d:%d (UID FLAGS)", known+1, n)); !strings.HasPrefix(answer, "OK") {
			return answer
		}
	}
	_, answer = c.ask("FETCH 1:* (UID)")
	return answer
}

// told returns what the client knows of the mailboxes that it has selected so far,
// and up to which modseq.
func (c *teller) told() (all []belief.Folder) {
	for _, cache := range c.caches {
		f := belief.Folder{Validity: cache.Validity, ModSeq: maildir.ModSeq(cache.ModSeq), Mails: map[maildir.UID]belief.Mail{}}
		for uid, flags := range cache.Flags {
			f.Mails[maildir.UID(uid)] = belief.Mail{Flags: flags}
		}
		all = append(all, f)
	}
	return all
}

var givenUIDs = regexp.MustCompile(`\[(?:APPENDUID \d+|COPYUID \d+ [\d:,]+) ([\d:,]+)\]`)

// given returns the UIDs that a server has told of new messages.
func given(said string) []maildir.UID { return uidsOf(first(givenUIDs, said)) }

// uidsOf returns the members of a set.
func uidsOf(set string) (uids []maildir.UID) {
	for part := range strings.SplitSeq(set, ",") {
		from, to, ok := strings.Cut(part, ":")
		if !ok {
			to = from
		}
		for u := number(from); u > 0 && u <= number(to); u++ {
			uids = append(uids, maildir.UID(u))
		}
	}
	return uids
}

// tell tells the story until it ends, a command is refused or the server is gone.
// It returns what the client knows then, and the refusal.
func (st *story) tell(c *teller) (k *belief.Known, refusal string) {
	k = st.knows()
	for _, command := range st.commands {
		said, answer := c.ask(command.text)
		switch {
		case answer == "":
			k.Open(command.Effect, false)
			return k, ""
		case !strings.HasPrefix(answer, "OK"):
			k.Open(command.Effect, true)
			return k, fmt.Sprintf("%.40q: %s", command.text, answer)
		}
		k.Done(command.Effect, given(said))
		if answer = c.learn(); !strings.HasPrefix(answer, "OK") {
			return k, answer
		}
		k.Told(c.told()...)
	}
	return k, ""
}

// comeBack is what a client is told that comes back to a mailbox.
func comeBack(c *peer.Client, name string, mirror belief.Folder) belief.News {
	news := belief.News{Flags: map[maildir.UID]string{}}
	for _, r := range c.Do("SELECT %q (QRESYNC (%d %d))", name, mirror.Validity, mirror.ModSeq) {
		gone, vanished := strings.CutPrefix(r.Text, "* VANISHED (EARLIER) ")
		switch uid := number(first(fetchUID, r.Text)); {
		case vanished:
			news.Vanished = append(news.Vanished, uidsOf(gone)...)
		case uid > 0:
			news.Flags[maildir.UID(uid)] = strings.Join(flags(strings.Fields(first(fetchFlag, r.Text))), " ")
		}
	}
	c.Do("UNSELECT")
	return news
}
