package control

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
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

	page   *page
	closer func()
}

// OpenLog returns the log of a process that was started as start. Lines go to
// standard error where systemd's journal reads it, and where imapd runs in the
// foreground (-l with a terminal, pipe or file there); else to syslog, whether
// or not there is a daemon yet.
//
// A line is what Cyrus writes: the message, then the attributes as key=value.
// With log_format: json it is a JSON object; see logjson.go.
func OpenLog(conf *config.Config, start Start, stdio *Stdio) *Log {
	l := &Log{}
	inJournal := !stdio.Hidden && journal()
	daemon := (start == StartListen || start == StartSystemd) && !stdio.Hidden
	l.Stderr = inJournal || daemon && foreground()
	name := ident(conf, start)
	system := newSyslogSink(conf, name, syslogPaths)
	var s sink = system
	l.closer = system.close
	if l.Stderr {
		f, err := reopen(2, unix.O_WRONLY)
		if err != nil {
			f = os.Stderr
		}
		files := newFileSink(f, name, conf.LogFormat == config.LogJSON)
		files.journal = inJournal
		s, l.closer = files, func() { f.Close() }
	}
	h := newHandler(conf, name, &lossy{sink: s, told: lostText(conf, name)})
	l.Logger, l.page = slog.New(h), h.page
	return l
}

// Close ends the connection to syslog.
func (l *Log) Close() {
	l.page.mu.Lock()
	defer l.page.mu.Unlock()
	l.closer()
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

// foreground tells whether somebody reads standard error: not /dev/null.
func foreground() bool {
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

// journal tells whether systemd's journal reads standard error: the variable
// that says so is inherited by programs whose standard error is another, so
// it has device and inode in it. See systemd.exec(5).
func journal() bool {
	var st unix.Stat_t
	return unix.Fstat(2, &st) == nil && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// A sink takes finished lines, one at a time.
type sink interface {
	line(level slog.Level, text string) error
}

// fileSink writes lines as syslog daemons store them, or with journal, which
// knows date, host and name itself, as sd-daemon(3) says.
type fileSink struct {
	w             io.Writer
	host, name    string
	bare, journal bool
	torn          bool // the last line has no end
}

func newFileSink(w io.Writer, name string, bare bool) *fileSink {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return &fileSink{w: w, host: host, name: name + "[" + strconv.Itoa(os.Getpid()) + "]", bare: bare}
}

func (s *fileSink) line(level slog.Level, text string) error {
	switch {
	case s.journal:
		text = "<" + strconv.Itoa(severity(level)) + ">" + text
	case !s.bare:
		text = time.Now().Format(time.Stamp) + " " + s.host + " " + s.name + ": " + text
	}
	if s.torn {
		text = "\n" + text
	}
	if f, ok := s.w.(*os.File); ok {
		if err := ifAny(f.SetWriteDeadline(time.Now().Add(logPatience))); err != nil {
			return err
		}
	}
	n, err := io.WriteString(s.w, text+"\n")
	if n > 0 {
		s.torn = err != nil
	}
	return err
}

// page is where one line at a time is put together.
type page struct {
	mu   sync.Mutex
	text bytes.Buffer
	sink sink

	within []string // where landlock lets this process write; nil where it does not say
}

// handler is a slog.Handler: inner writes a line to the page, the page's sink
// takes it with the level of the record.
type handler struct {
	page  *page
	level slog.Level
	inner slog.Handler
}

func newHandler(conf *config.Config, name string, s sink) *handler {
	h := &handler{page: &page{sink: s}, level: slog.LevelInfo}
	if conf.Debug {
		h.level = slog.LevelDebug
	}
	if conf.LogFormat == config.LogJSON {
		h.inner = newObjects(&h.page.text, name)
	} else {
		h.inner = &classic{w: &h.page.text}
	}
	return h
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.page.mu.Lock()
	defer h.page.mu.Unlock()
	h.page.text.Reset()
	if beyond(r, h.page.within) {
		r = r.Clone()
		r.AddAttrs(slog.String("hint", "a link leads out of what landlock leaves; see landlock in imapd.conf(5)"))
	}
	if err := h.inner.Handle(ctx, r); err != nil {
		return err
	}
	line := strings.TrimSuffix(h.page.text.String(), "\n")
	if _, ok := h.inner.(*classic); ok {
		line = oneLine(line)
	}
	return h.page.sink.line(r.Level, line)
}

// oneLine keeps a message that somebody made from foreign text from being
// taken for two.
func oneLine(text string) string {
	if !strings.ContainsFunc(text, unicode.IsControl) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unicode.IsControl(r) {
			fmt.Fprintf(&b, `\x%02x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
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
	if v.Kind() == slog.KindAny {
		if g, ok := v.Any().(Given); ok {
			return " " + prefix + a.Key + "=" + g.text()
		}
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
