package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"imapd/test/peer"
	"imapd/test/strict"
	"imapd/test/transcript"
)

// The tests named TestAttack send what nobody should send, to a server that
// runs as it does for users. Each row is one idea of an attack, what must come
// of it, and what it may cost; while it runs, another user must be served.

// An attack is one row.
type attack struct {
	name string
	// before login, after it, or with this mailbox selected
	in    string
	send  sender
	want  string // the answers, such as "a BAD, b NO [TOOBIG], BYE, closed"
	spend int64  // MiB by which the server may grow; 0 stands for growth
}

// What attack.in says where it is no mailbox.
const (
	stranger = ""
	user     = "user"
)

// A sender sends what a client says. It ends early if the server does not
// listen any more.
type sender func(io.Writer)

func say(text string) sender { return func(w io.Writer) { io.WriteString(w, text) } }

// flood sends head, then text n times, then tail.
func flood(head, text string, n int, tail string) sender {
	return func(w io.Writer) {
		io.WriteString(w, head)
		per := max(1, 64<<10/len(text))
		chunk := strings.Repeat(text, per)
		for ; n >= per; n -= per {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
		io.WriteString(w, strings.Repeat(text, n)+tail)
	}
}

// A target is a running server with an attacker and a bystander.
type target struct {
	*peer.Server
	bystander *peer.Client
}

func newTarget(t *testing.T, dir string, o peer.Options) *target {
	t.Helper()
	o.Users = []string{"jane", "joe"}
	s := peer.Imapd(t, dir, o)
	return &target{s, s.Login(t, "joe")}
}

// growth is by how many MiB any attack may let the server grow: a few buffers,
// and what the collector has not taken back yet.
const growth = 32

// patience is how long an answer may take before a test fails.
const patience = 30 * time.Second

// run runs the rows one after the other, so that what the server grows by is
// the row's doing.
func (s *target) run(t *testing.T, rows []attack) {
	t.Helper()
	var slowest time.Duration
	for _, a := range rows {
		t.Run(a.name, func(t *testing.T) {
			before := s.memory(t)
			done := make(chan string, 1)
			c := s.connect(t, a.in)
			go func() {
				got, err := c.attack(a)
				if err != nil {
					got += "\n" + err.Error()
				}
				done <- got
			}()
			begin := time.Now()
			s.bystander.Do("NOOP")
			slowest = max(slowest, time.Since(begin))
			if got := <-done; got != a.want {
				t.Errorf("got  %s\nwant %s", got, a.want)
			}
			c.Close()
			if grown := s.peak(t) - before; grown > max(a.spend, growth)<<20 {
				t.Errorf("the server grew by %.1f MiB", float64(grown)/(1<<20))
			}
		})
	}
	for line := range strings.Lines(s.Log()) {
		if strings.Contains(line, "panic") || strings.Contains(line, "internal error") {
			t.Errorf("log: %s", line)
		}
	}
	t.Logf("%d attacks, the bystander waited %v at most", len(rows), slowest)
}

var kilobytes = regexp.MustCompile(`(?m)^Vm(HWM|RSS):\s*(\d+) kB`)

// memory returns the octets that the server uses, and makes peak count from here.
func (s *target) memory(t *testing.T) int64 {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.PID), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	return s.status(t, "RSS")
}

// peak returns the most octets that the server has used since memory.
func (s *target) peak(t *testing.T) int64 { return s.status(t, "HWM") }

func (s *target) status(t *testing.T, what string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range kilobytes.FindAllSubmatch(text, -1) {
		if string(m[1]) == what {
			n, _ := strconv.ParseInt(string(m[2]), 10, 64)
			return n << 10
		}
	}
	t.Fatalf("no Vm%s in %s", what, text)
	return 0
}

// An attacker is a client that believes nothing that it is told.
type attacker struct {
	net.Conn
	r      *strict.Reader
	mirror strict.Mirror
}

// connect connects, and logs in and selects as in says.
func (s *target) connect(t *testing.T, in string) *attacker {
	t.Helper()
	conn := must(s.Dial())(t)
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	c := &attacker{Conn: conn, r: strict.NewReader(conn)}
	var commands []string
	if in != stranger {
		commands = append(commands, "LOGIN jane "+peer.Password)
	}
	if in != stranger && in != user {
		commands = append(commands, "SELECT "+in)
	}
	if _, err := c.next(); err != nil {
		t.Fatal(err)
	}
	for _, command := range commands {
		if answers, err := c.do(command); err != nil || !strings.HasPrefix(answers, "fence OK") {
			t.Fatalf("%s: %s, %v", command, answers, err)
		}
	}
	return c
}

func (c *attacker) next() (*strict.Response, error) {
	r, err := c.r.Next()
	if err == nil {
		err = c.mirror.Take(r)
	}
	return r, err
}

// do sends a command and returns the answers up to its own.
func (c *attacker) do(command string) (string, error) {
	io.WriteString(c, "fence "+command+"\r\n")
	return c.answers("fence")
}

// attack runs a and returns the answers. Where the connection is kept, they end
// with the one to a NOOP, which is left out.
func (c *attacker) attack(a attack) (string, error) {
	fence := !strings.HasSuffix(a.want, "closed")
	go func() {
		a.send(c)
		if fence {
			io.WriteString(c, "fence NOOP\r\n")
		}
	}()
	got, err := c.answers("fence")
	return strings.TrimSuffix(strings.TrimSuffix(got, "fence OK"), ", "), err
}

// answers reads to the answer to the command with this tag, or to the end of
// the connection, and returns all that is tagged, and BYE.
func (c *attacker) answers(tag string) (string, error) {
	var got []string
	for {
		r, err := c.next()
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
			return strings.Join(append(got, "closed"), ", "), nil
		case err != nil:
			return strings.Join(got, ", "), err
		case r.Name == "BYE":
			got = append(got, "BYE")
		case r.Tag == "+":
			got = append(got, "+")
		case r.Name == "ENABLED": // what comes now may have UTF-8 in quoted strings
			c.r.UTF8 = true
		case r.Tag != "*" || r.Name == "BAD":
			answer := r.Tag + " " + r.Name
			if len(r.Code) > 0 && r.Name != "OK" {
				answer += " [" + r.Code[0].Text + "]"
			}
			got = append(got, answer)
		}
		if r.Tag == tag {
			return strings.Join(got, ", "), nil
		}
	}
}

// basicMany makes the setup basic for both users of a target, with a mailbox
// Victim that no attack may change, and returns the template of their Maildirs.
// With fs the folders lie in each other.
func basicMany(t *testing.T, fs bool) string {
	t.Helper()
	setup, err := transcript.LoadSetup("../imap/testdata", "basic")
	if err != nil {
		t.Fatal(err)
	}
	setup.FS = fs
	setup.Folders = append(setup.Folders, transcript.Folder{
		Name: "Victim", Validity: 1700000009, Messages: []transcript.Message{{UID: 1, File: "plain.eml"}},
	})
	root := peer.TempDir(t)
	for _, user := range []string{"jane", "joe"} {
		if err := setup.Build(filepath.Join(root, user, "Maildir")); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(root, "%u", "Maildir")
}
