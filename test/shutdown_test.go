package test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"imapd/test/peer"
)

// TestShutdownNotice puts msg/shutdown before sessions that are idle, that fetch
// large messages, and an administrator's. The idle ones are told at once, the busy
// ones after the response they are in, however slowly they take it, who does not
// take his mail is cut after shutdown_grace and not before, and the administrator
// stays. So it is in one process, and where the sessions are in a user's.
func TestShutdownNotice(t *testing.T) {
	t.Parallel()
	for name, users := range map[string]bool{"standalone": false, "user": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, slow, soon, grace := 10, 2, 10*time.Second, 2*time.Second
			lines := []string{"shutdown_grace: 2s"}
			if soaking() {
				n, slow, soon, grace, lines = 500, 20, 2*time.Second, time.Minute, nil // the default
			}
			raiseFiles(t)
			s := shutdownServer(t, users, lines...)
			shutOut(t, s, n, slow, soon, grace)
		})
	}
}

// shutOut is TestShutdownNotice for one server with n idle clients and n busy ones,
// slow of them. Half of each are under TLS.
func shutOut(t *testing.T, s *peer.Server, n, slow int, soon, grace time.Duration) {
	const bye = "* BYE [ALERT] Back at noon"
	var idle, busy, late, stuck []*load
	for i := range n {
		c := dialLoad(t, s, i%2 == 1)
		if _, err := io.WriteString(c.conn, "i IDLE\r\n"); err != nil {
			t.Fatal(err)
		}
		expect(t, c, "+ ")
		idle = append(idle, c)
	}
	for i := range n - slow {
		c, first := fetching(t, s, i%2 == 1, "INBOX")
		must(0, rest(c.r, first, 0))(t)
		busy = append(busy, c)
	}
	var huge string // the first line of its first response
	for i := range slow {
		var c *load
		c, huge = fetching(t, s, i%2 == 1, "Huge")
		late = append(late, c)
	}
	for i := range 2 {
		c, _ := fetching(t, s, i == 1, "Huge")
		stuck = append(stuck, c)
	}
	boss := s.Login(t, "boss")

	put(t, s.Dir()+"/msg/shutdown", "Back at noon\n")
	begin := time.Now()
	for _, all := range [][]*load{idle, busy, late, stuck} {
		for _, c := range all {
			c.conn.SetDeadline(begin.Add(grace + answerTime))
		}
	}
	var all sync.WaitGroup
	var slowest, slowestBusy, slowestLate lastOf
	for _, c := range idle {
		all.Go(func() {
			if line, err := c.r.ReadString('\n'); line != bye+"\r\n" {
				t.Errorf("an idle client is told %q, %v", line, err)
			}
			slowest.note(begin)
		})
	}
	all.Wait()
	if slowest.time > soon {
		t.Errorf("idle clients are told after %v", slowest.time)
	}
	for _, c := range late {
		all.Go(func() {
			// Their message takes them half the time that they have.
			if err := rest(c.r, huge, grace/2); err != nil {
				t.Errorf("a slow client: %v", err)
				return
			}
			if got, err := responses(c.r); got > 0 || err != nil {
				t.Errorf("a slow client gets %d responses more, %v", got, err)
			}
			slowestLate.note(begin)
		})
	}
	for _, c := range busy {
		all.Go(func() {
			got, err := responses(c.r)
			if err != nil || got == 0 || got >= shutdownMessages-1 {
				t.Errorf("a busy client gets %d responses, %v", got, err)
			}
			slowestBusy.note(begin)
		})
	}
	if line := greeting(t, s, 1)[0]; line != bye {
		t.Errorf("a new client is told %q", line)
	}
	boss.Do("NOOP")
	b := beginSession(t, s, "boss")
	b.client.Do("SELECT INBOX")
	b.end(t)
	all.Wait()
	// Who takes nothing is listed among those who are on until he is cut.
	var cut, gone time.Duration // the first, all
	for look := time.Tick(5 * time.Millisecond); gone == 0 && time.Since(begin) < grace+answerTime; <-look {
		left, now := onList(t, s, s.User), time.Since(begin)
		if left < len(stuck) && cut == 0 {
			cut = now
		}
		if left == 0 {
			gone = now
		}
	}
	t.Logf("of %d clients each the last idle one is told after %v, the last busy one after %v, the last slow one after %v; the others are cut after %v to %v",
		n, slowest.time, slowestBusy.time, slowestLate.time, cut, gone)
	if cut < grace || gone < grace || gone > grace+4*time.Second {
		t.Errorf("who takes nothing is cut after %v to %v", cut, gone)
	}
	for _, c := range stuck {
		if _, err := responses(c.r); err == nil {
			t.Error("who takes nothing is told BYE")
		}
	}
	if err := syscall.Unlink(s.Dir() + "/msg/shutdown"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string { return "nobody is served again" }, func() bool {
		return strings.HasPrefix(greeting(t, s, 1)[0], "* OK")
	})
	s.Login(t, s.User).Do("NOOP")
	boss.Do("NOOP")
}

// A lastOf is how long the last of several took.
type lastOf struct {
	mu   sync.Mutex
	time time.Duration
}

func (l *lastOf) note(begin time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.time = max(l.time, time.Since(begin))
}

