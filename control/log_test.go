package control

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
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
	return slog.New(newHandler(conf, s))
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
			LogTLS(l, tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_256_GCM_SHA384})
		},
			want: "starttls: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits new) no authentication", level: LevelNotice},
		{log: func(l *slog.Logger) {
			LogTLS(l, tls.ConnectionState{Version: tls.VersionTLS12, CipherSuite: tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, DidResume: true})
		},
			want: "starttls: TLSv1.2 with cipher TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 (128/128 bits reused) no authentication", level: LevelNotice},
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

func TestJSON(t *testing.T) {
	t.Parallel()
	var got lines
	log := logTo(&got, func(c *config.Config) { c.LogFormat = config.LogJSON })
	LogLogin(log.With("pid", 7), Login{"[192.0.2.1]", "al\nice", "PLAIN", true, "s"})
	var line map[string]any
	if err := json.Unmarshal([]byte(got.text[0]), &line); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]any{"level": "NOTICE", "user": "al\nice", "mech": "PLAIN", "tls": true, "host": "[192.0.2.1]", "session": "s", "pid": 7.0,
		"msg": `login: [192.0.2.1] al\x0aice PLAIN+TLS User logged in SESSIONID=<s>`} {
		if line[k] != want {
			t.Errorf("%s: got %v, want %v", k, line[k], want)
		}
	}
	if strings.Contains(got.text[0], "\n") {
		t.Errorf("more than a line: %q", got.text[0])
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
