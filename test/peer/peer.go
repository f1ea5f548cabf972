// Package peer starts IMAP servers for tests: a real Dovecot and our own
// binary, each with a configuration, ports and files of its own, so that one
// test can run against either, or against both on the same folder.
//
//	s := peer.Dovecot(t, maildir, peer.Options{})
//	c, err := net.Dial("tcp", s.Addr)
//
// A server ends with its test. As root the mail belongs to MailUID, an id
// without a name; else to the user who runs the tests.
package peer

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Password is what every user of every server logs in with.
const Password = "Secret-7"

// User is the user of a server whose Options name none.
const User = "jane"

// Options say how a server is set up. The zero value is right for most tests.
type Options struct {
	// Users may log in. With more than one, the Maildir given to the server
	// holds %u, which stands for the user's name.
	Users []string
	// FS says that folders lie in each other (Dovecot's LAYOUT=fs) instead of
	// beside each other (Maildir++).
	FS bool
	// Inbox is the directory of INBOX below the Maildir, with FS; "" is the Maildir.
	Inbox string
	// Dovecot and Imapd are further lines of the one's or the other's
	// configuration; the last of two lines that set the same thing holds.
	Dovecot, Imapd []string
	// Granule is what times of files are cut to in our own server, as if the file
	// system had no finer clock; 0: they are taken as they are.
	Granule time.Duration
	// Wrap is put before the command that starts our own server, Args behind it.
	Wrap, Args []string
	// Program is another file of our own server than Binary.
	Program string
}

func (o Options) users() []string {
	if len(o.Users) == 0 {
		return []string{User}
	}
	return o.Users
}

// A Server is running and answers.
type Server struct {
	Kind    string // "dovecot", "imapd" or "master"
	Addr    string // host:port of IMAP, where STARTTLS is possible and not required
	TLSAddr string // host:port of IMAP over TLS, with the certificate CertFile
	User    string // the first of Options.Users
	Maildir string // as given

	// CertFile is the server's self-signed certificate, for the name localhost.
	CertFile string
	// Program is the copy of our binary that a master starts.
	Program string

	dir  string // holds the configuration, the log and the state
	conf string // path of the configuration file
	room *Room  // that it runs in, or nil
	*Process
}

// A Starter is Dovecot or Imapd.
type Starter func(t testing.TB, maildir string, o Options) *Server

// Each runs test once for each kind of server, as a parallel subtest.
func Each(t *testing.T, test func(t *testing.T, start Starter)) {
	t.Helper()
	for _, k := range []struct {
		name  string
		start Starter
	}{{"dovecot", Dovecot}, {"imapd", Imapd}} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			test(t, k.start)
		})
	}
}

// Dial opens a plain connection.
func (s *Server) Dial() (net.Conn, error) { return net.Dial("tcp", s.Addr) }

// DialTLS opens a connection over TLS. The certificate is not checked.
func (s *Server) DialTLS() (net.Conn, error) {
	return tls.Dial("tcp", s.TLSAddr, &tls.Config{InsecureSkipVerify: true})
}

// LogFile returns the path of the server's log.
func (s *Server) LogFile() string { return filepath.Join(s.dir, "server.log") }

// Log returns what the server has logged until now.
func (s *Server) Log() string {
	if s.room != nil {
		return s.room.Syslog()
	}
	b, err := os.ReadFile(s.LogFile())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Dir returns the directory of the server's own: our configdirectory.
func (s *Server) Dir() string { return s.dir }

// ConfFile returns the path of the configuration that the server runs with.
func (s *Server) ConfFile() string { return s.conf }

// start runs the server's program and waits until it greets. It is tried again
// on other ports if another program took one meanwhile.
func (s *Server) start(t testing.TB, configure func() []string) {
	t.Helper()
	const tries = 3
	for try := 1; ; try++ {
		s.Addr, s.TLSAddr = FreeAddr(t), FreeAddr(t)
		args := configure()
		p, err := startProcess(exec.Command(args[0], args[1:]...), filepath.Join(s.dir, "server.log"))
		if err == nil {
			s.Process = p
			t.Cleanup(func() { s.finish(t) })
			if err = s.wait(); err == nil {
				return
			}
		}
		if try == tries {
			t.Fatalf("%s: %v\n%s", s.Kind, err, s.Log())
		}
		if s.Process != nil {
			s.Stop()
		}
	}
}

// finish stops the server and shows its log if the test has failed.
func (s *Server) finish(t testing.TB) {
	s.Stop()
	if t.Failed() {
		t.Logf("log of %s:\n%s", s.Kind, tail(s.Log(), 40))
	}
}

// tail returns the last lines of text, without Dovecot's of who came and went.
func tail(text string, lines int) string {
	all := slices.DeleteFunc(strings.SplitAfter(text, "\n"), func(l string) bool { return strings.Contains(l, ": Info: ") })
	return strings.Join(all[max(0, len(all)-lines):], "")
}

// wait returns when the server greets.
func (s *Server) wait() error {
	limit := time.After(20 * time.Second)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		err := s.greets()
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("ended while starting: %v", s.state)
		case <-limit:
			return err
		case <-look.C:
		}
	}
}

func (s *Server) greets() error {
	c, err := s.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "* OK") {
		err = errors.New("greeting: " + line)
	}
	return err
}

// Ports that freeAddr gives are below those that the system gives to whoever dials: one
// of these may be the near end of another test's connection before anybody listens there.
const (
	firstPort = 10_000
	allPorts  = 22_000
)

// ports counts those that were tried. No port is given twice, whose server may yet come;
// another process begins elsewhere.
var ports = func() *atomic.Uint32 {
	n := new(atomic.Uint32)
	n.Store(rand.Uint32N(allPorts))
	return n
}()

// freeAddr returns an address of host's on which nobody listens.
func freeAddr(t testing.TB, host string) string {
	t.Helper()
	var err error
	for range allPorts {
		addr := net.JoinHostPort(host, strconv.Itoa(firstPort+int(ports.Add(1)%allPorts)))
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal(err)
	return ""
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

// Need ends the test if one of the programs is not installed: with a failure
// as root, for whom test/install.sh has installed them, else as skipped.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Geteuid() == 0 {
			t.Fatalf("%s is not installed: test/install.sh installs it", p)
		}
		t.Skipf("%s is not installed", p)
	}
}
