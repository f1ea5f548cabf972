package control

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"imapd/control/config"
)

// The log must not cost a session anything but lines. A syslog daemon is
// restarted, is not there yet, or is stopped with its queue full; a terminal
// is stopped with Ctrl-S; the program behind a pipe hangs. log/syslog of the
// standard library waits for ever then, with everybody else who logs behind
// it. So:
//
//   - a line waits for logPatience at most;
//   - after one that could not be written, those of the next logRest are
//     dropped without a try;
//   - the first that can be written again is told before how many were lost.
//
// A queue of our own in front of the daemon was rejected: it loses the same
// lines later, and the last ones of a process that ends.
const (
	logPatience = 100 * time.Millisecond
	logRest     = time.Second
)

// lossy gives lines to a sink that may fail or be slow.
type lossy struct {
	sink
	told func(lost int) string // how that is said; nil: as text
	rest time.Time             // no try before
	lost int                   // lines, since one was written
}

func (l *lossy) line(level slog.Level, text string) error {
	now := time.Now()
	if now.Before(l.rest) {
		l.lost++
		return nil
	}
	if l.lost > 0 && l.sink.line(slog.LevelWarn, l.lostLine()) == nil {
		l.lost = 0
	}
	err := l.sink.line(level, text)
	if err != nil {
		l.lost++
		l.rest = time.Now().Add(logRest)
	}
	return err
}

func (l *lossy) lostLine() string {
	if l.told != nil {
		return l.told(l.lost)
	}
	return lost(l.lost)
}

// severity returns the number that syslog has for level.
func severity(level slog.Level) int {
	switch {
	case level >= slog.LevelError:
		return 3
	case level >= slog.LevelWarn:
		return 4
	case level >= LevelNotice:
		return 5
	case level >= slog.LevelInfo:
		return 6
	}
	return 7
}

// facilities are the numbers of syslog's facilities, times 8 as in a priority.
var facilities = map[string]int{
	"user": 1 << 3, "mail": 2 << 3, "daemon": 3 << 3, "news": 7 << 3,
	"local0": 16 << 3, "local1": 17 << 3, "local2": 18 << 3, "local3": 19 << 3,
	"local4": 20 << 3, "local5": 21 << 3, "local6": 22 << 3, "local7": 23 << 3,
}

// syslogPaths are where syslog daemons listen.
var syslogPaths = []string{"/dev/log", "/var/run/syslog", "/var/run/log"}

// maxSyslog is how many octets of a line syslog gets: daemons cut at 8 KiB or
// drop the line.
const maxSyslog = 8000

// syslogSink sends lines to the system's syslog daemon as syslog(3) does. One
// goroutine at a time may use it.
type syslogSink struct {
	facility int
	name     string // ident[pid]
	paths    []string
	conn     net.Conn // nil while no daemon is known
	stream   bool     // lines end with LF there
}

func newSyslogSink(conf *config.Config, name string, paths []string) *syslogSink {
	return &syslogSink{facility: facilities[conf.SyslogFacility], name: name + "[" + strconv.Itoa(os.Getpid()) + "]", paths: paths}
}

// dial finds the daemon.
func (s *syslogSink) dial() error {
	var err error
	for _, network := range []string{"unixgram", "unix"} {
		for _, path := range s.paths {
			var c net.Conn
			if c, err = net.DialTimeout(network, path, logPatience); err == nil {
				s.conn, s.stream = c, network == "unix"
				return nil
			}
		}
	}
	return fmt.Errorf("no syslog daemon: %w", err)
}

// line sends a line. Where the daemon is another than before, which says so by
// an error, that one gets it.
func (s *syslogSink) line(level slog.Level, text string) error {
	text = fmt.Sprintf("<%d>%s %s: %.*s", s.facility|severity(level), time.Now().Format(time.Stamp), s.name, maxSyslog, text)
	known := s.conn != nil
	err := s.send(text)
	if err != nil && known && !errors.Is(err, os.ErrDeadlineExceeded) {
		err = s.send(text)
	}
	return err
}

func (s *syslogSink) send(text string) error {
	if s.conn == nil {
		if err := s.dial(); err != nil {
			return err
		}
	}
	if s.stream {
		text += "\n"
	}
	err := s.conn.SetWriteDeadline(time.Now().Add(logPatience))
	var n int
	if err == nil {
		n, err = s.conn.Write([]byte(text))
	}
	// A datagram that found no room leaves all as it was; half a line must
	// not be what the next one is joined to.
	if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || n > 0) {
		s.close()
	}
	return err
}

func (s *syslogSink) close() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}
