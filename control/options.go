package control

import (
	"fmt"
	"strconv"
)

// DefaultConfig is the configuration file where -C names none.
const DefaultConfig = "/etc/imapd.conf"

// Usage is the synopsis that a wrong option is answered with.
const Usage = `usage: imapd [-C config-file] [-U uses] [-T timeout] [-D] [-H] [-s] [-p ssf]
       imapd -l [-C config-file] [-T timeout] [-D] [-H] [-s] [-p ssf]
       imapd -t [-C config-file]
       imapd -V
`

// Exit codes, as sysexits.h names them.
const (
	ExitOK       = 0
	ExitUsage    = 64 // a wrong option
	ExitSoftware = 70 // the launcher does not say what it should
	ExitOS       = 71 // the system refused what it should have given
	ExitTempFail = 75 // under master(8): a signal ended it
	ExitConfig   = 78 // the configuration is wrong
)

// Options are what the command line says. See imapd(8).
type Options struct {
	// Config is the configuration file; ConfigGiven tells that -C named it.
	Config      string
	ConfigGiven bool
	// Service is the name of the service, where it is not for the start to say:
	// no option has it, but imapctl's -S.
	Service string
	// Uses and Timeout (seconds) bound the life of a process under master(8).
	// Timeout does so under inetd with wait too, with a process for each user,
	// and, where the command line has it (TimeoutGiven), under systemd.
	Uses, Timeout int
	TimeoutGiven  bool
	// Debugger runs debug_command before anybody is served.
	Debugger bool
	// TLS puts every connection under TLS from its first octet.
	TLS bool
	// SSF is the strength of a layer that protects the connection outside of
	// imapd; 2 and more keep it private.
	SSF int
	// Proxy lets in nobody but proxies, with the PROXY protocol.
	Proxy bool
	// Listen serves the addresses of the option listen.
	Listen bool
	// Test checks the configuration and ends.
	Test bool
	// Version prints the version and ends.
	Version bool
}

// ParseOptions reads args (without the program's name) as getopt(3) does: an
// argument may be attached ("-U30"), options without one may share a word
// ("-ls"), "--" ends the options. Anything left over is an error.
func ParseOptions(args []string) (*Options, error) {
	o := &Options{Config: DefaultConfig, Uses: 250, Timeout: 60}
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		if word == "--" {
			break
		}
		if len(word) < 2 || word[0] != '-' {
			return nil, fmt.Errorf("unexpected argument %q", word)
		}
		for i := 1; i < len(word); i++ {
			if !takesArgument(word[i]) {
				if err := o.flag(word[i]); err != nil {
					return nil, err
				}
				continue
			}
			arg := word[i+1:]
			if arg == "" {
				if len(args) == 0 {
					return nil, fmt.Errorf("option -%c needs an argument", word[i])
				}
				arg, args = args[0], args[1:]
			}
			if err := o.argument(word[i], arg); err != nil {
				return nil, err
			}
			break
		}
	}
	if len(args) > 0 {
		return nil, fmt.Errorf("unexpected argument %q", args[0])
	}
	return o, nil
}

func takesArgument(c byte) bool { return c == 'C' || c == 'U' || c == 'T' || c == 'p' }

func (o *Options) flag(c byte) error {
	switch c {
	case 'D':
		o.Debugger = true
	case 's':
		o.TLS = true
	case 'l':
		o.Listen = true
	case 't':
		o.Test = true
	case 'V':
		o.Version = true
	case 'H':
		o.Proxy = true
	default:
		return fmt.Errorf("unknown option -%s", Escape(string(rune(c))))
	}
	return nil
}

func (o *Options) argument(c byte, arg string) error {
	if c == 'C' {
		o.Config, o.ConfigGiven = arg, true
		return nil
	}
	n, err := strconv.Atoi(arg)
	if err != nil || n > 1<<30 {
		return fmt.Errorf("option -%c needs a number, not %q", c, arg)
	}
	n = max(n, 0) // as Cyrus takes negative numbers
	switch c {
	case 'U':
		o.Uses = n
	case 'T':
		o.Timeout, o.TimeoutGiven = n, true
	case 'p':
		o.SSF = n
	}
	return nil
}
