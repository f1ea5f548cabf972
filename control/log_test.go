package control

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"imapd/control/config"
)

// lines is a sink that keeps what it gets.
type lines struct {
	levels []slog.Level
	text   []string
}

func (l *lines) line(level slog.Level, text string) error {
	l.levels, l.text = append(l.levels, level), append(l.text, text)
	return nil
}

func logTo(s sink, f func(*config.Config)) *slog.Logger {
	conf := config.Default()
	if f != nil {
		f(conf)
	}
	return slog.New(newHandler(conf, "imapd", s))
}

// What fail2ban 1.0.2 looks for in the filter cyrus-imap, with an address for
// <HOST>.
var fail2ban = regexp.MustCompile(`^badlogin: [^\[]*\[([0-9a-f.:]+)\] \S+ .*?\[?SASL\(-13\): (authentication failure|user not found): .*\]?$`)

func TestLines(t *testing.T) {
	t.Parallel()
	const host = "[192.0.2.1]"
	for _, tt := range []struct {
		log   func(*slog.Logger)
		want  string
		level slog.Level
		ban   bool
	}{
		{log: func(l *slog.Logger) { LogLogin(l, Login{host, "alice", "plaintext", false, "imap-1"}) },
			want: "login: [192.0.2.1] alice plaintext User logged in SESSIONID=<imap-1>", level: LevelNotice},
		{log: func(l *slog.Logger) { LogLogin(l, Login{host, "alice", "PLAIN", true, "imap-1"}) },
			want: "login: [192.0.2.1] alice PLAIN+TLS User logged in SESSIONID=<imap-1>", level: LevelNotice},
		{log: func(l *slog.Logger) { LogBadLogin(l, BadLogin{Host: host, User: "alice", Mech: "plaintext"}) },
			want: "badlogin: [192.0.2.1] plaintext (alice) [SASL(-13): authentication failure: checkpass failed]", level: LevelNotice, ban: true},
		{log: func(l *slog.Logger) {
			LogBadLogin(l, BadLogin{Host: host, User: "nosuch", Mech: "PLAIN", Why: UnknownUser})
		},
			want: "badlogin: [192.0.2.1] PLAIN (nosuch) [SASL(-13): user not found: checkpass failed]", level: LevelNotice, ban: true},
		{log: func(l *slog.Logger) {
			LogBadLogin(l, BadLogin{Host: host, User: "alice", Mech: "PLAIN", Why: MayNotProxy, As: "bob"})
		},
			want: "badlogin: [192.0.2.1] PLAIN (bob) [SASL(-13): authentication failure: user alice is not allowed to proxy]", level: LevelNotice, ban: true},
		{log: func(l *slog.Logger) {
			LogBadLogin(l, BadLogin{Host: host, User: "alice/x", Mech: "plaintext", Why: InvalidUser})
		},
			want: "badlogin: [192.0.2.1] plaintext (alice/x) invalid user", level: LevelNotice},
		{log: func(l *slog.Logger) { LogBadLogin(l, BadLogin{Host: host, Mech: "PLAIN", Why: BrokenExchange}) },
			want: "badlogin: [192.0.2.1] PLAIN (-notset-) [SASL(-6): can't request information until later in exchange: ]", level: LevelNotice},
		{log: func(l *slog.Logger) {
			LogBadLogin(l, BadLogin{Host: host, User: "x) [SASL(-13): authentication failure: \n[10.0.0.1]", Mech: "PLAIN", Why: LoginUnavailable})
		},
			want: `badlogin: [192.0.2.1] PLAIN (x\x29 \x5bSASL\x28-13\x29: authentication failure: \x0a\x5b10.0.0.1\x5d) [SASL(-1): generic failure: checkpass failed]`, level: LevelNotice},
		{log: func(l *slog.Logger) {
			LogTLS(l, host, "imap-1", tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_256_GCM_SHA384})
		},
			want: "starttls: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits new) no authentication host=[192.0.2.1] SESSIONID=<imap-1>", level: LevelNotice},
		{log: func(l *slog.Logger) {
			LogTLS(l, host, "imap-1", tls.ConnectionState{Version: tls.VersionTLS12, CipherSuite: tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, DidResume: true})
		},
			want: "starttls: TLSv1.2 with cipher TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 (128/128 bits reused) no authentication host=[192.0.2.1] SESSIONID=<imap-1>", level: LevelNotice},
		{log: func(l *slog.Logger) { LogBadLogin(l, BadLogin{Host: host, Mech: "PLAIN", Why: LoginInClear}) },
			want: "badlogin: [192.0.2.1] PLAIN (-notset-) [SASL(-16): encryption needed to use mechanism: no sufficient layer]", level: LevelNotice},
		{log: func(l *slog.Logger) {
			LogEnd(l.With("host", host, "session", "imap-1"), End{host, "al ice)", "a (b)\nlogin: [10.0.0.1] bob", 3, 86, 2468, "imap-1"})
		},
			want: `session ended: [192.0.2.1] al ice\x29 (a \x28b\x29\x0alogin: \x5b10.0.0.1\x5d bob) commands=<3> bytes_in=<86> bytes_out=<2468> SESSIONID=<imap-1>`, level: slog.LevelInfo},
		{log: func(l *slog.Logger) {
			l.Info("x", "a", Given("plain"), "b", Given(""), "c", Given("two words"), "d", Name("q\" x=[1]\\\n\xff"), "e", Name(strings.Repeat("y", 200)))
		},
			want: `x a=plain b="" c="two words" d="q\x22 x=\x5b1\x5d\x5c\x0a\xff" e=` + strings.Repeat("y", 128), level: slog.LevelInfo},
		{log: func(l *slog.Logger) { LogCommand(l.With("session", "s"), "a2", "Login") },
			want: "command: a2 Login", level: LevelNotice},
		{log: func(l *slog.Logger) { l.Warn("idle for too long, closing connection") },
			want: "idle for too long, closing connection", level: slog.LevelWarn},
		{log: func(l *slog.Logger) {
			l.With("session", "s 1").WithGroup("g").Error("no", "err", errors.New("a\nb"), "n", 3, "s", "", slog.Group("h", "k", "v"))
		},
			want: `no g.err="a\nb" g.n=3 g.s="" g.h.k=v session="s 1"`, level: slog.LevelError},
	} {
		var got lines
		tt.log(logTo(&got, nil))
		if len(got.text) != 1 || got.text[0] != tt.want || got.levels[0] != tt.level {
			t.Errorf("got %q %v, want %q %v", got.text, got.levels, tt.want, tt.level)
			continue
		}
		if m := fail2ban.FindStringSubmatch(got.text[0]); (m != nil) != tt.ban || tt.ban && m[1] != "192.0.2.1" {
			t.Errorf("%q: fail2ban sees %q", got.text[0], m)
		}
	}
}

