package test

import (
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imapd/test/peer"
)

// Debian's systemd runs the units of contrib with all that they ask for: the
// bounding set, the filter of system calls, the file systems that they see. It is a
// user's manager, whose user is root; that of the whole system has to be the
// first process. Only what is the test's is added to a unit: the directories
// under /tmp that PrivateTmp would hide.

// A systemd is a manager of units.
type systemd struct {
	*testing.T
	room *peer.Room
}

// manage prepares the room for a manager, which would be PID 1's work, with a user
// vmail, and puts it into control groups of its own: it moves all processes that it
// finds in its own one.
const manage = `set -e
{ grep -v ^vmail: /etc/passwd; echo "vmail:x:$3:$4::/:/bin/false"; } >"$1/users"
chmod 644 "$1/users"
mount --bind "$1/users" /etc/passwd
mkdir -p /run/systemd/system /run/systemd/journal /run/systemd/inaccessible/dir
: >/run/systemd/inaccessible/reg
ln -s "$1/syslog" /run/systemd/journal/dev-log
ln -s "$1/syslog" /run/systemd/journal/socket
while IFS=: read -r _ kind path; do
	case $kind in '') tops='/sys/fs/cgroup/unified /sys/fs/cgroup' ;; name=systemd) tops=/sys/fs/cgroup/systemd ;; *) continue ;; esac
	for top in $tops; do
		[ -e "$top$path/cgroup.procs" ] || continue
		echo "$top$path/$2" >>"$1/groups"
		mkdir "$top$path/$2"
		echo $$ >"$top$path/$2/cgroup.procs"
		break
	done
done </proc/self/cgroup
umask 0 # vmail's services tell it that they serve
exec env -i PATH="$PATH" HOME="$1" XDG_RUNTIME_DIR="$1/run" SYSTEMD_UNIT_PATH="$1/units" /lib/systemd/systemd --user --log-target=journal`

// The units that a manager asks for: its end is Debian's; nothing else of
// Debian's is started.
var (
	debian  = []string{"exit.target", "systemd-exit.service", "shutdown.target"}
	nothing = []string{"default.target", "basic.target", "sockets.target"}
)

// newSystemd starts a manager of units, which ends with the test, and they with
// it. They see the directories binds.
func newSystemd(t *testing.T, r *peer.Room, units map[string]string, binds ...string) *systemd {
	t.Helper()
	peer.Need(t, "systemctl", "systemd-analyze")
	must(0, os.Mkdir(r.Dir+"/units", 0o755))(t)
	must(0, os.MkdirAll(r.Dir+"/run/systemd", 0o755))(t)
	for _, name := range debian {
		must(0, os.Symlink("/usr/lib/systemd/user/"+name, filepath.Join(r.Dir, "units", name)))(t)
	}
	for _, name := range nothing {
		write(t, filepath.Join(r.Dir, "units", name), "[Unit]\nDefaultDependencies=no\n")
	}
	binds = append(binds, r.Dir, filepath.Dir(peer.Binary(t)))
	for name, text := range units {
		if strings.HasSuffix(name, ".service") {
			text = strings.Replace(text, "\n[Service]\n", "\n[Service]\nBindPaths="+strings.Join(binds, " ")+"\n", 1)
		}
		write(t, filepath.Join(r.Dir, "units", name), text)
	}
	write(t, r.Dir+"/groups", "")
	uid, gid := peer.MailUID()
	p := r.Start("systemd", "sh", "-c", manage, "sh", r.Dir, filepath.Base(r.Dir), fmt.Sprint(uid), fmt.Sprint(gid))
	t.Cleanup(func() {
		p.Stop()
		for group := range strings.Lines(read(t, r.Dir+"/groups")) {
			clean := exec.Command("find", strings.TrimSuffix(group, "\n"), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";")
			if out, err := clean.CombinedOutput(); err != nil {
				t.Errorf("control groups are left: %v, %s", err, out)
			}
		}
	})
	s := &systemd{t, r}
	eventually(t, func() string { return "systemd does not start" }, func() bool {
		return s.command("list-jobs").Run() == nil
	})
	return s
}

