package proc

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// List returns all sessions of all processes, in the order of the directory.
// Files that dead processes left behind are removed. A directory that does not
// exist is an empty list.
func (t *Table) List() ([]Info, error) {
	names, err := t.names()
	if err != nil {
		return nil, err
	}
	var all []Info
	l := living{}
	for _, name := range names {
		if strings.HasSuffix(name, suffix) {
			t.sweep(name, l)
		} else if i, ok := t.read(name, l); ok {
			all = append(all, i)
		}
	}
	return all, nil
}

// Count returns how many sessions of service user has logged in to, and how
// many of whatever users have been logged in to from host, in all processes.
func (t *Table) Count(service, user, host string) (perUser, perHost int, err error) {
	names, err := t.names()
	if err != nil {
		return 0, 0, err
	}
	count := func(i *Info) {
		if i.User == "" || i.Service != service {
			return
		}
		if i.User == user {
			perUser++
		}
		if i.Host == host {
			perHost++
		}
	}
	// What this process has written need not be read.
	own := strconv.Itoa(os.Getpid())
	l := living{}
	for _, name := range names {
		if pid, _, _ := strings.Cut(name, "."); pid == own || strings.HasSuffix(name, suffix) {
			continue
		}
		if i, ok := t.read(name, l); ok {
			count(&i)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := range t.entries {
		count(&e.info)
	}
	return perUser, perHost, nil
}

// names returns the names of the files of sessions, those included that are
// being written.
func (t *Table) names() ([]string, error) {
	if t.dir == "" {
		return nil, nil
	}
	dir, err := os.Open(t.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	all, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	names := all[:0]
	for _, name := range all {
		if _, _, ok := parseName(bare(name)); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// bare returns name without what marks a file that is no session's. Those of Cyrus, and
// of our older versions, have no dot before them.
func bare(name string) string {
	if rest, ok := strings.CutSuffix(name, suffix); ok {
		return strings.TrimPrefix(rest, hidden)
	}
	return name
}

// parseName takes a file's name apart: PID or PID.n, and nothing else.
func parseName(name string) (pid int, id string, ok bool) {
	number, id, several := strings.Cut(name, ".")
	pid, err := strconv.Atoi(number)
	if err != nil || pid <= 0 || strconv.Itoa(pid) != number {
		return 0, "", false
	}
	if several {
		if n, err := strconv.Atoi(id); err != nil || n <= 0 || strconv.Itoa(n) != id {
			return 0, "", false
		}
	}
	return pid, id, true
}

// largest is more than any file of a session has, in octets.
const largest = 64 << 10

// read returns what the file name says, if it is that of a session and its
// process lives. That of a dead one is removed.
func (t *Table) read(name string, l living) (i Info, ok bool) {
	path := filepath.Join(t.dir, name)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return i, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > largest {
		return i, false
	}
	text := make([]byte, info.Size())
	n, err := f.Read(text)
	if err != nil && n == 0 {
		return i, false
	}
	i, start, ok := parse(string(text[:n]))
	if !ok {
		return i, false
	}
	i.PID, i.ID, _ = parseName(name)
	if i.Since.IsZero() {
		i.Since = info.ModTime()
	}
	if !l.has(i.PID, start) {
		_ = os.Remove(path) // who may not remove it need not
		return i, false
	}
	return i, true
}

// parse reads the text of a file. start is 0 where the second line is missing.
func parse(text string) (i Info, start uint64, ok bool) {
	first, rest, ok := strings.Cut(text, "\n")
	f := strings.Split(first, "\t")
	if !ok || len(f) < 2 {
		return i, 0, false
	}
	for n, to := range []*string{&i.Service, &i.Host, &i.User, &i.Mailbox, &i.Command} {
		if n < len(f) {
			*to = f[n]
		}
	}
	second, _, _ := strings.Cut(rest, "\n")
	if f = strings.Split(strings.TrimRight(second, " "), "\t"); len(f) == 3 {
		i.Session = f[0]
		if at, err := strconv.ParseInt(f[1], 10, 64); err == nil {
			i.Since = time.Unix(at, 0)
		}
		start, _ = strconv.ParseUint(f[2], 10, 64)
	}
	return i, start, true
}

// living remembers when processes were started, 0 for those that do not live.
type living map[int]uint64

// sweep removes a file that its writer, dead now, was about to rename.
func (t *Table) sweep(name string, l living) {
	if pid, _, ok := parseName(bare(name)); ok && !l.has(pid, 0) {
		_ = os.Remove(filepath.Join(t.dir, name))
	}
}

// has tells whether the process pid lives and was started at start, where that
// is known.
func (l living) has(pid int, start uint64) bool {
	at, ok := l[pid]
	if !ok {
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			s, dead, ok := status(pid)
			switch {
			case dead:
			case ok:
				at = s
			default:
				at = unknown
			}
		}
		l[pid] = at
	}
	return at != 0 && (start == 0 || at == unknown || at == start)
}

// unknown stands for the start of a process about which the system says
// nothing but that it lives.
const unknown = ^uint64(0)

// Alive tells whether the process pid lives. One that has ended and that its parent
// does not wait for, as in a container whose first process is no init, does not.
func Alive(pid int) bool { return living{}.has(pid, 0) }

// started returns when the process pid was started, in clock ticks since the
// start of the system.
func started(pid int) (uint64, bool) {
	at, _, ok := status(pid)
	return at, ok
}

// status returns when the process pid was started, and whether it has ended and is
// only there to be waited for. See proc_pid_stat(5), fields 3 and 22.
func status(pid int) (started uint64, dead, ok bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false, false
	}
	// The second field, the program's name, may hold anything.
	s := string(text)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return 0, false, false
	}
	n, err := strconv.ParseUint(f[19], 10, 64)
	return n, f[0] == "Z" || f[0] == "X", err == nil
}
