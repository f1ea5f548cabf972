package proc

import (
	"testing"
)

// BenchmarkSession is what one session costs that logs in and selects a mailbox.
func BenchmarkSession(b *testing.B) {
	table := Open(b.TempDir(), nil)
	table.Several()
	for b.Loop() {
		e := table.Begin(Info{Service: "imap", Host: "[192.0.2.1]", Session: "sid"})
		e.Admit("alice", 0, 0)
		e.Set("alice", "INBOX", "")
		e.End()
	}
}
