package control

import (
	"log/slog"

	"imapd/control/config"
	"imapd/control/proc"
)

// Who returns the list of who is on, as a process keeps it that was started as
// start.
func Who(start Start, conf *config.Config, log *slog.Logger) *proc.Table {
	if start == StartTunnel {
		log = nil // the list is often not for the caller to write
	}
	t := proc.Open(conf.ProcPath, log)
	if start == StartListen || start == StartSystemd || start == StartInetdWait {
		t.Several()
	}
	return t
}
