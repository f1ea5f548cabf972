package control

import (
	"errors"
	"log/slog"
	"slices"
	"sync"

	"imapd/control/config"
)

// A Reloader reads the configuration and all that it names again. All of it is
// checked and made ready before any of it counts, so that a broken one is
// refused as a whole and the old one goes on; only of the certificates for one name
// each stands for itself. Whoever has come in keeps what he came in by.
type Reloader struct {
	Options *Options
	Start   Start
	Stdio   *Stdio // opens the files
	Source  Source
	Log     *slog.Logger
	// Config and Certificates are those that count now.
	Config       *config.Config
	Certificates *Certificates
	// Prepare makes ready whatever else serves new connections by a
	// configuration. apply, which cannot fail, has them served so.
	Prepare func(*config.Config, *Certificates) (apply func(), err error)

	mu sync.Mutex // one reload at a time
}

// Reload is for NewDaemon.
func (r *Reloader) Reload() ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	conf, certs, kept, err := r.read()
	if err != nil {
		return nil, err
	}
	changed := conf.Succeed(r.Config)
	apply, err := r.Prepare(conf, certs)
	if err != nil {
		return nil, err
	}
	if l, ok := r.Source.(*Listener); ok {
		if err := l.change(newAdmission(conf, r.Options, certs, r.Log)); err != nil {
			return nil, err
		}
	}
	apply()
	if err := r.Stdio.hold(); err != nil {
		r.Log.Error("other processes keep their configuration", "err", err)
	}
	certs.complain()
	if _, daemon := r.Source.(*Listener); daemon {
		certs.Watch()
	}
	r.Certificates.Close()
	r.Config, r.Certificates = conf, certs
	for _, name := range changed {
		r.Log.Warn("option has changed and needs a restart", "option", name, "at", conf.Where(name))
		kept = append(kept, conf.At(name, errNeedsRestart).Error())
	}
	return kept, nil
}

// errNeedsRestart is what a reload says of an option that the process keeps.
var errNeedsRestart = errors.New("has changed and needs a restart")

// Close ends the watch of the certificates that count now.
func (r *Reloader) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Certificates.Close()
}

// read returns the configuration and its certificates if nothing is wrong with them
// but what kept says of certificates.
func (r *Reloader) read() (conf *config.Config, certs *Certificates, kept []string, err error) {
	conf, problems, err := LoadConfig(r.Options, r.Start, r.Stdio.Open, nil)
	var wrong []error
	for _, p := range problems {
		if p.Warning {
			r.Log.Warn(p.String())
		} else {
			wrong = append(wrong, errors.New(p.String()))
		}
	}
	if conf != nil {
		r.Stdio.Narrow(conf)
		var broken error
		if certs, kept, broken = r.Certificates.succeed(conf, r.Stdio.Open, r.Log); broken != nil {
			wrong = append(wrong, broken)
		}
		for _, f := range checkOthers(conf, r.Stdio.Open) {
			wrong = append(wrong, f.err)
		}
	}
	if err != nil && len(wrong) == 0 {
		wrong = append(wrong, err)
	}
	return conf, certs, kept, errors.Join(wrong...)
}

// change has connections come in by t, at the addresses that its configuration names:
// those that are open stay so, others are opened and closed. Where one cannot be
// opened nothing changes.
func (l *Listener) change(t admission) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	doors, opened, err := l.changed(t)
	if err != nil {
		closeDoors(opened)
		return err
	}
	l.now.Store(&t)
	l.gate.setLimits(t.conf.Limits)
	for _, d := range opened {
		l.begin(d)
		l.log.Info("listening", "address", d.at)
	}
	for _, d := range l.doors {
		if !slices.ContainsFunc(doors, func(stays door) bool { return stays.at == d.at }) {
			d.Close()
			l.log.Info("no longer listening", "address", d.at)
		}
	}
	l.doors = doors
	return nil
}

// changed returns all doors of t's configuration, and which of them are new.
func (l *Listener) changed(t admission) (doors, opened []door, err error) {
	led := StartNone
	if l.led != nil {
		led, _ = l.led.start()
	}
	switch {
	case l.begin != nil && led == StartListen:
		return l.led.changed(l.doors, t.conf)
	case l.begin != nil && l.own:
		return changeDoors(l.doors, t.conf, l.opt, t.certs)
	}
	return l.doors, nil, nil // the addresses are no matter of ours
}
