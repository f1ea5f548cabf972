package admin

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"imapd/control"
	"imapd/control/config"
	"imapd/sasl"

	"golang.org/x/sys/unix"
)

// A call is one run of imapctl.
type call struct {
	in       *os.File
	out, err io.Writer
	version  string

	file    string // of the configuration
	service string // of -S, or empty
	conf    *config.Config
	set     map[string]bool // options of the subcommand, by their long name
	args    []string
}

// Main is the program imapctl. args are its arguments without its name, version
// that of the program. It returns the exit code.
func Main(args []string, version string) int {
	c := &call{in: os.Stdin, out: os.Stdout, err: os.Stderr, version: version}
	return c.main(args)
}

func (c *call) main(args []string) int {
	err := c.run(args)
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, errSaid) {
		c.complain(err)
	}
	code := exitCode(err)
	if code == exitUsage {
		fmt.Fprint(c.err, synopsis)
	}
	return code
}

// complain prints why something failed.
func (c *call) complain(err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(c.err, "imapctl:", printable(line))
	}
}

func (c *call) run(args []string) error {
	c.file = control.DefaultConfig
	args, err := c.global(args)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return fail(exitUsage, "a subcommand is missing")
	}
	command, ok := commands[args[0]]
	if !ok {
		return fail(exitUsage, "unknown subcommand %q", args[0])
	}
	if err := c.own(command, args[1:]); err != nil {
		return err
	}
	if len(c.args) < command.Min || command.Max >= 0 && len(c.args) > command.Max {
		return fail(exitUsage, "usage: imapctl %s", strings.TrimSpace(command.Name+" "+command.Args))
	}
	return command.Run(c)
}

// global takes the options before the subcommand off args.
func (c *call) global(args []string) ([]string, error) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-" {
		word := args[0]
		args = args[1:]
		switch {
		case word == "--":
			return args, nil
		case word == "--help" || word == "-h":
			return []string{"help"}, nil
		case word == "--version" || word == "-V":
			return []string{"version"}, nil
		case word[1] != 'C' && word[1] != 'S':
			return nil, fail(exitUsage, "unknown option %q", word)
		}
		value := word[2:]
		if value == "" {
			if len(args) == 0 {
				return nil, fail(exitUsage, "option %s needs an argument", word)
			}
			value, args = args[0], args[1:]
		}
		if word[1] == 'C' {
			c.file = value
		} else if value == "" || strings.ContainsAny(value, "/\x00") {
			return nil, fail(exitUsage, "option -S needs the name of a service, not %q", value)
		} else {
			c.service = value
		}
	}
	return args, nil
}

// own sorts the options of a subcommand from its arguments. An argument may
// begin with - behind "--".
func (c *call) own(command Command, args []string) error {
	c.set = map[string]bool{}
	for i, word := range args {
		if word == "--" {
			c.args = append(c.args, args[i+1:]...)
			return nil
		}
		if len(word) < 2 || word[0] != '-' {
			c.args = append(c.args, word)
			continue
		}
		known := false
		for _, o := range command.Options {
			if word == "--"+o.long || o.short != "" && word == "-"+o.short {
				c.set[o.long], known = true, true
			}
		}
		if !known {
			return fail(exitUsage, "unknown option %q of %s", word, command.Name)
		}
	}
	return nil
}

// load reads the configuration. One with faults will do as long as it says
// where the configuration directory is: the daemon may run with the one before.
func (c *call) load() error {
	service := c.service
	if service == "" {
		service = control.Service
	}
	conf, _, err := config.Load(c.file, service, config.Open)
	if conf == nil || conf.ConfigDirectory == "" {
		return &failure{exitConfig, err}
	}
	c.conf = conf
	return nil
}

// user returns the canonical form of a user's name.
func (c *call) user(name string) (string, error) {
	canonical, err := sasl.Canonical(name, c.conf.UsernameToLower)
	if err != nil {
		return "", fail(exitUsage, "%q is no name of a user", name)
	}
	return canonical, nil
}

// colour tells whether output may be coloured: it is a terminal.
func (c *call) colour() bool {
	f, ok := c.out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
