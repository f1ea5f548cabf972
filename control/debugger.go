package control

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// RunDebugger runs debug_command with the shell and waits for it. Its printf
// directives %s, %d and %s stand for the program's name, its process id and
// the service. Nothing happens where command is empty.
func RunDebugger(command, program, service string) error {
	if command == "" {
		return nil
	}
	c := exec.Command("/bin/sh", "-c", debugCommand(command, program, os.Getpid(), service))
	c.Stderr = os.Stderr
	return c.Run()
}

// debugCommand fills the directives in, in their order; %% is one %. Those
// beyond the third, and those that are none, stay as they are.
func debugCommand(command, program string, pid int, service string) string {
	args := []string{program, strconv.Itoa(pid), service}
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(command, "%")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		switch {
		case strings.HasPrefix(after, "%"):
			b.WriteByte('%')
			after = after[1:]
		case len(args) > 0 && (strings.HasPrefix(after, "s") || strings.HasPrefix(after, "d")):
			b.WriteString(args[0])
			args, after = args[1:], after[1:]
		default:
			b.WriteByte('%')
		}
		command = after
	}
}
