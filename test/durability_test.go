package test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"imapd/test/peer"
)

// What the server asked the kernel for, as strace tells it. The messages go
// from INBOX, or Work, to Sent.
var (
	writesData  = regexp.MustCompile(`^(write|pwrite64|writev)\(\d+<[^>]*/\.Sent/tmp/\d`)
	setsTime    = regexp.MustCompile(`^utimensat\(\d+<[^>]*/\.Sent/tmp`)
	syncsData   = regexp.MustCompile(`^(fsync|fdatasync)\(\d+<[^>]*/\.Sent/tmp/`)
	placesNew   = regexp.MustCompile(`^(renameat2?|linkat)\(\d+<[^>]*/\.Sent/tmp>, .*, \d+<[^>]*/\.Sent/(cur|new)>`)
	syncsWords  = regexp.MustCompile(`^(fsync|fdatasync)\(\d+<[^>]*/\.Sent/dovecot-keywords[^>]*>`)
	placesWords = regexp.MustCompile(`^renameat2?\(\d+<[^>]*/\.Sent>, "dovecot-keywords[^"]*", \d+<[^>]*/\.Sent>, "dovecot-keywords"`)
	placesCopy  = regexp.MustCompile(`^(renameat2?|linkat)\(\d+<[^>]*/Maildir/cur>, .*, \d+<[^>]*/\.Sent/(cur|new)>`)
	writesList  = regexp.MustCompile(`^(write|pwrite64|writev)\(\d+<[^>]*/\.Sent/dovecot-uidlist(\.tmp)?>`)
	syncsList   = regexp.MustCompile(`^(fsync|fdatasync)\(\d+<[^>]*/\.Sent/dovecot-uidlist(\.tmp)?>`)
	syncsDir    = regexp.MustCompile(`^fsync\(\d+<[^>]*/\.Sent/(cur|new)>`)
	syncsCur    = regexp.MustCompile(`^fsync\(\d+<[^>]*/cur>`)
	syncsNew    = regexp.MustCompile(`^fsync\(\d+<[^>]*/new>`)
	syncsFrom   = regexp.MustCompile(`^fsync\(\d+<[^>]*/Maildir/cur>`)
	notes       = regexp.MustCompile(`^(fsync|fdatasync)\(\d+<[^>]*/Maildir/imapd-intents>`)
	writesMore  = regexp.MustCompile(`^(write|pwrite64|writev)\(\d+<[^>]*/Maildir/imapd-keywords(\.tmp)?>`)
	syncsMore   = regexp.MustCompile(`^(fsync|fdatasync)\(\d+<[^>]*/Maildir/imapd-keywords(\.tmp)?>`)
	renames     = regexp.MustCompile(`^renameat2?\(\d+<[^>]*/cur>, .*, \d+<[^>]*/cur>`)
	unlinks     = regexp.MustCompile(`^unlinkat\(\d+<[^>]*/cur>`)
	syncsIndex  = regexp.MustCompile(`^(fsync|fdatasync)\(\d+<[^>]*/imapd\.index>`)
	syncsSent   = regexp.MustCompile(`^(fsync|fdatasync)\(\d+<[^>]*/\.Sent/imapd\.index>`)
	replies     = regexp.MustCompile(`^(write|sendto|sendmsg|writev)\(\d+<(TCP|socket)[^>]*>, "(t3 OK|[^"]*[^"\d]t3 OK)`)
)

