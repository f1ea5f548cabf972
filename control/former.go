package control

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"imapd/control/config"
)

// Directories in configdirectory stay those of the user who served before, when
// cyrus_user is another now. The server goes on without them, and each that it cannot
// use would be one line in the log that does not say why; so root, who sees all of it
// at the start, says what is to be done. It does not do it: what is in there belongs
// to somebody who could have put anything in its place, and to give root's files away
// by a link is worse than a line to be typed.

// Unusable returns why the user who serves by conf cannot use the directory dir of
// configdirectory, with the command that helps; nil where he can. It is for root and
// for that user; others see no more than that they may not look.
func Unusable(conf *config.Config, dir string) error {
	id, err := identify(conf)
	if conf.User == "" || err != nil || os.Geteuid() != 0 && os.Geteuid() != id.uid {
		return nil
	}
	for _, d := range servedDirs(conf) {
		if d.path == dir {
			return id.unusable(conf, d)
		}
	}
	return nil
}

// A servedDir is a directory that the server writes to, or looks into.
type servedDir struct {
	path string
	mode uint32
	why  string // it matters
}

// servedDirs returns those that the server can do without; see reaches for msg.
func servedDirs(conf *config.Config) []servedDir {
	return []servedDir{
		{filepath.Join(conf.ConfigDirectory, "socket"), unix.W_OK | unix.X_OK, "imapctl cannot reach the server"},
		{conf.ProcPath, unix.R_OK | unix.W_OK | unix.X_OK, "nobody is listed as on, or counted"},
		{filepath.Join(conf.ConfigDirectory, "log"), unix.X_OK, "there is no telemetry"},
	}
}

func (id identity) unusable(conf *config.Config, d servedDir) error {
	err := id.as(func() error { return unix.Faccessat(unix.AT_FDCWD, d.path, d.mode, unix.AT_EACCESS) })
	if err != unix.EACCES {
		return nil // what is not there, or broken, is told by who needs it
	}
	return id.remedy(conf, d.path, err, ", so that "+d.why)
}

// remedy adds to err, that id may not use the directory path, what to do.
func (id identity) remedy(conf *config.Config, path string, err error, so string) error {
	user := conf.User
	if user == "" {
		user = strconv.Itoa(id.uid)
	}
	what := "chown -R " + user
	if info, err := os.Stat(path); err == nil && int(info.Sys().(*syscall.Stat_t).Uid) == id.uid {
		what = "chmod u+rwx"
	}
	return fmt.Errorf("%s: %w for %s, who serves%s: %s %[1]s", path, err, user, so, what)
}

// warnUnusable logs what id cannot use.
func (id identity) warnUnusable(conf *config.Config, log *slog.Logger) {
	if conf.ConfigDirectory == "" {
		return
	}
	for _, d := range servedDirs(conf) {
		if err := id.unusable(conf, d); err != nil {
			log.Warn(err.Error())
		}
	}
}
