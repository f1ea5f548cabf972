package test

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/test/peer"
)

// A manager listens as systemd does with NotifyAccess=main: to what the main
// process of the service says, and to nobody else.
type manager struct {
	t     *testing.T
	main  int
	heard chan word
}

// A word is one message, from the process pid.
type word struct {
	pid  int
	text string
	at   time.Time
}

// newManager listens at the socket path until the test ends.
func newManager(t *testing.T, path string) *manager {
	t.Helper()
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	must(0, os.Chmod(path, 0o777))(t) // as systemd's
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	m := &manager{t: t, heard: make(chan word, 10000)} // more than a test has signs of life
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b, oob := make([]byte, 1000), make([]byte, 1000)
		for {
			n, oobn, _, _, err := socket.ReadMsgUnix(b, oob)
			if err != nil {
				return
			}
			w := word{text: string(b[:n]), at: time.Now()}
			if all, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(all) == 1 {
				if cred, err := unix.ParseUnixCredentials(&all[0]); err == nil {
					w.pid = int(cred.Pid)
				}
			}
			m.heard <- w
		}
	}()
	t.Cleanup(func() { socket.Close(); <-ended })
	return m
}

// hear returns the next message of the main process but for signs of life, which
// must match pattern.
func (m *manager) hear(pattern string) []string {
	m.t.Helper()
	for limit := time.After(20 * time.Second); ; {
		select {
		case w := <-m.heard:
			if w.pid != m.main || w.text == "WATCHDOG=1" {
				continue
			}
			found := regexp.MustCompile("^" + pattern + "$").FindStringSubmatch(w.text)
			if found == nil {
				m.t.Fatalf("systemd hears %q, want %s", w.text, pattern)
			}
			return found
		case <-limit:
			m.t.Fatalf("systemd does not hear %s", pattern)
		}
	}
}

// lives hears signs of life. At least two must come after half the time that
// systemd waits, and all together not sooner.
func (m *manager) lives(wait time.Duration) {
	m.t.Helper()
	const n = 6
	var first, last time.Time
	least := time.Hour
	for i, limit := 0, time.After(20*time.Second); i < n; {
		select {
		case w := <-m.heard:
			if w.pid != m.main || w.text != "WATCHDOG=1" {
				m.t.Fatalf("systemd hears %q of %d", w.text, w.pid)
			}
			if i++; i == 1 {
				first = w.at
			} else {
				least = min(least, w.at.Sub(last))
			}
			last = w.at
		case <-limit:
			m.t.Fatal("systemd hears no sign of life")
		}
	}
	if least > wait*3/4 || last.Sub(first) < (n-2)*wait/2 {
		m.t.Errorf("%d signs of life in %v, two within %v", n, last.Sub(first), least)
	}
}

// reload sends SIGHUP to the main process and hears it work.
func (m *manager) reload() {
	m.t.Helper()
	before := monotonic(m.t)
	must(0, syscall.Kill(m.main, syscall.SIGHUP))(m.t)
	at, err := strconv.ParseInt(m.hear(`RELOADING=1\nMONOTONIC_USEC=(\d+)`)[1], 10, 64)
	// systemd passes over a reload that began before it was asked for.
	if err != nil || at < before || at > monotonic(m.t) {
		m.t.Errorf("reloading at %d, asked at %d, %v", at, before, err)
	}
	m.hear("READY=1")
}

// monotonic returns the time of the clock of systemd, in microseconds.
func monotonic(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano() / 1000
}

// TestNotifyAccess has systemd listen to the process that it has started, also
// where that is not the one that serves, and then to the one that has taken its
// place.
func TestNotifyAccess(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"none", "shared", "user"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			var conf string
			addr, tlsAddr := peer.FreeAddr(t), peer.FreeAddr(t)
			lines := []string{"listen: imap://" + addr + " imaps://" + tlsAddr}
			r := peer.NewRoom(t)
			if how == "user" {
				s := usersSite(t, peer.Options{})
				conf = r.File("imapd.conf", merged(t, s, lines...))
			} else {
				s := peer.Imapd(t, basic(t), peer.Options{})
				conf = r.File("imapd.conf", merged(t, s, append(lines, "privilege_separation: "+how)...))
			}
			if uid, gid := peer.MailUID(); how == "none" { // who reads it again
				must(0, os.Chown(conf, uid, gid))(t)
			}
			const wait = 400 * time.Millisecond
			m := newManager(t, r.Dir+"/notify")
			p := r.Start("imapd", "env", "NOTIFY_SOCKET="+r.Dir+"/notify", fmt.Sprint("WATCHDOG_USEC=", wait.Microseconds()), peer.Binary(t), "-l", "-C", conf)
			m.main = p.Started()
			m.hear(fmt.Sprint(`READY=1\nMAINPID=`, m.main))
			for _, at := range []string{addr, tlsAddr} { // at once
				conn, err := net.Dial("tcp", at)
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
			}
			m.lives(wait)
			m.reload()
			must(0, syscall.Kill(m.main, syscall.SIGUSR2))(t)
			next := number(m.hear(`MAINPID=(\d+)`)[1])
			t.Cleanup(func() { syscall.Kill(next, syscall.SIGTERM) })
			if next == m.main || !alive(next) {
				t.Fatalf("process %d follows %d", next, m.main)
			}
			if err := p.Wait(); err != nil { // it has no sessions
				t.Errorf("the old process: %v", err)
			}
			m.main = next
			m.lives(wait)
			m.reload()
			must(0, syscall.Kill(m.main, syscall.SIGTERM))(t)
			m.hear("STOPPING=1")
			eventually(t, func() string { return "it has not ended" }, func() bool { return !alive(next) })
		})
	}
}

// merged returns the configuration of s with some lines in place of its own.
func merged(t *testing.T, s *peer.Server, lines ...string) string {
	t.Helper()
	return strings.Join(peer.MergeOptions(strings.Split(strings.TrimSpace(read(t, s.ConfFile())), "\n"), lines), "\n") + "\n"
}
