package control

import (
	"slices"
	"strings"
	"testing"

	"imapd/control/privsep"
)

// away returns a session that the front is about to hand over, and the worker's end
// of it.
func away(t *testing.T) (*Away, *Taken) {
	t.Helper()
	var ends [2]*privsep.Channel
	x, y, err := privsep.Pair()
	if err != nil {
		t.Fatal(err)
	}
	if ends[0], err = privsep.NewChannel(x); err != nil {
		t.Fatal(err)
	}
	if ends[1], err = privsep.NewChannel(y); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ends[0].Close()
		ends[1].Close()
	})
	return &Away{channel: ends[0], ended: make(chan struct{}), unlend: func() {}}, &Taken{channel: ends[1]}
}

// What a worker says of a session that it then refuses is not why it does.
func TestAwayRefused(t *testing.T) {
	t.Parallel()
	a, worker := away(t)
	worker.Present("INBOX", "")
	worker.Present("", "")
	if err := worker.Decline("Mail is not available"); err != nil {
		t.Fatal(err)
	}
	top, client := tcpPair(t)
	defer client.Close()
	defer top.Close()
	if err := a.open(t.Context(), top, Handover{}); err == nil || !strings.HasSuffix(err.Error(), ": Mail is not available") {
		t.Errorf("refused: %v", err)
	}
}

// What a worker says of itself fits into the list of who is on, or is not heard: a
// file there that is too large would hide the session.
func TestAwayPresent(t *testing.T) {
	t.Parallel()
	a, worker := away(t)
	longest := strings.Repeat("m", maxPresent-1)
	for _, said := range []string{longest + "\x00", "x" + longest + "\x00", "INBOX\x00Idle"} {
		if err := worker.channel.Send(append([]byte{sayPresent}, said...)); err != nil {
			t.Fatal(err)
		}
	}
	worker.channel.Close()
	var heard []string
	a.hear(func(mailbox, command string) { heard = append(heard, mailbox+" "+command) })
	if want := []string{longest + " ", "INBOX Idle"}; !slices.Equal(heard, want) {
		t.Errorf("heard %.80q", heard)
	}
}
