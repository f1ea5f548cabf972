package admin

import (
	"errors"
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
	Run: func(c *call) error {
		if c.service != "" {
			return c.notice("shutdown." + c.service)
		}
		return c.notice("shutdown")
	},
})

// maxNotice is how many octets of a notice clients are sent.
const maxNotice = 4096

// notice writes the file name below msg/, or removes it where there is no text.
func (c *call) notice(name string) (err error) {
	text := strings.Join(c.args, " ")
	switch {
	case c.set["off"] && len(c.args) > 0:
		return fail(exitUsage, "--off and a text exclude each other")
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
