package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"imapd/maildir"
	"imapd/test/belief"
	"imapd/test/peer"
)

// A command of a client, and what it does when it is answered OK.
type command struct {
	text string
	belief.Effect
}

// A story is all commands that change files, one after the other, on the account
// "basic".
type story struct {
	*testing.T
	dir      string // holds all accounts
	template string
	known    map[string]belief.Folder
	waiting  belief.Added // a delivery in new/ that nobody knows yet
	commands []command
	mirrors  atomic.Int64 // that came back
}

const (
	storyDate  = `"05-Jan-2024 08:09:10 +0000"`
	storyText  = "Subject: new\r\n\r\nA new message.\r\n"
	storyOther = "Subject: another\r\n\r\nAnother message.\r\n"
)

// storyLong takes more than one write.
var storyLong = "Subject: long\r\n\r\n" + strings.Repeat("Line after line after line.\r\n", 4000)

// newStory makes the account that the story begins with.
func newStory(t *testing.T) *story {
	t.Helper()
	st := &story{T: t, dir: peer.TempDir(t)}
	st.template = filepath.Join(st.dir, "template", "Maildir")
	peer.CopyTree(t, filepath.Dir(basic(t)), filepath.Dir(st.template))
	s := peer.Imapd(t, st.template, peer.Options{})
	c := s.Login(t, s.User)
	c.Do("CREATE Work/Projects/Old")
	c.Do("APPEND Work/Projects/Old %s %s", storyDate, peer.Literal(storyOther))
	st.known = st.look(t, c)
	many := strings.Contains(c.Do("CAPABILITY")[0].Text, " MULTIAPPEND")
	s.Stop()
	// With its indexes a copy skips UIDs, and the story knows those that are given.
	for _, folder := range []string{"/", "/.*/"} {
		for _, file := range must(filepath.Glob(st.template + folder + "imapd.index"))(t) {
			must(0, os.Remove(file))(t)
		}
	}
	drop(t, st.template, "Subject: a delivery\n\nwaits in new/\n")
	list := files(t, st.template)
	info, err := os.Stat(list[len(list)-1])
	if err != nil {
		t.Fatal(err)
	}
	st.waiting = belief.Added{Folder: "INBOX", Mail: belief.Mail{Text: "Subject: a delivery\r\n\r\nwaits in new/\r\n", Date: info.ModTime().Unix()}}
	in := st.known["INBOX"].Mails
	moved := func(folder string, m belief.Mail, move bool) belief.Added {
		return belief.Added{Folder: folder, Mail: m, Moved: move}
	}
	flagged := func(m belief.Mail, more ...string) belief.Mail {
		all := append(strings.Fields(m.Flags), more...)
		slices.Sort(all)
		m.Flags = strings.Join(slices.Compact(all), " ")
		return m
	}
	date := time.Date(2024, 1, 5, 8, 9, 10, 0, time.UTC).Unix()
	one, two := flagged(in[1], `\Flagged`), flagged(in[2], `\Flagged`)
	set := func(folder string, after map[maildir.UID]string) map[string]map[maildir.UID]string {
		return map[string]map[maildir.UID]string{folder: after}
	}
	st.commands = []command{
		{"LOGIN " + peer.User + " " + peer.Password, belief.Effect{}},
		{"ENABLE QRESYNC", belief.Effect{}},
		{"SELECT INBOX", belief.Effect{}},
		{fmt.Sprintf(`APPEND INBOX (\Seen work fresh) %s %s`, storyDate, peer.Literal(storyText)),
			belief.Effect{Adds: []belief.Added{moved("INBOX", belief.Mail{Text: storyText, Date: date, Flags: `\Seen fresh work`}, false)}}},
		{`UID STORE 1,2 +FLAGS (\Flagged)`, belief.Effect{Flags: set("INBOX", map[maildir.UID]string{1: one.Flags, 2: two.Flags})}},
		{`UID STORE 4 +FLAGS (blue)`, belief.Effect{Flags: set("INBOX", map[maildir.UID]string{4: flagged(in[4], "blue").Flags})}},
		{`UID COPY 1,2 Work`, belief.Effect{Adds: []belief.Added{moved("Work", one, false), moved("Work", two, false)}}},
		{`UID MOVE 4,7 Sent`, belief.Effect{Adds: []belief.Added{moved("Sent", flagged(in[4], "blue"), true), moved("Sent", in[7], true)},
			Drops: map[string][]maildir.UID{"INBOX": {4, 7}}}},
		{`UID STORE 1,2 FLAGS (\Deleted)`, belief.Effect{Flags: set("INBOX", map[maildir.UID]string{1: `\Deleted`, 2: `\Deleted`})}},
		{`EXPUNGE`, belief.Effect{Drops: map[string][]maildir.UID{"INBOX": {1, 2}}}},
		{`CREATE New/Folder`, belief.Effect{Makes: "New/Folder"}},
		{fmt.Sprintf(`APPEND New/Folder %s %s`, storyDate, peer.Literal(storyOther)),
			belief.Effect{Adds: []belief.Added{moved("New/Folder", belief.Mail{Text: storyOther, Date: date}, false)}}},
		{`RENAME Work/Projects Labour`, belief.Effect{Rename: [2]string{"Work/Projects", "Labour"}}},
		{`DELETE Drafts`, belief.Effect{Kills: "Drafts"}},
		{`DELETE Labour`, belief.Effect{Kills: "Labour"}},
		{`SUBSCRIBE New/Folder`, belief.Effect{}},
		{`SELECT Sent`, belief.Effect{}},
		{`UID MOVE 2 INBOX`, belief.Effect{Adds: []belief.Added{moved("INBOX", flagged(in[4], "blue"), true)},
			Drops: map[string][]maildir.UID{"Sent": {2}}}}, // there and back
		{`UID COPY 1,3 New/Folder`, belief.Effect{Adds: []belief.Added{
			moved("New/Folder", st.known["Sent"].Mails[1], false), moved("New/Folder", in[7], false)}}},
		{`CREATE New/Folder/Below/It`, belief.Effect{Makes: "New/Folder/Below/It"}},
		{`RENAME New/Folder Newer`, belief.Effect{Rename: [2]string{"New/Folder", "Newer"}}},
		{fmt.Sprintf(`APPEND Newer (\Answered) %s %s`, storyDate, peer.Literal(storyLong)),
			belief.Effect{Adds: []belief.Added{moved("Newer", belief.Mail{Text: storyLong, Date: date, Flags: `\Answered`}, false)}}},
		{`SELECT Newer`, belief.Effect{}},
		{`UID STORE 1:3 FLAGS (\Deleted green)`, belief.Effect{Flags: set("Newer", map[maildir.UID]string{
			1: `\Deleted green`, 2: `\Deleted green`, 3: `\Deleted green`})}},
		{`UID EXPUNGE 2:3`, belief.Effect{Drops: map[string][]maildir.UID{"Newer": {2, 3}}}},
		{`UNSUBSCRIBE New/Folder`, belief.Effect{}},
		{`DELETE Newer/Below/It`, belief.Effect{Kills: "Newer/Below/It"}},
	}
	if many {
		st.commands = append(st.commands, command{
			fmt.Sprintf(`APPEND Trash (\Seen) %s %s (\Flagged) %[1]s %[3]s`, storyDate, peer.Literal(storyText), peer.Literal(storyOther)),
			belief.Effect{Adds: []belief.Added{
				moved("Trash", belief.Mail{Text: storyText, Date: date, Flags: `\Seen`}, false),
				moved("Trash", belief.Mail{Text: storyOther, Date: date, Flags: `\Flagged`}, false),
			}},
		})
	}
	return st
}

