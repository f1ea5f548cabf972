package test

import (
	"syscall"
	"testing"
	"time"

	"imapd/test/peer"
)

// TestUserIdle waits until the process of a user is let go who has no session any
// more. Whoever logs in afterwards gets another process, and whoever does so while
// it ends is served by the old one or by another.
func TestUserIdle(t *testing.T) {
	t.Parallel()
	const patience = time.Second
	s := usersSite(t, peer.Options{Args: []string{"-T", "1"}})
	once := func() (pid int, left time.Time) {
		t.Helper()
		c := s.Login(t, "alice")
		c.Do("SELECT INBOX")
		pid = processOf(t, s, aliceUID)
		c.Do("LOGOUT")
		return pid, time.Now()
	}
	stay := s.Login(t, "bob")
	bob := processOf(t, s, bobUID)
	first, _ := once()
	eventually(t, func() string { return "alice's process has not ended" }, func() bool { return !alive(first) })
	second, _ := once()
	if second == first || second == 0 {
		t.Errorf("alice's processes are %d and %d", first, second)
	}
	// The moment when it ends lasts as long as we like: who would say or hear that
	// it ends is stopped just before, and goes on when a login waits as well.
	for _, who := range []string{"worker", "parent"} {
		stopped, left := once()
		if who == "parent" {
			stopped = s.Started()
		}
		<-time.After(time.Until(left.Add(patience / 2)))
		must(0, syscall.Kill(stopped, syscall.SIGSTOP))(t)
		served := make(chan error, 1)
		go func() {
			_, err := visit(s, "alice")
			served <- err
		}()
		<-time.After(time.Until(left.Add(patience * 3 / 2)))
		select {
		case err := <-served:
			t.Errorf("%s: served while it is stopped: %v", who, err)
			served <- nil
		default:
		}
		must(0, syscall.Kill(stopped, syscall.SIGCONT))(t)
		if err := <-served; err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
	if got := processOf(t, s, bobUID); got != bob {
		t.Errorf("bob's process is %d, was %d", got, bob)
	}
	stay.Do("NOOP")
}
