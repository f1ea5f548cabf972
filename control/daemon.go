package control

import (
	"context"
	"log/slog"
	"sync"
)

// A Daemon is a running imapd as its administrator sees it: what signals and
// imapctl ask of it. The methods may be called from any number of goroutines.
type Daemon struct {
	log    *slog.Logger
	reload func() error
	drain  context.CancelFunc

	mu sync.Mutex // one reload at a time
}

// NewDaemon returns a Daemon whose configuration is read again by reload, and a
// context that is done when it is to end.
func NewDaemon(parent context.Context, log *slog.Logger, reload func() error) (*Daemon, context.Context) {
	ctx, cancel := context.WithCancel(parent)
	return &Daemon{log: log, reload: reload, drain: cancel}, ctx
}

// Reload reads the configuration and all that it names again, and serves new
// connections by it. Where anything is wrong nothing changes; the error, which
// is logged too, then says all that is, a line each.
func (d *Daemon) Reload() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.reload(); err != nil {
		d.log.Error("not reloaded", "err", err)
		return err
	}
	d.log.Log(context.Background(), LevelNotice, "reloaded")
	return nil
}

// Drain ends the process in good order and returns at once: nobody is accepted
// any more, each session ends with BYE after the command that it runs.
func (d *Daemon) Drain() {
	d.log.Log(context.Background(), LevelNotice, "graceful shutdown")
	d.drain()
}