func (s *systemd) command(args ...string) *exec.Cmd {
	c := exec.Command("systemctl", append([]string{"--user"}, args...)...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=" + s.room.Dir + "/run"}
	return c
}

// do has systemctl do something, which must work.
func (s *systemd) do(args ...string) {
	s.Helper()
	if out, err := s.command(args...).CombinedOutput(); err != nil {
		s.Fatalf("systemctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// property returns what systemd knows of a unit.
func (s *systemd) property(unit, name string) string {
	s.Helper()
	out, err := s.command("show", "--value", "-p", name, unit).Output()
	if err != nil {
		s.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// lowAddr returns an address of the loopback interface with a port that only
// root may bind.
func lowAddr(t *testing.T, portNumber int) string {
	t.Helper()
	unique := number(port(peer.FreeAddr(t)))
	return fmt.Sprintf("127.143.%d.%d:%d", unique>>8, unique&255, portNumber)
}

// A service is imapd.service at work.
type service struct {
	*systemd
	site                *peer.Server // whose users and mail it has
	conf                string
	plain, secure, late string // addresses; late is one that is not listened to yet
}

// TestSystemdService has systemd run imapd.service for the two kinds of sites:
// whatever an administrator does to a service works under what the unit leaves
// to it.
func TestSystemdService(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, how := range []string{"shared", "user"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := service{plain: lowAddr(t, 143), secure: lowAddr(t, 993), late: lowAddr(t, 144)}
			r := peer.NewRoom(t)
			if how == "user" {
				s.site = usersSite(t, peer.Options{})
			} else {
				s.site = peer.Imapd(t, basic(t), peer.Options{})
			}
			state := r.Dir + "/state" // root's, as /var/lib/imapd
			must(0, os.Mkdir(state, 0o755))(t)
			s.conf = r.File("imapd.conf", merged(t, s.site, "configdirectory: "+state, "listen: imap://"+s.plain+" imaps://"+s.secure, "maxlogins_per_user: 2"))
			unit := contrib(t, "imapd.service", "/usr/local/sbin/imapd", peer.Binary(t), "/etc/imapd.conf", s.conf)
			s.systemd = newSystemd(t, r, map[string]string{"imapd.service": unit}, s.site.Dir(), s.site.Maildir)
			s.do("start", "imapd.service") // until it has said that it serves
			s.administer()
			s.change()
			s.end()
		})
	}
}

// login logs in at addr.
func (s service) login(addr string) *peer.Client {
	s.Helper()
	conn := peer.Dial(s.T, "tcp", addr, "127.0.0.7")
	if addr == s.secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"imap"}})
	}
	return s.site.LoginOn(s.T, conn, s.site.User)
}

// administer has the list of who is on limit users, and imapctl reach the server.
func (s service) administer() {
	s.Helper()
	first, second := s.login(s.plain), s.login(s.secure)
	first.Do("SELECT INBOX")
	second.Do("SELECT INBOX")
	s.room.Told(`login: \[127\.0\.0\.7\] ` + s.site.User + ` plaintext\+TLS User logged in`)
	conn := peer.Dial(s.T, "tcp", s.plain, "")
	fmt.Fprintf(conn, "a LOGIN %s %s\r\nb LOGOUT\r\n", s.site.User, peer.Password)
	if out, err := untilEnd(conn); err != nil || !strings.Contains(out, "a NO [LIMIT]") {
		s.Errorf("a third login: %q, %v", out, err)
	}
	for _, args := range [][]string{{"who"}, {"kick", s.site.User}} {
		c := exec.Command(peer.Binary(s.T), append([]string{"-C", s.conf}, args...)...)
		c.Args[0] = "imapctl"
		if got := finish(s.T, c); got.code != 0 || args[0] == "who" && strings.Count(got.out, s.site.User) != 2 {
			s.Errorf("imapctl %v: exit %d, %s%s", args, got.code, got.out, got.err)
		}
	}
	first.Wait("* BYE ")
	second.Wait("* BYE ")
	s.gone()
}

// gone waits until nobody is on.
func (s service) gone() {
	s.Helper()
	eventually(s.T, func() string { return "sessions that have ended are listed" }, func() bool {
		return len(must(filepath.Glob(s.room.Dir+"/state/proc/[^.]*"))(s.T)) == 0
	})
}

