package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"imapd/control/config"
)

// An Inspector looks into the sources of passwords that a configuration names: what
// is wrong with their lines, and whether they let several users in. sasl.Inspect is
// one.
type Inspector func(conf *config.Config, open config.Opener) (wrong []config.Problem, several bool)

// Foresee returns what is right in itself, and yet would disappoint whoever starts
// imapd in one way or another: nobody can log in, or the start is refused. How it will
// be started is not known here, so these are warnings, and say for which start. The
// log does not repeat them at each start: what is a mistake elsewhere is meant so by
// whoever serves one Maildir to himself. file is the configuration file.
func Foresee(conf *config.Config, file string, open config.Opener, inspect Inspector) []error {
	var all []error
	foresee := func(err error) { all = append(all, err) }
	missing := func(format string, args ...any) { foresee(fmt.Errorf("%s: "+format, append([]any{file}, args...)...)) }
	tls := len(conf.TLSServerCert) > 0
	if conf.User == "" && forRoot(file) {
		missing(`for a start by root: add the line "cyrus_user: NAME", where NAME is the user who owns the mail`)
	}
	net := func(a config.Address) bool { return a.Network == "tcp" }
	trusted := len(conf.LoginTrusted)+len(conf.HAProxyTrusted) > 0
	switch {
	case conf.Where("listen") == "" && !tls && conf.Where("tls_server_cert") == "":
		missing(`for -l: the default of listen has imaps://:993, which needs tls_server_cert and tls_server_key; set them, or "listen: imap://:143"`)
	case slices.ContainsFunc(conf.Listen, net) && !tls && !conf.AllowPlaintext && !trusted && conf.Where("tls_server_cert") == "":
		foresee(conf.At("listen", errors.New("for -l: nobody can log in over the net, with neither tls_server_cert nor allowplaintext: yes")))
	}
	if conf.PasswdFile == "" && conf.Where("sasl_passwd_file") == "" && slices.Contains(conf.PwcheckMethods, "passwd-file") {
		if len(conf.PwcheckMethods) > 1 {
			foresee(conf.At("sasl_pwcheck_method", errors.New("passwd-file has no effect without sasl_passwd_file")))
		} else {
			missing("nobody can log in: sasl_passwd_file is missing (who starts imapd for himself, on a pipe, needs no password)")
		}
	}
	wrong, several := inspect(conf, open)
	for _, p := range wrong {
		foresee(errors.New(p.String()))
	}
	all = append(all, foreseePaths(conf, several)...)
	return append(all, foreseeKeys(conf)...)
}

// forRoot tells whether it is likely that root starts imapd with this file.
func forRoot(file string) bool {
	info, err := os.Stat(file)
	if err != nil || os.Geteuid() == 0 {
		return err == nil
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == 0
}

// foreseePaths looks at the templates of mail: do users share a path, and is the
// directory there in which those of all lie, or can it be made?
func foreseePaths(conf *config.Config, several bool) []error {
	who := identity{uid: os.Geteuid()}
	if id, err := identify(conf); err == nil && who.uid == 0 && conf.PrivilegeSeparation != config.SeparateUser {
		who = id
	}
	var all []error
	for _, t := range []struct{ name, template string }{
		{"maildir", conf.Maildir}, {"maildir_control", conf.MaildirControl}, {"indexdirectory", conf.IndexDirectory},
	} {
		if t.template == "" {
			continue
		}
		if several && !config.Varies(t.template) && (t.name == "maildir" || config.Varies(conf.Maildir)) {
			all = append(all, conf.At(t.name, fmt.Errorf("all users would have one %s; %%u or %%n in it, or ~ at its start, stands for the user", t.template)))
		}
		if err := who.canMake(fixedPart(t.template), conf.PrivilegeSeparation == config.SeparateUser); err != nil {
			all = append(all, conf.At(t.name, err))
		}
	}
	return all
}

// fixedPart returns the directory in which all lies that a template stands for, or ""
// where that is each user's home.
func fixedPart(template string) string {
	if !strings.HasPrefix(template, "/") {
		return ""
	}
	const percent = "\x00" // in no path
	path := strings.ReplaceAll(template, "%%", percent)
	if i := strings.IndexByte(path, '%'); i >= 0 {
		path = path[:i] + "x"
	}
	return strings.ReplaceAll(filepath.Dir(path), percent, "%")
}

// canMake returns why id could not reach dir, or not make it where it is not there.
// With must it has to be there: who would make it is not known.
func (id identity) canMake(dir string, must bool) error {
	if dir == "" {
		return nil
	}
	return id.as(func() error {
		_, err := os.Stat(dir + "/.")
		if err == nil {
			return nil
		}
		no := fmt.Errorf("%s: %w", dir, reason(err))
		if must || !errors.Is(err, fs.ErrNotExist) {
			return no
		}
		above := dir
		for errors.Is(err, fs.ErrNotExist) && above != "/" {
			above = filepath.Dir(above)
			_, err = os.Stat(above)
		}
		if unix.Faccessat(unix.AT_FDCWD, above, unix.W_OK|unix.X_OK, unix.AT_EACCESS) != nil {
			return fmt.Errorf("%w, and uid %d may not make it: no mail can be served", no, id.uid)
		}
		return nil
	})
}

// reason takes the path off err, which is told before it.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// foreseeKeys tells of keys that a server without a process of root's can read at its
// start only.
func foreseeKeys(conf *config.Config) []error {
	id, err := identify(conf)
	if conf.PrivilegeSeparation != config.SeparateNone || err != nil || id.uid == 0 || os.Geteuid() != 0 {
		return nil
	}
	var all []error
	for _, file := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(conf.TLSServerCert, conf.TLSServerKey)))) {
		err := id.as(func() error { return readable(config.Open, file) })
		if errors.Is(err, fs.ErrPermission) && readable(config.Open, file) == nil {
			all = append(all, conf.At("tls_server_cert", fmt.Errorf("%w for %s: with privilege_separation: none it is read at the start only, not at a reload", err, conf.User)))
		}
	}
	return all
}
