package imap

import (
	"log/slog"

	"imapd/control/config"
	"imapd/maildir"
)

// HostOptions returns what the configuration says to package maildir.
func HostOptions(conf *config.Config, log *slog.Logger) maildir.Options {
	fsync := map[config.Fsync]maildir.Fsync{
		config.FsyncOptimized: maildir.FsyncOptimized,
		config.FsyncAlways:    maildir.FsyncAlways,
		config.FsyncNever:     maildir.FsyncNever,
	}
	lock := maildir.LockAlways
	if conf.MaildirLock == config.LockNewUIDs {
		lock = maildir.LockNewUIDs
	}
	return maildir.Options{
		Fsync: fsync[conf.MaildirFsync], Lock: lock, ReadOnly: conf.MaildirReadonly, ImportIsync: conf.MaildirImportIsync, Poll: conf.IdlePoll,
		IndexSingleHost: conf.IndexSingleHost, MaxMessage: conf.Limits.AppendLimit(),
		Slots: conf.Limits.Disk, SlotsPerUser: conf.Limits.DiskPerUser, Log: log,
	}
}
