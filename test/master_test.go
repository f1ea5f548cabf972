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

// A stay is one client's time with the process that served it, which its session
// id names. The process began to wait for the next client between the two times.
type stay struct {
	pid          int
	leaves, left time.Time // just before LOGOUT, and when the connection had ended
}

// visit is one client from its greeting to its logout.
func visit(s *peer.Server, user string) (stay, error) {
	c, err := s.Dial()
	if err != nil {
		return stay{}, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(c, "a LOGIN %s %s\r\nb SELECT INBOX\r\nc FETCH 1:* (FLAGS ENVELOPE)\r\n", user, peer.Password)
	var text strings.Builder
	for r := bufio.NewReader(io.TeeReader(c, &text)); err == nil; {
		var line string
		if line, err = r.ReadString('\n'); strings.HasPrefix(line, "c ") {
			break
		}
	}
	v := stay{leaves: time.Now()}
	if err == nil {
		fmt.Fprintf(c, "d LOGOUT\r\n")
		_, err = io.Copy(&text, c)
	}
	v.left = time.Now()
	m := sessionPID.FindStringSubmatch(text.String())
	if err != nil || m == nil || !strings.HasPrefix(text.String(), "* OK") || !strings.Contains(text.String(), "\r\nc OK") || !strings.HasSuffix(text.String(), "d OK Logout completed\r\n") {
		return stay{}, fmt.Errorf("got %q (%v)", text.String(), err)
	}
	v.pid = number(m[1])
	return v, nil
}

var sessionPID = regexp.MustCompile(`SESSIONID=<\S+-\d+-(\d+)-\d+-[0-9a-f]+>`)

// A census is what is seen of the processes that run a server's program.
type census struct {
	most        int               // at a time
	alive, gone map[int]time.Time // when each was last seen, and when it was first missed
}

// count looks at them again and again until stop is closed.
func (c *census) count(t *testing.T, s *peer.Server, stop <-chan struct{}) {
	c.alive, c.gone = map[int]time.Time{}, map[int]time.Time{}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		begin := time.Now()
		now := children(t, s)
		c.most = max(c.most, len(now))
		for pid := range c.alive {
			if _, known := c.gone[pid]; !known && !contains(now, pid) {
				c.gone[pid] = time.Now()
			}
		}
		for _, pid := range now {
			c.alive[pid] = begin
		}
		select {
		case <-stop:
			return
		case <-look.C:
		}
	}
}

// atOnce returns how many children master has had at a time by its own log: the
// child writes when it is about to become the program, master when it has ended.
func atOnce(s *peer.Server) (most, all int) {
	now := 0
	for line := range strings.Lines(s.Log()) {
		switch {
		case strings.Contains(line, "]: about to exec "):
			now++
			all++
		case childEnded.MatchString(line):
			now--
		}
		most = max(most, now)
	}
	return most, all
}

var childEnded = regexp.MustCompile(`master\[\d+\]: process type:SERVICE .* pid:\d+ `)

// TestMaster has Cyrus's master run our server for 200 clients, 20 at a time, and
// holds what its administrator has asked for: at most maxchild processes, prefork of
// them ready, -U clients for each, and that one which has served ends between T and
// 2T after its last client.
func TestMaster(t *testing.T) {
	t.Parallel()
	// One more than 200, which is no multiple of uses: some process has served less.
	const maxchild, prefork, uses, clients, wait = 10, 2, 5, 201, 2 * time.Second
	s := peer.Master(t, basic(t), peer.Options{}, peer.Service{
		Name: "imap", Args: fmt.Sprintf("-U %d -T %.0f", uses, wait.Seconds()), More: fmt.Sprintf("prefork=%d maxchild=%d", prefork, maxchild),
	})
	pool := func() {
		t.Helper()
		eventually(t, func() string {
			return fmt.Sprintf("of prefork=%d there are %v, and waiting are %v", prefork, children(t, s), waiting(t, s))
		}, func() bool { return len(children(t, s)) == prefork && len(waiting(t, s)) == prefork })
	}
	pool()
	stop, counted := make(chan struct{}), make(chan struct{})
	var seen census
	go func() {
		defer close(counted)
		seen.count(t, s, stop)
	}()

	var mu sync.Mutex
	used, last := map[int]int{}, map[int]stay{} // by process: how many clients, and the last of them
	var wg sync.WaitGroup
	next := make(chan int)
	for range 20 {
		wg.Go(func() {
			for n := range next {
				v, err := visit(s, s.User)
				if err != nil {
					t.Errorf("client %d: %v", n, err)
					continue
				}
				mu.Lock()
				used[v.pid]++
				if v.leaves.After(last[v.pid].leaves) {
					last[v.pid] = v
				}
				mu.Unlock()
			}
		})
	}
	for n := range clients {
		next <- n
	}
	close(next)
	wg.Wait()
	// Those that have served end in time, those that have not wait for ever.
	eventually(t, func() string { return fmt.Sprintf("%v run still; used were %v", children(t, s), used) }, func() bool {
		for _, pid := range children(t, s) {
			if used[pid] > 0 {
				return false
			}
		}
		return true
	})
	pool()
	close(stop)
	<-counted

	// As many as may be have been at work, and no more. Master asks whether there is
	// room before it fills up the pool, not for each process that it adds.
	const least, limit = maxchild - prefork, maxchild + prefork - 1
	if most, all := atOnce(s); max(most, seen.most) < least || max(most, seen.most) > limit { // a busy machine misses some
		t.Errorf("of maxchild=%d %d processes were seen at a time, and %d by master's log, of %d in all", maxchild, seen.most, most, all)
	}
	served, idled := 0, 0
	for pid, n := range used {
		served += n
		if n > uses {
			t.Errorf("process %d has served %d clients", pid, n)
		}
		if n == uses {
			continue
		}
		idled++
		// It was alive at one moment at least, and was not at another at last.
		const late = time.Second // what a busy machine may take to end it
		if early := seen.gone[pid].Sub(last[pid].leaves); early < wait {
			t.Errorf("process %d has ended %v after its last client", pid, early)
		}
		if over := seen.alive[pid].Sub(last[pid].left); over >= 2*wait+late {
			t.Errorf("process %d lives %v after its last client", pid, over)
		}
	}
	t.Logf("%d clients, %d processes, at most %d at a time; %d had served less than -U and ended for -T", served, len(used), seen.most, idled)
	if served != clients || len(used) > clients*3/10 || idled == 0 {
		t.Errorf("%d clients were served, by %d processes, of which %d waited for more", served, len(used), idled)
	}
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
	if _, err := visit(s, s.User); err != nil {
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
	if _, err := visit(s, s.User); err != nil {
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
