package imap

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"imapd/control/config"
	"imapd/maildir"
	"imapd/maildir/vfs"
)

// fetch sends a FETCH and returns the responses, their literals in quotes, and
// the tagged reply.
func (c *client) fetch(command string) (responses []string, tagged string) {
	c.t.Helper()
	c.n++
	tag := fmt.Sprintf("t%d ", c.n)
	c.send(tag + command + "\r\n")
	for {
		text := c.response()
		if rest, ok := strings.CutPrefix(text, tag); ok {
			return responses, rest
		}
		responses = append(responses, text)
	}
}

var literalHead = regexp.MustCompile(`~?\{(\d+)\}$`)

// response reads one response. In it %q stands for a literal.
func (c *client) response() string {
	c.t.Helper()
	var b strings.Builder
	for {
		line := c.line()
		head := literalHead.FindStringSubmatch(line)
		if head == nil {
			return b.String() + line
		}
		n, _ := strconv.Atoi(head[1])
		literal := make([]byte, n)
		if _, err := io.ReadFull(c.r, literal); err != nil {
			c.t.Fatalf("literal of %d octets: %v", n, err)
		}
		fmt.Fprintf(&b, "%s%s%q", strings.TrimSuffix(line, head[0]), strings.TrimSuffix(head[0], "{"+head[1]+"}"), literal)
	}
}

// In one form of a string or another: IMAP4rev1 has literals for what is not
// ASCII, IMAP4rev2 quoted strings.
func TestFetchEightBit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("jane", "", "cur/1.h:2,", "Subject: caf\xc3\xa9\nTo: \"a\\\"b\" <x@y>\nMessage-ID: \n\nx\n")
	w.deliver("jane", "", "cur/2.h:2,", "Subject: caf\xe9\n\nx\n")
	c := w.login("jane")
	c.must(" OK", "EXAMINE INBOX")
	for _, tt := range []struct{ enable, first, second string }{
		{"", "{5}", "{4}"},
		{"IMAP4rev2", "\"caf\xc3\xa9\"", "{4}"},
	} {
		if tt.enable != "" {
			c.must(" OK", "ENABLE "+tt.enable)
		}
		c.send("x FETCH 1 ENVELOPE\r\n")
		line := c.want("* 1 FETCH (ENVELOPE (NIL " + tt.first)
		if strings.HasSuffix(line, "}") {
			line = c.line()
		}
		if !strings.HasSuffix(line, ` NIL NIL NIL (("a\"b" NIL "x" "y")) NIL NIL NIL ""))`) {
			t.Errorf("got %s", line)
		}
		c.want("x OK")
		c.send("y FETCH 2 ENVELOPE\r\n")
		c.want("* 2 FETCH (ENVELOPE (NIL " + tt.second)
		c.want("caf\xe9 NIL")
		c.want("y OK")
	}
}

// A message/global is a message for IMAP4rev2 only (RFC 9051 section 7.5.2).
func TestFetchGlobal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("jane", "", "cur/1.h:2,", "MIME-Version: 1.0\nContent-Type: message/global\n\nSubject: s\n\nx\n")
	c := w.login("jane")
	c.must(" OK", "EXAMINE INBOX")
	const item = "FETCH 1 (BODY BODY.PEEK[1.TEXT])"
	for _, want := range []string{
		`* 1 FETCH (BODY ("message" "global" NIL NIL NIL "7bit" 17) BODY[1.TEXT] "")`,
		`* 1 FETCH (BODY ("message" "global" NIL NIL NIL "7bit" 17 (NIL "s" NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 1) 3) BODY[1.TEXT] "x\r\n")`,
	} {
		if got, tagged := c.fetch(item); len(got) != 1 || got[0] != want || !strings.HasPrefix(tagged, "OK") {
			t.Errorf("got %q %s, want %q", got, tagged, want)
		}
		c.must(" OK", "ENABLE IMAP4rev2")
	}
}

// What cannot be had of one message does not keep the others from the client.
func TestFetchBroken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for i := range 4 {
		w.deliver("jane", "", fmt.Sprintf("cur/%d.h:2,S", i+1), "Subject: s\n\nx\n")
	}
	c := w.login("jane")
	c.must(" OK", "EXAMINE INBOX")
	// Behind the server's back: no file any more, and a file that is none.
	dir := filepath.Join(w.root, "jane", "cur")
	if err := os.Remove(filepath.Join(dir, "2.h:2,S")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "3.h:2,S")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "3.h:2,S"), 0o700); err != nil {
		t.Fatal(err)
	}
	got, tagged := c.fetch("FETCH 1:4 (UID BODY.PEEK[TEXT])")
	want := []string{
		`* 1 FETCH (UID 1 BODY[TEXT] "x\r\n")`, `* 2 FETCH (UID 2)`, `* 3 FETCH (UID 3)`, `* 4 FETCH (UID 4 BODY[TEXT] "x\r\n")`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || !strings.HasPrefix(tagged, "NO ") {
		t.Errorf("got %q %s", got, tagged)
	}
	got, tagged = c.fetch("UID FETCH 1:2 (RFC822.SIZE ENVELOPE)")
	if len(got) < 1 || !strings.HasPrefix(got[0], "* 1 FETCH (UID 1 RFC822.SIZE 17 ENVELOPE (") || !strings.HasPrefix(tagged, "OK") {
		t.Errorf("got %q %s", got, tagged)
	}
}

