package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imapd/test/peer"
)

var delivered atomic.Int64

// drop delivers a message into new/ of the folder dir, as a delivery agent
// does, and returns when it had its name there.
func drop(t testing.TB, dir, text string) time.Time {
	t.Helper()
	name := fmt.Sprintf("%d.M%dP%dQ%d.lda", time.Now().Unix(), time.Now().Nanosecond()/1000, os.Getpid(), delivered.Add(1))
	tmp := filepath.Join(dir, "tmp", name)
	err := os.WriteFile(tmp, []byte(text), 0o666)
	if err == nil && os.Geteuid() == 0 {
		uid, gid := peer.MailUID()
		err = os.Chown(tmp, uid, gid)
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, "new", name))
	}
	if err != nil {
		t.Error(err)
	}
	return time.Now()
}

// TestIdle holds that what other programs do reaches a client that idles, with
// events of the file system and without any.
func TestIdle(t *testing.T) {
	t.Parallel()
	peer.Need(t, "strace")
	for _, tt := range []struct {
		name string
		o    peer.Options
	}{
		{"events", peer.Options{Imapd: []string{"imapidlepoll: 1h"}}},
		{"poll", peer.Options{Imapd: []string{"imapidlepoll: 1s"}, Wrap: []string{
			"strace", "-D", "-f", "--seccomp-bpf", "-q", "-o", "/dev/null", "-e", "trace=inotify_init1", "-e", "inject=inotify_init1:error=EMFILE",
		}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := basic(t)
			s := peer.Imapd(t, dir, tt.o)
			if tt.name == "events" {
				needEvents(t, s)
			}
			idleBeside(t, s, peer.Dovecot(t, dir, peer.Options{}), dir)
			if told := strings.Contains(s.Log(), "no file system events"); told != (tt.name == "poll") {
				t.Errorf("events are missing: %v\n%s", told, s.Log())
			}
		})
	}
}

func idleBeside(t *testing.T, s, dovecot *peer.Server, dir string) {
	idle, beside := s.Login(t, s.User), dovecot.Login(t, dovecot.User)
	idle.Do("SELECT INBOX")
	beside.Do("SELECT INBOX")
	idle.Send("i IDLE")
	idle.Wait("+ ")
	hears := func(want ...string) {
		t.Helper()
		if r := idle.Wait("* 1 FETCH"); !slices.Equal(flags(strings.Fields(first(fetchFlag, r.Text))), want) {
			t.Errorf("%s, want %q", r.Text, want)
		}
	}

	drop(t, dir, "Subject: delivered\n\nx\n")
	idle.Wait("* 5 EXISTS")
	seen := matching(t, dir+"/cur/*.M0P1Q1.*")
	if err := os.Rename(seen, strings.TrimSuffix(seen, "S")+"FRS"); err != nil {
		t.Fatal(err)
	}
	hears(`\Answered`, `\Flagged`, `\Seen`)
	if err := os.Remove(matching(t, dir+"/cur/*.M0P1Q1.*")); err != nil {
		t.Fatal(err)
	}
	idle.Wait("* 1 EXPUNGE")
	beside.Do("APPEND INBOX %s", peer.Literal("Subject: by Dovecot\r\n\r\nx\r\n"))
	idle.Wait("* 5 EXISTS")
	beside.Do(`UID STORE 2 +FLAGS.SILENT (urgent \Deleted)`)
	// Dovecot names the letter when the file has it already.
	if r := idle.Wait("* 1 FETCH"); !slices.Equal(flags(strings.Fields(first(fetchFlag, r.Text))), []string{"$Forwarded", `\Deleted`, "urgent"}) {
		hears("$Forwarded", `\Deleted`, "urgent")
	}
	beside.Do("EXPUNGE")
	idle.Wait("* 1 EXPUNGE")
	beside.Do("UID MOVE 4 Sent")
	idle.Wait("* 1 EXPUNGE")
	other := s.Login(t, s.User)
	other.Do("APPEND INBOX %s", peer.Literal("Subject: by ourselves\r\n\r\nx\r\n"))
	idle.Wait("* 4 EXISTS")
	idle.Send("DONE")
	idle.Wait("i OK")
}

// needEvents skips a test where other programs of the same user watch so much
// that nothing is left for s.
func needEvents(t testing.TB, s *peer.Server) {
	t.Helper()
	if strings.Contains(s.Log(), "couldn't initialize inotify") {
		t.Skip("NOT TESTED: fs.inotify.max_user_instances of this user is used up")
	}
}

// matching returns the one file that matches a pattern.
func matching(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v", pattern, found, err)
	}
	return found[0]
}

// deliveries drops n messages one after the other, each when the client has
// been told of the one before, and returns how long that took, in order. Then
// it drops n at once, of which all must be told.
func deliveries(t testing.TB, s *peer.Server, dir string, n int) []time.Duration {
	t.Helper()
	c := s.Login(t, s.User)
	c.Do("SELECT INBOX")
	c.Send("i IDLE")
	c.Wait("+ ")
	needEvents(t, s)
	times := make([]time.Duration, 0, n)
	for i := range n {
		begin := drop(t, dir, "Subject: delivered\n\nx\n")
		c.Wait(fmt.Sprintf("* %d EXISTS", 5+i))
		times = append(times, time.Since(begin))
	}
	for range n {
		drop(t, dir, "Subject: delivered at once\n\nx\n")
	}
	c.Wait(fmt.Sprintf("* %d EXISTS", 4+2*n))
	c.Send("DONE")
	c.Wait("i OK")
	slices.Sort(times)
	return times
}

// TestDeliveries holds that each of many deliveries reaches a client that
// idles. How fast is for BenchmarkDelivery to say.
func TestDeliveries(t *testing.T) {
	t.Parallel()
	dir := basic(t)
	l := deliveries(t, peer.Imapd(t, dir, peer.Options{Imapd: []string{"imapidlepoll: 1h"}}), dir, 200)
	t.Logf("from the delivery to EXISTS: p50 %v, p99 %v, max %v", l[len(l)/2], l[len(l)*99/100], l[len(l)-1])
}

// BenchmarkDelivery measures the time from a delivery to what an idling client
// is told of it.
func BenchmarkDelivery(b *testing.B) {
	setup := basic(b)
	for _, k := range []struct {
		name  string
		start peer.Starter
		n     int
	}{{"imapd", peer.Imapd, 1000}, {"dovecot", peer.Dovecot, 10}} {
		b.Run(k.name, func(b *testing.B) {
			var all []time.Duration
			for b.Loop() {
				dir := peer.TempDir(b) + "/Maildir"
				peer.CopyTree(b, setup, dir)
				all = append(all, deliveries(b, k.start(b, dir, peer.Options{}), dir, k.n)...)
			}
			slices.Sort(all)
			for name, d := range map[string]time.Duration{"p50-ms": all[len(all)/2], "p99-ms": all[len(all)*99/100], "max-ms": all[len(all)-1]} {
				b.ReportMetric(float64(d.Microseconds())/1000, name)
			}
		})
	}
}