var (
	storyFolder = regexp.MustCompile(`^\* LIST \(([^)]*)\) "/" "?([^"]*)"?$`)
	highestLine = regexp.MustCompile(`^\* OK \[HIGHESTMODSEQ (\d+)\]`)
)

// look returns all that a client can find out.
func (st *story) look(t *testing.T, c *peer.Client) map[string]belief.Folder {
	t.Helper()
	all := map[string]belief.Folder{}
	for _, r := range c.Do(`LIST "" *`) {
		m := storyFolder.FindStringSubmatch(r.Text)
		if m == nil || strings.Contains(m[1], `\NonExistent`) || strings.Contains(m[1], `\Noselect`) {
			continue
		}
		f := belief.Folder{Mails: map[maildir.UID]belief.Mail{}}
		for _, r := range c.Do("SELECT %q", m[2]) {
			if n := first(highestLine, r.Text); n != "" {
				f.ModSeq = maildir.ModSeq(number(n))
			}
			switch code := codeLine.FindStringSubmatch(r.Text); {
			case code == nil:
			case code[1] == "UIDNEXT":
				f.Next = maildir.UID(number(code[2]))
			default:
				f.Validity = uint32(number(code[2]))
			}
		}
		for _, r := range c.Do("UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])") {
			if len(r.Literals) != 1 {
				continue
			}
			date, err := time.Parse("_2-Jan-2006 15:04:05 -0700", first(fetchDate, r.Text))
			if err != nil {
				t.Fatal(err)
			}
			f.Mails[maildir.UID(number(first(fetchUID, r.Text)))] = belief.Mail{Text: r.Literals[0], Date: date.Unix(),
				Flags: strings.Join(flags(strings.Fields(first(fetchFlag, r.Text))), " ")}
		}
		c.Do("UNSELECT")
		all[m[2]] = f
	}
	return all
}

