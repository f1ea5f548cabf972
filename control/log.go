package control

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"imapd/control/config"

	"golang.org/x/sys/unix"
)

// LevelNotice is for what an administrator wants to see of a server that works:
// logins above all.
const LevelNotice = slog.Level(2)

// Service is the name of imapd among the services of a site where no launcher
// gives it another: in msg/shutdown.SERVICE, options named SERVICE_option and
// log lines.
const Service = "imap"

// A Log is the log of the process.
type Log struct {
	*slog.Logger
	// Stderr tells that lines go to standard error.
	Stderr bool

	syslog *syslog.Writer // or nil
}

// OpenLog returns the log of a process that was started as start. Lines go to
// standard error where imapd runs in the foreground (-l with a terminal, pipe
// or file there), else to syslog; where there is neither they are lost.
//
// A line is what Cyrus writes: the message, then the attributes as key=value.
// With log_format: json it is a JSON object.
func OpenLog(conf *config.Config, start Start, stdio *Stdio) *Log {
	l := &Log{}
	var s sink = nowhere{}
	daemon := (start == StartListen || start == StartSystemd) && !stdio.Hidden
	if daemon {
		l.Stderr = foreground()
	}
	if !l.Stderr {
		w, err := syslog.New(facilities[conf.SyslogFacility]|syslog.LOG_INFO, ident(conf, start))
		if err == nil {
			l.syslog, s = w, syslogSink{w}
		} else {
			l.Stderr = daemon
		}
	}
	if l.Stderr {
		s = newFileSink(os.Stderr, ident(conf, start), conf.LogFormat == config.LogJSON)
	}
	l.Logger = slog.New(newHandler(conf, s))
	return l
}

// Close ends the connection to syslog.
func (l *Log) Close() {
	if l.syslog != nil {
		l.syslog.Close()
	}
}

// ident is how syslog names the program: with a prefix as Cyrus does, so that
// its filters (fail2ban) fit.
func ident(conf *config.Config, start Start) string {
	switch {
	case conf.SyslogPrefix != "":
		return conf.SyslogPrefix + "/" + serviceName(start)
	case start == StartMaster:
		return serviceName(start)
	}
	return "imapd"
}

// foreground tells whether somebody reads standard error: not /dev/null, and
// not systemd's journal, which has syslog as well.
func foreground() bool {
	if os.Getenv("JOURNAL_STREAM") != "" {
		return false
	}
	var st unix.Stat_t
	if unix.Fstat(2, &st) != nil {
		return false
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return true
	}
	_, err := unix.IoctlGetTermios(2, unix.TCGETS)
	return err == nil
}

var facilities = map[string]syslog.Priority{
	"mail": syslog.LOG_MAIL, "daemon": syslog.LOG_DAEMON, "news": syslog.LOG_NEWS, "user": syslog.LOG_USER,
	"local0": syslog.LOG_LOCAL0, "local1": syslog.LOG_LOCAL1, "local2": syslog.LOG_LOCAL2, "local3": syslog.LOG_LOCAL3,
	"local4": syslog.LOG_LOCAL4, "local5": syslog.LOG_LOCAL5, "local6": syslog.LOG_LOCAL6, "local7": syslog.LOG_LOCAL7,
}

// A sink takes finished lines, one at a time.
type sink interface {
	line(level slog.Level, text string) error
}

type syslogSink struct{ w *syslog.Writer }

func (s syslogSink) line(level slog.Level, text string) error {
	switch {
	case level >= slog.LevelError:
		return s.w.Err(text)
	case level >= slog.LevelWarn:
		return s.w.Warning(text)
	case level >= LevelNotice:
		return s.w.Notice(text)
	case level >= slog.LevelInfo:
		return s.w.Info(text)
	}
	return s.w.Debug(text)
}

// fileSink writes lines as syslog daemons store them.
type fileSink struct {
	w          io.Writer
	host, name string
	bare       bool
}

func newFileSink(w io.Writer, name string, bare bool) *fileSink {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return &fileSink{w, host, name + "[" + strconv.Itoa(os.Getpid()) + "]", bare}
}

func (s *fileSink) line(_ slog.Level, text string) error {
	if !s.bare {
		text = time.Now().Format(time.Stamp) + " " + s.host + " " + s.name + ": " + text
	}
	_, err := io.WriteString(s.w, text+"\n")
	return err
}

type nowhere struct{}

func (nowhere) line(slog.Level, string) error { return nil }

// page is where one line at a time is put together.
type page struct {
	mu   sync.Mutex
	text bytes.Buffer
	sink sink
}

// handler is a slog.Handler: inner writes a line to the page, the page's sink
// takes it with the level of the record.
type handler struct {
	page  *page
	level slog.Level
	inner slog.Handler
}

func newHandler(conf *config.Config, s sink) slog.Handler {
	h := &handler{page: &page{sink: s}, level: slog.LevelInfo}
	if conf.Debug {
		h.level = slog.LevelDebug
	}
	if conf.LogFormat == config.LogJSON {
		h.inner = slog.NewJSONHandler(&h.page.text, &slog.HandlerOptions{Level: h.level, ReplaceAttr: nameLevel})
	} else {
		h.inner = &classic{w: &h.page.text}
	}
	return h
}

func nameLevel(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.LevelKey && a.Value.Any() == LevelNotice {
		a.Value = slog.StringValue("NOTICE")
	}
	return a
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.page.mu.Lock()
	defer h.page.mu.Unlock()
	h.page.text.Reset()
	if err := h.inner.Handle(ctx, r); err != nil {
		return err
	}
	return h.page.sink.line(r.Level, strings.TrimSuffix(h.page.text.String(), "\n"))
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.page, h.level, h.inner.WithAttrs(attrs)}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.page, h.level, h.inner.WithGroup(name)}
}

// classic writes the message and the attributes as text, those of the record
// first. A line of loglines.go is its message and nothing else.
type classic struct {
	w      *bytes.Buffer
	prefix string // of keys: the groups, each with a "."
	attrs  string // those of WithAttrs, written out
}

func (c *classic) Enabled(context.Context, slog.Level) bool { return true }

func (c *classic) Handle(_ context.Context, r slog.Record) error {
	c.w.WriteString(r.Message)
	told := false
	r.Attrs(func(a slog.Attr) bool {
		if _, told = a.Value.Any().(facts); !told {
			c.w.WriteString(text(c.prefix, a))
		}
		return !told
	})
	if !told {
		c.w.WriteString(c.attrs)
	}
	return nil
}

func (c *classic) WithAttrs(attrs []slog.Attr) slog.Handler {
	d := *c
	for _, a := range attrs {
		d.attrs += text(c.prefix, a)
	}
	return &d
}

func (c *classic) WithGroup(name string) slog.Handler {
	d := *c
	d.prefix += name + "."
	return &d
}

// text returns one attribute as " key=value".
func text(prefix string, a slog.Attr) string {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		var all string
		for _, b := range v.Group() {
			all += text(prefix, b)
		}
		return all
	}
	s := v.String()
	if s == "" || strings.ContainsFunc(s, odd) || !utf8.ValidString(s) {
		s = strconv.Quote(s)
	}
	return " " + prefix + a.Key + "=" + s
}

// odd tells whether r needs quotes around it.
func odd(r rune) bool {
	return r == ' ' || r == '"' || r == '=' || r == '\\' || !unicode.IsPrint(r)
}
