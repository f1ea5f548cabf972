package admin

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"imapd/control"
	"imapd/control/proc"
)

// How long a client waits for a daemon to answer, to answer what can be done
// without, and to take a connection.
const (
	answerTime  = time.Minute
	briefTime   = 5 * time.Second
	connectTime = 5 * time.Second
)

// A remote is a daemon that listens.
type remote struct {
	pid  int
	path string
}

// errNoDaemon says that nobody listens on a socket.
var errNoDaemon = errors.New("no daemon answers")

// daemons returns all daemons that share the configuration directory. It is an
// error if there is none.
func (c *call) daemons() ([]remote, error) {
	dir := filepath.Join(c.conf.ConfigDirectory, "socket")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []remote
	for _, e := range entries {
		pid, ok := socketPID(e.Name())
		if ok && proc.Alive(pid) {
			all = append(all, remote{pid, filepath.Join(dir, e.Name())})
		}
	}
	slices.SortFunc(all, func(a, b remote) int { return a.pid - b.pid })
	if len(all) == 0 {
		if why := control.Unusable(c.conf, dir); why != nil {
			return nil, fail(exitUnavailable, "no daemon can be asked, whether or not one runs; start it again after this:\n%w", why)
		}
		return nil, fail(exitUnavailable, "no daemon runs with configdirectory %s", c.conf.ConfigDirectory)
	}
	return all, nil
}

// daemon returns the process pid, if it is a daemon.
func (c *call) daemon(pid int) remote {
	return remote{pid, socketPath(c.conf.ConfigDirectory, pid)}
}

// last returns the daemon that was started last.
func (c *call) last() remote {
	return remote{path: filepath.Join(c.conf.ConfigDirectory, "socket", socketName)}
}

// dial connects.
func (r remote) dial() (*net.UnixConn, error) {
	conn, err := net.DialTimeout("unix", r.path, connectTime)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, &failure{exitUnavailable, fmt.Errorf("%w on %s", errNoDaemon, r.path)}
	}
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// ask sends one request and returns the text of the answer, if that is OK.
func (r remote) ask(word, argument string) (string, error) {
	return r.within(answerTime, word, argument)
}

// within is ask with another time for the answer.
func (r remote) within(limit time.Duration, word, argument string) (string, error) {
	conn, err := r.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_, text, err := request1(conn, limit, word, argument)
	return text, err
}

// request1 sends a request on conn and reads its answer. What follows the answer
// is in the reader.
func request1(conn net.Conn, limit time.Duration, word, argument string) (*bufio.Reader, string, error) {
	if argument != "" {
		word += "\t" + argument
	}
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, "", err
	}
	if _, err := conn.Write([]byte(word + "\n")); err != nil {
		return nil, "", err
	}
	r := bufio.NewReader(conn)
	var details []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, "", fail(exitUnavailable, "the daemon gave no answer: %w", err)
		}
		kind, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch kind {
		case "OK":
			return r, strings.Join(append(details, text), "\n"), conn.SetDeadline(time.Time{})
		case "*":
			details = append(details, text)
		default:
			return nil, "", fail(exitUnavailable, "%s", strings.Join(append(details, text), "\n"))
		}
	}
}

// The socket's name, and that of the daemon with a process id.
const socketName = "imapctl"

func socketPath(dir string, pid int) string {
	return filepath.Join(dir, "socket", socketName+"."+strconv.Itoa(pid))
}

// socketPID returns the process id in the name of a socket.
func socketPID(name string) (int, bool) {
	number, ok := strings.CutPrefix(name, socketName+".")
	pid, err := strconv.Atoi(number)
	return pid, ok && err == nil && pid > 0
}
