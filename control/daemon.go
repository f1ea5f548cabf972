package control

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
)

// A Daemon is a running imapd as its administrator sees it: what signals and
// imapctl ask of it. The methods may be called from any number of goroutines.
type Daemon struct {
	log    *slog.Logger
	reload Reload
	drain  context.CancelFunc
	// Replace has a new process of the program take over; nil where none can.
	Replace func() error

	mu sync.Mutex // one reload at a time
}

// A Reload reads the configuration again. Its error has a line for each fault; kept
// says, a line each, what counts only after a restart, and for which certificates
// those from before go on.
type Reload func() (kept []string, err error)

// NewDaemon returns a Daemon whose configuration is read again by reload, and a
// context that is done when it is to end.
func NewDaemon(parent context.Context, log *slog.Logger, reload Reload) (*Daemon, context.Context) {
	ctx, cancel := context.WithCancel(parent)
	return &Daemon{log: log, reload: reload, drain: cancel}, ctx
}

// Reload reads the configuration and all that it names again, and serves new
// connections by it. Where anything is wrong nothing changes; the error, which
// is logged too, then says all that is, a line each. kept is as Reload, the
// type, has it.
func (d *Daemon) Reload() (kept []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if kept, err = d.reload(); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			d.log.Error("not reloaded: " + line)
		}
		return nil, err
	}
	d.log.Log(context.Background(), LevelNotice, "reloaded")
	return kept, nil
}

// HandOver has a new process of the program take over all that comes in. This
// one keeps its sessions, and ends with the last of them. If the new process does
// not come to serve, this one goes on.
func (d *Daemon) HandOver() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := errors.New("nothing to hand over")
	if d.Replace != nil {
		err = d.Replace()
	}
	if err != nil {
		d.log.Error("not handed over", "err", err)
	}
	return err
}

// Drain ends the process in good order and returns at once: nobody is accepted
// any more, each session ends with BYE after the command that it runs.
func (d *Daemon) Drain() {
	d.log.Log(context.Background(), LevelNotice, "graceful shutdown")
	d.drain()
}
