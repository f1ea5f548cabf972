package control

import (
	"crypto/x509"
	"encoding/pem"
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
// configuration in file, a line each, and returns the exit code. Where no fault
// is to be told, the effective configuration is printed to out before
// them: it is long, and would push what is wrong off the screen. conf is nil where
// there is no configuration; open opens the files that it names.
func Test(conf *config.Config, file string, problems []config.Problem, open config.Opener, inspect Inspector, out, complaints io.Writer) int {
	var faults, warnings, notes []string
	for _, p := range problems {
		if p.Warning {
			warnings = append(warnings, p.String())
		} else {
			faults = append(faults, p.String())
		}
	}
	if conf != nil {
		wrong, unread := Examine(conf, file, open)
		for _, err := range wrong {
			faults = append(faults, err.Error())
		}
		for _, err := range unread {
			notes = append(notes, err.Error())
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
	for _, text := range notes {
		fmt.Fprintln(complaints, "note:", text)
	}
	for _, text := range faults {
		fmt.Fprintln(complaints, text)
	}
	if len(faults) > 0 {
		return ExitConfig
	}
	return ExitOK
}

// Complain tells why imapd, started as start, does not start: on standard error, and
// in syslog where nobody sees that. conf is what could be read of the configuration,
// or nil: where the log would go to standard error in another form than that of a
// person's, so does this.
func Complain(stdio *Stdio, start Start, conf *config.Config, messages ...string) {
	if conf == nil {
		conf = config.Default()
	}
	log := OpenLog(conf, start, stdio)
	defer log.Close()
	if !log.Stderr || conf.LogFormat != config.LogJSON {
		for _, m := range messages {
			fmt.Fprintln(os.Stderr, "imapd:", m)
		}
		if !stdio.Hidden && foreground() {
			return
		}
	}
	for _, m := range messages {
		log.Error(m)
	}
}

// A finding is what is wrong with what an option names. byRoot tells that root reads
// it where root starts the server; else it is cyrus_user who does.
type finding struct {
	option string
	err    error
	byRoot bool
}

// Check returns what is wrong around a configuration that is right in itself, as the
// process that is to serve by it finds it: certificates and passwords that cannot be
// read, a user who does not exist, a directory that this user cannot reach.
func Check(conf *config.Config, open config.Opener) []error {
	var wrong []error
	for _, f := range append(checkCertificates(conf, open), checkOthers(conf, open)...) {
		wrong = append(wrong, f.err)
	}
	return wrong
}

// Examine is Check for somebody who wants to know what the configuration in file is
// good for. What he may not read, and the server may for all he can know, is no fault:
// unread tells of it.
func Examine(conf *config.Config, file string, open config.Opener) (wrong, unread []error) {
	for _, f := range append(checkCertificates(conf, open), checkOthers(conf, open)...) {
		if !errors.Is(f.err, fs.ErrPermission) || serves(conf, file, f.byRoot) {
			wrong = append(wrong, f.err)
			continue
		}
		name := conf.ConfigDirectory
		var path *fs.PathError
		if errors.As(f.err, &path) {
			name = path.Path
		}
		unread = append(unread, conf.At(f.option, fmt.Errorf("%s: not checked: may not be read by uid %d", name, os.Geteuid())))
	}
	return wrong, unread
}

// serves tells whether this process has the rights that the server will have: as it
// starts, or as cyrus_user.
func serves(conf *config.Config, file string, starts bool) bool {
	me := os.Geteuid()
	if me == 0 {
		return true
	}
	id, err := identify(conf)
	mine := conf.User != "" && err == nil && id.uid == me
	if !starts && conf.User != "" {
		return mine
	}
	return !forRoot(file) && (mine || conf.User == "")
}

// checkCertificates checks each pair; of one whose key may not be read, the chain.
func checkCertificates(conf *config.Config, open config.Opener) []finding {
	c := newCertificates(conf, open, slog.New(slog.DiscardHandler))
	if len(c.cert) == 0 {
		return nil
	}
	var all []finding
	list, err := c.list()
	if err != nil {
		all = append(all, finding{"tls_server_names_dir", conf.At("tls_server_names_dir", err), true})
	}
	for _, n := range list {
		_, err := c.fetch(n)
		if err == nil {
			continue
		}
		all = append(all, finding{n.option(), conf.At(n.option(), n.wrap(err)), true})
		if !errors.Is(err, fs.ErrPermission) {
			continue
		}
		if text, err := c.file(n.cert); err == nil {
			if err := readableChain(text); err != nil {
				all = append(all, finding{n.option(), conf.At(n.option(), fmt.Errorf("certificate %s: %w", n.cert, err)), true})
			}
		}
	}
	return all
}

// readableChain returns why text is no chain of certificates.
func readableChain(text []byte) error {
	some := false
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
		some = true
	}
	if !some {
		return errors.New("no certificate in it")
	}
	return nil
}

// checkOthers is Check but for certificates.
func checkOthers(conf *config.Config, open config.Opener) []finding {
	var wrong []finding
	found := func(option string, err error, byRoot bool) { wrong = append(wrong, finding{option, err, byRoot}) }
	unreadable := readable(open, conf.PasswdFile)
	if unreadable != nil {
		found("sasl_passwd_file", conf.At("sasl_passwd_file", unreadable), conf.PrivilegeSeparation != config.SeparateNone)
	}
	if err := readable(open, conf.UserDeny); err != nil && !errors.Is(err, fs.ErrNotExist) {
		found("userdeny_db_path", conf.At("userdeny_db_path", err), conf.PrivilegeSeparation != config.SeparateNone)
	}
	// The socket may come later; a directory is never one.
	if info, err := os.Stat(conf.SaslauthdPath); slices.Contains(conf.PwcheckMethods, "saslauthd") && err == nil && info.IsDir() {
		err := fmt.Errorf("%s is a directory; the socket in it is %[1]s/mux", filepath.Clean(conf.SaslauthdPath))
		found("sasl_saslauthd_path", conf.At("sasl_saslauthd_path", err), false)
	}
	for _, a := range conf.Listen {
		if conf.Where("listen") != "" && a.TLS && len(conf.TLSServerCert) == 0 {
			found("listen", conf.At("listen", fmt.Errorf("%v: %w", a, ErrNoCertificate)), false)
		}
	}
	who := identity{uid: os.Geteuid(), gid: os.Getegid()}
	if conf.User != "" {
		id, err := identify(conf)
		if err == nil && conf.PrivilegeSeparation == config.SeparateUser {
			_, err = identifyAuth(conf, id)
		}
		if err != nil {
			found("cyrus_user", err, false)
		} else if who.uid == 0 {
			who = id
		}
	}
	if err := who.reaches(conf); err != nil {
		found("configdirectory", err, false)
	}
	if conf.PrivilegeSeparation == config.SeparateNone && who.uid != os.Geteuid() && unreadable == nil {
		// It is opened when the process is root's no more.
		if err := who.as(func() error { return readable(config.Open, conf.PasswdFile) }); err != nil {
			err := fmt.Errorf("%w for %s, with privilege_separation: none", err, conf.User)
			found("sasl_passwd_file", conf.At("sasl_passwd_file", err), false)
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
		return conf.At("configdirectory", err)
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
