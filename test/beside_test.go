package test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imapd/test/peer"
)

// besideLength is how long everybody works on one INBOX.
func besideLength() time.Duration {
	if soaking() {
		return time.Minute
	}
	return 8 * time.Second
}

// TestSideBySide holds that on one INBOX our server, several processes of it, a
// Dovecot with a client, Dovecot's LMTP and a program that renames can be at work
// at the same time: no client is told of a message that is gone which is not, no
// UID changes its message, and in the end both servers have the same messages
// under the same UIDs, each once, and Dovecot has nothing to complain of.
//
// The program that renames takes the lock, or the folder is small: in a larger one
// a Dovecot that reads it in pieces loses UIDs to renames without the lock, beside
// whatever server; see TestRaceDovecot.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		messages int
		every    time.Duration // between deliveries
		unlinks  float64       // a second, at least
		locked   bool
		inetd    int // further processes of ours
	}{
		{"lock", 2500, 50 * time.Millisecond, raceLeast / 100, true, 0},
		{"small", 90, 700 * time.Millisecond, 1, false, 0}, // never above 250 files
		{"processes", 2500, 50 * time.Millisecond, raceLeast / 100, true, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			lmtp := freePort(t)
			r := &race{world: newWorld(t, tt.messages), fleeting: true}
			ours := peer.Imapd(t, r.dir, peer.Options{})
			dovecot := peer.Dovecot(t, r.dir, peer.Options{Dovecot: []string{
				"protocols = imap lmtp",
				fmt.Sprintf("service lmtp {\n inet_listener lmtp {\n  address = 127.0.0.1\n  port = %s\n }\n}", lmtp),
			}})
			all := []*witness{r.witness(ours, "keeper"), r.witness(dovecot, "keeper"), r.witness(ours, "watcher"), r.witness(dovecot, "watcher")}
			for i := range tt.inetd {
				conn, process, err := ours.Inetd(t)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					conn.Close()
					process.Wait()
				})
				all = append(all, r.witnessOn(conn, ours, fmt.Sprintf("keeper %d", i)))
			}
			before := len(all[0].texts)
			r.together(all, func() { r.lmtp(lmtp, tt.every) }, func() { r.flagFirst(tt.locked) })
			r.busy(besideLength(), raceLeast, tt.unlinks, 0.5/tt.every.Seconds())
			r.agree(ours, dovecot, all, before)
			uncomplaining(t, dovecot)
			uncomplaining(t, ours)
			if n := len(files(t, r.dir)); !tt.locked && n > 250 {
				t.Errorf("%d files are too many to be read at once", n)
			}
		})
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// together has all clients and others at work for a while.
func (r *race) together(all []*witness, others ...func()) {
	r.Helper()
	var wg sync.WaitGroup
	for i, x := range all {
		x.rand = rand.New(rand.NewPCG(11, uint64(i)))
		if strings.HasPrefix(x.name, "keeper") {
			wg.Go(x.keep)
		} else {
			wg.Go(x.watch)
		}
	}
	for _, f := range others {
		wg.Go(f)
	}
	<-time.After(besideLength())
	r.stop.Store(true)
	wg.Wait()
	r.stop.Store(false)
}

// busy holds that those who disturb had enough done in that time: so many renames,
// unlinks and deliveries a second. A tenth is enough where other tests run beside.
func (r *race) busy(took time.Duration, renames, unlinks, deliveries float64) {
	r.Helper()
	for _, x := range []struct {
		what  string
		done  int
		least float64
	}{
		{"renames", int(r.renamed.Load()), renames},
		{"unlinks", count(&r.removed), unlinks},
		{"deliveries", int(r.delivered.Load()), deliveries},
	} {
		least := x.least * took.Seconds()
		if !soaking() {
			least /= 10
		}
		if x.done == 0 || float64(x.done) < least {
			r.Errorf("%d %s in %v, fewer than %.0f", x.done, x.what, took, least)
		}
		r.Logf("%d %s in %v", x.done, x.what, took)
	}
}

// most is how many messages of its own a keeper has at a time.
const most = 15

// keep saves messages, changes flags, of its own and of others, and expunges its
// own, until the world stops. Its own no one else touches.
func (x *witness) keep() {
	var own []int
	for i := 0; !x.stop.Load(); i++ {
		switch n := x.rand.IntN(10); {
		case n < 3 && len(own) < most:
			text := x.text("keeper")
			x.added(text)
			x.do(`APPEND INBOX (\Seen) %s`, peer.Literal(text))
			if x.last.Name != "OK" || len(x.last.Code) != 3 {
				x.lie("APPEND: %v", x.last)
				return
			}
			own = append(own, number(x.last.Code[2].Text))
		case n < 5 && len(own) > 0:
			k := x.rand.IntN(len(own))
			x.must(`UID STORE %d +FLAGS (\Deleted)`, own[k])
			x.removed.Store(uint32(own[k]), time.Now())
			x.must("UID EXPUNGE %d", own[k])
			own = slices.Delete(own, k, k+1)
		case n < 7 && len(own) > 0:
			x.must("UID STORE %d FLAGS (%s)", own[x.rand.IntN(len(own))], []string{`\Flagged`, "later", `\Seen \Answered`}[i%3])
		default:
			uid := 1 + x.rand.IntN(90)
			x.do("UID STORE %d:%d %sFLAGS (%s)", uid, uid+x.rand.IntN(20), []string{"+", "-"}[i%2], []string{`\Draft`, "urgent"}[i%3%2])
		}
		x.do("NOOP")
		x.learn()
	}
}

