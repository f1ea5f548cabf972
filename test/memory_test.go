package test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// soaking reports whether the tests shall run for as long as before a release.
func soaking() bool { return os.Getenv("IMAPD_SOAK") != "" }

// more is how much memory one command may cost the server, whatever the size of
// the message.
const more = 8 << 20

// highWater returns the most memory that the process has had until now.
func highWater(t *testing.T, pid int) int64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^VmHWM:\s*(\d+) kB$`).FindStringSubmatch(read(t, fmt.Sprintf("/proc/%d/status", pid)))
	if m == nil {
		t.Fatal("no VmHWM")
	}
	kib, _ := strconv.ParseInt(m[1], 10, 64)
	return kib << 10
}

// costs holds that what do does costs the server less than more.
func costs(t *testing.T, s *peer.Server, what string, do func()) {
	t.Helper()
	before := highWater(t, s.PID)
	begin := time.Now()
	do()
	rise := highWater(t, s.PID) - before
	t.Logf("%s: %v, memory %+d KiB from %d", what, time.Since(begin).Round(time.Millisecond), rise>>10, before>>10)
	if rise >= more {
		t.Errorf("%s costs %d KiB of memory", what, rise>>10)
	}
}

// block is 8 KiB of text in lines of 64 octets with CRLF.
var block = bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog, and again and so.\r\n"), 128)

// stretch writes a message of at least size octets on the wire to the file,
// with LF, and returns what its size on the wire is: head, then blocks.
func stretch(t *testing.T, file, head string, size int64) (wire int64) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	io.WriteString(w, strings.ReplaceAll(head, "\r\n", "\n"))
	local := bytes.ReplaceAll(block, []byte("\r\n"), []byte("\n"))
	for wire = int64(len(head)); wire < size; wire += int64(len(block)) {
		if _, err := w.Write(local); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return wire
}

// A download is a connection that fetches what does not fit into memory.
type download struct {
	*caller
	n int
}

// command sends a command.
func (d *download) command(format string, args ...any) {
	d.t.Helper()
	d.n++
	if _, err := fmt.Fprintf(d.conn, "d%d %s\r\n", d.n, fmt.Sprintf(format, args...)); err != nil {
		d.t.Fatal(err)
	}
}

// end reads until the command is done, and ends the test if it failed.
func (d *download) end() {
	d.t.Helper()
	for {
		line := d.line()
		if answer, ok := strings.CutPrefix(line, fmt.Sprintf("d%d ", d.n)); ok || line == "" {
			if !strings.HasPrefix(answer, "OK") {
				d.t.Fatalf("%q", line)
			}
			return
		}
	}
}

// fetch holds that the literal of a FETCH of one message has size octets: head and then
// blocks, from the octet skip on.
func (d *download) fetch(number int, item, head string, skip, size int64) {
	d.t.Helper()
	d.command("FETCH %d (%s)", number, item)
	line := d.line()
	if m := literalSize.FindStringSubmatch(line); m == nil || m[1] != strconv.FormatInt(size, 10) {
		d.t.Fatalf("%s: %q, want a literal of %d octets", item, line, size)
	}
	want := append([]byte(head), bytes.Repeat(block, 9)...)
	buf := make([]byte, 64<<10)
	for done := int64(0); done < size; {
		d.conn.SetDeadline(time.Now().Add(answerTime))
		n, err := d.r.Read(buf[:min(int64(len(buf)), size-done)])
		at := skip + done
		if at >= int64(len(head)) {
			at = int64(len(head)) + (at-int64(len(head)))%int64(len(block))
		}
		if err != nil || !bytes.HasPrefix(want[at:], buf[:n]) {
			d.t.Fatalf("%s: octets from %d on are wrong: %.80q, %v", item, done, buf[:n], err)
		}
		done += int64(n)
	}
	d.end()
}

var literalSize = regexp.MustCompile(`\{(\d+)\}$`)

// TestLargeMessage holds that what a command costs the server in memory does
// not grow with the message.
func TestLargeMessage(t *testing.T) {
	t.Parallel()
	size := int64(200 << 20)
	if soaking() {
		size = 2 << 30
	}
	dir := basic(t)
	for _, file := range files(t, dir) {
		os.Remove(file)
	}
	const head = "Subject: large\r\nFrom: a@example.org\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n"
	wire := stretch(t, dir+"/cur/1709423199.M1P1Q1.large:2,S", head, size)
	s := peer.Imapd(t, dir, peer.Options{})
	clear := &download{caller: welcome(t, s, 1)}
	conn, err := s.DialTLS()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	secret := &download{caller: &caller{t, conn, bufio.NewReader(conn)}}
	secret.line()
	for _, d := range []*download{clear, secret} {
		d.login(s)
		d.command("SELECT INBOX")
		d.end()
	}
	text := strings.Index(head, "--b")
	for _, c := range []struct {
		*download
		item, head string
		skip, size int64
	}{
		{clear, "BODY.PEEK[]", head, 0, wire},
		{secret, "BODY.PEEK[]", head, 0, wire},
		{clear, "BODY.PEEK[TEXT]", head[text:], 0, wire - int64(text)},
		{clear, "BODY.PEEK[1]", "", 0, wire - int64(len(head))},
		{clear, "BINARY.PEEK[1]", "", 0, wire - int64(len(head))},
		{clear, fmt.Sprintf("BODY.PEEK[]<%d.100000000>", size/2), head, size / 2, min(100000000, wire-size/2)},
	} {
		costs(t, s, c.item, func() { c.fetch(1, c.item, c.head, c.skip, c.size) })
	}
	for _, command := range []string{"FETCH 1 (RFC822.SIZE ENVELOPE BODYSTRUCTURE)", "SEARCH BODY nowhere-to-be-found", "COPY 1 Sent"} {
		costs(t, s, command, func() {
			clear.command("%s", command)
			clear.end()
		})
	}
}

// TestLargeAppend holds that a large message goes to tmp/ while it comes in.
func TestLargeAppend(t *testing.T) {
	t.Parallel()
	const half = 25 << 20
	dir := basic(t)
	s := peer.Imapd(t, dir, peer.Options{})
	d := &download{caller: welcome(t, s, 1)}
	d.login(s)
	costs(t, s, "APPEND of 50 MiB", func() {
		d.command("APPEND Sent {%d}", 2*half)
		if line := d.line(); !strings.HasPrefix(line, "+") {
			t.Fatal(line)
		}
		d.upload(half)
		eventually(t, func() string { return "half of the message is not in tmp/" }, func() bool {
			found, _ := filepath.Glob(dir + "/.Sent/tmp/*")
			if len(found) != 1 {
				return false
			}
			info, err := os.Stat(found[0])
			// LF for CRLF, and what is still in buffers.
			return err == nil && info.Size() > half/64*63-1<<20
		})
		d.upload(half)
		if _, err := io.WriteString(d.conn, "\r\n"); err != nil {
			t.Fatal(err)
		}
		d.end()
	})
	sent := files(t, dir+"/.Sent")
	large := sent[len(sent)-1]
	if info, err := os.Stat(large); err != nil || info.Size() != 2*half/64*63 || !strings.Contains(large, fmt.Sprintf(",S=%d,W=%d:", 2*half/64*63, 2*half)) {
		t.Errorf("stored as %s: %v, %v", large, info, err)
	}
	d.command("SELECT Sent")
	d.end()
	costs(t, s, "FETCH of what was appended", func() { d.fetch(len(sent), "BODY.PEEK[]", "", 0, 2*half) })
}

// upload sends size octets of blocks.
func (d *download) upload(size int) {
	d.t.Helper()
	for ; size > 0; size -= len(block) {
		d.conn.SetDeadline(time.Now().Add(answerTime))
		if _, err := d.conn.Write(block); err != nil {
			d.t.Fatal(err)
		}
	}
}
