package peer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Imapd starts our own server on maildir. The binary is built once for each
// run of a test binary.
func Imapd(t testing.TB, maildir string, o Options) *Server {
	t.Helper()
	s := &Server{Kind: "imapd", User: o.users()[0], Maildir: maildir, dir: TempDir(t)}
	s.conf = filepath.Join(s.dir, "imapd.conf")
	binary := o.Program
	if binary == "" {
		binary = binaryFor(t, o.Granule)
	}
	Own(t, parentOf(maildir))
	s.CertFile = Certificate(t, s.dir)
	s.passwd(t, o.users())
	Own(t, s.dir)
	s.start(t, func() []string {
		if err := os.WriteFile(s.conf, []byte(s.imapdConf(o)), 0o644); err != nil {
			t.Fatal(err)
		}
		return slices.Concat(o.Wrap, []string{binary, "-l", "-C", s.conf}, o.Args)
	})
	if os.Geteuid() == 0 && len(o.Wrap) == 0 {
		if serving := Children(s.PID); len(serving) == 1 {
			s.PID = serving[0]
		}
	}
	return s
}

// imapdConf is a configuration that touches nothing outside s.dir and the Maildir.
func (s *Server) imapdConf(o Options) string {
	uid, _ := MailUID()
	lines := []string{
		"configdirectory: " + s.dir,
		fmt.Sprintf("listen: imap://%s imaps://%s", s.Addr, s.TLSAddr),
		"maildir: " + s.Maildir,
		"sasl_pwcheck_method: passwd-file",
		"sasl_passwd_file: " + s.dir + "/passwd",
		"allowplaintext: yes",
		"failedloginpause: 0",
		"tls_server_cert: " + s.CertFile,
		"tls_server_key: " + s.dir + "/key.pem",
	}
	if o.FS {
		lines = append(lines, "maildir_layout: fs")
	}
	if o.Inbox != "" {
		lines = append(lines, "maildir_inbox: "+o.Inbox)
	}
	if os.Geteuid() == 0 {
		lines = append(lines, fmt.Sprintf("cyrus_user: %d", uid))
		if len(o.Wrap) > 0 {
			// What is put around the server sees one process.
			lines = append(lines, "privilege_separation: none")
		}
	}
	for _, name := range specialUse {
		lines = append(lines, "xlist-"+strings.ToLower(name)+": "+name)
	}
	return strings.Join(MergeOptions(lines, o.Imapd), "\n") + "\n"
}

// MergeOptions returns the lines of an imapd.conf in which those of over
// replace those of base that set the same option: a second one is an error.
func MergeOptions(base, over []string) []string {
	var all []string
	for _, line := range base {
		name, _, _ := strings.Cut(line, ":")
		if !slices.ContainsFunc(over, func(o string) bool { return strings.HasPrefix(o, name+":") }) {
			all = append(all, line)
		}
	}
	return append(all, over...)
}

// passwd writes the list of users, whose password is Password.
func (s *Server) passwd(t testing.TB, users []string) {
	t.Helper()
	uid, gid := MailUID()
	var text strings.Builder
	for _, u := range users {
		fmt.Fprintf(&text, "%s:{PLAIN}%s:%d:%d::%s/home/%s::\n", u, Password, uid, gid, s.dir, u)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "passwd"), []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// built has the results of building the binary, by granule, the same for all tests.
var built sync.Map

// Binary returns the path of our server, built from the source around the
// test into .tools, where the next test binary finds it up to date.
func Binary(t testing.TB) string {
	t.Helper()
	return binaryFor(t, 0)
}

// binaryFor is Binary of a server that cuts the times of files to granule.
func binaryFor(t testing.TB, granule time.Duration) string {
	t.Helper()
	once, _ := built.LoadOrStore(granule, sync.OnceValues(func() (string, error) { return build(granule) }))
	path, err := once.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func build(granule time.Duration) (string, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	top := filepath.Dir(strings.TrimSpace(string(mod)))
	name, flags := "imapd", ""
	if granule > 0 {
		name, flags = "imapd-"+granule.String(), "-X imapd/maildir.granule="+granule.String()
	}
	path := filepath.Join(top, ".tools", name)
	c := exec.Command("go", "build", "-trimpath", "-ldflags", flags, "-o", path, ".")
	c.Dir = top
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}
