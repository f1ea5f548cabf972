package test

import (
	"bufio"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"math"
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

	"golang.org/x/sys/unix"

	"imapd/test/peer"
)

// Most that one idle connection may cost the server, in octets of PSS; and both
// processes together where each user has one: the front keeps a goroutine that
// listens to the worker, and under TLS the keys and one for each direction.
const (
	parkedCost        = 16 << 10
	parkedTLSCost     = 32 << 10
	parkedUserCost    = 44 << 10
	parkedUserTLSCost = 80 << 10
)

// A parking is a kind of idle connections: n of them, of so many users, after some
// that are not counted.
type parking struct {
	name            string
	start           func(*testing.T, peer.Options) *peer.Server
	tls             bool
	n, users, first int
	most            int64 // octets each
}

// TestParked holds what connections cost that are logged in and idle: in the
// clear and under TLS, each kind at a server of its own, over many users with
// a full INBOX each. The clients are a process of their own.
func TestParked(t *testing.T) {
	users, messages, clear, secret, apart := 20, 100, 4000, 0, 0
	if soaking() {
		users, messages, clear, secret, apart = 100, 1000, 10000, 2000, 2000
	}
	raiseFiles(t)
	shared := func(t *testing.T, o peer.Options) *peer.Server {
		dir := peer.TempDir(t)
		mkdir(t, filepath.Join(dir, "mail"))
		for _, name := range o.Users {
			stock(t, filepath.Join(dir, "mail", name), messages)
		}
		return peer.Imapd(t, filepath.Join(dir, "mail", "%u"), o)
	}
	// Here the front keeps a part of a session, and the process of its user has
	// the rest. That process is none of a connection's costs.
	separate := func(t *testing.T, o peer.Options) *peer.Server {
		var all []mailUser
		for i, name := range o.Users {
			all = append(all, mailUser{name, crowdUID + i})
		}
		return siteOf(t, o, func(home string) {
			mkdir(t, home)
			stock(t, filepath.Join(home, "Maildir"), messages)
		}, all)
	}
	for _, kind := range []parking{
		{"clear", shared, false, clear, users, 0, parkedCost},
		{"TLS", shared, true, secret, users, 0, parkedTLSCost},
		{"clear, a process for each user", separate, false, apart, 5, 50, parkedUserCost},
		{"TLS, a process for each user", separate, true, apart, 5, 50, parkedUserTLSCost},
	} {
		if kind.n > 0 { // handshakes and processes take their time: only in the long form
			t.Run(kind.name, kind.check)
		}
	}
}

func (kind parking) check(t *testing.T) {
	var names []string
	for i := range kind.users {
		names = append(names, fmt.Sprintf("u%d", i))
	}
	s := kind.start(t, peer.Options{Users: names, Imapd: []string{
		"limit_connections: 20000", "limit_preauth_connections: 20000", "limit_preauth_per_address: 20000",
	}})
	for _, name := range names[:5] { // what the first session needs, all share
		warm := s.Login(t, name)
		warm.Do("SELECT INBOX")
		warm.Do("LOGOUT")
	}
	before, slab := memory(t, s), meminfo(t, "Slab")
	if kind.first > 0 {
		// Of several processes each has garbage of its start, which is
		// given back after the first busy time only.
		crowd(t, s, kind.first, kind.users, kind.tls)
		for begin := time.Now(); time.Since(begin) < 45*time.Second; time.Sleep(time.Second) {
			before = min(before, memory(t, s))
		}
	}
	crowd(t, s, kind.n, kind.users, kind.tls)
	// What logging in has left behind is given back when it is quiet.
	each, least := int64(math.MaxInt64), time.Duration(0)
	if soaking() {
		least = 45 * time.Second // what it comes to, not only that it is little enough
	}
	for begin := time.Now(); time.Since(begin) < least || each > kind.most && time.Since(begin) < 90*time.Second; time.Sleep(time.Second) {
		each = min(each, (memory(t, s)-before)/int64(kind.n))
	}
	if each > kind.most {
		t.Errorf("%d idle connections cost %d octets each, may cost %d", kind.n, each, kind.most)
	}
	t.Logf("%d connections: %d octets each over %d KiB; kernel: slabs %+d octets each", kind.n, each, before>>10, (meminfo(t, "Slab")-slab)/int64(kind.n))
	served(t, s, names[0])
}

// TestParkedAfterWork holds that what sessions have needed for hard work is given back
// when they stay, and nobody comes or goes.
func TestParkedAfterWork(t *testing.T) {
	if !soaking() {
		return // giving back takes its time; see TestRest in package control
	}
	const messages, most = 50_000, 40 << 20
	dir := filepath.Join(peer.TempDir(t), "mail")
	stock(t, dir, messages)
	s := peer.Imapd(t, dir, peer.Options{})
	clients := make([]*peer.Client, 6)
	for i := range clients {
		clients[i] = s.Login(t, s.User)
		clients[i].Do("SELECT INBOX")
	}
	time.Sleep(20 * time.Second) // until nobody looks any more because clients have come
	for i, c := range clients {
		c.Do("STORE 1:* %sFLAGS.SILENT (\\Flagged)", "+-"[i%2:i%2+1])
	}
	high := memory(t, s)
	now := high
	for begin := time.Now(); now > most && time.Since(begin) < 90*time.Second; time.Sleep(time.Second) {
		now = memory(t, s)
	}
	t.Logf("%d MiB after work, %d later", high>>20, now>>20)
	if now > most {
		t.Errorf("%d sessions that do nothing any more hold %d MiB", len(clients), now>>20)
	}
}

