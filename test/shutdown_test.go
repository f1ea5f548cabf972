package test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"imapd/test/peer"
)

// TestShutdownNotice puts msg/shutdown before sessions that are idle, that fetch
// large messages, and an administrator's. The idle ones are told at once, the busy
// ones after the response they are in, who does not take his mail after
// shutdown_grace, and the administrator stays.
func TestShutdownNotice(t *testing.T) {
	t.Parallel()
	n, soon := 20, 10*time.Second
	if soaking() {
		n, soon = 500, 2*time.Second
	}
	raiseFiles(t)
	const grace = 4 * time.Second
	s := shutdownServer(t, grace)
	var idle []*load
	for range n {
		c := dialLoad(t, s, false)
		if _, err := io.WriteString(c.conn, "i IDLE\r\n"); err != nil {
			t.Fatal(err)
		}
		expect(t, c, "+ ")
		idle = append(idle, c)
	}
	var busy []*load
	for range n {
		busy = append(busy, fetching(t, s, "INBOX"))
	}
	stuck := fetching(t, s, "Huge")
	boss := s.Login(t, "boss")

	put(t, s.Dir()+"/msg/shutdown", "Back at noon\n")
	begin := time.Now()
	var all sync.WaitGroup
	var mu sync.Mutex
	var slowest time.Duration
	for _, c := range idle {
		all.Go(func() {
			if line, err := c.r.ReadString('\n'); line != "* BYE [ALERT] Back at noon\r\n" {
				t.Errorf("an idle client is told %q, %v", line, err)
			}
			mu.Lock()
			slowest = max(slowest, time.Since(begin))
			mu.Unlock()
		})
	}
	all.Wait()
	t.Logf("the last of %d idle clients is told after %v", n, slowest)
	if slowest > soon {
		t.Errorf("idle clients are told after %v", slowest)
	}
	for _, c := range busy {
		all.Go(func() {
			got, err := responses(c.r)
			if err != nil || got == 0 || got >= shutdownMessages-1 {
				t.Errorf("a busy client gets %d responses, %v", got, err)
			}
		})
	}
	all.Wait()
	if line := greeting(t, s, 1)[0]; line != "* BYE [ALERT] Back at noon" {
		t.Errorf("a new client is told %q", line)
	}
	boss.Do("NOOP")
	// Who takes nothing is listed among those who are on until he is cut.
	eventually(t, func() string { return "who takes nothing is not cut" }, func() bool { return onList(t, s, s.User) == 0 })
	if took := time.Since(begin); took < grace {
		t.Errorf("a command is cut after %v", took)
	}
	if _, err := responses(stuck.r); err == nil {
		t.Error("who takes nothing is told BYE")
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

// TestDrain holds that SIGTERM lets commands end, and idle sessions not wait.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := shutdownServer(t, time.Minute)
	idle, busy, stranger := dialLoad(t, s, false), fetching(t, s, "INBOX"), welcome(t, s, 1)
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

func shutdownServer(t *testing.T, grace time.Duration) *peer.Server {
	t.Helper()
	dir := peer.TempDir(t)
	for _, user := range []string{"jane", "boss"} {
		stock(t, filepath.Join(dir, user), 0)
	}
	text := strings.Repeat(strings.Repeat("x", 77)+"\n", shutdownSize/78)
	for i := range shutdownMessages {
		write(t, fmt.Sprintf("%s/jane/cur/%d.M%dP1.host:2,S", dir, 1700000000+i, i), "Subject: large\n\n"+text)
	}
	stock(t, filepath.Join(dir, "jane/.Huge"), 0)
	for i := range 2 { // more than all buffers on the way
		write(t, fmt.Sprintf("%s/jane/.Huge/cur/%d.M%dP1.host:2,S", dir, 1700000000+i, i), "Subject: huge\n\n"+strings.Repeat(text, 24))
	}
	return peer.Imapd(t, filepath.Join(dir, "%u"), peer.Options{Users: []string{"jane", "boss"}, Imapd: []string{
		"admins: boss", "limit_preauth_per_address: 5000", fmt.Sprintf("shutdown_grace: %.0fs", grace.Seconds()),
	}})
}

// fetching returns a client that has asked for all messages of a mailbox, and read
// the first of INBOX, or the first line of another's first.
func fetching(t *testing.T, s *peer.Server, mailbox string) *load {
	t.Helper()
	c := dialLoad(t, s, false)
	if err := c.command("SELECT " + mailbox); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c.conn, "f FETCH 1:* BODY.PEEK[]\r\n"); err != nil {
		t.Fatal(err)
	}
	line := expect(t, c, "* 1 FETCH ")
	if mailbox != "INBOX" {
		return c // in the middle of it
	}
	if err := rest(c.r, line); err != nil {
		t.Fatal(err)
	}
	return c
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
			if err := rest(r, line); err != nil {
				return n, err
			}
			n++
		}
	}
}

var fetchedLiteral = regexp.MustCompile(`^\* \d+ FETCH \(.*\{(\d+)\}\r\n$`)

// rest reads what follows the first line of a FETCH response.
func rest(r *bufio.Reader, line string) error {
	m := fetchedLiteral.FindStringSubmatch(line)
	if m == nil {
		return fmt.Errorf("no response: %.80q", line)
	}
	size, _ := strconv.Atoi(m[1])
	if _, err := r.Discard(size); err != nil {
		return fmt.Errorf("in a literal: %w", err)
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
	for _, file := range must(filepath.Glob(s.Dir() + "/proc/*"))(t) {
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), "\t"+user+"\t") {
			n++
		}
	}
	return n
}
