package imap

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// rename gives a message of INBOX another name, as another program does.
func (w *world) rename(user, from, to string) {
	w.t.Helper()
	if err := os.Rename(filepath.Join(w.root, user, from), filepath.Join(w.root, user, to)); err != nil {
		w.t.Fatal(err)
	}
}

// What other programs do reaches a client that idles, at once, and others at
// their next command.
func TestOtherPrograms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("u", "", "cur/1.a:2,", note)
	idle, quiet := w.login("u"), w.login("u")
	idle.must(" OK [READ-WRITE]", "SELECT INBOX")
	quiet.must(" OK [READ-ONLY]", "EXAMINE INBOX")
	idle.send("i IDLE\r\n")
	idle.want("+ idling")

	w.deliver("u", "", "new/2.b", note)
	idle.want("* 2 EXISTS")
	idle.want("* 1 RECENT")
	w.rename("u", "cur/1.a:2,", "cur/1.a:2,FS")
	idle.want(`* 1 FETCH (FLAGS (\Seen \Flagged))`)
	if err := os.Remove(filepath.Join(w.root, "u", "cur/1.a:2,FS")); err != nil {
		t.Fatal(err)
	}
	idle.want("* 1 EXPUNGE")
	idle.send("DONE\r\nn NOOP\r\n")
	idle.want("i OK")
	idle.want("n OK")

	got := strings.Join(quiet.must(" OK", "NOOP"), "\n")
	if want := "* 1 EXPUNGE\n* 1 EXISTS"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	idle.must(" OK", "UNSELECT")
	quiet.must(" BAD", "FROB")
}

// Without events the next look finds the changes.
func TestChangesAtNextCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("u", "", "cur/1.a:2,", note)
	w.deliver("u", "", "cur/2.b:2,", note)
	c := w.login("u")
	c.must(" OK", "SELECT INBOX")
	w.rename("u", "cur/2.b:2,", "cur/2.b:2,S")
	w.deliver("u", "", "new/3.c", note)
	want := []string{"* 3 EXISTS", "* 1 RECENT", `* 2 FETCH (FLAGS (\Seen))`}
	if got := c.must(" OK", "CHECK"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	c.must(" OK", "ENABLE IMAP4rev2")
	w.rename("u", "cur/2.b:2,S", "cur/2.b:2,")
	w.deliver("u", "", "new/4.d", note)
	want = []string{"* 4 EXISTS", `* 2 FETCH (UID 2 FLAGS ())`}
	if got := c.must(" OK", "NOOP"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("rev2: got %q, want %q", got, want)
	}
}

// The first session that sees a message has it \Recent, no other one.
func TestRecentIsClaimedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("u", "", "new/1.a", note)
	look, first, second := w.login("u"), w.login("u"), w.login("u")
	for _, tt := range []struct {
		c       *client
		command string
		recent  string
	}{
		{look, "EXAMINE INBOX", "* 1 RECENT"}, {first, "SELECT INBOX", "* 1 RECENT"}, {second, "SELECT INBOX", "* 0 RECENT"},
		{first, "SELECT INBOX", "* 0 RECENT"},
	} {
		if got := strings.Join(tt.c.must(" OK", tt.command), "\n"); !strings.Contains(got, tt.recent) {
			t.Errorf("%s: got %q, want %q", tt.command, got, tt.recent)
		}
	}
}

func TestExpunge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for i := 1; i <= 6; i++ {
		w.deliver("u", "", fmt.Sprintf("cur/%d.a:2,T", i), note)
	}
	other := w.login("u")
	other.must(" OK", "EXAMINE INBOX")
	other.must(" NO [READ-ONLY]", "EXPUNGE")
	other.must(" NO [READ-ONLY]", "UID EXPUNGE 1")
	c := w.login("u")
	c.must(" OK", "SELECT INBOX")
	c.must(" BAD", "UID EXPUNGE 0")
	c.must(" BAD", "UID EXPUNGE 4294967296")
	for _, tt := range []struct{ command, want string }{
		{"UID EXPUNGE 2,4:4,99", "[* 4 EXPUNGE * 2 EXPUNGE]"},
		{"UID EXPUNGE *", "[* 4 EXPUNGE]"},
		{"UID EXPUNGE 900:*", "[]"}, // "*" is 5, of which the file is about to go
	} {
		if tt.command == "UID EXPUNGE 900:*" {
			w.rename("u", "cur/5.a:2,T", "cur/5.a:2,")
			c.must(" OK", "NOOP")
		}
		if got := fmt.Sprint(c.must(" OK", tt.command)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.command, got, tt.want)
		}
	}
	if got := fmt.Sprint(c.must(" OK", "EXPUNGE")); got != "[* 2 EXPUNGE * 1 EXPUNGE]" {
		t.Errorf("EXPUNGE: got %s", got)
	}
	if got := fmt.Sprint(other.must(" OK", "NOOP")); got != "[* 6 EXPUNGE * 4 EXPUNGE * 3 EXPUNGE * 2 EXPUNGE * 1 EXPUNGE * 1 FETCH (FLAGS ())]" {
		t.Errorf("other session: got %s", got)
	}
	w.rename("u", "cur/5.a:2,", "cur/5.a:2,T")
	c.must(" OK", "CLOSE")
	if files, _ := os.ReadDir(filepath.Join(w.root, "u", "cur")); len(files) != 0 {
		t.Errorf("after CLOSE: %v", files)
	}
}