// crowdUID is the first uid of users of whom each has a process.
const crowdUID = 22101

// memory returns what all processes take that serve.
func memory(t *testing.T, s *peer.Server) (sum int64) {
	t.Helper()
	all := peer.Children(s.Started())
	if len(all) == 0 {
		all = []int{s.PID}
	}
	for _, pid := range all {
		if !strings.HasPrefix(status(t, pid, "Uid"), fmt.Sprint(authUID, " ")) {
			sum += pss(t, pid)
		}
	}
	return sum
}

// stock makes a Maildir with n messages.
func stock(t *testing.T, dir string, n int) {
	t.Helper()
	for _, sub := range []string{"", "cur", "new", "tmp"} {
		mkdir(t, filepath.Join(dir, sub))
	}
	for i := range n {
		text := fmt.Sprintf("From: a@example.org\nSubject: %d\n\ntext\n", i)
		write(t, fmt.Sprintf("%s/cur/%d.M%dP1.host,S=%d,W=%d:2,S", dir, 1700000000+i, i, len(text), len(text)+4), text)
	}
}

// served holds that one connection more is greeted at once.
func served(t *testing.T, s *peer.Server, user string) {
	t.Helper()
	took := time.Hour
	for range 5 { // other tests take the processor away
		begin := time.Now()
		c := s.Login(t, user)
		c.Do("SELECT INBOX")
		took = min(took, time.Since(begin))
		c.Do("LOGOUT")
	}
	t.Logf("the next connection: %v", took)
	if took > 50*time.Millisecond {
		t.Errorf("the next connection is served after %v", took)
	}
}

// raiseFiles lets this process, and those that it starts, open as many files as
// the system allows.
func raiseFiles(t *testing.T) {
	t.Helper()
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	l.Cur = l.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
}

// pss returns the memory of a process that is no part of a file: how much of the
// program's own pages is counted depends on who else runs it at the moment.
func pss(t *testing.T, pid int) int64 {
	t.Helper()
	file := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	return kib(t, file, "Pss_Anon") + kib(t, file, "Pss_Shmem")
}

func meminfo(t *testing.T, name string) int64 {
	t.Helper()
	return kib(t, "/proc/meminfo", name)
}

func kib(t *testing.T, file, name string) int64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + name + `:\s*(\d+) kB$`).FindStringSubmatch(read(t, file))
	if m == nil {
		t.Fatalf("no %s in %s", name, file)
	}
	n, _ := strconv.ParseInt(m[1], 10, 64)
	return n << 10
}

// crowd has n clients log in and idle, until the test ends.
func crowd(t *testing.T, s *peer.Server, n, users int, secret bool) {
	t.Helper()
	addr := s.Addr
	if secret {
		addr = s.TLSAddr
	}
	c := exec.Command(os.Args[0], "-test.run=^TestCrowdClients$", "--", addr, strconv.FormatBool(secret), strconv.Itoa(n), strconv.Itoa(users))
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	hold, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hold.Close(); c.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("clients: %q, %v", line, err)
	}
}

// TestCrowdClients is no test but the clients of crowd.
func TestCrowdClients(t *testing.T) {
	if flag.NArg() != 4 {
		return
	}
	addr, secret, n, users := flag.Arg(0), flag.Arg(1) == "true", number(flag.Arg(2)), number(flag.Arg(3))
	conns := make([]net.Conn, n)
	errs := make(chan error, n)
	turns := make(chan struct{}, 20)
	var all sync.WaitGroup
	for i := range conns {
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			var err error
			if conns[i], err = idleAs(addr, secret, fmt.Sprintf("u%d", i%users)); err != nil {
				errs <- err
			}
		})
	}
	all.Wait()
	select {
	case err := <-errs:
		fmt.Println(err)
	default:
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
	}
	os.Exit(0)
}

// idleAs logs in, selects INBOX and begins to idle.
func idleAs(addr string, secret bool, user string) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if secret {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	r := bufio.NewReader(c)
	for _, step := range []struct{ send, want string }{
		{"", "* OK"}, {"a LOGIN " + user + " " + peer.Password, "a OK"}, {"b SELECT INBOX", "b OK"}, {"c IDLE", "+ "},
	} {
		if step.send != "" {
			if _, err := io.WriteString(c, step.send+"\r\n"); err != nil {
				return nil, err
			}
		}
		for line := ""; !strings.HasPrefix(line, step.want); {
			if line, err = r.ReadString('\n'); err != nil || strings.HasPrefix(line, "* BYE") {
				return nil, fmt.Errorf("%s: %q, %w", step.send, line, err)
			}
		}
	}
	return c, nil
}
