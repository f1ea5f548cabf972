// Imapd is an IMAP server over Maildir folders. See imapd(8).
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"imapd/control"
	"imapd/control/admin"
	"imapd/control/config"
	"imapd/imap"
	"imapd/sasl"
)

// version is set by the linker.
var version = "devel"

func main() {
	if filepath.Base(os.Args[0]) == "imapctl" {
		os.Exit(admin.Main(os.Args[1:], version))
	}
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
	o, err := control.ParseOptions(args[1:])
	if err == nil {
		err = control.Fits(o)
	}
	if err != nil {
		control.Complain(stdio, stdio.Start, nil, err.Error())
		fmt.Fprint(os.Stderr, control.Usage)
		return control.ExitUsage
	}
	if o.Version {
		fmt.Println("imapd", version)
		return control.ExitOK
	}
	start := stdio.FindStart(o)
	conf, problems, err := control.LoadConfig(o, start, stdio.Open, stdio.Remark)
	if o.Test {
		return control.Test(conf, o.Config, problems, stdio.Open, sasl.Inspect, os.Stdout, os.Stderr)
	}
	stdio.Narrow(conf)
	if err != nil {
		control.Complain(stdio, start, conf, control.Explain(conf, problems, stdio.Open, err)...)
		return control.ExitConfig
	}
	log := control.OpenLog(conf, start, stdio)
	defer log.Close()
	for _, p := range problems {
		log.Warn(p.String())
	}
	code, err := serve(start, stdio, conf, o, log.Logger)
	if err == nil {
		return code
	}
	all := []string{err.Error()}
	if code == control.ExitConfig {
		all = control.Explain(conf, nil, stdio.Open, err)
	}
	for _, text := range all {
		log.Error(text)
		if !log.Stderr {
			fmt.Fprintln(os.Stderr, "imapd:", text)
		}
	}
	return code
}

// serve opens everything in the order that control asks for, and serves until
// it is told to end.
func serve(start control.Start, stdio *control.Stdio, conf *config.Config, o *control.Options, log *slog.Logger) (int, error) {
	if stdio.Parted(start, conf) {
		return control.Parent(start, stdio, conf, o, log)
	}
	if f := stdio.Answers(); f != nil {
		return control.ExitCode(sasl.Answer(f, stdio, conf, control.Rereader(o, start, stdio), log))
	}
	certs, err := control.FirstCertificates(start, conf, o, stdio.Open, log)
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
	reload := &control.Reloader{Options: o, Start: start, Stdio: stdio, Source: source, Log: log, Config: conf, Certificates: certs}
	daemon, ctx := control.NewDaemon(context.Background(), log, stdio.Reloading(reload.Reload))
	w := &works{start: start, conf: conf, log: log, who: control.Who(start, conf, log), ending: control.Ending(ctx, source), stdio: stdio, source: source}
	handler := control.Handler{Refuse: imap.Refuse}
	if start == control.StartMaster {
		auth, err := sasl.New(conf, stdio.Open, log)
		if err != nil {
			return control.ExitConfig, err
		}
		// For each client anew, so that nothing of one is left for the next.
		handler.Serve = func(ctx context.Context, c *control.Conn) {
			server, end := w.open()
			defer end()
			server(conf, certs, auth).Serve(ctx, c)
		}
		return control.ExitCode(source.Run(ctx, handler)) // which has signals of its own
	}
	checker, err := sasl.Checkers(stdio.Asks(), stdio.AsksAgain, stdio.Open, log)
	if err != nil {
		return control.ExitOS, err
	}
	now, prepare, end := w.changing(start, checker)
	defer end()
	reload.Prepare = prepare
	handler.Serve = func(ctx context.Context, c *control.Conn) { now().Serve(ctx, c) }
	first, err := reload.Prepare(conf, certs)
	if err != nil {
		return control.ExitConfig, err
	}
	first()
	if err := stdio.Confine(conf, log); err != nil {
		return control.ExitOS, err
	}
	if l, ok := source.(*control.Listener); ok {
		certs.Watch()
		defer reload.Close()
		daemon.Replace = l.HandOver
		defer w.listen(daemon, now).Close()
		log.Info("ready", "version", version)
	}
	defer control.Signals(daemon, start)()
	return control.ExitCode(source.Run(ctx, handler))
}
