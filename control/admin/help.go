package admin

import (
	"fmt"
	"strings"
)

var _ = register(Command{
	Name: "help", Help: "tell what imapctl can do",
	Run: func(c *call) error {
		_, err := fmt.Fprint(c.out, usage())
		return err
	},
})

var _ = register(Command{
	Name: "version", Help: "print the version",
	Run: func(c *call) error {
		_, err := fmt.Fprintln(c.out, "imapctl", c.version)
		return err
	},
})

// synopsis answers what cannot be understood.
const synopsis = "usage: imapctl [-C config-file] [-S service] subcommand [argument ...]\n"

// usage has a line for each subcommand. It says what man/imapctl.8 says, and
// a test compares them.
func usage() string {
	var b strings.Builder
	b.WriteString(synopsis)
	for _, name := range names() {
		c := commands[name]
		fmt.Fprintf(&b, "  %s\n      %s\n", strings.TrimSpace(name+" "+c.Args), c.Help)
	}
	return b.String()
}
