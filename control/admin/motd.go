package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"unicode"
)

var _ = register(Command{
	Name: "motd", Args: "[--off | text ...]", Help: "greet clients with a text, or no more",
	Options: []option{{long: "off"}}, Max: -1,
	Run: func(c *call) error { return c.notice("motd") },
})

var _ = register(Command{
	Name: "shutdown", Args: "[--off | text ...]", Help: "serve nobody but administrators, or all again",
	Options: []option{{long: "off"}}, Max: -1,
	Run:   (*call).shutdown,
	Quiet: true,
	Serve: func(_ context.Context, s *Server, _ *request) (string, error) { return s.opt.Service, nil },
})

// shutdown writes or removes msg/shutdown or, with -S, that of one service. A daemon
// has one service for all its addresses, so that msg/shutdown.imaps ends nobody who
// has come to its port 993: who would think so is told.
func (c *call) shutdown() error {
	if c.service == "" {
		return c.notice("shutdown")
	}
	if err := c.notice("shutdown." + c.service); err != nil || len(c.args) == 0 {
		return err
	}
	daemons, err := c.daemons()
	if err != nil {
		return nil // there is none to go on
	}
	if all, err := c.list(); err != nil || len(all) > 0 {
		return nil // a launcher starts processes for it
	}
	var others []string
	for _, d := range daemons {
		service, err := d.within(briefTime, "shutdown", "")
		if errors.Is(err, errNoDaemon) {
			continue // its number is another program's by now
		}
		if err != nil || service == c.service {
			return nil // it serves it, or cannot say
		}
		others = append(others, fmt.Sprintf("process %d serves %s", d.pid, service))
	}
	if others == nil {
		return nil
	}
	return fail(exitUnavailable, "the notice is written, but no daemon that runs is of the service %s: %s", c.service, strings.Join(others, ", "))
}

// maxNotice is how many octets of a notice clients are sent.
const maxNotice = 4096

// notice writes the file name below msg/, or removes it where there is no text.
func (c *call) notice(name string) (err error) {
	text := strings.Join(c.args, " ")
	switch {
	case c.set["off"] && len(c.args) > 0:
		return fail(exitUsage, "--off and a text exclude each other")
	case len(c.args) > 0 && strings.TrimSpace(text) == "":
		return fail(exitUsage, "the text is empty; --off takes the notice away")
	case strings.ContainsFunc(text, unicode.IsControl):
		return fail(exitUsage, "the text must be one line without control characters")
	case len(text) > maxNotice:
		return fail(exitUsage, "the text has %d octets; clients are sent %d", len(text), maxNotice)
	case strings.HasPrefix(text, "["):
		return fail(exitUsage, "the text must not begin with [, which clients would take for a response code")
	}
	if err := c.load(); err != nil {
		return err
	}
	msg, err := c.subdir("msg", 0o755)
	if err != nil {
		return err
	}
	defer msg.Close()
	defer func() { err = named(err, msg, filepath.Join(c.conf.ConfigDirectory, "msg")) }()
	if len(c.args) > 0 {
		return put(msg, name, text+"\n")
	}
	if err := msg.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
