package control

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// young is how old a process for one client gets before it handles signals. The
// two threads that handling takes cost more than a greeting does; until then a
// signal ends the process, as it would have before it came here.
const young = 100 * time.Millisecond

// Signals lets signals ask d: SIGHUP to reload; SIGUSR2 to hand over; SIGTERM,
// SIGINT and SIGQUIT to drain. stop ends that, and waits for the goroutines.
func Signals(d *Daemon, start Start) (stop func()) {
	got, done := make(chan os.Signal, 8), make(chan struct{})
	notify := func() {
		signal.Notify(got, syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	}
	var watch sync.WaitGroup
	if start != StartInetd && start != StartTunnel {
		notify()
		watch.Go(func() { obey(d, got, done) })
		return func() {
			close(done)
			watch.Wait()
		}
	}
	watch.Add(1)
	begin := time.AfterFunc(young, func() {
		defer watch.Done()
		notify()
		obey(d, got, done)
	})
	return func() {
		if !begin.Stop() {
			close(done)
			watch.Wait()
		}
	}
}

// obey passes signals on until done is closed. From then on they do nothing: a
// process about to end as it was told to must not die of being told again, as by a
// supervisor that tells all processes, and by the parent, which passes it on.
func obey(d *Daemon, got chan os.Signal, done <-chan struct{}) {
	var taking sync.WaitGroup // what takes its time
	defer taking.Wait()
	for {
		select {
		case <-done:
			return
		case s := <-got:
			switch s { // each logs what comes of it
			case syscall.SIGHUP:
				taking.Go(func() { _, _ = d.Reload() }) // it waits for a hand-over
			case syscall.SIGUSR2:
				taking.Go(func() { _ = d.HandOver() })
			default:
				d.Drain()
			}
		}
	}
}
