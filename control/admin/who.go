package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"imapd/control"
	"imapd/control/proc"
)

var _ = register(Command{
	Name: "who", Args: "[--json]", Help: "list who is on",
	Options: []option{{long: "json"}},
	Run:     (*call).who,
	Quiet:   true,
	Serve: func(_ context.Context, s *Server, _ *request) (string, error) {
		all, ok := s.opt.Complete()
		if !ok {
			return "listed", nil
		}
		var lines strings.Builder
		e := json.NewEncoder(&lines)
		for _, i := range all {
			if err := e.Encode(i); err != nil {
				return "", err
			}
		}
		return lines.String() + complete, nil
	},
})

// complete is the last line of a daemon's own list.
const complete = "complete"

// A person is one session as who --json has it.
type person struct {
	PID     int       `json:"pid"`
	ID      string    `json:"id"` // what kick takes: PID or PID.n
	Service string    `json:"service"`
	Host    string    `json:"host"`
	User    string    `json:"user"`
	Mailbox string    `json:"mailbox"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
	Session string    `json:"session"`
}

func (c *call) who() error {
	all, err := c.list()
	if err != nil {
		return err
	}
	if c.set["json"] {
		people := []person{}
		for _, i := range all {
			people = append(people, person{i.PID, name(i), i.Service, i.Host, i.User, i.Mailbox, i.Command, i.Since, i.Session})
		}
		e := json.NewEncoder(c.out)
		e.SetIndent("", "  ")
		return e.Encode(people)
	}
	// The columns of cyr_info proc. A field that is empty has a dash, or awk
	// would count wrong.
	w := tabwriter.NewWriter(c.out, 0, 0, 1, ' ', 0)
	for _, i := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", name(i), dash(i.Service), dash(i.Host), dash(i.User), dash(i.Mailbox), dash(i.Command))
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s)
}

// name returns what tells one session from all others: PID or PID.n.
func name(i proc.Info) string {
	if i.ID == "" {
		return strconv.Itoa(i.PID)
	}
	return strconv.Itoa(i.PID) + "." + i.ID
}

// unlisted puts what daemons say in the place of what their files say, where a
// daemon could not write one: on a full disk there is nobody in them.
func (c *call) unlisted(all []proc.Info) []proc.Info {
	daemons, err := c.daemons()
	if err != nil {
		return all // there is none, or none that this user may ask
	}
	for _, d := range daemons {
		text, err := d.within(briefTime, "who", "")
		lines := strings.Split(text, "\n")
		if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			c.complain(fmt.Errorf("process %d does not answer: its sessions are listed as far as its files tell", d.pid))
		}
		if err != nil || lines[len(lines)-1] != complete {
			continue
		}
		all = slices.DeleteFunc(all, func(i proc.Info) bool { return i.PID == d.pid })
		for _, line := range lines[:len(lines)-1] {
			var i proc.Info
			if json.Unmarshal([]byte(line), &i) == nil && i.PID == d.pid {
				all = append(all, i)
			}
		}
	}
	return all
}

// list returns who is on, of the service of -S if there is one, in the order
// of their processes and arrival.
func (c *call) list() ([]proc.Info, error) {
	if err := c.load(); err != nil {
		return nil, err
	}
	var all []proc.Info
	var err error
	if asErr := c.as(func() { all, err = proc.Open(c.conf.ProcPath, slog.New(slog.DiscardHandler)).List() }); asErr != nil {
		err = asErr
	}
	if err != nil {
		if why := control.Unusable(c.conf, c.conf.ProcPath); why != nil {
			err = &failure{exitNoPerm, why}
		}
		return nil, err
	}
	all = c.unlisted(all)
	if c.service != "" {
		all = slices.DeleteFunc(all, func(i proc.Info) bool { return i.Service != c.service })
	}
	slices.SortFunc(all, func(a, b proc.Info) int {
		x, _ := strconv.Atoi(a.ID)
		y, _ := strconv.Atoi(b.ID)
		return cmp.Or(a.PID-b.PID, x-y)
	})
	return all, nil
}
