package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"imapd/test/peer"
)

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
		if _, err := visit(s, user); err != nil {
			t.Fatal(err)
		}
		if got := server(t, s, n); n == 0 {
			pid = got
		} else if got != pid {
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
		{Name: "operand", Args: "extra"},
		{Name: "proxy", Args: "-H"}, // of nobody
		{Name: "missing", Conf: dir + "/none"},
		{Name: "misspelt", Conf: file("misspelt", base+passwd+"\nallowplaintxt: yes\n")},
		{Name: "secure", Args: "-s", Conf: file("secure", base+passwd+"\n")},
		{Name: "key", Conf: file("key", base+passwd+"\ntls_server_cert: "+dir+"/none\n")},
		{Name: "passwords", Conf: file("passwords", base+dir+"/none\n")},
		{Name: "users", Conf: file("users", base+passwd+"\nprivilege_separation: user\nauth_user: 21001\n")},
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
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue // it is closed already
		}
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
	logged(t, s, `users\[\d+\]: .* cannot be had under Cyrus's master`)
	if n := strings.Count(s.Log(), "about to exec "); n > 8*len(wrong) {
		t.Errorf("%d processes for %d services:\n%s", n, len(wrong), s.Log())
	}
	if regexp.MustCompile(`exited normally`).MatchString(s.Log()) {
		t.Errorf("some end well:\n%s", s.Log())
	}
}
