package test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imapd/test/peer"
)

// A fate is what must have become of a message.
type fate struct {
	uid           int // in INBOX
	inbox, copies int // how often it is there, and in Work
	flagged       bool
	pending       string // the command that was never answered
}

// holds says what is wrong with a message that was found so often, with these
// flags, in INBOX and in Work.
func (f fate) holds(inbox, copies int, found message) string {
	switch f.pending {
	case "APPEND":
		if inbox > 1 || copies > 0 {
			return "is there more than once"
		}
		return ""
	case "UID COPY":
		if copies != f.copies {
			copies--
		}
	case "UID MOVE": // a duplicate is allowed, a loss is not
		if inbox > 1 || copies > 1 || inbox+copies == 0 {
			return fmt.Sprintf("was being moved and is there %d times, and %d times in Work", inbox, copies)
		}
		return ""
	case "UID EXPUNGE":
		inbox = f.inbox
	case "UID STORE":
		found.Flags = nil
		if f.flagged {
			found.Flags = []string{`\Flagged`}
		}
	}
	flagged := len(found.Flags) > 0 && found.Flags[0] == `\Flagged`
	switch {
	case inbox != f.inbox || copies != f.copies:
		return fmt.Sprintf("is there %d times, and %d times in Work", inbox, copies)
	case inbox == 1 && found.UID != 0 && (found.UID != f.uid || flagged != f.flagged):
		return fmt.Sprintf("has the UID %d and the flags %q", found.UID, found.Flags)
	}
	return ""
}

// A victim is a client whose server is killed.
type victim struct {
	t     *testing.T
	w     *world
	conn  net.Conn
	r     *bufio.Reader
	rand  *rand.Rand
	fates map[string]*fate // by the hash of the text
	done  func()           // called for each answer
}

// ask sends a command and returns the lines of its answer, "" if none came.
func (v *victim) ask(format string, args ...any) string {
	v.conn.SetDeadline(time.Now().Add(answerTime))
	if _, err := fmt.Fprintf(v.conn, "t "+format+"\r\n", args...); err != nil {
		return ""
	}
	said := ""
	for {
		line, err := v.r.ReadString('\n')
		if err != nil {
			return ""
		}
		said += line
		if strings.HasPrefix(line, "t ") {
			if !strings.HasPrefix(line, "t OK") {
				v.t.Errorf("%.60s: %s", fmt.Sprintf(format, args...), line)
			}
			v.done()
			return said
		}
	}
}

// run adds messages, and does something to each, until the server is gone.
func (v *victim) run() {
	for {
		text := v.w.text("victim")
		f := &fate{pending: "APPEND"}
		v.fates[hash(text)] = f
		f.uid = number(first(uidCode, v.ask("APPEND INBOX %s", peer.Literal(text))))
		if f.uid == 0 {
			return
		}
		f.inbox = 1
		f.pending = []string{"UID STORE", "UID COPY", "UID MOVE", "UID EXPUNGE"}[v.rand.IntN(4)]
		switch f.pending {
		case "UID STORE":
			if v.ask(`UID STORE %d FLAGS (\Flagged)`, f.uid) == "" {
				return
			}
			f.flagged = true
		case "UID EXPUNGE":
			f.pending = "UID STORE"
			if v.ask(`UID STORE %d FLAGS (\Deleted)`, f.uid) == "" {
				return
			}
			f.pending = "UID EXPUNGE"
			if v.ask("UID EXPUNGE %d", f.uid) == "" {
				return
			}
			f.inbox = 0
		default:
			if v.ask("%s %d Work", f.pending, f.uid) == "" {
				return
			}
			f.copies = 1
			if f.pending == "UID MOVE" {
				f.inbox = 0
			}
		}
		f.pending = ""
	}
}

// TestKilled holds that what was answered is so, and nothing is half-done, when
// the server is killed in the midst of its work.
func TestKilled(t *testing.T) {
	t.Parallel()
	rounds := 3
	if soaking() {
		rounds = 500
	}
	w := newWorld(t, 100)
	random := rand.New(rand.NewPCG(3, 4))
	known := map[string]*fate{}
	var s *peer.Server
	for round := range rounds {
		s = peer.Imapd(t, w.dir, peer.Options{})
		kill := int64(20 + random.IntN(300))
		var answers atomic.Int64
		var all sync.WaitGroup
		var victims []*victim
		for i := range 3 {
			c := welcome(t, s, 1)
			c.login(s)
			v := &victim{t: t, w: w, conn: c.conn, r: c.r, rand: rand.New(rand.NewPCG(uint64(round), uint64(i))), fates: map[string]*fate{}}
			v.done = func() {
				if answers.Add(1) == kill {
					syscall.Kill(s.PID, syscall.SIGKILL)
				}
			}
			v.ask("SELECT INBOX")
			victims = append(victims, v)
		}
		for _, v := range victims {
			all.Go(v.run)
		}
		all.Wait()
		for _, v := range victims {
			for h, f := range v.fates {
				known[h] = f
			}
		}
		w.settle(peer.Imapd(t, w.dir, peer.Options{}), known)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	t.Logf("%d messages in %d rounds", len(known), rounds)
	dovecot := peer.Dovecot(t, w.dir, peer.Options{})
	ours := peer.Imapd(t, w.dir, peer.Options{})
	for _, name := range []string{"INBOX", "Work"} {
		if diff := cmp.Diff(askMailbox(ours.Login(t, ours.User), name), askMailbox(dovecot.Login(t, dovecot.User), name)); diff != "" {
			t.Errorf("%s (-imapd +dovecot):\n%s", name, diff)
		}
	}
	uncomplaining(t, dovecot)
}

// settle holds that s, which has come after one that was killed, finds each
// message as it must be. What was left open is known then.
func (w *world) settle(s *peer.Server, known map[string]*fate) {
	w.Helper()
	c := s.Login(w, s.User)
	for _, name := range []string{"INBOX", "Work"} {
		// Until the lock of the dead is broken, what has no UID is not shown.
		c.Do("SELECT %s", name)
		c.Do("UID EXPUNGE 4294967295")
	}
	inbox, copies, found := map[string]int{}, map[string]int{}, map[string]message{}
	for _, m := range askMailbox(c, "INBOX").Messages {
		inbox[m.BodyHash]++
		found[m.BodyHash] = m
	}
	for _, m := range askMailbox(c, "Work").Messages {
		copies[m.BodyHash]++
	}
	for h, f := range known {
		if wrong := f.holds(inbox[h], copies[h], found[h]); wrong != "" {
			w.Errorf("a message with the fate %+v %s", *f, wrong)
		}
		m := found[h]
		*f = fate{uid: m.UID, inbox: inbox[h], copies: copies[h], flagged: len(m.Flags) > 0 && m.Flags[0] == `\Flagged`}
	}
	whole := 0
	for h := range inbox {
		if known[h] != nil {
			whole++
		}
	}
	if others := len(inbox) - whole; others != 104 {
		w.Errorf("%d messages that nobody knows", others-104)
	}
	s.Stop()
}
