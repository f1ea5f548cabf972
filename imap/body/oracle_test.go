package body

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The oracle is a real Dovecot 2.3. Its answers for the corpus are kept in testdata/dovecot;
// IMAPD_DOVECOT=/usr/sbin/dovecot, as root, makes TestDovecot ask it again and write them anew.

const dovecotConf = `
protocols = imap
listen = 127.0.0.1
base_dir = DIR/run
state_dir = DIR/state
log_path = DIR/log
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = maildir:DIR/Maildir
passdb {
  driver = static
  args = password=x
}
userdb {
  driver = static
  args = uid=UID gid=UID home=DIR
}
default_internal_user = nobody
default_login_user = nobody
default_internal_group = nogroup
service imap-login {
  chroot =
  inet_listener imap {
    port = PORT
  }
  inet_listener imaps {
    port = 0
  }
}
service anvil {
  chroot =
}
namespace inbox {
  inbox = yes
}
`

// mailUID is nobody, who owns the mail.
const mailUID = 65534

// makeFolder writes the messages of a group, or an empty folder, as Dovecot's user.
func makeFolder(t *testing.T, folder string, samples []sample) {
	owned := func(path string, err error) {
		if err == nil {
			err = os.Chown(path, mailUID, mailUID)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{folder, folder + "/cur", folder + "/new", folder + "/tmp"} {
		owned(d, os.MkdirAll(d, 0o700))
	}
	for n, s := range samples {
		name := fmt.Sprintf("%s/cur/%d.M%06dP1.host:2,S", folder, 1700000000+n, n)
		owned(name, os.WriteFile(name, []byte(s.text), 0o600))
	}
}

// startDovecot serves the groups as mailboxes and returns its address.
func startDovecot(t *testing.T, program string, gs []group) string {
	dir, err := os.MkdirTemp("", "body-dovecot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "Maildir")
	makeFolder(t, root, nil)
	for _, g := range gs {
		makeFolder(t, filepath.Join(root, "."+g.name), g.samples)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	conf := strings.NewReplacer("DIR", dir, "UID", strconv.Itoa(mailUID), "PORT", port).Replace(dovecotConf)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-F", "-c", filepath.Join(dir, "conf"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("dovecot: %s", log)
		}
	})
	return addr
}

// A client talks to the oracle, one command at a time.
type client struct {
	t       *testing.T
	addr    string
	mailbox string
	r       *bufio.Reader
	w       io.Writer
	lost    bool // the server has closed the connection
}

// dial connects and selects the mailbox, if one is named.
func (c *client) dial() {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for tries := 0; ; tries++ {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			if tries == 400 {
				c.t.Fatal(err)
			}
			<-again.C
			continue
		}
		c.t.Cleanup(func() { conn.Close() })
		c.r, c.w, c.lost = bufio.NewReader(conn), conn, false
		c.line()
		c.must("LOGIN u x")
		if c.mailbox != "" {
			c.must("SELECT " + c.mailbox)
		}
		return
	}
}

// line reads a response with its literals in place.
func (c *client) line() string {
	var b strings.Builder
	for {
		s, err := c.r.ReadString('\n')
		if err != nil {
			c.lost = true
			return ""
		}
		b.WriteString(s)
		i := strings.LastIndexByte(s, '{')
		if !strings.HasSuffix(s, "}\r\n") || i < 0 {
			return b.String()
		}
		n, err := strconv.Atoi(strings.TrimSuffix(s[i+1:], "}\r\n"))
		if err != nil {
			return b.String()
		}
		lit := make([]byte, n)
		if _, err := io.ReadFull(c.r, lit); err != nil {
			c.lost = true
			return ""
		}
		b.Write(lit)
	}
}

// command returns the untagged FETCH responses and the tagged answer.
func (c *client) command(text string) (fetched []string, answer string) {
	fmt.Fprintf(c.w, "t %s\r\n", text)
	for {
		s := c.line()
		if c.lost {
			return nil, "BYE"
		}
		if rest, ok := strings.CutPrefix(s, "t "); ok {
			return fetched, strings.TrimSpace(rest)
		}
		if strings.Contains(strings.SplitN(s, "(", 2)[0], " FETCH ") {
			fetched = append(fetched, s)
		}
	}
}

func (c *client) must(text string) {
	if _, answer := c.command(text); !strings.HasPrefix(answer, "OK") {
		c.t.Fatalf("%s: %s", text, answer)
	}
}

// fetch returns the canonical answer for one item of a message.
func (c *client) fetch(seq int, item string) string {
	ask := strings.NewReplacer("BODY[", "BODY.PEEK[", "BINARY[", "BINARY.PEEK[").Replace(item)
	fetched, answer := c.command(fmt.Sprintf("FETCH %d %s", seq, ask))
	if c.lost {
		c.dial()
		return answer
	}
	if !strings.HasPrefix(answer, "OK") {
		code := answer
		if i := strings.IndexByte(answer, ']'); i > 0 {
			code = answer[:i+1]
		}
		return code
	}
	if len(fetched) != 1 {
		c.t.Fatalf("%s: %q", item, fetched)
	}
	s := fetched[0][strings.Index(fetched[0], "(")+1:]
	if i := strings.IndexByte(s, ' '); strings.Contains(s[:i], "[") {
		s = s[strings.Index(s, "]")+1:]
	}
	s = s[strings.IndexByte(s, ' ')+1:]
	v, _, err := canonical(s)
	if err != nil {
		c.t.Fatalf("%s: %v in %q", item, err, s)
	}
	return v
}

// canonical reads one value in IMAP syntax and writes it so that quoted strings and literals look alike.
func canonical(s string) (value, rest string, err error) {
	switch {
	case s == "":
		return "", "", errors.New("no value")
	case s[0] == '(':
		var b strings.Builder
		b.WriteByte('(')
		for s = s[1:]; !strings.HasPrefix(s, ")"); {
			if s = strings.TrimPrefix(s, " "); b.Len() > 1 {
				b.WriteByte(' ')
			}
			if value, s, err = canonical(s); err != nil {
				return "", "", err
			}
			b.WriteString(value)
		}
		b.WriteByte(')')
		return b.String(), s[1:], nil
	case s[0] == '"':
		var b strings.Builder
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '"':
				return strconv.QuoteToASCII(b.String()), s[i+1:], nil
			case '\\':
				i++
			}
			b.WriteByte(s[i])
		}
		return "", "", errors.New("open string")
	case s[0] == '{' || strings.HasPrefix(s, "~{"):
		i := strings.Index(s, "}\r\n")
		n, err := strconv.Atoi(s[strings.IndexByte(s, '{')+1 : i])
		if err != nil {
			return "", "", err
		}
		s = s[i+3:]
		return strconv.QuoteToASCII(s[:n]), s[n:], nil
	}
	i := strings.IndexAny(s, " ()\r")
	return s[:i], s[i:], nil
}
