package main

import (
	"context"
	"log/slog"

	"imapd/control"
	"imapd/control/admin"
	"imapd/control/config"
	"imapd/control/notice"
	"imapd/control/proc"
	"imapd/control/telemetry"
	"imapd/imap"
	"imapd/maildir"
)

// works are what all sessions of a process share.
type works struct {
	start  control.Start
	conf   *config.Config
	log    *slog.Logger
	who    *proc.Table
	ending <-chan struct{}

	sessions imap.Sessions
}

// open makes them, and returns how to make a server over them that goes by one
// reading of the configuration.
func (w *works) open() (server func(*config.Config, *control.Certificates, imap.Authenticator) *imap.Server, end func()) {
	c := w.conf
	logs := telemetry.New(telemetry.Options{Dir: c.ConfigDirectory, BySession: c.TelemetryBySessionID, Log: w.log})
	notices := notice.New(notice.Options{Dir: c.ConfigDirectory, Service: c.Service, Poll: c.IdlePoll, Logs: logs.Scan, Log: w.log})
	host := maildir.NewHost(imap.HostOptions(c, w.start.Many(), w.log))
	return func(conf *config.Config, certs *control.Certificates, auth imap.Authenticator) *imap.Server {
		return imap.New(imap.Options{
			Config: conf, Host: host, Auth: auth, TLS: certs.Config(), Notices: notices, Log: w.log, Version: version,
			Enter: func(host, session string) imap.Entry {
				return w.who.Begin(proc.Info{Service: conf.Service, Host: host, Session: session})
			},
			Tap:    func(user, session string) imap.Tap { return logs.Open(user, session) },
			Ending: w.ending, Sessions: &w.sessions,
		})
	}, func() { host.Close(); notices.Close() }
}

// listen opens the socket of imapctl for a daemon; now returns the server of the
// configuration that holds.
func (w *works) listen(d *control.Daemon, now func() *imap.Server) *admin.Server {
	return admin.Listen(admin.Options{
		Dir: w.conf.ConfigDirectory, Daemon: d, End: w.sessions.End, Grace: w.conf.ShutdownGrace, Log: w.log,
		Users: func() admin.Users {
			users, _ := now().Auth().(admin.Users)
			return users
		},
		Serve: func(ctx context.Context, c *control.Conn) { now().Serve(ctx, c) },
	})
}
