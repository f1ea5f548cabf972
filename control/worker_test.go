package control

import (
	"context"
	"encoding/json"
	"testing"

	"imapd/control/config"
	"imapd/control/privsep"
)

// A worker hears of the shutdown notice from its sessions. When there were none for
// a while, the next brings what has become of it.
func TestWorkerNotice(t *testing.T) {
	t.Parallel()
	w := &Worker{conf: config.Default(), log: discard, changed: make(chan struct{}), ending: make(chan struct{})}
	for _, want := range []Handover{{Shutdown: "Back at noon", Down: true}, {}} {
		x, y, err := privsep.Pair()
		if err != nil {
			t.Fatal(err)
		}
		front, err := privsep.NewChannel(x)
		if err != nil {
			t.Fatal(err)
		}
		defer front.Close()
		worker, err := privsep.NewChannel(y)
		if err != nil {
			t.Fatal(err)
		}
		client, socket := socketPair(t)
		defer client.Close()
		opening, err := json.Marshal(want)
		if err == nil {
			err = front.Send(append([]byte{sayOpening}, opening...), socket)
		}
		socket.Close()
		if err != nil {
			t.Fatal(err)
		}
		served, stirred := false, false
		h := Handler{Serve: func(_ context.Context, c *Conn) {
			served = true
			c.Parked()
			if text, down := w.Shutdown(); text != want.Shutdown || down != want.Down {
				t.Errorf("got %q, %v, want %q, %v", text, down, want.Shutdown, want.Down)
			}
		}}
		if err := w.serve(t.Context(), h, nil, worker, func() { stirred = true }); err != nil || !served || !stirred {
			t.Errorf("served %v, and has parked %v: %v", served, stirred, err)
		}
	}
}
