package admin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"imapd/control/proc"
)

var _ = register(Command{
	Name: "kick", Args: "[--user] user | pid[.n]", Help: "end the sessions of a user, or one",
	Options: []option{{"u", "user"}}, Min: 1, Max: 1,
	Run: (*call).kick,
	Serve: func(_ context.Context, s *Server, r *request) (string, error) {
		if !s.opt.End(r.argument) {
			return "", errors.New("the session has ended")
		}
		return "ended", nil
	},
})

// kick ends the sessions that the argument names: of a user, or where it is a
// number the one of a process, or where it is two numbers one of a daemon's.
func (c *call) kick() error {
	all, err := c.list()
	if err != nil {
		return err
	}
	who := c.args[0]
	var chosen []proc.Info
	if c.set["user"] || !isID(who) {
		user, err := c.user(who)
		if err != nil {
			return err
		}
		for _, i := range all {
			if i.User == user {
				chosen = append(chosen, i)
			}
		}
	} else {
		several := 0
		for _, i := range all {
			if name(i) == who {
				chosen = append(chosen, i)
			} else if strconv.Itoa(i.PID) == who {
				several++
			}
		}
		if several > 0 {
			return fail(exitUsage, "process %s serves %d clients: name one as %s.n, or a user", who, several, who)
		}
	}
	if len(chosen) == 0 {
		return fail(exitNoUser, "%s is not on", who)
	}
	for _, i := range chosen {
		if endErr := c.end(i); endErr != nil {
			c.complain(fmt.Errorf("%s: %w", name(i), endErr))
			err = &failure{exitCode(endErr), errSaid}
			continue
		}
		fmt.Fprintf(c.out, "%s %s %s\n", name(i), dash(i.Host), dash(i.User))
	}
	return err
}

// isID tells whether s is the name of a session: PID or PID.n.
func isID(s string) bool {
	pid, n, several := strings.Cut(s, ".")
	_, err := strconv.ParseUint(pid, 10, 31)
	if err == nil && several {
		_, err = strconv.ParseUint(n, 10, 31)
	}
	return err == nil
}

// end ends one session.
func (c *call) end(i proc.Info) error {
	if i.ID == "" {
		return terminate(i.PID)
	}
	_, err := c.daemon(i.PID).ask("kick", i.Session)
	return err
}

// terminate sends SIGTERM to a process that serves one client, if it is still
// one of ours: numbers of processes are given out again.
func terminate(pid int) error {
	p, err := os.FindProcess(pid) // holds the process, not the number
	if err != nil {
		return err
	}
	defer p.Release()
	own, err := program("self")
	if err != nil {
		return err
	}
	other, err := program(strconv.Itoa(pid))
	if err != nil {
		return err
	}
	if own != other {
		return fmt.Errorf("process %d is %s, not %s: it is left alone", pid, other, own)
	}
	return p.Signal(syscall.SIGTERM)
}

// program returns the name of the program that the process pid runs, which
// stays the same when a newer one takes its place on disk.
func program(pid string) (string, error) {
	path, err := os.Readlink("/proc/" + pid + "/exe")
	return filepath.Base(strings.TrimSuffix(path, " (deleted)")), err
}

// exitCode returns the exit code that err stands for.
func exitCode(err error) int {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f.code
	case errors.Is(err, os.ErrPermission):
		return exitNoPerm
	}
	return exitOS
}
