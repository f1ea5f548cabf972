package admin

import (
	"fmt"

	"imapd/control"
	"imapd/control/config"
	"imapd/sasl"
)

var _ = register(Command{
	Name: "check", Args: "[config-file]", Help: "say all that is wrong with a configuration, and what has no effect",
	Max: 1,
	Run: (*call).check,
})

// check prints a line for each fault, each warning, each file that the caller may not
// read and each option without an effect.
func (c *call) check() error {
	if len(c.args) > 0 {
		c.file = c.args[0]
	}
	service := c.service
	if service == "" {
		service = control.Service
	}
	conf, problems, _ := config.Load(c.file, service, config.Open)
	var faults, warnings int
	type line struct {
		file string
		line int
	}
	told := map[line]bool{}
	for _, p := range problems {
		told[line{p.File, p.Line}] = true
		if p.Warning {
			warnings++
			fmt.Fprintln(c.out, "warning:", printable(p.String()))
		} else {
			faults++
			fmt.Fprintln(c.out, "error:", printable(p.String()))
		}
	}
	if conf != nil {
		wrong, unread := control.Examine(conf, c.file, config.Open)
		for _, err := range wrong {
			faults++
			fmt.Fprintln(c.out, "error:", printable(err.Error()))
		}
		for _, err := range control.Foresee(conf, c.file, config.Open, sasl.Inspect) {
			warnings++
			fmt.Fprintln(c.out, "warning:", printable(err.Error()))
		}
		for _, err := range unread {
			fmt.Fprintln(c.out, "note:", printable(err.Error()))
		}
		for _, i := range conf.Idle() {
			if !told[line{i.File, i.Line}] {
				fmt.Fprintf(c.out, "note: %s:%d: %s has no effect: %s\n", i.File, i.Line, i.Name, i.Why)
			}
		}
	}
	fmt.Fprintf(c.out, "%s: %d errors, %d warnings\n", c.file, faults, warnings)
	if faults > 0 {
		return &failure{exitConfig, errSaid}
	}
	return nil
}
