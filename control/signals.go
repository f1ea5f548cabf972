package control

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Signals returns a context that is done at SIGTERM, SIGINT or SIGQUIT. SIGHUP
// calls reload and ends no session. stop ends the watch for signals, waits for
// its goroutine and cancels the context.
func Signals(parent context.Context, log *slog.Logger, reload func() error) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-got:
				if s != syscall.SIGHUP {
					log.Log(ctx, LevelNotice, "graceful shutdown")
					cancel()
				} else if err := reload(); err != nil {
					log.Error("not reloaded", "err", err)
				} else {
					log.Log(ctx, LevelNotice, "reloaded")
				}
			}
		}
	})
	return ctx, func() {
		signal.Stop(got)
		cancel()
		watch.Wait()
	}
}