// change has the service listen to one more address, which only root can bind, and
// another process of the program take over.
func (s service) change() {
	s.Helper()
	write(s.T, s.conf, strings.Replace(read(s.T, s.conf), "listen: ", "listen: imap://"+s.late+" ", 1))
	s.do("reload", "imapd.service")
	s.room.Told(`\]: reloaded`)
	c := s.login(s.late)
	old := s.pid()
	must(0, syscall.Kill(old, syscall.SIGUSR2))(s.T)
	eventually(s.T, func() string { return "systemd hears of no other process" }, func() bool { return s.pid() != old })
	c.Do("LOGOUT") // for it the old process went on
	s.gone()
	eventually(s.T, func() string { return "the old process lives on" }, func() bool { return !alive(old) })
	s.login(s.plain).Do("LOGOUT")
	s.do("reload", "imapd.service") // the other one too
	s.room.Told(`(?s)\]: reloaded.*\]: reloaded`)
}

// end ends the parent in several ways; its children end with it.
func (s service) end() {
	s.Helper()
	c := s.login(s.plain)
	must(0, syscall.Kill(s.pid(), syscall.SIGTERM))(s.T)
	c.Wait("* BYE ")
	state := func() string { return s.property("imapd.service", "ActiveState") }
	eventually(s.T, func() string { return "the service is " + state() }, func() bool { return state() == "inactive" })

	s.do("start", "imapd.service")
	s.login(s.plain).Do("LOGOUT")
	children := peer.Children(s.pid())
	must(0, syscall.Kill(s.pid(), syscall.SIGKILL))(s.T)
	eventually(s.T, func() string { return "it is not started again" }, func() bool { return s.property("imapd.service", "NRestarts") == "1" })
	for _, child := range children {
		if alive(child) {
			s.Errorf("%d has outlived its parent", child)
		}
	}
	s.login(s.plain).Do("NOOP")
	s.do("stop", "imapd.service")
	if result, code := s.property("imapd.service", "Result"), s.property("imapd.service", "ExecMainStatus"); result != "success" || code != "0" {
		s.Errorf("the service has ended with %s, %s", result, code)
	}
}

// pid returns the process that systemd takes the service for.
func (s service) pid() int {
	s.Helper()
	return number(s.property("imapd.service", "MainPID"))
}

// TestSystemdSockets has systemd hold the sockets for imapd-sockets.service and
// imapd@.service, which never are root's.
func TestSystemdSockets(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s, r, conf := site(t)
	uid, gid := peer.MailUID()
	must(0, os.Chown(conf, uid, gid))(t)
	plain, secure, each, eachTLS := lowAddr(t, 143), lowAddr(t, 993), lowAddr(t, 143), lowAddr(t, 993)
	service := []string{"/usr/local/sbin/imapd", peer.Binary(t), "/etc/imapd.conf", conf}
	m := newSystemd(t, r, map[string]string{
		"imap.socket":           contrib(t, "imap.socket", "ListenStream=143", "ListenStream="+plain),
		"imaps.socket":          contrib(t, "imaps.socket", "ListenStream=993", "ListenStream="+secure),
		"imapd-sockets.service": contrib(t, "imapd-sockets.service", append(service, "-T 600", "-T 1")...),
		"imapd.socket":          contrib(t, "imapd.socket", "ListenStream=143", "ListenStream="+each, "ListenStream=993", "ListenStream="+eachTLS),
		"imapd@.service":        contrib(t, "imapd@.service", service...),
	}, s.Dir(), s.Maildir)
	m.do("start", "imap.socket", "imaps.socket", "imapd.socket")
	state := func() string { return m.property("imapd-sockets.service", "ActiveState") }
	for range 2 { // the second client starts it anew
		c := s.LoginOn(t, peer.Dial(t, "tcp", plain, "127.0.0.7"), s.User)
		eventually(t, func() string { return "it does not say that it serves, but is " + state() }, func() bool { return state() == "active" })
		m.do("reload", "imapd-sockets.service")
		r.Told(`\]: reloaded`)
		comeIn(t, s, r, secure, true)
		c.Do("LOGOUT")
		eventually(t, func() string { return "it does not end without clients" }, func() bool { return state() == "inactive" })
		if result := m.property("imapd-sockets.service", "Result"); result != "success" {
			t.Errorf("it has ended with %s", result)
		}
	}
	comeIn(t, s, r, each, false)
	comeIn(t, s, r, eachTLS, true)
	m.do("stop", "imapd.socket", "imap.socket", "imaps.socket")
}
