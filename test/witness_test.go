package test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imapd/test/peer"
	"imapd/test/strict"
)

// A race is a Maildir in which some remove and deliver messages and change their
// flags while others watch. What is done, and when, is noted first.
type race struct {
	*world
	// fleeting says that messages may be removed before a client has asked for
	// their UIDs.
	fleeting bool
	removed  sync.Map // UID (uint32): when it was decided
	dropped  sync.Map // subject of a message that was added: when it was there

	renamed, delivered atomic.Int64 // by those who disturb, for busy
}

// A witness is a client that takes the server by the letter and notes what it is
// told of INBOX that is not so, and how long after the fact it is told the rest.
type witness struct {
	*race
	name   string
	conn   net.Conn
	r      *strict.Reader
	mirror strict.Mirror
	rand   *rand.Rand

	texts    map[uint32]string // hash of the message that has a UID
	expunges int               // told of
	arrivals int
	latest   [2]time.Duration // the longest that an expunge, and an arrival, was not told
	lies     []string
	last     *strict.Response // the last one that had a tag
}

// witness logs in and selects INBOX.
func (r *race) witness(s *peer.Server, name string) *witness {
	r.Helper()
	conn, err := s.Dial()
	if err != nil {
		r.Fatal(err)
	}
	return r.witnessOn(conn, s, name)
}

// witnessOn is witness on a connection that there is already.
func (r *race) witnessOn(conn net.Conn, s *peer.Server, name string) *witness {
	r.Helper()
	r.Cleanup(func() { conn.Close() })
	x := &witness{race: r, name: name + " at " + s.Kind, conn: conn, r: strict.NewReader(conn), rand: rand.New(rand.NewPCG(5, 6)), texts: map[uint32]string{}}
	conn.SetDeadline(time.Now().Add(answerTime))
	if _, err := x.next(); err != nil {
		r.Fatal(err)
	}
	x.do("LOGIN %s %s", s.User, peer.Password)
	x.do("SELECT INBOX")
	x.learn()
	return x
}

// lie notes something that a server must not say.
func (x *witness) lie(format string, args ...any) {
	x.lies = append(x.lies, x.name+": "+fmt.Sprintf(format, args...))
}

// next takes one response.
func (x *witness) next() (*strict.Response, error) {
	r, err := x.r.Next()
	if err != nil {
		return nil, err
	}
	if n := int(r.Number); r.Name == "EXPUNGE" && n <= len(x.mirror.Messages()) {
		x.gone(n, x.mirror.Messages()[n-1].UID)
	}
	if err := x.mirror.Take(r); err != nil {
		x.lie("%v", err)
	}
	if r.Name == "FETCH" {
		x.fetched(r)
	}
	return r, nil
}

// gone takes an EXPUNGE.
func (x *witness) gone(n int, uid uint32) {
	x.expunges++
	when, decided := x.removed.Load(uid)
	if uid == 0 && x.fleeting {
		return
	}
	if !decided {
		x.lie("false EXPUNGE of message %d, UID %d", n, uid)
		return
	}
	x.latest[0] = max(x.latest[0], time.Since(when.(time.Time)))
}

// fetched compares a message with what it was.
func (x *witness) fetched(r *strict.Response) {
	body, ok := r.Item("BODY[]")
	if !ok {
		return
	}
	id, _ := r.Item("UID")
	uid, h := uint32(number(id.Text)), hash(body.Text)
	was, known := x.texts[uid]
	switch {
	case known && was != h:
		if _, removed := x.removed.Load(uid); !removed { // of which nothing is left to be sent
			x.lie("UID %d was another message", uid)
		}
	case !known:
		x.texts[uid] = h
		if when, ok := x.dropped.Load(first(subjectLine, body.Text)); ok {
			x.arrivals++
			x.latest[1] = max(x.latest[1], time.Since(when.(time.Time)))
		}
	}
}

var subjectLine = regexp.MustCompile(`(?m)^Subject: (.*?)\r?$`)

// do sends a command and takes what comes until it is answered. OK and NO are
// both answers: a message may be gone.
func (x *witness) do(format string, args ...any) {
	x.send("w " + fmt.Sprintf(format, args...))
	x.until("w")
}

func (x *witness) send(line string) {
	x.conn.SetDeadline(time.Now().Add(answerTime))
	if _, err := io.WriteString(x.conn, line+"\r\n"); err != nil {
		x.lie("%.60s: %v", line, err)
	}
}

// until takes responses until one has the tag or one of the names.
func (x *witness) until(tag string, names ...string) {
	for {
		r, err := x.next()
		if err != nil {
			x.lie("%v", err)
			x.stop.Store(true)
			return
		}
		if r.Tag == tag && r.Name == "BAD" {
			x.lie("BAD: %s", r.Text)
		}
		if r.Tag != "*" {
			x.last = r
		}
		if r.Tag == tag || slices.Contains(names, r.Name) {
			return
		}
	}
}

// learn asks for the messages that are new.
func (x *witness) learn() {
	for limit := time.Now().Add(answerTime); !x.stop.Load(); x.do("NOOP") {
		// A message whose file somebody is renaming may be left out of an answer.
		at := slices.IndexFunc(x.mirror.Messages(), func(m strict.Message) bool { return x.texts[m.UID] == "" })
		if at < 0 {
			return
		}
		if time.Now().After(limit) {
			x.lie("message %d is there and is never sent", at+1)
			return
		}
		x.do("FETCH %d:* (UID BODY.PEEK[])", at+1)
	}
}

// staleFlags asks for news until the flags that x has been told of are those that
// there are, and returns the first that are not after a while.
func (x *witness) staleFlags(now []message) string {
	flags := map[uint32]string{}
	for _, m := range now {
		flags[uint32(m.UID)] = strings.Join(m.Flags, " ")
	}
	stale := ""
	for limit := time.Now().Add(3 * time.Second); time.Now().Before(limit); x.do("NOOP") {
		stale = ""
		for _, m := range x.mirror.Messages() {
			if want, there := flags[m.UID]; there && m.Flags != "?" && m.Flags != want {
				stale = fmt.Sprintf("UID %d is believed to have the flags %q, it has %q", m.UID, m.Flags, want)
			}
		}
		if stale == "" {
			return ""
		}
	}
	return stale
}

// watch asks for news and for messages by lot, until the world stops.
func (x *witness) watch() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !x.stop.Load() {
		x.do("NOOP")
		x.learn()
		if n := len(x.mirror.Messages()); n > 0 {
			x.do("FETCH %d,%d,%d (UID FLAGS BODY.PEEK[])", 1+x.rand.IntN(n), 1+x.rand.IntN(n), 1+x.rand.IntN(n))
		}
		<-tick.C
	}
}

// idle waits for news, until the world stops and a last message is delivered.
func (x *witness) idle() {
	for !x.stop.Load() {
		x.send("i IDLE")
		x.until("+")
		x.until("i", "EXISTS", "EXPUNGE")
		x.send("DONE")
		x.until("i")
		x.learn()
	}
}

// caughtUp reports whether all has been told that happened.
func (x *witness) caughtUp(removed, dropped int) bool {
	x.do("NOOP")
	return x.expunges >= removed && x.arrivals >= dropped
}