// knows is what the client knows before the first command.
func (st *story) knows() *belief.Known {
	k := belief.New(st.known, false)
	k.Await(st.waiting)
	return k
}

// place makes an account of its own, whose name is user.
func (st *story) place(user string) (maildir string) {
	maildir = filepath.Join(st.dir, user, "Maildir")
	peer.CopyTree(st.T, filepath.Dir(st.template), filepath.Dir(maildir))
	return maildir
}

// noModSeq compares what servers say that do not share an imapd.index.
var noModSeq = cmpopts.IgnoreFields(belief.Folder{}, "ModSeq")

// judge compares what s serves with what the client knows, and what it is told when
// it comes back, and holds that all can be changed.
func (st *story) judge(t *testing.T, s *peer.Server, k *belief.Known) map[string]belief.Folder {
	t.Helper()
	c := s.Login(t, s.User)
	c.Do("ENABLE QRESYNC")
	all := st.look(t, c)
	asked, stale := k.Stale(all, func(name string, mirror belief.Folder) (belief.News, error) {
		return comeBack(c, name, mirror), nil
	})
	st.mirrors.Add(int64(asked))
	for _, v := range append(k.Violations(all), stale...) {
		t.Error(v)
	}
	for name := range st.look(t, c) {
		c.Do("APPEND %q %s", name, peer.Literal("Subject: after\r\n\r\nthe crash\r\n"))
		c.Do("SELECT %q", name)
		c.Do("UID STORE 1:* +FLAGS.SILENT (again)")
		c.Do("UNSELECT")
	}
	return st.look(t, c)
}