// must is do for what has no reason to fail.
func (x *witness) must(format string, args ...any) {
	x.do(format, args...)
	if x.last.Name != "OK" {
		x.lie("%s: %v", fmt.Sprintf(format, args...), x.last)
	}
}

// lmtp delivers through Dovecot until the world stops.
func (r *race) lmtp(port string, every time.Duration) {
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		r.Error(err)
		return
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	say := func(line string) {
		conn.SetDeadline(time.Now().Add(answerTime))
		if line != "" {
			io.WriteString(conn, line+"\r\n")
		}
		answer := "-"
		for more := true; more && err == nil; more = len(answer) > 3 && answer[3] == '-' {
			answer, err = in.ReadString('\n')
		}
		if err == nil && answer[0] != '2' && answer[0] != '3' {
			err = fmt.Errorf("%q: %s", line, answer)
		}
	}
	say("")
	say("LHLO example.org")
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !r.stop.Load() && err == nil {
		text := r.text("lmtp")
		r.added(text)
		say("MAIL FROM:<>")
		say("RCPT TO:<" + peer.User + ">")
		say("DATA")
		say(text + ".")
		r.delivered.Add(1)
		<-tick.C
	}
	if err != nil {
		r.Errorf("LMTP: %v", err)
	}
}

// flagFirst is another program that changes the flags of the messages that were
// there at first, each time with the lock or always without. With the lock it removes
// one in a hundred.
func (r *race) flagFirst(locked bool) {
	cur := filepath.Join(r.dir, "cur")
	uids := uidsByBase(r.T, r.dir)
	p := newPace()
	defer p.tick.Stop()
	for i := 0; !r.stop.Load(); i++ {
		names, err := filepath.Glob(cur + "/*.first:*")
		if err != nil || len(names) == 0 {
			r.Error("no messages", err)
			return
		}
		for some := range slices.Chunk(names, 20) {
			if r.stop.Load() {
				return
			}
			p.wait(len(some))
			if locked && !r.lock() {
				return
			}
			if locked && p.done%100 < len(some) {
				r.unlink(some[0], uids)
				some = some[1:]
			}
			for _, name := range some {
				base, _, _ := strings.Cut(name, ":2,")
				to := base + ":2," + []string{"F", "S", "FS", ""}[i%4]
				if os.Rename(name, to) == nil && name != to { // unless somebody was faster
					r.renamed.Add(1)
				}
			}
			if locked {
				r.unlock()
			}
		}
	}
}

// unlink removes a message, unless somebody was faster.
func (r *race) unlink(name string, uids map[string]uint32) {
	base, _, _ := strings.Cut(filepath.Base(name), ":2,")
	r.removed.Store(uids[base], time.Now())
	if os.Remove(name) != nil {
		r.removed.Delete(uids[base])
	}
}

// lock takes dovecot-uidlist.lock as any program may. It reports whether it has
// it: not if the world stops.
func (r *race) lock() bool {
	host, _ := os.Hostname()
	uid, gid := peer.MailUID()
	for !r.stop.Load() {
		f, err := os.OpenFile(r.dir+"/dovecot-uidlist.lock", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			fmt.Fprintf(f, "%d:%s", os.Getpid(), host)
			if os.Geteuid() == 0 {
				f.Chown(uid, gid)
			}
			f.Close()
			return true
		}
		if !os.IsExist(err) {
			r.Error(err)
			return false
		}
		<-time.After(time.Millisecond)
	}
	return false
}

func (r *race) unlock() {
	if err := os.Remove(r.dir + "/dovecot-uidlist.lock"); err != nil {
		r.Error(err)
	}
}

// agree holds that both servers have the same messages in the end: those there
// were at first and those added, without those removed, each once, under the UIDs
// that every client has seen it by.
func (r *race) agree(ours, dovecot *peer.Server, all []*witness, before int) {
	r.Helper()
	r.truth(ours, nil)
	mine := askMailbox(ours.Login(r, ours.User), "INBOX")
	if diff := cmp.Diff(mine, askMailbox(dovecot.Login(r, dovecot.User), "INBOX")); diff != "" {
		r.Errorf("(-imapd +dovecot):\n%.2000s", diff)
	}
	for _, x := range all {
		for range 2 {
			x.do("NOOP")
			x.learn()
		}
	}
	r.truth(ours, all)
	want := before + count(&r.dropped) - count(&r.removed)
	if len(mine.Messages) != want {
		r.Errorf("%d messages, want %d at first, %d added, %d removed", len(mine.Messages), before, count(&r.dropped), count(&r.removed))
	}
	subjects := map[string]int{}
	c := ours.Login(r, ours.User)
	c.Do("EXAMINE INBOX")
	for _, answer := range c.Do("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])") {
		if len(answer.Literals) == 1 {
			subjects[answer.Literals[0]]++
		}
	}
	for s, n := range subjects {
		if n != 1 {
			r.Errorf("%d times there: %q", n, s)
		}
	}
	r.Logf("%d at first, %d added, %d removed, %d there", before, count(&r.dropped), count(&r.removed), len(mine.Messages))
}
