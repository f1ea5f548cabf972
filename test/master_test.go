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

// killedYoung is what master says of a child that it ended before the child's
// main function could have run: nothing in a program can catch a signal then.
var killedYoung = regexp.MustCompile(`age:0\.[01]\d+s .*signaled to death by signal 15 `)

// complaints returns the lines of Cyrus's master itself that are warnings or
// worse.
func complaints(s *peer.Server) []string {
	var all []string
	for line := range strings.Lines(s.Log()) {
		m := regexp.MustCompile(`^<(\d+)>.{15} master\[`).FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if priority, _ := strconv.Atoi(m[1]); priority&7 <= 4 && !killedYoung.MatchString(line) {
			all = append(all, line)
		}
	}
	return all
}

// logged waits until the log has a line that matches, and returns it with its
// groups.
func logged(t *testing.T, s *peer.Server, pattern string) []string {
	t.Helper()
	var m []string
	eventually(t, func() string { return "no " + pattern + " in\n" + s.Log() }, func() bool {
		m = regexp.MustCompile(pattern).FindStringSubmatch(s.Log())
		return m != nil
	})
	return m
}

// children returns the processes that run the program of s.
func children(t *testing.T, s *peer.Server) []int {
	t.Helper()
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, exe := range exes {
		if name, err := os.Readlink(exe); err == nil && strings.TrimSuffix(name, " (deleted)") == s.Program {
			pid, _ := strconv.Atoi(strings.Split(exe, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// waiting returns those of them that have come as far as the accept lock, which
// is not the only lock that a process has open. (One that has only just been
// started dies of a signal, as Cyrus's own do.)
func waiting(t *testing.T, s *peer.Server) []int {
	t.Helper()
	var pids []int
	for _, pid := range children(t, s) {
		for _, fd := range must(filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)))(t) {
			if name, err := os.Readlink(fd); err == nil && filepath.Base(filepath.Dir(name)) == "socket" && strings.HasSuffix(name, ".lock") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// pidOf returns the process that serves the only client that is logged in as
// user.
func pidOf(t *testing.T, s *peer.Server, user string) int {
	t.Helper()
	m := logged(t, s, `imaps?\[(\d+)\]: login: \[127.0.0.1\] `+user+` `)
	pid, _ := strconv.Atoi(m[1])
	return pid
}

// basicFor makes a Maildir for each user, and returns the template of their
// paths.
func basicFor(t *testing.T, users ...string) string {
	t.Helper()
	dir := peer.TempDir(t)
	for _, user := range users {
		peer.CopyTree(t, basic(t), filepath.Join(dir, user))
	}
	return dir + "/%u"
}

// visit is one client from its greeting to its logout.
func visit(s *peer.Server, user string) error {
	c, err := s.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(c, "a LOGIN %s %s\r\nb SELECT INBOX\r\nc FETCH 1:* (FLAGS ENVELOPE)\r\nd LOGOUT\r\n", user, peer.Password)
	text, err := io.ReadAll(c)
	if err == nil && (!strings.HasPrefix(string(text), "* OK") || !strings.Contains(string(text), "\r\nc OK") || !strings.HasSuffix(string(text), "d OK Logout completed\r\n")) {
		err = fmt.Errorf("got %q", text)
	}
	return err
}

// TestMaster has Cyrus's master run our server for 200 clients, 20 at a time.
func TestMaster(t *testing.T) {
	t.Parallel()
	s := peer.Master(t, basic(t), peer.Options{}, peer.Service{Name: "imap", Args: "-U 5 -T 2", More: "prefork=2 maxchild=10"})
	var wg sync.WaitGroup
	next := make(chan int)
	for range 20 {
		wg.Go(func() {
			for n := range next {
				if err := visit(s, s.User); err != nil {
					t.Errorf("client %d: %v", n, err)
				}
			}
		})
	}
	for n := range 200 {
		next <- n
	}
	close(next)
	wg.Wait()

	used := map[string]int{}
	for _, m := range regexp.MustCompile(`imap\[(\d+)\]: login: `).FindAllStringSubmatch(s.Log(), -1) {
		used[m[1]]++
	}
	sum := 0
	for pid, n := range used {
		sum += n
		if n > 5 {
			t.Errorf("process %s has served %d clients", pid, n)
		}
	}
	if sum != 200 || len(used) > 60 {
		t.Errorf("%d clients have logged in, to %d processes", sum, len(used))
	}
	// Those that have served end in time, those that have not wait for ever.
	eventually(t, func() string { return fmt.Sprintf("%v run still; used were %v", children(t, s), used) }, func() bool {
		for _, pid := range children(t, s) {
			if used[strconv.Itoa(pid)] > 0 {
				return false
			}
		}
		return true
	})
	eventually(t, func() string {
		return fmt.Sprintf("of prefork=2 there are %v, and waiting are %v", children(t, s), waiting(t, s))
	},
		func() bool { return len(children(t, s)) == 2 && len(waiting(t, s)) == 2 })
	s.Stop()
	if left := children(t, s); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if got := complaints(s); len(got) > 0 {
		t.Errorf("master complains:\n%s", strings.Join(got, ""))
	}
	if left := must(os.ReadDir(s.Dir() + "/proc"))(t); len(left) > 0 {
		t.Errorf("who is on: %v", left)
	}
}

// TestMasterHangup sends SIGHUP to master with one client on, then SIGTERM.
func TestMasterHangup(t *testing.T) {
	t.Parallel()
	s := peer.Master(t, basic(t), peer.Options{}, peer.Service{Name: "imap", More: "prefork=2"})
	busy := s.Login(t, s.User)
	pid := pidOf(t, s, s.User)
	eventually(t, func() string { return fmt.Sprintf("of prefork=2 there are %v", waiting(t, s)) }, func() bool { return len(waiting(t, s)) >= 3 })
	before := children(t, s)
	s.Signal(syscall.SIGHUP)
	logged(t, s, "Services reconfigured")
	// Who is idle ends at once, who serves does not notice.
	eventually(t, func() string { return fmt.Sprintf("%v of %v", children(t, s), before) }, func() bool {
		now := children(t, s)
		for _, old := range before {
			if old != pid && contains(now, old) {
				return false
			}
		}
		return contains(now, pid)
	})
	busy.Do("NOOP")
	if err := visit(s, s.User); err != nil {
		t.Error(err)
	}
	busy.Do("LOGOUT")
	eventually(t, func() string { return fmt.Sprintf("%d of %v", pid, children(t, s)) }, func() bool { return !contains(children(t, s), pid) })
	if got := complaints(s); len(got) > 0 {
		t.Errorf("master complains:\n%s", strings.Join(got, ""))
	}

	// At SIGTERM a client sees the end of the connection and no word.
	conn := must(s.Dial())(t)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(conn)
	fmt.Fprintf(conn, "a LOGIN %s %s\r\nb SELECT INBOX\r\nc IDLE\r\n", s.User, peer.Password)
	for line := ""; !strings.HasPrefix(line, "+"); {
		line = must(r.ReadString('\n'))(t)
	}
	eventually(t, func() string { return fmt.Sprintf("of prefork=2 there are %v", waiting(t, s)) }, func() bool { return len(waiting(t, s)) >= 3 })
	s.Stop()
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		t.Errorf("got %q, %v", rest, err)
	}
	logged(t, s, "All children have exited, closing down")
	if got := complaints(s); len(got) > 0 {
		t.Errorf("master complains:\n%s", strings.Join(got, ""))
	}
	if left := children(t, s); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func contains(pids []int, pid int) bool {
	for _, p := range pids {
		if p == pid {
			return true
		}
	}
	return false
}

// server returns the process that served the n-th login, from 0 on.
func server(t *testing.T, s *peer.Server, n int) string {
	t.Helper()
	var all [][]string
	eventually(t, func() string { return fmt.Sprintf("no login %d in\n%s", n, s.Log()) }, func() bool {
		all = regexp.MustCompile(`imap\[(\d+)\]: login: `).FindAllStringSubmatch(s.Log(), -1)
		return len(all) > n
	})
	return all[n][1]
}

// TestMasterUpgrade replaces the program: the next client has a process that
// runs the new one.
func TestMasterUpgrade(t *testing.T) {
	t.Parallel()
	s := peer.Master(t, basic(t), peer.Options{}, peer.Service{Name: "imap", More: "prefork=2"})
	if err := visit(s, s.User); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string { return fmt.Sprintf("%v wait, of %v", waiting(t, s), children(t, s)) },
		func() bool { n := len(waiting(t, s)); return n >= 2 && n == len(children(t, s)) })
	old := must(os.Stat(s.Program))(t)
	s.CopyProgram(t, s.Program)
	for n := range 3 {
		c := s.Login(t, s.User)
		if exe, err := os.Stat("/proc/" + server(t, s, n+1) + "/exe"); err == nil && os.SameFile(exe, old) {
			t.Error("the old program serves")
		}
		c.Do("LOGOUT")
	}
	logged(t, s, "process file has changed")
	if got := complaints(s); len(got) > 0 {
		t.Errorf("master complains:\n%s", strings.Join(got, ""))
	}
}