// TestKillPoints ends the real server before each of the calls by which it changes
// files while a client tells its story; and then the next one, and Dovecot, must
// find what the client may believe, and when it comes back it is told what it lacks.
func TestKillPoints(t *testing.T) {
	t.Parallel()
	st := newStory(t)
	points := st.whole(0)
	if points < 300 {
		t.Errorf("the story is only %d calls long", points)
	}
	step := 1
	if !soaking() {
		step = points/12 + 1
	}
	var kills atomic.Int64
	var mu sync.Mutex
	found := map[string]map[string]belief.Folder{}
	t.Run("point", func(t *testing.T) {
		for n := 1 + step/2; n <= points; n += step {
			t.Run(strconv.Itoa(n), func(t *testing.T) {
				t.Parallel()
				user := fmt.Sprintf("u%d", n)
				if all, killed := st.kill(t, user, n); killed {
					kills.Add(1)
					mu.Lock()
					found[user] = all
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d kill points of %d, %d mirrors", kills.Load(), points, st.mirrors.Load())
	if kills.Load() < int64(points/step*9/10) {
		t.Error("the story is not the same each time")
	}
	st.askDovecot(found)
}

// whole tells the story without a fault, and returns how many calls there are for
// a killer that has them fail with errno, or kills.
func (st *story) whole(errno unix.Errno) int {
	st.Helper()
	dir, file := st.place("whole"), st.dir+"/calls"
	s := peer.Imapd(st.T, dir, peer.Options{Wrap: underKiller(st.dir+"/whole", 0, errno, file)})
	k, refusal := st.tell(newTeller(st.T, s))
	if refusal != "" {
		st.Fatal(refusal)
	}
	s.Stop()
	next := peer.Imapd(st.T, dir, peer.Options{})
	defer next.Stop()
	st.judge(st.T, next, k)
	n, _ := killerCalls(st.T, file)
	return n
}

// kill tells the story to a server that is killed at its n-th call, and returns
// what the next one serves in the end.
func (st *story) kill(t *testing.T, user string, n int) (all map[string]belief.Folder, killed bool) {
	t.Helper()
	dir := st.place(user)
	file := st.dir + "/calls." + user
	s := peer.Imapd(t, dir, peer.Options{Wrap: underKiller(filepath.Dir(dir), n, 0, file)})
	k, refusal := st.tell(newTeller(t, s))
	if refusal != "" {
		t.Error(refusal)
	}
	s.Stop()
	calls, what := killerCalls(t, file)
	age(t, dir)
	next := peer.Imapd(t, dir, peer.Options{})
	defer next.Stop()
	all = st.judge(t, next, k)
	if t.Failed() {
		t.Logf("killed before call %d, %s", calls, what)
	}
	return all, calls == n
}

// TestRefusedCalls has the kernel refuse one call in a story: what was answered
// is so, what was refused has left nothing, and the server goes on.
func TestRefusedCalls(t *testing.T) {
	t.Parallel()
	if !refusable {
		t.Skip("calls cannot be made to fail on this machine")
	}
	st := newStory(t)
	errnos := []unix.Errno{unix.ENOSPC, unix.EIO, unix.EDQUOT, unix.EMFILE, unix.EACCES, unix.ESTALE, unix.EINTR}
	calls := st.whole(unix.EIO)
	step := 1
	if !soaking() {
		step = calls/10 + 1
	}
	var refused, passed atomic.Int64
	t.Run("call", func(t *testing.T) {
		for n := 1 + step/2; n <= calls; n += step {
			errno := errnos[n%len(errnos)]
			t.Run(fmt.Sprintf("%d %v", n, errno), func(t *testing.T) {
				t.Parallel()
				if st.refuse(t, fmt.Sprintf("u%d", n), n, errno) {
					refused.Add(1)
				} else {
					passed.Add(1)
				}
			})
		}
	})
	t.Logf("%d faults in %d calls: %d commands refused, %d stories whole, %d mirrors", refused.Load()+passed.Load(), calls, refused.Load(), passed.Load(), st.mirrors.Load())
	if refused.Load() == 0 {
		t.Error("no call was refused")
	}
}

// refuse tells the story to a server whose n-th call fails, and reports whether a
// command did.
func (st *story) refuse(t *testing.T, user string, n int, errno unix.Errno) bool {
	t.Helper()
	dir, file := st.place(user), st.dir+"/calls."+user
	s := peer.Imapd(t, dir, peer.Options{Wrap: underKiller(filepath.Dir(dir), n, errno, file)})
	k, refusal := st.tell(newTeller(t, s))
	unix.Kill(s.PID, unix.SIGUSR1)
	age(t, dir)
	all := st.judge(t, s, k)
	s.Stop()
	_, what := killerCalls(t, file)
	age(t, dir)
	next := peer.Imapd(t, dir, peer.Options{})
	defer next.Stop()
	if diff := cmp.Diff(all, st.look(t, next.Login(t, next.User)), noModSeq); diff != "" {
		t.Errorf("(-this process +the next):\n%s", diff)
	}
	if errno == unix.EINTR && refusal != "" {
		t.Error("an interrupted call was not made again")
	}
	if t.Failed() {
		t.Logf("call %d, %s, failed with %v: %s", n, what, errno, refusal)
	}
	return refusal != ""
}

// askDovecot holds that Dovecot finds in the accounts what we do.
func (st *story) askDovecot(found map[string]map[string]belief.Folder) {
	st.Helper()
	d := peer.Dovecot(st.T, st.dir+"/%u/Maildir", peer.Options{})
	for user, want := range found {
		c := d.Login(st.T, user)
		if diff := cmp.Diff(want, st.look(st.T, c), noModSeq); diff != "" {
			st.Errorf("%s (-imapd +dovecot):\n%s", user, diff)
		}
		c.Do("LOGOUT")
	}
	uncomplaining(st.T, d)
}