// A mailbox that is deleted under a session ends it.
func TestMailboxVanishes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("u", ".Work", "cur/1.a:2,", note)
	c := w.login("u")
	c.must(" OK", "SELECT Work")
	if err := os.RemoveAll(filepath.Join(w.root, "u", ".Work")); err != nil {
		t.Fatal(err)
	}
	c.send("a NOOP\r\n")
	c.want("* BYE [UNAVAILABLE]")
	c.ended()
}

// An idle session in the clear costs at most 16 KB, stack, buffers and all.
func TestIdleMemory(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector needs memory too")
	}
	w := newWorld(t, nil)
	w.srv.eager = true
	const n = 500
	clients := make([]*client, n)
	before := inUse()
	for i := range clients {
		clients[i] = w.dial()
		clients[i].line()
		clients[i].must(" OK", "LOGIN u secret")
		clients[i].send("i IDLE\r\n")
		clients[i].want("+ idling")
	}
	own := n * (4096 + 1024) // the test's own ends: a reader, a goroutine
	if per := (inUse() - before - own) / n; per > 16<<10 {
		t.Errorf("%d octets a session", per)
	} else {
		t.Logf("%d octets a session", per)
	}
}

// What a parked session has given back is free: it does not hold the buffer that it
// read its last command from.
func TestParkedHoldsNoBuffer(t *testing.T) {
	const n = 20
	var held atomic.Int64
	usual := readers.New
	t.Cleanup(func() { readers.New = usual })
	readers.New = func() any {
		r := usual().(*bufio.Reader)
		held.Add(1)
		runtime.AddCleanup(r, func(struct{}) { held.Add(-1) }, struct{}{})
		return r
	}
	runtime.GC()
	runtime.GC() // no reader is left in the pool
	w := newWorld(t, nil)
	for range n {
		c := w.login("u")
		c.send("i IDLE\r\n")
		c.want("+ idling")
	}
	if held.Load() == 0 {
		t.Fatal("no session has taken a buffer")
	}
	for end := time.Now().Add(10 * time.Second); held.Load() > 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		runtime.GC()
	}
	if held.Load() > 0 {
		t.Errorf("%d parked sessions hold %d buffers", n, held.Load())
	}
}

// inUse returns the octets of heap and stacks in use.
func inUse() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse + m.StackInuse)
}

// A session that waits has kept nothing of a large command that it has carried out.
func TestIdleMemoryAfterwards(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector needs memory too")
	}
	w := newWorld(t, nil)
	w.srv.eager = true
	const messages, first, most = 10000, 4000000000, 40 << 10
	w.deliverMany("u", messages, "\nx\n")
	if err := os.WriteFile(filepath.Join(w.root, "u", "dovecot-uidlist"), fmt.Appendf(nil, "3 V1700000000 N%d\n", first), 0o600); err != nil {
		t.Fatal(err)
	}
	var others strings.Builder // every other message
	for i := 0; i < messages; i += 2 {
		fmt.Fprintf(&others, "%d,", first+i)
	}
	clients := make([]*client, 8)
	all := func(command string) {
		for _, c := range clients {
			c.must(" OK", command)
		}
	}
	for i := range clients {
		clients[i] = w.login("u")
	}
	all("SELECT INBOX (CONDSTORE)")
	clients[0].must(" OK", `STORE 1:* -FLAGS.SILENT (\Seen)`) // what the mailbox itself needs for an edit stays
	all("NOOP")
	before := inUse()
	for _, commands := range [][]string{
		{`STORE 1:* +FLAGS.SILENT (\Seen)`, "NOOP"}, // after which all have one view again
		{"UID STORE " + others.String() + `1 (UNCHANGEDSINCE 1) +FLAGS.SILENT (\Flagged)`},
	} {
		for _, command := range commands {
			all(command)
		}
		per := (min(inUse(), inUse(), inUse()) - before) / len(clients) // one may not have parked yet
		if per > most {
			t.Errorf("%.40s: %d octets a session", commands[0], per)
		} else {
			t.Logf("%.40s: %d octets a session", commands[0], per)
		}
	}
}

// A session that sees mail come for weeks does not keep a note of each message.
func TestRecentStaysSmall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("u", "", "new/0.h", note)
	c := w.login("u")
	c.must(" OK", "SELECT INBOX")
	for i := range 10 {
		w.deliver("u", "", fmt.Sprintf("new/%d.h", i+1), note)
		c.must(" OK", "NOOP")
	}
	w.srv.each(func(s *Session) {
		if len(s.box.recent) != 1 || s.box.recentTold != 11 {
			t.Errorf("%d messages are recent: %v", s.box.recentTold, s.box.recent)
		}
	})
}
