package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

var _ = register(Command{
	Name: "reload", Help: "have daemons read their configuration again",
	Run: func(c *call) error { return c.askAll("reload") },
	Serve: func(_ context.Context, s *Server, _ *request) (string, error) {
		kept, err := s.opt.Daemon.Reload()
		return strings.Join(append(kept, "reloaded"), "\n"), err
	},
})

var _ = register(Command{
	Name: "drain", Help: "have daemons accept nobody, end their sessions and exit",
	Run: func(c *call) error { return c.askAll("drain") },
	Serve: func(_ context.Context, s *Server, _ *request) (string, error) {
		s.opt.Daemon.Drain()
		return "draining", nil
	},
})

// askAll sends the same request to every daemon.
func (c *call) askAll(word string) error {
	if err := c.load(); err != nil {
		return err
	}
	daemons, err := c.daemons()
	if err != nil {
		return err
	}
	answers := 0
	for _, d := range daemons {
		text, askErr := d.ask(word, "")
		if errors.Is(askErr, errNoDaemon) && len(daemons) > 1 {
			continue // a dead one's number is another program's by now
		}
		answers++
		if askErr != nil {
			c.complain(fmt.Errorf("process %d: %w", d.pid, askErr))
			err = &failure{exitCode(askErr), errSaid}
			continue
		}
		for line := range strings.SplitSeq(text, "\n") {
			fmt.Fprintf(c.out, "process %d: %s\n", d.pid, printable(line))
		}
	}
	if answers == 0 {
		return &failure{exitUnavailable, errNoDaemon}
	}
	return err
}