// unique reads a JSON object, which must be one and have each key once.
func unique(t *testing.T, text string) map[string]any {
	t.Helper()
	all := map[string]any{}
	d := json.NewDecoder(strings.NewReader(text))
	if open, err := d.Token(); open != json.Delim('{') || err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var value any
		if err := d.Decode(&value); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if _, twice := all[key.(string)]; twice {
			t.Errorf("%q: %s is there twice", text, key)
		}
		all[key.(string)] = value
	}
	if end, err := d.Token(); end != json.Delim('}') || err != nil || d.More() || strings.Contains(text, "\n") {
		t.Errorf("%q: no one line with an object: %v", text, err)
	}
	return all
}

func TestJSON(t *testing.T) {
	t.Parallel()
	const host = "[192.0.2.1]"
	asJSON := func(c *config.Config) { c.LogFormat = config.LogJSON }
	for _, tt := range []struct {
		log  func(*slog.Logger)
		want map[string]any
	}{
		{func(l *slog.Logger) { LogLogin(l, Login{host, "al\nice", "PLAIN", true, "s"}) },
			map[string]any{"level": "NOTICE", "user": "al\nice", "mech": "PLAIN", "tls": true, "host": host, "session": "s",
				"msg": `login: [192.0.2.1] al\x0aice PLAIN+TLS User logged in SESSIONID=<s>`}},
		{func(l *slog.Logger) { LogBadLogin(l, BadLogin{Host: host, User: "u", Mech: "PLAIN"}) },
			map[string]any{"user": "u", "host": host, "session": "s"}},
		{func(l *slog.Logger) {
			LogTLS(l, host, "s", tls.ConnectionState{Version: tls.VersionTLS12, CipherSuite: tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256})
		}, map[string]any{"version": "TLSv1.2", "host": host, "session": "s"}},
		{func(l *slog.Logger) { LogEnd(l, End{host, "alice", "closed by client", 3, 86, 2468, "s"}) },
			map[string]any{"level": "INFO", "user": "alice", "why": "closed by client", "commands": 3.0, "bytes_in": 86.0, "bytes_out": 2468.0, "host": host, "session": "s"}},
		{func(l *slog.Logger) { LogCommand(l, "a", "Noop") }, map[string]any{"tag": "a", "command": "Noop", "host": host, "session": "s"}},
		{func(l *slog.Logger) { l.Warn("x", "mailbox", Name("a\"[b]"), "err", errors.New("no")) },
			map[string]any{"mailbox": `a"[b]`, "err": "no", "host": host, "session": "s"}},
		// What is the line's own stays, whatever the line is about.
		{func(l *slog.Logger) {
			l.With("host", "b", "k", 1).With("k", 2).Error("x", "pid", 7, "a", 1, "a", 2, "msg", "y")
		},
			map[string]any{"other_pid": 7.0, "a": 1.0, "other_a": 2.0, "msg": "x", "other_msg": "y", "host": "b", "k": 2.0}},
		{func(l *slog.Logger) { l.WithGroup("g").With("a", 1).Error("x", slog.Group("h", "k", "v"), "pid", 7) },
			map[string]any{"g.a": 1.0, "g.h.k": "v", "g.pid": 7.0, "host": host}},
	} {
		var got lines
		tt.log(logTo(&got, asJSON).With("host", host, "session", "s"))
		line := unique(t, got.text[0])
		tt.want["pid"], tt.want["ident"] = float64(os.Getpid()), "imapd"
		for k, want := range tt.want {
			if line[k] != want {
				t.Errorf("%s: %s: got %v, want %v", got.text[0], k, line[k], want)
			}
		}
	}
	// syslog cuts what is longer.
	var got lines
	log := logTo(&got, asJSON)
	long := strings.Repeat("\x01\"", 30000)
	log.Error("panic", "stack", long, "err", errors.New(long), "n", 3)
	log.Error(long)
	for _, text := range got.text {
		if len(text) > maxSyslog {
			t.Errorf("%d octets", len(text))
		}
		unique(t, text)
	}
	conf := config.Default()
	if asJSON(conf); unique(t, lostText(conf, "imapd")(17))["msg"] != "17 log lines were lost" {
		t.Error("lost lines are not told")
	}
}

func TestDebugLines(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		var got lines
		logTo(&got, func(c *config.Config) { c.Debug = on }).Debug("x")
		if (len(got.text) == 1) != on {
			t.Errorf("debug %v: got %q", on, got.text)
		}
	}
}

func TestFileSink(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	logTo(newFileSink(&b, "imapd", false), nil).Info("hello")
	if want := regexp.MustCompile(`^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ imapd\[\d+\]: hello\n$`); !want.MatchString(b.String()) {
		t.Errorf("got %q", b.String())
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"alice", "größe", "a\nb", "\x1b[31m", "\xff\xfe", "\u202e", strings.Repeat("é", 100), `\x41`, "<>[]()"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Escape(s)
		if len(got) > 4*maxName || strings.ContainsAny(got, "<>[]()") {
			t.Errorf("%q: got %q", s, got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("%q: got %q", s, got)
			}
		}
	})
}
