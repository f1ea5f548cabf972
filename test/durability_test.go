package test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"imapd/test/peer"
)

// What the server asked the kernel for, as strace tells it.
var (
	writesData = regexp.MustCompile(`^(write|pwrite64|writev)\(\d+<[^>]*/\.Sent/tmp/`)
	setsTime   = regexp.MustCompile(`^utimensat\(\d+<[^>]*/\.Sent/tmp`)
	syncsData  = regexp.MustCompile(`^fsync\(\d+<[^>]*/\.Sent/tmp/`)
	placesNew  = regexp.MustCompile(`^(renameat2?|linkat)\(\d+<[^>]*/\.Sent/tmp>, .*, \d+<[^>]*/\.Sent/(cur|new)>`)
	placesCopy = regexp.MustCompile(`^(renameat2?|linkat)\(\d+<[^>]*/Maildir/cur>, .*, \d+<[^>]*/\.Sent/(cur|new)>`)
	writesList = regexp.MustCompile(`^(write|pwrite64|writev)\(\d+<[^>]*/\.Sent/dovecot-uidlist`)
	syncsList  = regexp.MustCompile(`^(fsync|fdatasync)\(\d+<[^>]*/\.Sent/dovecot-uidlist`)
	syncsDir   = regexp.MustCompile(`^fsync\(\d+<[^>]*/\.Sent/(cur|new)>`)
	syncsFrom  = regexp.MustCompile(`^fsync\(\d+<[^>]*/Maildir/cur>`)
	replies    = regexp.MustCompile(`^(write|sendto|sendmsg|writev)\(\d+<(TCP|socket)[^>]*>, "[^"]*(APPENDUID|COPYUID)`)
)

// TestDurability holds the order in which a message becomes durable before it
// is acknowledged: nothing may be told to the client that a power cut undoes.
func TestDurability(t *testing.T) {
	t.Parallel()
	peer.Need(t, "strace")
	for _, tt := range []struct {
		name, command string
		orders        [][]*regexp.Regexp // each step after the one before
	}{
		{"APPEND", "APPEND Sent (\\Seen) \"05-Jan-2024 08:09:10 +0000\" " + peer.Literal("Subject: x\r\n\r\ntext\r\n"), [][]*regexp.Regexp{
			{writesData, setsTime, syncsData, placesNew, writesList, syncsList, replies},
			{placesNew, syncsDir, replies},
		}},
		{"COPY", "UID COPY 2 Sent", [][]*regexp.Regexp{
			{placesCopy, writesList, syncsList, replies},
			{placesCopy, syncsDir, replies},
		}},
		{"MOVE", "UID MOVE 4 Sent", [][]*regexp.Regexp{
			{placesCopy, writesList, syncsList, replies},
			{placesCopy, syncsDir, replies},
			{placesCopy, syncsFrom, replies},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, log := basic(t), peer.TempDir(t)+"/strace"
			s := peer.Imapd(t, dir, peer.Options{Wrap: []string{"strace", "-D", "-f", "-y", "-q", "-s", "200", "-o", log,
				"-e", "trace=write,pwrite64,writev,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,utimensat"}})
			c := s.Login(t, s.User)
			c.Do("SELECT INBOX")
			c.Do("%s", tt.command)
			eventually(t, func() string { return "strace has not written the reply down" }, func() bool {
				return strings.Contains(read(t, log), "UID 17000")
			})
			calls := parseStrace(read(t, log))
			for _, order := range tt.orders {
				checkOrder(t, calls, order)
			}
			if t.Failed() {
				t.Logf("the calls:\n%s", read(t, log))
			}
		})
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A call is a system call that began and ended at these lines of the log.
type call struct {
	text       string
	begin, end int
}

// parseStrace joins what strace splits when threads call at the same time.
func parseStrace(log string) []call {
	var calls []call
	open := map[string]int{} // the unfinished call of each thread
	n := 0
	for line := range strings.Lines(log) {
		n++
		thread, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		text = strings.TrimSpace(text)
		if head, ok := strings.CutSuffix(text, " <unfinished ...>"); ok {
			open[thread] = len(calls)
			calls = append(calls, call{head, n, n})
			continue
		}
		if _, tail, ok := strings.Cut(text, " resumed>"); ok && strings.HasPrefix(text, "<... ") {
			if i, ok := open[thread]; ok {
				calls[i].text += tail
				calls[i].end = n
			}
			continue
		}
		calls = append(calls, call{text, n, n})
	}
	return calls
}

// checkOrder holds that each step ended before the next began. Of a step that
// happens several times the last counts before the next step's first.
func checkOrder(t *testing.T, calls []call, order []*regexp.Regexp) {
	t.Helper()
	end := 0
	var before *regexp.Regexp
	for _, step := range order {
		found, last := false, 0
		for _, c := range calls {
			if !step.MatchString(c.text) || strings.Contains(c.text, ") = -1 ") {
				continue
			}
			if c.begin <= end {
				t.Errorf("%s\ncame before the end of the last\n%s", c.text, before)
				return
			}
			found, last = true, max(last, c.end)
		}
		if !found {
			t.Errorf("no call %s", step)
			return
		}
		end, before = last, step
	}
}
