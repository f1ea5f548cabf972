package control

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"imapd/control/config"
)

// Test is imapd -t: it prints to complaints all that is wrong with the
// configuration in file, a line each, and returns the exit code. Where nothing but
// warnings is to be told, the effective configuration is printed to out before
// them: it is long, and would push what is wrong off the screen. conf is nil where
// there is no configuration; open opens the files that it names.
func Test(conf *config.Config, file string, problems []config.Problem, open config.Opener, inspect Inspector, out, complaints io.Writer) int {
	var faults, warnings []string
	for _, p := range problems {
		if p.Warning {
			warnings = append(warnings, p.String())
		} else {
			faults = append(faults, p.String())
		}
	}
	if conf != nil {
		for _, err := range Check(conf, open) {
			faults = append(faults, err.Error())
		}
		for _, err := range Foresee(conf, file, open, inspect) {
			warnings = append(warnings, err.Error())
		}
	}
	if len(faults) == 0 {
		if err := conf.Write(out); err != nil {
			fmt.Fprintln(complaints, err)
			return ExitOS
		}
	}
	for _, text := range warnings {
		fmt.Fprintln(complaints, "warning:", text)
	}
	for _, text := range faults {
		fmt.Fprintln(complaints, text)
	}
	if len(faults) > 0 {
		return ExitConfig
	}
	return ExitOK
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
// certificates and passwords that cannot be read, a user who does not exist, a
// directory that this user cannot reach.
func Check(conf *config.Config, open config.Opener) []error {
	var wrong []error
	if _, err := LoadCertificates(conf, open, slog.New(slog.DiscardHandler)); err != nil {
		wrong = append(wrong, err)
	}
	return append(wrong, checkOthers(conf, open)...)
}

// checkOthers is Check but for certificates.
func checkOthers(conf *config.Config, open config.Opener) []error {
	var wrong []error
	unreadable := readable(open, conf.PasswdFile)
	if unreadable != nil {
		wrong = append(wrong, at(conf, "sasl_passwd_file", unreadable))
	}
	// The socket may come later; a directory is never one.
	if info, err := os.Stat(conf.SaslauthdPath); slices.Contains(conf.PwcheckMethods, "saslauthd") && err == nil && info.IsDir() {
		wrong = append(wrong, at(conf, "sasl_saslauthd_path", fmt.Errorf("%s is a directory; the socket in it is %[1]s/mux", filepath.Clean(conf.SaslauthdPath))))
	}
	for _, a := range conf.Listen {
		if conf.Where("listen") != "" && a.TLS && len(conf.TLSServerCert) == 0 {
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
	if err := who.reaches(conf); err != nil {
		wrong = append(wrong, err)
	}
	if conf.PrivilegeSeparation == config.SeparateNone && who.uid != os.Geteuid() && unreadable == nil {
		// It is opened when the process is root's no more.
		if err := who.as(func() error { return readable(config.Open, conf.PasswdFile) }); err != nil {
			wrong = append(wrong, at(conf, "sasl_passwd_file", fmt.Errorf("%w for %s, with privilege_separation: none", err, conf.User)))
		}
	}
	return wrong
}

// reaches returns why id could not see the notices: configdirectory is not there,
// or id may not look into it or msg in it. That there is no msg is no fault.
func (id identity) reaches(conf *config.Config) error {
	if conf.ConfigDirectory == "" {
		return nil
	}
	err := id.as(func() error {
		if _, err := os.Stat(conf.ConfigDirectory + "/."); err != nil {
			return err
		}
		msg, err := os.Open(filepath.Join(conf.ConfigDirectory, "msg") + "/.")
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			msg.Close()
		}
		return err
	})
	var path *fs.PathError
	if errors.As(err, &path) {
		path.Path = filepath.Clean(path.Path)
		if errors.Is(err, fs.ErrPermission) && path.Path == filepath.Join(conf.ConfigDirectory, "msg") { // see unusable
			err = id.remedy(conf, path.Path, path.Err, "")
		}
	}
	if err != nil {
		return at(conf, "configdirectory", err)
	}
	return nil
}

// as calls look with the rights on files that id has, where this process is root's.
func (id identity) as(look func() error) error {
	if os.Geteuid() != 0 || id.uid == 0 {
		return look()
	}
	// The rights are one thread's. It is of no use to others unless it gets them back.
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		groups, err := unix.Getgroups()
		if err == nil {
			err = seeAs(id.groups, id.gid, id.uid)
		}
		if err == nil {
			err = look()
		}
		if seeAs(groups, 0, 0) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// seeAs gives the thread the rights on files that uid, gid and groups have. It is
// locked, and its effective uid is root's.
func seeAs(groups []int, gid, uid int) error {
	// In this order going there, and root may set groups whatever its fsuid is.
	err := unix.Setgroups(groups)
	if err == nil {
		err = unix.Setfsgid(gid)
	}
	if err == nil {
		err = unix.Setfsuid(uid) // last: it takes root's rights on files
	}
	return err
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
