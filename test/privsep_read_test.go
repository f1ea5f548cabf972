package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"imapd/test/peer"
)

// Who reads what a client sends, as the system calls of all processes tell.

// traceReads is put before a command to have strace write down in FILE.THREAD what each
// thread of it and of what it starts reads, whom it starts and who it becomes.
func traceReads(file string) []string {
	return []string{"strace", "-D", "-ff", "-q", "-s", "400", "-o", file,
		"-e", "trace=read,readv,pread64,recvfrom,recvmsg,recvmmsg,clone,clone3,fork,vfork,setuid,setreuid,setresuid"}
}

// untrace ends the strace that writes to file. What is left of a launcher when it was
// killed may else wait for ever for a strace that waits for it.
func untrace(file string) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range all {
		line, err := os.ReadFile(name)
		if err == nil && strings.HasPrefix(string(line), "strace\x00") && strings.Contains(string(line), "\x00"+file+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

var (
	tracedChild = regexp.MustCompile(`^(?:clone3?|v?fork)\(.* = (\d+)$`)
	tracedUID   = regexp.MustCompile(`^set(?:uid\(|res?uid\([^,]*, )(\d+).*\) += 0$`) // the effective one
	tracedRead  = regexp.MustCompile(`^(?:read|recv)`)
)

// readers returns as whom threads have read a text, by the files of strace. The first
// of them was root's.
func readers(t *testing.T, file, text string) (uids []int) {
	t.Helper()
	lines, child := map[string][]string{}, map[string]bool{}
	for _, name := range must(filepath.Glob(file + ".*"))(t) {
		all := strings.Split(read(t, name), "\n")
		lines[strings.TrimPrefix(filepath.Ext(name), ".")] = all
		for _, line := range all {
			if m := tracedChild.FindStringSubmatch(line); m != nil {
				child[m[1]] = true
			}
		}
	}
	var follow func(thread string, uid int)
	follow = func(thread string, uid int) {
		for _, line := range lines[thread] {
			if m := tracedChild.FindStringSubmatch(line); m != nil {
				follow(m[1], uid)
			} else if m := tracedUID.FindStringSubmatch(line); m != nil {
				uid = number(m[1])
			} else if tracedRead.MatchString(line) && strings.Contains(line, text) {
				uids = append(uids, uid)
			}
		}
	}
	for thread := range lines {
		if !child[thread] {
			follow(thread, 0)
		}
	}
	return uids
}

// readOnlyAs holds that a text was read, and by nobody but uid.
func readOnlyAs(t *testing.T, file, text string, uid int) {
	t.Helper()
	var got []int
	eventually(t, func() string { return "nobody has read " + text }, func() bool {
		got = readers(t, file, text)
		return len(got) > 0
	})
	for _, as := range got {
		if as != uid {
			t.Errorf("%s is read by %d, want %d", text, got, uid)
		}
	}
}

const clientOctets = "octets-of-a-client"

// TestRootReadsNoClient starts servers as root, in daemon modes and by launchers that
// start a process for each client, with one uid for all mail and with one for each
// user: no octet of a client is read as root. With one for each user the process that
// has seen a login does not see what is said after it, in the clear.
func TestRootReadsNoClient(t *testing.T) {
	t.Parallel()
	needRoot(t)
	peer.Need(t, "strace")
	mail, _ := peer.MailUID()
	one, each := peer.Imapd(t, basic(t), peer.Options{}), usersSite(t, peer.Options{})
	for _, site := range []struct {
		*peer.Server
		login, later int // who is to read a login, and what comes after it
	}{{one, mail, mail}, {each, mail, aliceUID}} {
		for name, start := range map[string]starter{
			"standalone": standalone, "systemd": activate(plainSocket), "systemd TLS": activate(tlsSocket), "inetd wait": inetd("wait"),
			"inetd": inetd("nowait"), "xinetd": xinetd("no"), "systemd accept": activate(plainSocket, "-a"),
		} {
			t.Run(fmt.Sprint(name, " ", site.User), func(t *testing.T) {
				t.Parallel()
				r := peer.NewRoom(t)
				trace := r.Dir + "/trace"
				r.Wrap = traceReads(trace)
				t.Cleanup(func() { untrace(trace) })
				at := start(r, t, []string{"-C", site.ConfFile()})
				c := site.LoginOn(t, at.connect(t, ""), site.User)
				c.Do(`ID ("marker" "` + clientOctets + `")`)
				c.Do("LOGOUT")
				if at.tls {
					readOnlyAs(t, trace, calledName, site.login)
				} else {
					readOnlyAs(t, trace, "LOGIN "+site.User, site.login)
				}
				if !at.tls || site.later != site.login { // else it is never seen in the clear
					readOnlyAs(t, trace, clientOctets, site.later)
				}
			})
		}
	}
}
