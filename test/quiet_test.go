package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"imapd/test/peer"
)

// stillness is how long an idle server is listened to.
func stillness() time.Duration {
	if soaking() {
		return time.Minute
	}
	return 4 * time.Second
}

// A tracer listens to the calls that a process makes on files, descriptors and
// the network.
type tracer struct {
	*testing.T
	file string
}

func trace(t *testing.T, pid int) *tracer {
	t.Helper()
	peer.Need(t, "strace")
	tr := &tracer{t, filepath.Join(peer.TempDir(t), "calls")}
	c := exec.Command("strace", "-f", "-q", "-p", strconv.Itoa(pid), "-o", tr.file, "-e", "trace=file,network,desc")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
	})
	eventually(t, func() string { return "strace does not begin" }, func() bool {
		_, err := os.Stat(tr.file)
		return err == nil
	})
	return tr
}

// calls returns the calls so far, but for those that wait for others.
func (tr *tracer) calls() []string {
	tr.Helper()
	var all []string
	for line := range strings.Lines(read(tr.T, tr.file)) {
		_, call, _ := strings.Cut(line, " ")
		call = strings.TrimSpace(call)
		waits := strings.HasPrefix(call, "epoll_") && !strings.HasPrefix(call, "epoll_ctl") || strings.HasPrefix(call, "<... epoll_")
		memory := strings.Contains(call, "MAP_ANONYMOUS") // the runtime's, of no file
		if !waits && !memory && !strings.HasPrefix(call, "---") && !strings.HasPrefix(call, "+++") {
			all = append(all, call)
		}
	}
	return all
}

// settled waits until the process has made no call for six seconds: five after a
// client has come it looks once more whether memory can be given back.
func (tr *tracer) settled() {
	tr.Helper()
	last, since := -1, time.Now()
	eventually(tr.T, func() string { return "the server does not come to rest" }, func() bool {
		if n := len(tr.calls()); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 6*time.Second
	})
}

// TestNoCalls holds that sessions with a mailbox selected, one that idles and one
// that does not, make no call while nothing happens, and that the poll behind the
// events only asks whether anything did.
func TestNoCalls(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, poll string
		most       int // calls in a second
	}{{"events", "1h", 0}, {"poll", "2s", 30}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := basic(t)
			s := peer.Imapd(t, dir, peer.Options{Imapd: []string{"imapidlepoll: " + tt.poll}})
			selected, idle := s.Login(t, s.User), s.Login(t, s.User)
			selected.Do("SELECT INBOX")
			idle.Do("SELECT INBOX")
			idle.Send("i IDLE")
			idle.Wait("+ ")
			needEvents(t, s)
			tr := trace(t, s.PID)
			if tt.most == 0 {
				tr.settled()
			}
			before := tr.calls()
			<-time.After(stillness())
			calls := tr.calls()[len(before):]
			if len(calls) > tt.most*int(stillness().Seconds()) {
				t.Errorf("%d calls while nothing happened:\n%s", len(calls), strings.Join(calls[:min(40, len(calls))], "\n"))
			}
			for _, c := range calls {
				if strings.HasPrefix(c, "getdents") {
					t.Errorf("the poll reads a directory: %s", c)
				}
			}
			// What listens does hear something.
			drop(t, dir, "Subject: delivered\n\nx\n")
			idle.Wait("* 5 EXISTS")
			if heard := tr.calls()[len(before)+len(calls):]; len(heard) < 5 {
				t.Errorf("a delivery is found and told with the calls %q", heard)
			}
		})
	}
}
