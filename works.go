//go:debug updatemaxprocs=0

// With it the runtime does not look every second what it may use: a server with
// nothing to do makes no calls.
package main

import (
	"context"
	"log/slog"
	"os"
	"sync/atomic"

	"imapd/control"
	"imapd/control/admin"
	"imapd/control/config"
	"imapd/control/notice"
	"imapd/control/proc"
	"imapd/control/telemetry"
	_ "imapd/control/warm" // the earlier the better: see there
	"imapd/imap"
	"imapd/maildir"
	"imapd/sasl"
)

// works are what all sessions of a process share.
type works struct {
	start  control.Start
	conf   *config.Config
	log    *slog.Logger
	who    *proc.Table
	ending <-chan struct{}
	stdio  *control.Stdio
	source control.Source

	sessions imap.Sessions
}

// open makes them, and returns how to make a server over them that goes by one
// reading of the configuration.
func (w *works) open() (server func(*config.Config, *control.Certificates, imap.Authenticator) *imap.Server, end func()) {
	c := w.conf
	logs := telemetry.New(telemetry.Options{Dir: c.ConfigDirectory, BySession: c.TelemetryBySessionID, Log: w.log})
	notices := control.NewNotices(w.source, notice.Options{Dir: c.ConfigDirectory, Service: c.Service, Poll: c.IdlePoll, Logs: logs.Scan, Log: w.log})
	host := maildir.NewHost(imap.HostOptions(c, w.start.Many(), w.log))
	return func(conf *config.Config, certs *control.Certificates, auth imap.Authenticator) *imap.Server {
		return imap.New(imap.Options{
			Config: conf, Host: host, Auth: auth, TLS: certs.Config(), Notices: notices, Log: w.log, Version: version,
			Enter: func(host, session string) imap.Entry {
				return w.who.Begin(proc.Info{Service: conf.Service, Host: host, Session: session})
			},
			Tap:      func(user, session string) imap.Tap { return logs.Open(user, session) },
			Lend:     func(user, session string, give func(*os.File)) func() { return logs.Lend(user, session, give).Close },
			Ending:   w.ending,
			Sessions: &w.sessions,
			HandOver: w.stdio.HandsOver(),
		})
	}, func() { host.Close(); notices.Close(); w.who.Close() }
}

// changing makes works whose server is another after each reload. prepare makes
// the next one, and what it returns has new sessions served by it, and now
// return it.
func (w *works) changing(start control.Start, checker func(*config.Config) (sasl.Checker, error)) (
	now func() *imap.Server, prepare func(*config.Config, *control.Certificates) (func(), error), end func(),
) {
	server, end := w.open()
	current := new(atomic.Pointer[imap.Server])
	prepare = func(conf *config.Config, certs *control.Certificates) (func(), error) {
		var auth imap.Authenticator // nobody logs in on a tunnel
		if start != control.StartTunnel {
			a, err := checker(conf)
			if err != nil {
				return nil, err
			}
			auth = a
		}
		next := server(conf, certs, auth)
		return func() { current.Store(next) }, nil
	}
	return current.Load, prepare, end
}

// listen opens the socket of imapctl for a daemon; now returns the server of the
// configuration that holds.
func (w *works) listen(d *control.Daemon, now func() *imap.Server) *admin.Server {
	return admin.Listen(admin.Options{
		Dir: w.conf.ConfigDirectory, Daemon: d, End: w.sessions.End, Grace: w.conf.ShutdownGrace, Log: w.log,
		Service: w.conf.Service, Complete: w.who.Complete,
		Users: func() admin.Users {
			users, _ := now().Auth().(admin.Users)
			return users
		},
		Serve: func(ctx context.Context, c *control.Conn) { now().Serve(ctx, c) },
	})
}
