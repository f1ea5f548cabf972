package test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"imapd/test/peer"
)

// A world is a Maildir on which several programs work at the same time.
type world struct {
	*testing.T
	dir  string
	stop atomic.Bool
	// gone are the messages of INBOX that somebody has decided to remove: only
	// of these may a client be told that they are gone.
	gone sync.Map
	made atomic.Int64 // messages, for a text that is like no other
	kept sync.Map     // the hash of each message that must be there in the end
}

// newWorld makes a Maildir whose INBOX holds n messages.
func newWorld(t *testing.T, n int) *world {
	t.Helper()
	return newWorldIn(t, peer.TempDir(t), n)
}

// newWorldIn makes the Maildir of newWorld in a directory.
func newWorldIn(t *testing.T, dir string, n int) *world {
	t.Helper()
	w := &world{T: t, dir: basicIn(t, dir)}
	for range n {
		text := w.text("first")
		w.kept.Store(hash(text), true)
		name := fmt.Sprintf("%s/cur/%d.M1P1Q%d.first:2,", w.dir, 1700000000+w.made.Load(), w.made.Load())
		if err := os.WriteFile(name, []byte(strings.ReplaceAll(text, "\r\n", "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	peer.Own(t, w.dir)
	return w
}

// text returns a new message.
func (w *world) text(by string) string {
	return fmt.Sprintf("From: %s@example.org\r\nSubject: message %d\r\n\r\nText.\r\n", by, w.made.Add(1))
}

// A mirror is a client that keeps in mind what the server tells it of INBOX.
type mirror struct {
	*world
	*peer.Client
	name   string
	uids   []int // by sequence number - 1
	exists int   // as told; uids may be behind
}

func (w *world) mirror(s *peer.Server, name string) *mirror {
	w.Helper()
	m := &mirror{world: w, Client: s.Login(w, s.User), name: name + " at " + s.Kind}
	m.ask("SELECT INBOX")
	return m
}

var (
	existsLine  = regexp.MustCompile(`^\* (\d+) EXISTS$`)
	expungeLine = regexp.MustCompile(`^\* (\d+) EXPUNGE$`)
	uidLine     = regexp.MustCompile(`^\* (\d+) FETCH \(UID (\d+)\)$`)
)

// ask sends a command, takes in what the server says besides, and asks for the
// UIDs of messages that are new.
func (m *mirror) ask(format string, args ...any) (said []peer.Response, answer string) {
	m.Helper()
	said, answer = m.Try(format, args...)
	m.take(said)
	for m.exists > len(m.uids) {
		// A message that is gone already is NO, and told of at the NOOP.
		from := len(m.uids)
		news, _ := m.Try("FETCH %d:%d (UID)", from+1, m.exists)
		for _, r := range news {
			if x := uidLine.FindStringSubmatch(r.Text); x != nil && number(x[1]) == len(m.uids)+1 {
				uid := number(x[2])
				if from > 0 && uid <= m.uids[from-1] {
					m.Errorf("%s: UID %d is new behind UID %d", m.name, uid, m.uids[from-1])
				}
				m.uids = append(m.uids, uid)
			}
		}
		m.take(news)
		more, _ := m.Try("NOOP")
		m.take(more)
	}
	return said, answer
}

// take notes EXISTS and EXPUNGE, and reports one that is not true.
func (m *mirror) take(said []peer.Response) {
	for _, r := range said {
		if x := existsLine.FindStringSubmatch(r.Text); x != nil {
			if m.exists = number(x[1]); m.exists < len(m.uids) {
				m.Errorf("%s: %s with %d known", m.name, r.Text, len(m.uids))
			}
		}
		x := expungeLine.FindStringSubmatch(r.Text)
		if x == nil {
			continue
		}
		m.exists--
		i := number(x[1]) - 1
		if i >= len(m.uids) {
			continue // of a message that was never asked for
		}
		if _, decided := m.gone.Load(m.uids[i]); !decided {
			m.Errorf("%s: false EXPUNGE of UID %d", m.name, m.uids[i])
		}
		m.uids = slices.Delete(m.uids, i, i+1)
	}
}
