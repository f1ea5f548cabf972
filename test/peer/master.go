package peer

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Service is an entry of cyrus.conf(5) that runs our server.
type Service struct {
	Name string
	Args string // of imapd, behind -C FILE
	More string // of the entry: "prefork=2 maxchild=10"
	Conf string // instead of FILE
	Addr string // where it listens; empty for a free port of the loopback interface
}

// unpackedIn is where test/install.sh unpacks packages that cannot be installed.
const unpackedIn = "/var/cache/imapd-test"

// Unpacked returns the folder of a Debian package that cannot be installed
// beside others. Where it is missing the test ends as with Need.
func Unpacked(t testing.TB, pkg string) string {
	t.Helper()
	dir := filepath.Join(unpackedIn, pkg)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if os.Geteuid() == 0 {
		t.Fatalf("%s is not there: test/install.sh unpacks it", dir)
	}
	t.Skipf("NOT TESTED: %s is not there", dir)
	return ""
}

// Cyrus returns the command of one of Cyrus's own programs with the
// configuration of s.
func (s *Server) Cyrus(t testing.TB, program string, args ...string) *exec.Cmd {
	t.Helper()
	dir := Unpacked(t, "cyrus-common")
	c := exec.Command(filepath.Join(dir, "usr/lib/cyrus/bin", program), append([]string{"-C", s.conf}, args...)...)
	libs, err := filepath.Glob(filepath.Join(dir, "usr/lib/*-linux-gnu"))
	if err != nil {
		t.Fatal(err)
	}
	c.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libs, ":"))
	return c
}

// Master starts Cyrus's master with services that run our binary, and waits
// until the first of them greets, if it ever does. What master and its services
// log is in Log, each line with its priority in front.
//
// Master must be root, and becomes the user mail, as whom all run. It has a /dev
// of its own, as that is where programs look for the log.
func Master(t testing.TB, maildir string, o Options, services ...Service) *Server {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: master has to be started by root")
	}
	s := &Server{Kind: "master", User: o.users()[0], Maildir: maildir, dir: TempDir(t)}
	s.conf = filepath.Join(s.dir, "imapd.conf")
	s.Program = filepath.Join(s.dir, "imapd")
	s.CopyProgram(t, s.Program)
	s.certificate(t)
	s.passwd(t, o.users())
	o.Imapd = append(slices.Clone(o.Imapd), "cyrus_user: mail", "partition-default: "+s.dir, "debug: yes")
	s.listenLog(t)
	s.Addr, s.TLSAddr = FreeAddr(t), FreeAddr(t)
	if err := os.WriteFile(s.conf, []byte(s.imapdConf(o)), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Give(t, s.dir)
	s.Give(t, parentOf(maildir))
	s.writeServices(t, services)
	s.startMaster(t)
	return s
}

// CopyProgram puts a copy of our binary there: master's user may not be able to
// reach the source tree.
func (s *Server) CopyProgram(t testing.TB, to string) {
	t.Helper()
	text, err := os.ReadFile(Binary(t))
	if err == nil {
		err = os.WriteFile(to+".new", text, 0o755)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Give makes dir and all below it master's user's.
func (s *Server) Give(t testing.TB, dir string) {
	t.Helper()
	mail, err := user.Lookup("mail")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(mail.Uid)
	gid, _ := strconv.Atoi(mail.Gid)
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(path, uid, gid)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// listenLog receives what is written to syslog until the test ends.
func (s *Server) listenLog(t testing.TB) {
	t.Helper()
	in, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(s.dir, "syslog"), Net: "unixgram"})
	if err == nil {
		err = os.Chmod(filepath.Join(s.dir, "syslog"), 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(filepath.Join(s.dir, "server.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer out.Close()
		text := make([]byte, 64<<10)
		for {
			n, err := in.Read(text)
			if err != nil {
				return
			}
			fmt.Fprintln(out, strings.TrimRight(string(text[:n]), "\n\x00"))
		}
	}()
	t.Cleanup(func() {
		in.Close()
		<-ended
	})
}

// writeServices writes cyrus.conf anew, which master reads at SIGHUP.
func (s *Server) writeServices(t testing.TB, services []Service) {
	t.Helper()
	var text strings.Builder
	text.WriteString("SERVICES {\n")
	for i, e := range services {
		if e.Conf == "" {
			e.Conf = s.conf
		}
		if e.Addr == "" {
			e.Addr = []string{s.Addr, s.TLSAddr}[i]
		}
		fmt.Fprintf(&text, "  %s cmd=\"%s -C %s %s\" listen=\"%s\" proto=tcp4 %s\n", e.Name, s.Program, e.Conf, e.Args, e.Addr, e.More)
	}
	text.WriteString("}\n")
	if err := os.WriteFile(filepath.Join(s.dir, "cyrus.conf"), []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ownDev gives the program behind it a /dev in which log is the socket $1, and
// exits with 99 where it may not.
const ownDev = `
d=$(mktemp -d) && mount -t tmpfs none "$d" || exit 99
for n in null zero full random urandom tty; do : >"$d/$n" && mount --bind /dev/$n "$d/$n" || exit 99; done
: >"$d/log" && mount --bind "$1" "$d/log" && mount --move "$d" /dev && rmdir "$d" || exit 99
shift
exec "$@"`

// startMaster starts master and waits until it is ready for work.
func (s *Server) startMaster(t testing.TB) {
	t.Helper()
	master := s.Cyrus(t, "master", "-D", "-p", filepath.Join(s.dir, "master.pid"), "-M", filepath.Join(s.dir, "cyrus.conf"))
	c := exec.Command("/bin/sh", append([]string{"-c", ownDev, "sh", filepath.Join(s.dir, "syslog")}, master.Args...)...)
	c.Env = master.Env
	// Master signals its process group, which is not to be the test's.
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true}
	p, err := startProcess(c, filepath.Join(s.dir, "server.log"))
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("NOT TESTED, for want of the right to have a /dev of its own: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.process = p
	t.Cleanup(func() { s.finish(t) })
	limit := time.After(20 * time.Second)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !strings.Contains(s.Log(), "ready for work") {
		select {
		case <-p.ended:
			if c.ProcessState.ExitCode() == 99 {
				t.Skip("NOT TESTED, for want of the right to mount a /dev of its own")
			}
			t.Fatalf("master: %v\n%s", p.state, s.Log())
		case <-limit:
			t.Fatalf("master is not ready:\n%s", s.Log())
		case <-look.C:
		}
	}
}
