package peer

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A Service is an entry of cyrus.conf(5) that runs our server.
type Service struct {
	Name  string
	Args  string // of imapd, behind -C FILE
	More  string // of the entry: "prefork=2 maxchild=10"
	Conf  string // instead of FILE
	Addr  string // where it listens; empty for a free port of the loopback interface
	Proto string // "tcp" for IPv4 and IPv6; empty for IPv4
}

// Cyrus returns the command of one of Cyrus's own programs with the
// configuration of s.
func (s *Server) Cyrus(t testing.TB, program string, args ...string) *exec.Cmd {
	t.Helper()
	path := Unpacked(t, "cyrus-common", "usr/lib/cyrus/bin/"+program)
	c := exec.Command(path, append([]string{"-C", s.conf}, args...)...)
	libs, err := filepath.Glob(filepath.Join(filepath.Dir(path), "../../*-linux-gnu"))
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
// Master is started by root, in a Room, and becomes the user mail, as whom all
// run.
func Master(t testing.TB, maildir string, o Options, services ...Service) *Server {
	t.Helper()
	return MasterOf(t, maildir, o, func(s *Server) string { return s.entries(services) })
}

// MasterOf is Master with a cyrus.conf that services returns, asked when all but
// that is known of the server.
func MasterOf(t testing.TB, maildir string, o Options, services func(*Server) string) *Server {
	t.Helper()
	room := NewRoom(t)
	s := &Server{Kind: "master", User: o.users()[0], Maildir: maildir, dir: room.Dir, room: room}
	s.conf = filepath.Join(s.dir, "imapd.conf")
	s.Program = filepath.Join(s.dir, "imapd")
	s.CopyProgram(t, s.Program)
	s.CertFile = Certificate(t, s.dir)
	s.passwd(t, o.users())
	o.Imapd = append(slices.Clone(o.Imapd), "cyrus_user: mail", "partition-default: "+s.dir, "debug: yes")
	s.Addr, s.TLSAddr = FreeAddr(t), FreeAddr(t)
	if err := os.WriteFile(s.conf, []byte(s.imapdConf(o)), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Give(t, s.dir)
	s.Give(t, parentOf(maildir))
	if err := os.WriteFile(filepath.Join(s.dir, "cyrus.conf"), []byte(services(s)), 0o644); err != nil {
		t.Fatal(err)
	}
	s.startMaster(t)
	return s
}

// CopyProgram puts a copy of our binary there: master's user may not be able to
// reach the source tree.
func (s *Server) CopyProgram(t testing.TB, to string) {
	t.Helper()
	text, err := os.ReadFile(Binary(t))
	if err == nil {
		err = Program(to+".new", text)
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

// entries returns the cyrus.conf for services.
func (s *Server) entries(services []Service) string {
	var text strings.Builder
	text.WriteString("SERVICES {\n")
	for i, e := range services {
		if e.Conf == "" {
			e.Conf = s.conf
		}
		if e.Addr == "" {
			e.Addr = []string{s.Addr, s.TLSAddr}[i]
		}
		if e.Proto == "" {
			e.Proto = "tcp4"
		}
		fmt.Fprintf(&text, "  %s cmd=\"%s -C %s %s\" listen=\"%s\" proto=%s %s\n", e.Name, s.Program, e.Conf, e.Args, e.Addr, e.Proto, e.More)
	}
	text.WriteString("}\n")
	return text.String()
}

// startMaster starts master and waits until it is ready for work.
func (s *Server) startMaster(t testing.TB) {
	t.Helper()
	master := s.Cyrus(t, "master", "-D", "-p", filepath.Join(s.dir, "master.pid"), "-M", filepath.Join(s.dir, "cyrus.conf"))
	// Master signals its process group, which is not to be the test's.
	s.Process = s.room.Start("master", append([]string{"env", libraries(master), "setsid"}, master.Args...)...)
	s.room.Logged("ready for work")
}

// libraries returns how c finds its own.
func libraries(c *exec.Cmd) string { return c.Env[len(c.Env)-1] }
