package test

import (
	"fmt"
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
	writesList = regexp.MustCompile(`^(write|pwrite64|writev)\(\d+<[^>]*/\.Sent/dovecot-uidlist(\.tmp)?>`)
	syncsList  = regexp.MustCompile(`^(fsync|fdatasync)\(\d+<[^>]*/\.Sent/dovecot-uidlist(\.tmp)?>`)
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
				if err := checkOrder(calls, order); err != nil {
					t.Error(err)
				}
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

// checkOrder holds that each step ended before the next began. A step counts
// with all its calls; only of calls that sync, which may have happened before
// for another reason, the first one after the step before counts.
func checkOrder(calls []call, order []*regexp.Regexp) error {
	end := 0
	var before *regexp.Regexp
	for _, step := range order {
		last := 0
		for _, c := range calls {
			if !step.MatchString(c.text) || strings.Contains(c.text, ") = -1 ") {
				continue
			}
			sync := strings.HasPrefix(c.text, "f")
			switch {
			case c.begin <= end && !sync:
				return fmt.Errorf("%s\nbegan before the end of\n%s", c.text, before)
			case c.begin > end && !(sync && last > 0):
				last = max(last, c.end)
			}
		}
		if last == 0 {
			return fmt.Errorf("no call\n%s\nafter\n%s", step, before)
		}
		end, before = last, step
	}
	return nil
}

func TestCheckOrder(t *testing.T) {
	t.Parallel()
	const (
		data  = `7 write(3</m/.Sent/tmp/1>, "x", 1) = 1` + "\n"
		sync  = `7 fsync(3</m/.Sent/tmp/1>) = 0` + "\n"
		place = `7 renameat2(4</m/.Sent/tmp>, "1", 5</m/.Sent/cur>, "1", RENAME_NOREPLACE) = 0` + "\n"
		reply = `7 write(9<socket:[1]>, "a OK [APPENDUID 1 1]", 20) = 20` + "\n"
		half  = "8 fsync(3</m/.Sent/tmp/1> <unfinished ...>\n"
		rest  = "8 <... fsync resumed>) = 0\n"
	)
	order := []*regexp.Regexp{writesData, syncsData, placesNew, replies}
	for _, tt := range []struct {
		log string
		ok  bool
	}{
		{data + sync + place + reply, true},
		{data + half + rest + place + reply, true},
		{sync + data + sync + place + reply, true},
		{data + sync + data + place + reply, false},
		{data + place + sync + reply, false},
		{data + sync + reply + place, false},
		{data + place + reply, false},
		{data + half + place + rest + reply, false},
		{data + sync + place, false},
		{data + strings.Replace(sync, "= 0", "= -1 EIO", 1) + place + reply, false},
		{"", false},
	} {
		if err := checkOrder(parseStrace(tt.log), order); (err == nil) != tt.ok {
			t.Errorf("%s%v", tt.log, err)
		}
	}
}
