package control

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"imapd/control/config"
)

// What a session has worked with is given back when it has fallen silent, although
// no client comes or goes; and nobody looks before.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stir, stop := rest()
		defer stop()
		c := &Conn{stir: stir}
		for range 2 {
			held := make([]byte, restWorth+restQuiet)
			runtime.KeepAlive(held)
			before := collections()
			time.Sleep(time.Hour)
			if n := collections() - before; n > 0 {
				t.Errorf("%d collections without a reason", n)
			}
			c.Parked()
			c.Parked()
			time.Sleep(3 * restEvery)
			synctest.Wait()
			if n := collections() - before; n != 2 && n != 3 {
				t.Errorf("%d collections after a session has parked", n)
			}
		}
	})
}

// collections returns how often somebody has asked for one.
func collections() uint32 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.NumForcedGC
}

// Sessions of a Listener can say that they have parked; for those of a worker see
// TestWorkerNotice.
func TestListenerRests(t *testing.T) {
	t.Parallel()
	conf := config.Default()
	conf.Listen = []config.Address{{Network: "tcp", Address: "127.0.0.1:0"}}
	l, err := Listen(conf, &Options{}, nil, discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stirs, ended := make(chan bool, 1), make(chan error)
	go func() {
		ended <- l.Run(ctx, Handler{Serve: func(_ context.Context, c *Conn) { stirs <- c.stir != nil }})
	}()
	dial(t, l.Addrs()[0])
	if !<-stirs {
		t.Error("a session that parks is not heard")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