// TestDurability holds the order in which things become durable before they are
// acknowledged: nothing may be told to the client that a power cut undoes,
// beyond what maildir_fsync gives up.
func TestDurability(t *testing.T) {
	t.Parallel()
	peer.Need(t, "strace")
	var words []string // more than file names can hold
	for i := range 30 {
		words = append(words, fmt.Sprint("k", i))
	}
	manyKeywords := strings.Join(words, " ")
	appends := "APPEND Sent (\\Seen) \"05-Jan-2024 08:09:10 +0000\" " + peer.Literal("Subject: x\r\n\r\ntext\r\n")
	type calls = []*regexp.Regexp
	for _, tt := range []struct {
		fsync, mailbox, command string
		orders                  []calls // each step after the one before
		never                   calls   // what must not be asked for
	}{
		{"optimized", "INBOX", appends, []calls{
			{writesData, setsTime, syncsData, placesNew, writesList, syncsList, syncsDir, replies},
		}, nil},
		{"optimized", "INBOX", strings.Replace(appends, "Seen", "Seen new-keyword", 1), []calls{
			{syncsWords, placesWords, placesNew, syncsDir, replies},
		}, nil},
		// Sent has an index that was closed. The first has a delivery too.
		{"optimized", "INBOX", "SELECT Sent", []calls{{writesList, syncsList, syncsSent, replies}}, nil},
		{"optimized", "INBOX", "EXAMINE Sent", []calls{{syncsSent, replies}}, nil},
		{"optimized", "INBOX", "UID COPY 2 Sent", []calls{
			{placesCopy, syncsDir, writesList, syncsList, replies},
		}, nil},
		{"optimized", "INBOX", "UID MOVE 4 Sent", []calls{
			{placesCopy, notes, syncsDir, writesList, syncsList, unlinks, syncsFrom, replies},
			{unlinks, syncsIndex, replies},
		}, calls{syncsNew}}, // nothing came from there
		{"optimized", "INBOX", "UID STORE 1 +FLAGS (" + manyKeywords + ")", []calls{
			{writesMore, syncsMore, replies},
			{renames, replies},
		}, calls{syncsCur, syncsNew}},
		{"optimized", "Work", "EXPUNGE", []calls{{unlinks, syncsIndex, replies}}, calls{syncsCur, syncsNew}},
		{"optimized", "INBOX", "UID STORE 1 +FLAGS (\\Flagged)", []calls{{renames, replies}}, calls{syncsCur, syncsNew}},
		{"always", "INBOX", appends, []calls{
			{writesData, setsTime, syncsData, placesNew, writesList, syncsList, syncsDir, replies},
		}, nil},
		{"always", "Work", "EXPUNGE", []calls{{unlinks, syncsCur, replies}, {unlinks, syncsIndex, replies}}, nil},
		{"always", "INBOX", "UID STORE 1 +FLAGS (\\Flagged)", []calls{{renames, syncsCur, replies}}, nil},
		{"never", "INBOX", appends, []calls{{writesData, setsTime, placesNew, writesList, replies}}, calls{syncsData, syncsCur, syncsNew}},
		{"never", "INBOX", "UID COPY 2 Sent", []calls{{placesCopy, writesList, replies}}, calls{syncsData, syncsCur, syncsNew}},
		{"never", "INBOX", "UID MOVE 4 Sent", []calls{{placesCopy, writesList, unlinks, replies}}, calls{syncsData, syncsCur, syncsNew}},
		{"never", "Work", "EXPUNGE", []calls{{unlinks, replies}}, calls{syncsCur, syncsNew, syncsIndex}},
		{"never", "INBOX", "EXAMINE Sent", []calls{{replies}}, calls{syncsIndex}},
	} {
		verb, _, _ := strings.Cut(strings.TrimPrefix(tt.command, "UID "), " ")
		t.Run(tt.fsync+"/"+verb, func(t *testing.T) {
			t.Parallel()
			log := traced(t, tt.fsync, tt.mailbox, tt.command)
			seen := parseStrace(log)
			for _, order := range tt.orders {
				if err := checkOrder(seen, order); err != nil {
					t.Error(err)
				}
			}
			for _, c := range seen {
				for _, never := range tt.never {
					if never.MatchString(c.text) {
						t.Errorf("maildir_fsync: %s, but\n%s", tt.fsync, c.text)
					}
				}
			}
			if t.Failed() {
				t.Logf("the calls:\n%s", log)
			}
		})
	}
}

// traced runs one command, the third of its client, in an account of its own
// and returns what strace wrote down until the command was answered.
func traced(t *testing.T, fsync, mailbox, command string) (log string) {
	t.Helper()
	dir, file := basic(t), peer.TempDir(t)+"/strace"
	if strings.HasSuffix(command, " Sent") && !strings.HasPrefix(command, "UID") {
		before := peer.Imapd(t, dir, peer.Options{})
		before.Login(t, before.User).Do("SELECT Sent")
		before.Stop()
	}
	s := peer.Imapd(t, dir, peer.Options{
		Imapd: []string{"maildir_fsync: " + fsync},
		Wrap: []string{"strace", "-D", "-f", "-y", "-q", "-s", "2000", "-o", file,
			"-e", "trace=write,pwrite64,writev,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,utimensat"},
	})
	c := s.Login(t, s.User)
	c.Do("SELECT %s", mailbox)
	if command == "SELECT Sent" {
		drop(t, dir+"/.Sent", "Subject: x\n\ntext\n")
	}
	c.Do("%s", command)
	eventually(t, func() string { return "strace has not written the reply down" }, func() bool {
		log = read(t, file)
		return strings.Contains(log, "t3 OK")
	})
	return log
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
		reply = `7 write(9<socket:[1]>, "* 1 EXISTS\r\nt3 OK [APPENDUID 1 1]", 20) = 20` + "\n"
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
