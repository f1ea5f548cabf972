package control

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"imapd/control/config"
)

// Test is imapd -t: it prints the effective configuration to out and all that
// is wrong with it to complaints, a line each, and returns the exit code. conf
// is nil where there is no configuration to print; open opens the files that it
// names.
func Test(conf *config.Config, problems []config.Problem, open config.Opener, out, complaints io.Writer) int {
	code := ExitOK
	for _, p := range problems {
		fmt.Fprintln(complaints, p)
		if !p.Warning {
			code = ExitConfig
		}
	}
	if conf == nil {
		return code
	}
	for _, err := range Check(conf, open) {
		fmt.Fprintln(complaints, err)
		code = ExitConfig
	}
	if err := conf.Write(out); err != nil {
		fmt.Fprintln(complaints, err)
		return ExitOS
	}
	return code
}

// Complain tells why imapd does not start: on standard error, and in syslog
// where nobody sees that.
func Complain(stdio *Stdio, messages ...string) {
	for _, m := range messages {
		fmt.Fprintln(os.Stderr, "imapd:", m)
	}
	if !stdio.Hidden && foreground() {
		return
	}
	log := OpenLog(config.Default(), stdio.Start, stdio)
	defer log.Close()
	for _, m := range messages {
		log.Error(m)
	}
}

// Check returns what is wrong around a configuration that is right in itself:
// certificates and passwords that cannot be read, a user who does not exist.
func Check(conf *config.Config, open config.Opener) []error {
	var wrong []error
	certs, err := LoadCertificates(conf, open, slog.New(slog.DiscardHandler))
	if err != nil {
		wrong = append(wrong, err)
	}
	if err := readable(open, conf.PasswdFile); err != nil {
		wrong = append(wrong, at(conf, "sasl_passwd_file", err))
	}
	for _, a := range conf.Listen {
		if conf.Where("listen") != "" && a.TLS && certs == nil && err == nil {
			wrong = append(wrong, at(conf, "listen", fmt.Errorf("%v: %w", a, ErrNoCertificate)))
		}
	}
	who := identity{uid: os.Geteuid(), gid: os.Getegid()}
	if conf.User != "" {
		id, err := identify(conf)
		if err == nil && conf.PrivilegeSeparation == config.SeparateUser {
			_, err = identifyAuth(conf, id)
		}
		if err != nil {
			wrong = append(wrong, err)
		} else if who.uid == 0 {
			who = id
		}
	}
	if err := who.mayLook(filepath.Join(conf.ConfigDirectory, "msg")); conf.ConfigDirectory != "" && err != nil {
		wrong = append(wrong, at(conf, "configdirectory", err))
	}
	return wrong
}

// mayLook returns why id cannot see what lies in the directory name, as far as
// its own mode tells. That there is none is no fault.
func (id identity) mayLook(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return nil
	}
	if !info.IsDir() {
		return &os.PathError{Op: "notices", Path: name, Err: syscall.ENOTDIR}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case !ok || id.uid == 0:
		return nil
	case int(st.Uid) == id.uid:
		mode >>= 6
	case int(st.Gid) == id.gid || slices.Contains(id.groups, int(st.Gid)):
		mode >>= 3
	}
	if mode&5 != 5 {
		return &os.PathError{Op: "notices", Path: name, Err: syscall.EACCES}
	}
	return nil
}

// Explain returns all that is wrong with a configuration that kept a process from
// starting: first what was found first, each once. conf may be nil.
func Explain(conf *config.Config, problems []config.Problem, open config.Opener, first error) []string {
	var all []string
	tell := func(text string) {
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	for _, p := range problems {
		if !p.Warning {
			tell(p.String())
		}
	}
	if len(all) == 0 && first != nil {
		tell(first.Error())
	}
	if conf != nil {
		for _, err := range Check(conf, open) {
			tell(err.Error())
		}
	}
	return all
}

// readable returns why the file path, if there is one, cannot be read.
func readable(open config.Opener, path string) error {
	if path == "" {
		return nil
	}
	f, err := open.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	return err
}
