package control

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Signals lets signals ask d: SIGHUP to reload; SIGTERM, SIGINT and SIGQUIT to
// drain. stop ends that, and waits for the goroutine.
func Signals(d *Daemon) (stop func()) {
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	var watch sync.WaitGroup
	watch.Go(func() {
		for s := range got {
			if s == syscall.SIGHUP {
				_ = d.Reload() // which logs
			} else {
				d.Drain()
			}
		}
	})
	return func() {
		signal.Stop(got)
		close(got)
		watch.Wait()
	}
}
