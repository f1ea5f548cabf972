package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// Every message of an account that a Dovecot made is shown alike by both
// servers, octet for octet, but for the choice between quoted strings and literals.
func TestFetchLikeDovecot(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(unpack(t, "testdata/a-dovecot-maildirpp/account.tar.gz"), fixtures[0].maildir)
	s, d := peer.Imapd(t, dir, peer.Options{}), peer.Dovecot(t, dir, peer.Options{})
	ours, theirs := s.Login(t, s.User), d.Login(t, d.User)
	compared := 0
	for _, r := range theirs.Do(`LIST "" *`) {
		m := listLine.FindStringSubmatch(r.Text)
		if m == nil || strings.Contains(m[2], `\Noselect`) {
			continue
		}
		exists := 0
		for _, c := range []*peer.Client{ours, theirs} {
			for _, r := range c.Do("EXAMINE %q", m[3]+m[4]) {
				if n, ok := strings.CutSuffix(r.Text, " EXISTS"); ok {
					exists = number(strings.TrimPrefix(n, "* "))
				}
			}
		}
		if exists == 0 {
			continue
		}
		for _, item := range []string{
			"ENVELOPE", "BODYSTRUCTURE", "BODY", "RFC822.SIZE", "INTERNALDATE", "RFC822.HEADER", "BODY.PEEK[]", "BODY.PEEK[TEXT]", "BODY.PEEK[1]",
			"BODY.PEEK[1.MIME]", "BODY.PEEK[2]", "BODY.PEEK[2.HEADER]", "BODY.PEEK[1]<100.1000>", "BODY.PEEK[HEADER.FIELDS (From Subject X-None)]",
			"BODY.PEEK[HEADER.FIELDS.NOT (Received)]", "BINARY.PEEK[1]", "BINARY.SIZE[1]", "BINARY.PEEK[1]<50.100>",
		} {
			a, b := ours.Do("FETCH 1:* %s", item), theirs.Do("FETCH 1:* %s", item)
			if len(a) != exists || len(b) != exists {
				t.Fatalf("%s %s: %d and %d responses for %d messages", m[3]+m[4], item, len(a), len(b), exists)
			}
			for i := range a {
				compared++
				if got, want := plain(a[i]), plain(b[i]); got != want {
					t.Errorf("%s %s:\n got %q\nwant %q", m[3]+m[4], item, got, want)
				}
			}
		}
	}
	if compared < 1000 {
		t.Errorf("only %d answers compared", compared)
	}
}

var anyLiteral = regexp.MustCompile(`\{\d+\}`)

// plain returns a response with its literals as quoted strings.
func plain(r peer.Response) string {
	next := 0
	return anyLiteral.ReplaceAllStringFunc(r.Text, func(head string) string {
		if next == len(r.Literals) || head != fmt.Sprintf("{%d}", len(r.Literals[next])) {
			return head
		}
		next++
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(r.Literals[next-1]) + `"`
	})
}

// A message of 2 GB goes through the server without passing through its memory.
func TestFetchHuge(t *testing.T) {
	t.Parallel()
	const size = 2 << 30
	dir := filepath.Join(peer.TempDir(t), "Maildir")
	lines := hugeMessage(t, dir, size)
	s := peer.Imapd(t, dir, peer.Options{})
	c := dialCounting(t, s)
	c.do("LOGIN " + s.User + " " + peer.Password)
	c.do("EXAMINE INBOX")
	c.do("FETCH 1 (FLAGS INTERNALDATE)")
	before := peak(t, s.PID)
	for _, tt := range []struct {
		item string
		want int64
	}{
		{"BODY.PEEK[]", size + lines},
		{"(ENVELOPE RFC822.SIZE BODYSTRUCTURE)", -1},
		{"BODY.PEEK[HEADER.FIELDS (Subject)]", 17},
		{"BODY.PEEK[1]<1000000000.100000>", 100000},
		{"BODY.PEEK[1]<1000100000.100000>", 100000},
	} {
		if got := c.do("FETCH 1 " + tt.item); got != tt.want {
			t.Errorf("%s: a literal of %d octets, want %d", tt.item, got, tt.want)
		}
	}
	grown := peak(t, s.PID) - before
	t.Logf("the server has grown by %d KiB", grown)
	if grown > 8<<10 {
		t.Errorf("the server has grown by %d KiB", grown)
	}
}

// hugeMessage makes a Maildir with one message of size octets, of holes with a
// line every 4 MB, and returns the number of lines.
func hugeMessage(t *testing.T, dir string, size int64) (lines int64) {
	t.Helper()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(dir, "cur", "1700000000.M1P1.host:2,S"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := "Subject: huge\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n"
	lines = int64(strings.Count(head, "\n"))
	if _, err := f.WriteString(head); err != nil {
		t.Fatal(err)
	}
	for off := int64(4 << 20); off < size; off += 4 << 20 {
		if _, err := f.WriteAt([]byte("a line\n"), off); err != nil {
			t.Fatal(err)
		}
		lines++
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return lines
}

// A counting client knows of literals only how long they are.
type counting struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dialCounting(t *testing.T, s *peer.Server) counting {
	t.Helper()
	conn, err := s.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(3 * time.Minute))
	return counting{t, conn, bufio.NewReaderSize(conn, 64<<10)}
}

// do sends a command, which must succeed, and returns the length of the last
// literal of the answer, which has come in full, or -1.
func (c counting) do(command string) int64 {
	c.t.Helper()
	fmt.Fprintf(c.conn, "x %s\r\n", command)
	literal := int64(-1)
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("%s: %v", command, err)
		}
		if strings.HasPrefix(line, "x ") {
			if !strings.HasPrefix(line, "x OK") {
				c.t.Fatalf("%s: %s", command, line)
			}
			return literal
		}
		if m := anyLiteral.FindString(line); strings.HasSuffix(line, "}\r\n") {
			literal, _ = strconv.ParseInt(m[1:len(m)-1], 10, 64)
			if _, err := io.CopyN(io.Discard, c.r, literal); err != nil {
				c.t.Fatalf("%s: %v", command, err)
			}
		}
	}
}

// peak returns the most memory that a process has had at a time, in KiB.
func peak(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatal("no VmHWM")
	}
	return number(string(m[1]))
}
