package control

import (
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"imapd/control/config"
)

// spareFiles is how many files a server opens beside its connections: mailboxes
// above all.
const spareFiles = 2000

// raiseFiles makes room for as many open files as conf lets connections in. The
// runtime has raised the limit as far as this process may; root may more.
func raiseFiles(conf *config.Config, log *slog.Logger) {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return
	}
	want := uint64(conf.Limits.Connections + spareFiles)
	if l.Cur < want && os.Geteuid() == 0 {
		more := unix.Rlimit{Cur: want, Max: max(want, l.Max)}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &more) == nil {
			l = more
		}
	}
	if l.Cur < uint64(conf.Limits.Connections) {
		log.Warn("fewer files may be open than limit_connections needs", "files", l.Cur, "limit_connections", conf.Limits.Connections)
	}
}
