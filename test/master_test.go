package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
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

// complaints returns the lines of Cyrus's master itself that are warnings or
// worse.
func complaints(s *peer.Server) []string {
	var all []string
	for line := range strings.Lines(s.Log()) {
		m := regexp.MustCompile(`^<(\d+)>.{15} master\[`).FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if priority, _ := strconv.Atoi(m[1]); priority&7 <= 4 {
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

// waiting returns those of them that wait for a client. (One that has only just
// been started dies of a signal, as Cyrus's own do.)
func waiting(t *testing.T, s *peer.Server) []int {
	t.Helper()
	var pids []int
	for _, pid := range children(t, s) {
		for _, fd := range must(filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)))(t) {
			if name, err := os.Readlink(fd); err == nil && strings.HasSuffix(name, ".lock") {
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
	eventually(t, func() string { return fmt.Sprintf("of prefork=2 there are %v", waiting(t, s)) }, func() bool { return len(waiting(t, s)) == 3 })
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

// TestMasterUpgrade replaces the program: the next client has a process that
// runs the new one.
func TestMasterUpgrade(t *testing.T) {
	t.Parallel()
	s := peer.Master(t, basic(t), peer.Options{}, peer.Service{Name: "imap", More: "prefork=2"})
	if err := visit(s, s.User); err != nil {
		t.Fatal(err)
	}
	old := must(os.Stat(s.Program))(t)
	s.CopyProgram(t, s.Program)
	for range 3 {
		c := s.Login(t, s.User)
		last := regexp.MustCompile(`imap\[(\d+)\]: login: `).FindAllStringSubmatch(s.Log(), -1)
		if exe, err := os.Stat("/proc/" + last[len(last)-1][1] + "/exe"); err == nil && os.SameFile(exe, old) {
			t.Error("the old program serves")
		}
		c.Do("LOGOUT")
	}
	logged(t, s, "process file has changed")
	if got := complaints(s); len(got) > 0 {
		t.Errorf("master complains:\n%s", strings.Join(got, ""))
	}
}

// TestMasterClean holds that a process keeps nothing of a client: the same
// files are open after each, and the list of who is on has none.
func TestMasterClean(t *testing.T) {
	t.Parallel()
	s := peer.Master(t, basicFor(t, "jane", "john"), peer.Options{Users: []string{"jane", "john"}}, peer.Service{Name: "imap", More: "maxchild=1"})
	for _, user := range []string{"jane", "john"} {
		if err := os.MkdirAll(s.Dir()+"/log/"+user, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.Give(t, s.Dir()+"/log")
	open := func(pid string) string {
		var all []string
		for _, fd := range must(filepath.Glob("/proc/" + pid + "/fd/*"))(t) {
			if name, err := os.Readlink(fd); err == nil {
				all = append(all, filepath.Base(fd)+" "+name)
			}
		}
		return strings.Join(all, "\n")
	}
	var pid, first string
	for n, user := range []string{"jane", "john", "jane", "john"} {
		if err := visit(s, user); err != nil {
			t.Fatal(err)
		}
		last := regexp.MustCompile(`imap\[(\d+)\]: login: `).FindAllStringSubmatch(s.Log(), -1)
		if n == 0 {
			pid = last[0][1]
		} else if got := last[len(last)-1][1]; got != pid {
			t.Fatalf("process %s serves, not %s", got, pid)
		}
		// What the next client finds.
		var now string
		eventually(t, func() string { return fmt.Sprintf("after client %d are open\n%s\nafter the first\n%s", n, now, first) }, func() bool {
			now = open(pid)
			if len(must(os.ReadDir(s.Dir()+"/proc"))(t)) > 0 || strings.Contains(now, "/jane") || strings.Contains(now, "/john") || strings.Contains(now, "inotify") {
				return false
			}
			if n == 0 {
				first = now
			}
			return now == first
		})
	}
	for _, user := range []string{"jane", "john"} {
		text := read(t, s.Dir()+"/log/"+user+"/"+pid)
		if strings.Count(text, "----------") != 2 || strings.Contains(text, peer.Password) {
			t.Errorf("telemetry of %s:\n%s", user, text)
		}
	}
}

// TestMasterWrong starts services that cannot work, with a client at the door
// of each: master gives each up after few processes, and none exits well.
func TestMasterWrong(t *testing.T) {
	t.Parallel()
	dir := peer.TempDir(t)
	file := func(name, text string) string {
		put(t, filepath.Join(dir, name), text)
		return filepath.Join(dir, name)
	}
	base := "configdirectory: " + dir + "\ncyrus_user: mail\nsasl_passwd_file: "
	passwd := file("passwd", "")
	wrong := []peer.Service{
		{Name: "version", Args: "-V"},
		{Name: "test", Args: "-t"},
		{Name: "listens", Args: "-l"},
		{Name: "option", Args: "-Z"},
		{Name: "proxy", Args: "extra"},
		{Name: "missing", Conf: dir + "/none"},
		{Name: "misspelt", Conf: file("misspelt", base+passwd+"\nallowplaintxt: yes\n")},
		{Name: "secure", Args: "-s", Conf: file("secure", base+passwd+"\n")},
		{Name: "key", Conf: file("key", base+passwd+"\ntls_server_cert: "+dir+"/none\n")},
		{Name: "passwords", Conf: file("passwords", base+dir+"/none\n")},
		{Name: "relative", Conf: file("relative", "configdirectory: relative\n")},
	}
	var doors []string
	for i := range wrong {
		wrong[i].Addr = peer.FreeAddr(t)
		doors = append(doors, wrong[i].Addr)
	}
	s := peer.Master(t, basic(t), peer.Options{}, wrong...)
	for i, addr := range doors {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		// Nothing is said, and the end comes when master closes the door.
		if got, err := io.ReadAll(c); len(got) > 0 {
			t.Errorf("%s: the client gets %q, %v", wrong[i].Name, got, err)
		}
	}
	for _, w := range wrong {
		logged(t, s, `too many failures for service `+w.Name+`/ipv4, disabling`)
	}
	if n := strings.Count(s.Log(), "about to exec "); n > 8*len(wrong) {
		t.Errorf("%d processes for %d services:\n%s", n, len(wrong), s.Log())
	}
	if regexp.MustCompile(`exited normally`).MatchString(s.Log()) {
		t.Errorf("some end well:\n%s", s.Log())
	}
}

// TestMasterList has Cyrus's programs look at our list of who is on.
func TestMasterList(t *testing.T) {
	t.Parallel()
	s := peer.Master(t, basicFor(t, "jane", "john"), peer.Options{Users: []string{"jane", "john"}}, peer.Service{Name: "imap"})
	jane, john := s.Login(t, "jane"), s.Login(t, "john")
	jane.Do("SELECT INBOX")
	jane.Send("i IDLE")
	jane.Wait("+")
	run := func(c *exec.Cmd) string {
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v\n%s", c.Args, err, out)
		}
		return string(out)
	}
	text := run(s.Cyrus(t, "cyr_info", "proc"))
	for user, rest := range map[string]string{"jane": "INBOX Idle", "john": " "} {
		want := fmt.Sprintf("%d imap [127.0.0.1] %s %s\n", pidOf(t, s, user), user, rest)
		if !strings.Contains(text, want) {
			t.Errorf("cyr_info proc says %q, want %q", text, want)
		}
	}
	run(s.Cyrus(t, "cyr_deny", "jane"))
	jane.WaitEnd()
	john.Do("NOOP")
	logged(t, s, "graceful shutdown")
	if got := complaints(s); len(got) > 0 {
		t.Errorf("master complains:\n%s", strings.Join(got, ""))
	}
}

// TestMasterLogins bounds the sessions of a user and of a host, across
// processes.
func TestMasterLogins(t *testing.T) {
	t.Parallel()
	s := peer.Master(t, basicFor(t, "jane", "john"), peer.Options{Users: []string{"jane", "john"},
		Imapd: []string{"maxlogins_per_user: 2", "maxlogins_per_host: 3"}}, peer.Service{Name: "imap"})
	first, second, other := s.Login(t, "jane"), s.Login(t, "jane"), s.Login(t, "john")
	conn := must(s.Dial())(t)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(conn)
	must(r.ReadString('\n'))(t)
	login := func(user, want string) {
		t.Helper()
		fmt.Fprintf(conn, "a LOGIN %s %s\r\n", user, peer.Password)
		if got := must(r.ReadString('\n'))(t); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	login("jane", "a NO [LIMIT] Too many open connections (3 of 3 from [127.0.0.1], 2 of 2 for jane)\r\n")
	logged(t, s, `<19>.* imap\[\d+\]: Too many open connections \(3 of 3 from \[127.0.0.1\], 2 of 2 for jane\)`)
	other.Do("LOGOUT")
	eventually(t, func() string { return "john stays on" }, func() bool { return len(must(os.ReadDir(s.Dir()+"/proc"))(t)) == 3 })
	login("jane", "a NO [LIMIT] Too many open connections (2 of 3 from [127.0.0.1], 2 of 2 for jane)\r\n")
	login("john", "a OK ")
	first.Do("NOOP")
	second.Do("NOOP")
}

// TestMasterService has a service of another name: its options, its notices, its
// name in the log; and the options -s, -p and -D.
func TestMasterService(t *testing.T) {
	t.Parallel()
	mark := filepath.Join(peer.TempDir(t), "mark")
	if err := os.Chmod(filepath.Dir(mark), 0o777); err != nil {
		t.Fatal(err)
	}
	s := peer.Master(t, basic(t), peer.Options{Imapd: []string{
		"allowplaintext: no", "syslog_prefix: cyrus", "imaps_serverinfo: off", "plain_servername: plain.example",
		"debug_command: echo %s %d %s >" + mark,
	}}, peer.Service{Name: "plain", Args: "-p 2"}, peer.Service{Name: "imaps", Args: "-s -D"})

	// An external layer of strength 2 keeps passwords private.
	lines := greeting(t, s, 1)
	if strings.Contains(lines[0], "LOGINDISABLED") || !strings.Contains(lines[0], "STARTTLS") || !strings.Contains(lines[0], "AUTH=PLAIN") || !strings.Contains(lines[0], "plain.example") {
		t.Errorf("-p 2: %s", lines)
	}
	s.Login(t, s.User).Do("LOGOUT")
	logged(t, s, `cyrus/plain\[\d+\]: login: \[127.0.0.1\] jane plaintext User`)

	secure := func() string {
		conn := must(s.DialTLS())(t)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintf(conn, "a LOGIN %s %s\r\nb LOGOUT\r\n", s.User, peer.Password)
		return string(must(io.ReadAll(conn))(t))
	}
	if got := secure(); !strings.Contains(got, "] server ready\r\n") || strings.Contains(got, "STARTTLS") || !strings.Contains(got, "a OK") {
		t.Errorf("-s: %s", got)
	}
	m := logged(t, s, `cyrus/imaps\[(\d+)\]: login: \[127.0.0.1\] jane plaintext\+TLS User`)
	if got, want := read(t, mark), s.Program+" "+m[1]+" imaps\n"; got != want {
		t.Errorf("debug_command was told %q, want %q", got, want)
	}

	put(t, s.Dir()+"/msg/shutdown.imaps", "Not now\n")
	eventually(t, func() string { return "imaps is served" }, func() bool { return secure() == "* BYE [ALERT] Not now\r\n" })
	s.Login(t, s.User).Do("LOGOUT")
	// A client that was turned away was a client: its process serves the next.
	if err := os.Remove(s.Dir() + "/msg/shutdown.imaps"); err != nil {
		t.Fatal(err)
	}
	if got := secure(); !strings.Contains(got, "a OK") {
		t.Errorf("after the shutdown: %s", got)
	}
	if got := complaints(s); len(got) > 0 {
		t.Errorf("master complains:\n%s", strings.Join(got, ""))
	}
}

// TestMasterExample starts the cyrus.conf that sites copy, with other paths and
// ports.
func TestMasterExample(t *testing.T) {
	t.Parallel()
	s := peer.MasterOf(t, basic(t), peer.Options{}, func(s *peer.Server) string {
		text := read(t, "../contrib/cyrus.conf")
		for from, to := range map[string]string{
			`"/usr/local/sbin/imapd `: fmt.Sprintf(`"%s -C %s `, s.Program, s.ConfFile()),
			`listen="imap"`:           fmt.Sprintf(`listen="%s" proto="tcp4"`, s.Addr),
			`listen="imaps"`:          fmt.Sprintf(`listen="%s" proto="tcp4"`, s.TLSAddr),
		} {
			if !strings.Contains(text, from) {
				t.Fatalf("no %s", from)
			}
			text = strings.ReplaceAll(text, from, to)
		}
		return text
	})
	s.Login(t, s.User).Do("SELECT INBOX")
	s.LoginOn(t, must(s.DialTLS())(t), s.User).Do("SELECT INBOX")
	eventually(t, func() string { return fmt.Sprintf("waiting are %v", waiting(t, s)) }, func() bool { return len(waiting(t, s)) == 6 })
	if got := complaints(s); len(got) > 0 {
		t.Errorf("master complains:\n%s", strings.Join(got, ""))
	}
}
