package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// about returns the lines above the table: when, on what, with what.
func (b *bench) about() []string {
	return []string{
		fmt.Sprintf("%s; imapd %s (%s), Dovecot %s.", time.Now().Format(time.DateOnly), revision(), runtime.Version(), output("dovecot", "--version")),
		fmt.Sprintf("%s, %d cores, Linux %s, %s; load before the run %s.", processor(), runtime.NumCPU(), output("uname", "-r"), fileSystem(b.dir), b.load),
		fmt.Sprintf("%d messages of %.1f KB; %d rounds: medians, the least in brackets; ratios are ours divided by Dovecot's, CPU is processor time in the same unit, medians.",
			b.messages, float64(b.mail.octets)/float64(len(b.mail.names))/1000, b.rounds),
	}
}

// output returns the first word that a program prints.
func output(name string, args ...string) string {
	text, err := exec.Command(name, args...).Output()
	if f := strings.Fields(string(text)); err == nil && len(f) > 0 {
		return f[0]
	}
	return "unknown"
}

func revision() string { return output("git", "describe", "--tags", "--always", "--dirty") }

func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, model, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return runtime.GOARCH
}

// load returns the load average of the last minute.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

func fileSystem(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return "unknown file system"
	}
	switch int64(st.Type) {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	}
	return fmt.Sprintf("file system %#x", st.Type)
}