// A file that gets shorter while it is sent ends the connection: the client
// must not take a reply for the rest of the literal.
func TestFetchShrinks(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	w := newWorld(t, nil)
	w.deliver("jane", "", "cur/1.h:2,S", strings.Repeat("0123456789abcde\n", size/16))
	c := w.login("jane")
	c.must(" OK", "EXAMINE INBOX")
	c.send("x FETCH 1 BODY.PEEK[]\r\ny NOOP\r\n")
	c.want("* 1 FETCH (BODY[] {" + strconv.Itoa(size/16*17) + "}")
	if err := os.Truncate(filepath.Join(w.root, "jane", "cur", "1.h:2,S"), size/2); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(c.r)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	if len(rest) >= size/16*17 || strings.Contains(string(rest), "x ") {
		t.Errorf("%d octets came, and the end is %q", len(rest), rest[max(0, len(rest)-50):])
	}
	<-c.done
	if !strings.Contains(w.log.String(), "message cannot be sent to its end") {
		t.Error("nothing was logged")
	}
}

// RFC822.SIZE is what BODY[] has, whatever the file's name says, from the first
// time on that it was read.
func TestFetchSizeLies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("jane", "", "cur/1.h,S=10,W=13:2,S", "A: b\n\nabc\n")
	w.deliver("jane", "", "cur/2.h,S=10,W=12:2,S", "A: b\n\nabc\n")
	w.deliver("jane", "", "cur/3.h,S=10,W=13:2,S", "A: b\r\n\r\na\n")
	c := w.login("jane")
	c.must(" OK", "EXAMINE INBOX")
	for _, tt := range []struct{ command, want string }{
		{"FETCH 1:2 RFC822.SIZE", "* 1 FETCH (RFC822.SIZE 13)\n* 2 FETCH (RFC822.SIZE 12)"},
		{"FETCH 2 (RFC822.SIZE BODY.PEEK[])", `* 2 FETCH (RFC822.SIZE 13 BODY[] "A: b\r\n\r\nabc\r\n")`},
		{"FETCH 2 RFC822.SIZE", "* 2 FETCH (RFC822.SIZE 13)"},
		{"FETCH 3 (BODYSTRUCTURE RFC822.SIZE)", `* 3 FETCH (BODYSTRUCTURE ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 1 NIL NIL NIL NIL) RFC822.SIZE 11)`},
		{"FETCH 3 RFC822.SIZE", "* 3 FETCH (RFC822.SIZE 11)"},
	} {
		if got, tagged := c.fetch(tt.command); strings.Join(got, "\n") != tt.want || !strings.HasPrefix(tagged, "OK") {
			t.Errorf("%s: got %q %s", tt.command, got, tagged)
		}
	}
}

// A section that is fetched in pieces is the section, in whatever order the
// pieces are asked for, and between other commands.
func TestFetchPieces(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var text strings.Builder
	for text.Len() < 600<<10 {
		text.WriteString(strings.Repeat("x", r.IntN(90)) + []string{"\n", "\r\n", "\r"}[r.IntN(3)])
	}
	var encoded strings.Builder
	for line := range slices.Chunk([]byte(text.String()), 57) {
		encoded.WriteString(base64.StdEncoding.EncodeToString(line) + "\n")
	}
	w := newWorld(t, nil)
	w.deliver("jane", "", "cur/1.h:2,S", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n"+text.String()+
		"\n--b\nContent-Transfer-Encoding: base64\n\n"+encoded.String()+
		"\n--b\nContent-Transfer-Encoding: quoted-printable\n\n"+strings.Repeat("caf=C3=A9 and more =\n of it  \n", 10000)+"\n--b--\n")
	w.deliver("jane", "", "cur/2.h:2,S", "A: b\n\nx\n")
	c := w.login("jane")
	c.must(" OK", "EXAMINE INBOX")
	item := func(command string) string {
		got, tagged := c.fetch(command)
		if len(got) != 1 || !strings.HasPrefix(tagged, "OK") {
			t.Fatalf("%s: %d responses, %s", command, len(got), tagged)
		}
		_, value, _ := strings.Cut(strings.TrimSuffix(got[0], ")"), " FETCH (")
		_, value, _ = strings.Cut(value, " ")
		s, err := strconv.Unquote(strings.TrimPrefix(value, "~"))
		if err != nil {
			t.Fatalf("%s: %.100q", command, value)
		}
		return s
	}
	for _, name := range []string{"BODY.PEEK[1]", "BODY.PEEK[]", "BINARY.PEEK[1]", "BINARY.PEEK[2]", "BINARY.PEEK[3]", "BODY.PEEK[TEXT]"} {
		whole := item("FETCH 1 " + name)
		for i := range 40 {
			off := i * 20000
			if i%4 == 3 {
				off = r.IntN(len(whole))
			}
			n := 1 + r.IntN(40000)
			if i%10 == 9 {
				item("FETCH 2 BODY.PEEK[]")
			}
			got := item(fmt.Sprintf("FETCH 1 %s<%d.%d>", name, off, n))
			if want := whole[min(off, len(whole)):min(off+n, len(whole))]; got != want {
				t.Fatalf("%s<%d.%d>: %d octets, want %d, which are %.20q and %.20q", name, off, n, len(got), len(want), got, want)
			}
		}
	}
}

