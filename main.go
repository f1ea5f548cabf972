// Imapd is an IMAP server over Maildir folders. See imapd(8).
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"imapd/control"
	"imapd/control/config"
	"imapd/control/notice"
	"imapd/control/telemetry"
	"imapd/imap"
	"imapd/maildir"
	"imapd/sasl"
)

// version is set by the linker.
var version = "devel"

func main() {
	// First of all: under inetd the client is on standard error.
	stdio, err := control.Adopt()
	if err != nil {
		fmt.Fprintln(os.Stderr, "imapd:", err)
		os.Exit(control.ExitOS)
	}
	os.Exit(run(stdio, os.Args))
}

// run is the program. It returns the exit code.
func run(stdio *control.Stdio, args []string) int {
	if filepath.Base(args[0]) == "imapctl" {
		control.Complain(stdio, "imapctl is not in this version")
		return control.ExitUsage
	}
	o, err := control.ParseOptions(args[1:])
	if err != nil {
		control.Complain(stdio, err.Error())
		fmt.Fprint(os.Stderr, control.Usage)
		return control.ExitUsage
	}
	if o.Version {
		fmt.Println("imapd", version)
		return control.ExitOK
	}
	start := stdio.FindStart(o)
	conf, problems, err := control.LoadConfig(o, start, stdio.Open)
	if o.Test {
		return control.Test(conf, problems, stdio.Open, os.Stdout, os.Stderr)
	}
	if err != nil {
		for _, p := range problems {
			control.Complain(stdio, p.String())
		}
		return control.ExitConfig
	}
	log := control.OpenLog(conf, start, stdio)
	defer log.Close()
	for _, p := range problems {
		log.Warn(p.String())
	}
	code, err := serve(start, stdio, conf, o, log.Logger)
	if err != nil {
		log.Error(err.Error())
		if !log.Stderr {
			fmt.Fprintln(os.Stderr, "imapd:", err)
		}
	}
	return code
}

// serve opens everything in the order that control asks for, and serves until
// it is told to end.
func serve(start control.Start, stdio *control.Stdio, conf *config.Config, o *control.Options, log *slog.Logger) (int, error) {
	if stdio.Parted(start, conf) {
		return control.Parent(start, conf, o, log)
	}
	certs, err := control.LoadCertificates(conf, stdio.Open, log)
	if err != nil {
		return control.ExitConfig, err
	}
	source, code, err := control.Open(start, stdio, conf, o, certs, log)
	if err != nil {
		return code, err
	}
	if o.Debugger {
		if err := control.RunDebugger(conf.DebugCommand, os.Args[0]); err != nil {
			log.Warn("debug_command", "err", err)
		}
	}
	var auth imap.Authenticator // nobody logs in on a tunnel
	if start != control.StartTunnel {
		if auth, err = sasl.New(conf, stdio.Open, log); err != nil {
			return control.ExitConfig, err
		}
	}
	ctx, stop := control.Signals(context.Background(), log, certs.Reload)
	defer stop()

	logs := telemetry.New(telemetry.Options{Dir: conf.ConfigDirectory, BySession: conf.TelemetryBySessionID, Log: log})
	notices := notice.New(notice.Options{Dir: conf.ConfigDirectory, Service: control.Service, Poll: conf.IdlePoll, Logs: logs.Scan, Log: log})
	defer notices.Close()
	host := maildir.NewHost(hostOptions(conf, log))
	defer host.Close()

	server := imap.New(imap.Options{
		Config:  conf,
		Host:    host,
		Auth:    auth,
		TLS:     certs.Config(),
		Notices: notices,
		Tap:     func(user, session string) imap.Tap { return logs.Open(user, session) },
		Log:     log,
		Version: version,
	})
	if err := stdio.Confine(conf, log); err != nil {
		return control.ExitOS, err
	}
	if start == control.StartListen {
		log.Info("ready", "version", version)
	}
	if err := source.Run(ctx, control.Handler{Serve: server.Serve, Refuse: imap.Refuse}); err != nil {
		return control.ExitOS, err
	}
	return control.ExitOK, nil
}

func hostOptions(conf *config.Config, log *slog.Logger) maildir.Options {
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