// TestDrain holds that SIGTERM lets commands end, and idle sessions not wait.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := shutdownServer(t, false)
	idle, stranger := dialLoad(t, s, false), welcome(t, s, 1)
	busy, first := fetching(t, s, false, "INBOX")
	must(0, rest(busy.r, first, 0))(t)
	if _, err := io.WriteString(idle.conn, "i IDLE\r\n"); err != nil {
		t.Fatal(err)
	}
	expect(t, idle, "+ ")
	if _, err := io.WriteString(stranger.conn, "a LOG"); err != nil {
		t.Fatal(err)
	}
	notify(t, s, syscall.SIGTERM, "]: graceful shutdown")
	expect(t, idle, "* BYE")
	if line := stranger.line(); !strings.HasPrefix(line, "* BYE") {
		t.Errorf("who is about to log in is told %q", line)
	}
	if got, err := responses(busy.r); got != shutdownMessages-1 || err != nil {
		t.Errorf("a busy client gets %d responses of %d, %v", got, shutdownMessages-1, err)
	}
	if err := s.Wait(); err != nil {
		t.Errorf("the server ends with %v", err)
	}
}

// The mailbox of shutdownServer: more than the buffers of a connection hold.
const (
	shutdownMessages = 40
	shutdownSize     = 1 << 20
)

// shutdownServer starts a server with jane, who has that mail, and boss, who is its
// administrator: in one process or, with users, in one for each of them.
func shutdownServer(t *testing.T, users bool, lines ...string) *peer.Server {
	t.Helper()
	o := peer.Options{Users: []string{"jane", "boss"}, Imapd: append(lines, "admins: boss", "limit_preauth_per_address: 5000")}
	if users {
		fill := func(home string) {
			mkdir(t, home)
			largeMail(t, filepath.Join(home, "Maildir"), filepath.Base(home) == "jane")
		}
		return siteOf(t, o, fill, []mailUser{{"jane", aliceUID}, {"boss", bobUID}})
	}
	dir := peer.TempDir(t)
	for _, user := range o.Users {
		largeMail(t, filepath.Join(dir, user), user == "jane")
	}
	return peer.Imapd(t, filepath.Join(dir, "%u"), o)
}

// largeMail makes a Maildir with large messages in INBOX and larger ones in Huge, or
// an empty one.
func largeMail(t *testing.T, dir string, full bool) {
	t.Helper()
	stock(t, dir, 0)
	if !full {
		return
	}
	stock(t, filepath.Join(dir, ".Huge"), 0)
	text := strings.Repeat(strings.Repeat("x", 77)+"\n", shutdownSize/78)
	same := func(folder, text string, n int) {
		name := func(i int) string { return fmt.Sprintf("%s/%s/cur/%d.M%dP1.host:2,S", dir, folder, 1700000000+i, i) }
		write(t, name(0), "Subject: large\n\n"+text)
		for i := 1; i < n; i++ {
			must(0, os.Link(name(0), name(i)))(t)
		}
	}
	same("", text, shutdownMessages)
	same(".Huge", strings.Repeat(text, 24), 2) // more than all buffers on the way
}

// fetching returns a client that has asked for all messages of a mailbox, and the
// first line of the first response, which it has read.
func fetching(t *testing.T, s *peer.Server, secret bool, mailbox string) (c *load, first string) {
	t.Helper()
	c = dialLoad(t, s, secret)
	if err := c.command("SELECT " + mailbox); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c.conn, "f FETCH 1:* BODY.PEEK[]\r\n"); err != nil {
		t.Fatal(err)
	}
	return c, expect(t, c, "* 1 FETCH ")
}

// expect reads a line, which must begin with prefix.
func expect(t *testing.T, c *load, prefix string) string {
	t.Helper()
	c.conn.SetDeadline(time.Now().Add(answerTime))
	line, err := c.r.ReadString('\n')
	if !strings.HasPrefix(line, prefix) {
		t.Fatalf("got %q, %v, want %q", line, err, prefix)
	}
	return line
}

// responses reads whole FETCH responses until a BYE that ends the connection, and
// counts them. A tagged answer may come before it.
func responses(r *bufio.Reader) (n int, err error) {
	for {
		line, err := r.ReadString('\n')
		switch {
		case err != nil:
			return n, fmt.Errorf("after %q: %w", line, err)
		case strings.HasPrefix(line, "* BYE "):
			if more, err := io.ReadAll(r); err != nil || len(more) > 0 {
				return n, fmt.Errorf("after BYE: %.80q, %w", more, err)
			}
			return n, nil
		case strings.HasPrefix(line, "f OK"):
		default:
			if err := rest(r, line, 0); err != nil {
				return n, err
			}
			n++
		}
	}
}

var fetchedLiteral = regexp.MustCompile(`^\* \d+ FETCH \(.*\{(\d+)\}\r\n$`)

// rest reads what follows the first line of a FETCH response, in pieces that take it
// that long.
func rest(r *bufio.Reader, line string, long time.Duration) error {
	m := fetchedLiteral.FindStringSubmatch(line)
	if m == nil {
		return fmt.Errorf("no response: %.80q", line)
	}
	const pieces = 100
	begin, left := time.Now(), number(m[1])
	for i := range pieces {
		piece := left / (pieces - i)
		if _, err := r.Discard(piece); err != nil {
			return fmt.Errorf("in a literal: %w", err)
		}
		left -= piece
		<-time.After(time.Until(begin.Add(long * time.Duration(i+1) / pieces)))
	}
	if end, err := r.ReadString('\n'); end != ")\r\n" {
		return fmt.Errorf("after a literal: %.80q, %w", end, err)
	}
	return nil
}

// onList returns how many sessions of user the server has.
func onList(t *testing.T, s *peer.Server, user string) int {
	t.Helper()
	n := 0
	for _, file := range must(filepath.Glob(s.Dir() + "/proc/[^.]*"))(t) {
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), "\t"+user+"\t") {
			n++
		}
	}
	return n
}
