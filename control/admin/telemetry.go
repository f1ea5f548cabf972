package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"
)

var _ = register(Command{
	Name: "telemetry", Args: "user on | off [--delete] | tail", Help: "log what a user's clients and the server say, or read it",
	Options: []option{{long: "delete"}}, Min: 2, Max: 2,
	Run: (*call).telemetry,
})

func (c *call) telemetry() error {
	if err := c.load(); err != nil {
		return err
	}
	user, err := c.user(c.args[0])
	if err != nil {
		return err
	}
	if c.set["delete"] && c.args[1] != "off" {
		return fail(exitUsage, "--delete goes with off")
	}
	switch c.args[1] {
	case "on":
		return c.telemetryOn(user)
	case "off":
		return c.telemetryOff(user)
	case "tail":
		return c.tail(filepath.Join(c.conf.ConfigDirectory, "log", user), user)
	}
	return fail(exitUsage, "telemetry is on, off or tail, not %q", c.args[1])
}

// telemetryOn makes the directory that turns the log on.
func (c *call) telemetryOn(user string) (err error) {
	log, err := c.subdir("log", 0o700)
	if err != nil {
		return err
	}
	defer log.Close()
	defer func() { err = named(err, log, filepath.Join(c.conf.ConfigDirectory, "log")) }()
	if err := c.mkdir(log, user, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// telemetryOff takes the directory away: under another name, which is printed,
// where there is something in it.
func (c *call) telemetryOff(user string) (err error) {
	log, err := c.subdir("log", 0o700)
	if err != nil {
		return err
	}
	defer log.Close()
	defer func() { err = named(err, log, filepath.Join(c.conf.ConfigDirectory, "log")) }()
	err = log.Remove(user)
	switch {
	case err == nil || errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, syscall.ENOTEMPTY):
		return err
	}
	kept := user + ".off-" + time.Now().UTC().Format("20060102T150405.000000Z")
	if err := log.Rename(user, kept); err != nil {
		return err
	}
	if c.set["delete"] {
		return log.RemoveAll(kept)
	}
	fmt.Fprintln(c.out, filepath.Join(c.conf.ConfigDirectory, "log", kept))
	return nil
}
