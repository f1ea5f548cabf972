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
	"imapd/control/proc"
	"imapd/control/telemetry"
	_ "imapd/control/warm"
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
	code := run(stdio, os.Args)
	if code != control.ExitOK {
		stdio.TurnAway()
	}
	os.Exit(code)
}

// run is the program. It returns the exit code.
func run(stdio *control.Stdio, args []string) int {
	if filepath.Base(args[0]) == "imapctl" {
		control.Complain(stdio, "imapctl is not in this version")
		return control.ExitUsage
	}
	o, err := control.ParseOptions(args[1:])
	if err == nil {
		err = control.Fits(o)
	}
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
	conf, problems, err := control.LoadConfig(o, start, config.Open)
	if o.Test {
		return control.Test(conf, problems, config.Open, os.Stdout, os.Stderr)
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
	certs, err := control.LoadCertificates(conf, config.Open, log)
	if err != nil {
		return control.ExitConfig, err
	}
	source, code, err := control.Open(start, stdio, conf, o, certs, log)
	if err != nil {
		return code, err
	}
	if o.Debugger {
		if err := control.RunDebugger(conf.DebugCommand, os.Args[0], conf.Service); err != nil {
			log.Warn("debug_command", "err", err)
		}
	}
	var auth imap.Authenticator // nobody logs in on a tunnel
	if start != control.StartTunnel {
		if auth, err = sasl.New(conf, config.Open, log); err != nil {
			return control.ExitConfig, err
		}
	}
	daemon, ctx := control.NewDaemon(context.Background(), log, certs.Reload)
	if start != control.StartMaster { // which has signals of its own
		defer control.Signals(daemon, start)()
	}
	who := control.Who(start, conf, log)
	open := func() (server *imap.Server, end func()) {
		logs := telemetry.New(telemetry.Options{Dir: conf.ConfigDirectory, BySession: conf.TelemetryBySessionID, Log: log})
		notices := notice.New(notice.Options{Dir: conf.ConfigDirectory, Service: conf.Service, Poll: conf.IdlePoll, Logs: logs.Scan, Log: log})
		host := maildir.NewHost(imap.HostOptions(conf, log))
		return imap.New(imap.Options{
			Config: conf, Host: host, Auth: auth, TLS: certs.Config(), Notices: notices, Log: log, Version: version,
			Enter: func(host, session string) imap.Entry {
				return who.Begin(proc.Info{Service: conf.Service, Host: host, Session: session})
			},
			Tap: func(user, session string) imap.Tap { return logs.Open(user, session) },
		}), func() { host.Close(); notices.Close() }
	}
	handler := control.Handler{Refuse: imap.Refuse}
	if start == control.StartMaster {
		// For each client anew, so that nothing of one is left for the next.
		handler.Serve = func(ctx context.Context, c *control.Conn) {
			server, end := open()
			defer end()
			server.Serve(ctx, c)
		}
	} else {
		server, end := open()
		defer end()
		handler.Serve = server.Serve
	}
	if start == control.StartListen || start == control.StartSystemd {
		log.Info("ready", "version", version)
	}
	return control.ExitCode(source.Run(ctx, handler))
}
