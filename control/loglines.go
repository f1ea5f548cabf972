package control

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strconv"
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

// Given is what a client has said, as an attribute of a line: a name of a mailbox,
// for example. It is written as Escape writes it but to its end, in quotes where it
// could be taken for more than one word; in JSON as it is.
type Given string

// Name returns s as an attribute, and no more of it than Escape would.
func Name(s string) Given { return Given(s[:min(len(s), maxName)]) }

// text returns g for a line that is text.
func (g Given) text() string {
	s := strings.ReplaceAll(escape(string(g)), `"`, `\x22`)
	if s == "" || strings.ContainsAny(s, " =") {
		s = `"` + s + `"`
	}
	return s
}

// Escape returns what a client said, a user name for example, fit for a log
// line: at most 128 octets of it, and nothing in it that could end the line,
// move a terminal's cursor or pass for another part of the line; those octets
// are written \xHH.
func Escape(s string) string {
	return escape(s[:min(len(s), maxName)])
}

// escape is Escape for texts of any length.
func escape(s string) string {
	if plain(s) {
		return s
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

// plain tells, of nearly all that is to be logged, that nothing in it is odd.
func plain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; c {
		case '<', '>', '[', ']', '(', ')', '\\':
			return false
		default:
			if c < ' ' || c >= 0x7f {
				return false
			}
		}
	}
	return true
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
	LoginInClear                         // refused unread, since others could have read it
	LoginDenied                          // the password is right, but the administrator keeps the user out
)

// A BadLogin is a login that failed. User is what the client sent, empty where
// it came to no name.
type BadLogin struct {
	Host, User, Mech string
	Why              LoginFailure
	As               string // for MayNotProxy: who User wanted to be, whom the line names first
	Denied           string // for LoginDenied: what the line says
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
	case LoginDenied:
		why = "[SASL(-14): " + Escape(b.Denied) + "]"
	case LoginInClear:
		why = "[SASL(-16): encryption needed to use mechanism: no sufficient layer]"
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

// LogTLS logs that the connection of a session came under TLS, by imaps or
// STARTTLS. What Cyrus does not say stands behind what it says.
func LogTLS(log *slog.Logger, host, session string, s tls.ConnectionState) {
	name := tls.CipherSuiteName(s.CipherSuite)
	bits, kind := Bits(s), "new"
	if s.DidResume {
		kind = "reused"
	}
	version := strings.Replace(tls.VersionName(s.Version), "TLS ", "TLSv", 1)
	line(log, LevelNotice,
		fmt.Sprintf("starttls: %s with cipher %s (%d/%d bits %s) no authentication host=%s SESSIONID=<%s>", version, name, bits, bits, kind, host, Escape(session)),
		slog.String("version", version), slog.String("cipher", name), slog.String("host", host), slog.String("session", session))
}

// An End is how a session came to its end. Octets are counted in the clear.
type End struct {
	Host     string // Conn.Host
	User     string // empty where nobody has logged in
	Why      string
	Commands int
	In, Out  int64  // octets from the client and to it
	Session  string // the session id
}

// LogEnd logs that a session has ended: for an administrator where somebody had
// logged in, else, since also those end who only look whether the server lives, for
// whoever debugs it.
func LogEnd(log *slog.Logger, e End) {
	level, user := slog.LevelInfo, Escape(e.User)
	if user == "" {
		level, user = slog.LevelDebug, "-"
	}
	if !log.Enabled(context.Background(), level) {
		return
	}
	line(log, level,
		"session ended: "+e.Host+" "+user+" ("+Escape(e.Why)+") commands=<"+strconv.Itoa(e.Commands)+"> bytes_in=<"+strconv.FormatInt(e.In, 10)+
			"> bytes_out=<"+strconv.FormatInt(e.Out, 10)+"> SESSIONID=<"+Escape(e.Session)+">",
		slog.String("host", e.Host), slog.String("user", e.User), slog.String("why", e.Why), slog.Int("commands", e.Commands),
		slog.Int64("bytes_in", e.In), slog.Int64("bytes_out", e.Out), slog.String("session", e.Session))
}

// LogCommand logs a command's tag and name, for chatty: yes.
func LogCommand(log *slog.Logger, tag, name string) {
	line(log, LevelNotice, "command: "+Escape(tag)+" "+Escape(name), slog.String("tag", tag), slog.String("command", name))
}
