package control

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Signals lets signals ask d: SIGHUP to reload; SIGUSR2 to hand over; SIGTERM,
// SIGINT and SIGQUIT to drain. stop ends that, and waits for the goroutine.
func Signals(d *Daemon) (stop func()) {
	got := make(chan os.Signal, 8)
	signal.Notify(got, syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	var watch sync.WaitGroup
	watch.Go(func() {
		for s := range got {
			switch s { // each logs what comes of it
			case syscall.SIGHUP:
				_ = d.Reload()
			case syscall.SIGUSR2:
				watch.Go(func() { _ = d.HandOver() }) // takes its time
			default:
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
