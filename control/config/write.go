package config

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Write prints the effective configuration in the form of imapd.conf, every
// option with a comment that says what it does, and last, as comments, the
// options of the file that have no effect here. Load reads it back to an equal
// Config.
func (c *Config) Write(w io.Writer) error {
	var b strings.Builder
	for _, table := range [][]option{options, limits} {
		for i := range table {
			o := &table[i]
			fmt.Fprintf(&b, "# %s\n", o.prose)
			if value := o.get(c); value != "" {
				fmt.Fprintf(&b, "%s: %s\n\n", o.name, value)
			} else {
				fmt.Fprintf(&b, "# %s: (not set)\n\n", o.name)
			}
		}
	}
	for _, use := range slices.Sorted(maps.Keys(c.SpecialUse)) {
		fmt.Fprintf(&b, "xlist-%s: %s\n", strings.ToLower(use[1:]), c.SpecialUse[use])
	}
	for _, e := range c.unheard {
		fmt.Fprintf(&b, "# no effect: %s (%v)\n", e.name, e.place)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