// readOnlyDisk is a Dir in which nothing can be renamed.
type readOnlyDisk struct{ vfs.Dir }

func (d readOnlyDisk) OpenDir(name string) (vfs.Dir, error) {
	sub, err := d.Dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return readOnlyDisk{sub}, nil
}

func (d readOnlyDisk) RenameNoReplace(string, vfs.Dir, string) error { return syscall.EDQUOT }

// Mail can be read on a disk that is full, although it cannot be marked as seen.
func TestFetchUnmarkable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *config.Config, o *Options) {
		o.Host = maildir.NewHost(maildir.Options{Log: slog.New(slog.DiscardHandler), Open: func(path string) (vfs.Dir, error) {
			d, err := vfs.Open(path)
			if err != nil {
				return nil, err
			}
			return readOnlyDisk{d}, nil
		}})
	})
	t.Cleanup(func() { w.opt.Host.Close() })
	w.deliver("jane", "", "cur/1.h:2,", "A: b\n\nx\n")
	c := w.login("jane")
	c.must(" OK", "SELECT INBOX")
	got, tagged := c.fetch("FETCH 1 (BODY[TEXT] FLAGS)")
	if len(got) != 1 || !strings.HasPrefix(got[0], `* 1 FETCH (BODY[TEXT] "x\r\n" FLAGS (`) || strings.Contains(got[0], "Seen") || !strings.HasPrefix(tagged, "OK") {
		t.Errorf("got %q %s", got, tagged)
	}
	if _, tagged := c.fetch(`STORE 1 +FLAGS (\Seen)`); !strings.HasPrefix(tagged, "NO [OVERQUOTA]") {
		t.Errorf("STORE: %s", tagged)
	}
}

// TestFetchOnce holds that what is asked for twice is sent once, and sets \Seen if
// one of the two does.
func TestFetchOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("u", "", "cur/1.m.h:2,", "Subject: a\n\nbody\n")
	c := w.login("u")
	c.must(" OK", "SELECT INBOX")
	got, _ := c.fetch("FETCH 1 (BODY.PEEK[1] BINARY.SIZE[1] BODY[1] BODY.PEEK[1]<0.2> BINARY.SIZE[1] BODY.PEEK[1]<0.2> BODY.PEEK[1]<0.3> FLAGS UID FLAGS)")
	want := `* 1 FETCH (UID 1 BODY[1] "body\r\n" BINARY.SIZE[1] 6 BODY[1]<0> "bo" BODY[1]<0> "bod" FLAGS (\Seen))`
	if len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %s", got, want)
	}
}

// TestFetchTooMuch holds that a FETCH that has one message read again and again is
// refused at some point, and one that asks for many of its parts is not.
func TestFetchTooMuch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("u", "", "cur/1.m.h:2,S", strings.Repeat("X: "+strings.Repeat("x", 100_000)+"\n", 10)+"\n")
	part := "--b\nContent-Transfer-Encoding: base64\n\n" + strings.Repeat("QUJD", 100_000) + "\n"
	w.deliver("u", "", "cur/2.m.h:2,S", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"+part+part+"--b--\n")
	c := w.login("u")
	c.must(" OK", "SELECT INBOX")
	items := func(n int, item func(i int) string) string {
		var all []string
		for i := range n {
			all = append(all, item(i))
		}
		return " (" + strings.Join(all, " ") + ")"
	}
	header := func(i int) string { return fmt.Sprintf("BODY.PEEK[HEADER.FIELDS (A%d)]", i) }
	if got, tagged := c.fetch("FETCH 1" + items(50, header)); len(got) != 1 || !strings.HasPrefix(tagged, "OK") {
		t.Errorf("50 times: %d responses, %s", len(got), tagged)
	}
	got, tagged := c.fetch("FETCH 1:2" + items(1000, header))
	if !strings.HasPrefix(tagged, "NO [LIMIT]") || len(got) != 1 || !strings.Contains(got[0], "(A50)") || strings.Contains(got[0], "(A999)") {
		t.Errorf("1000 times: %.100q, %s", got, tagged)
	}
	pieces := func(i int) string { return fmt.Sprintf("BINARY.PEEK[%d]<%d.3>", 1+i%2, 3*i) }
	if got, tagged := c.fetch("FETCH 2" + items(300, pieces)); len(got) != 1 || strings.Count(got[0], `"ABC"`) != 300 || !strings.HasPrefix(tagged, "OK") {
		t.Errorf("pieces: %.100q, %s", got, tagged)
	}
}
