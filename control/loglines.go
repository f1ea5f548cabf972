package control

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The lines of this file are Cyrus's, word for word, since programs read them:
// fail2ban's filter cyrus-imap wants host, mechanism and SASL(-13) where they
// are. In JSON the same facts are attributes as well.

// facts are the attributes of a line whose message tells them already.
type facts []slog.Attr

// LogValue makes one group of f, for JSON.
func (f facts) LogValue() slog.Value { return slog.GroupValue(f...) }

func line(log *slog.Logger, level slog.Level, message string, f ...slog.Attr) {
	log.LogAttrs(context.Background(), level, message, slog.Any("", facts(f)))
}

// maxName is how many octets of what a client calls itself are logged.
const maxName = 128

// Escape returns what a client said, a user name for example, fit for a log
// line: at most 128 octets of it, and nothing in it that could end the line,
// move a terminal's cursor or pass for another part of the line; those octets
// are written \xHH.
func Escape(s string) string {
	if len(s) > maxName {
		s = s[:maxName]
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !unicode.IsPrint(r) || strings.ContainsRune(`<>[]()\`, r) {
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// A Login is who came in, how and from where.
type Login struct {
	Host    string // Conn.Host
	User    string // the canonical name
	Mech    string // the SASL mechanism, or "plaintext" for LOGIN
	TLS     bool
	Session string // the session id
}

// LogLogin logs that somebody logged in.
func LogLogin(log *slog.Logger, l Login) {
	mech := Escape(l.Mech)
	if l.TLS {
		mech += "+TLS"
	}
	line(log, LevelNotice,
		"login: "+l.Host+" "+Escape(l.User)+" "+mech+" User logged in SESSIONID=<"+Escape(l.Session)+">",
		slog.String("host", l.Host), slog.String("user", l.User), slog.String("mech", l.Mech), slog.Bool("tls", l.TLS), slog.String("session", l.Session))
}

// A LoginFailure is why a login failed.
type LoginFailure int

// The reasons. fail2ban counts the first three.
const (
	WrongPassword    LoginFailure = iota // or no such user, where the two look the same
	UnknownUser                          // the back end knows no such user
	MayNotProxy                          // the password is right, but not to be somebody else
	InvalidUser                          // no user can have such a name
	BrokenExchange                       // the SASL dialogue was not completed
	LoginUnavailable                     // nobody can be asked now
)

// A BadLogin is a login that failed. User is what the client sent, empty where
// it came to no name.
type BadLogin struct {
	Host, User, Mech string
	Why              LoginFailure
	As               string // for MayNotProxy: who User wanted to be, whom the line names first
}

// LogBadLogin logs that a login failed.
func LogBadLogin(log *slog.Logger, b BadLogin) {
	user := Escape(b.User)
	if user == "" {
		user = "-notset-"
	}
	var why string
	switch b.Why {
	case WrongPassword:
		why = "[SASL(-13): authentication failure: checkpass failed]"
	case UnknownUser:
		why = "[SASL(-13): user not found: checkpass failed]"
	case MayNotProxy:
		why = "[SASL(-13): authentication failure: user " + user + " is not allowed to proxy]"
		user = Escape(b.As)
	case InvalidUser:
		why = "invalid user"
	case BrokenExchange:
		why = "[SASL(-6): can't request information until later in exchange: ]"
	default:
		why = "[SASL(-1): generic failure: checkpass failed]"
	}
	// A filter counts words.
	mech := strings.ReplaceAll(Escape(b.Mech), " ", `\x20`)
	if mech == "" {
		mech = "-"
	}
	line(log, LevelNotice, "badlogin: "+b.Host+" "+mech+" ("+user+") "+why,
		slog.String("host", b.Host), slog.String("user", Escape(b.User)), slog.String("mech", b.Mech), slog.String("why", why))
}

// Bits returns the strength of a connection under TLS, as Cyrus counts it.
func Bits(s tls.ConnectionState) int {
	name := tls.CipherSuiteName(s.CipherSuite)
	if strings.Contains(name, "256_GCM") || strings.Contains(name, "256_CBC") || strings.Contains(name, "CHACHA20") {
		return 256
	}
	return 128
}

// LogTLS logs that a connection came under TLS, by imaps or STARTTLS.
func LogTLS(log *slog.Logger, s tls.ConnectionState) {
	name := tls.CipherSuiteName(s.CipherSuite)
	bits, kind := Bits(s), "new"
	if s.DidResume {
		kind = "reused"
	}
	version := strings.Replace(tls.VersionName(s.Version), "TLS ", "TLSv", 1)
	line(log, LevelNotice, fmt.Sprintf("starttls: %s with cipher %s (%d/%d bits %s) no authentication", version, name, bits, bits, kind),
		slog.String("version", version), slog.String("cipher", name))
}

// LogCommand logs a command's tag and name, for chatty: yes.
func LogCommand(log *slog.Logger, tag, name string) {
	line(log, LevelNotice, "command: "+Escape(tag)+" "+Escape(name), slog.String("tag", tag), slog.String("command", name))
}
