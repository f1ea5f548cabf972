package imap

import (
	"encoding/base64"
	"strings"
	"testing"

	"imapd/control"
	"imapd/control/config"
	"imapd/sasl"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) { c.Limits.LoginTries = 2 })
	right := b64("\x00u\x00secret")
	for _, tt := range []struct {
		name, send string
		want       []string
	}{
		{"initial response", "a AUTHENTICATE PLAIN " + right + "\r\n", []string{"a OK [CAPABILITY"}},
		{"lower case", "a authenticate plain " + right + "\r\n", []string{"a OK [CAPABILITY"}},
		{"dialogue", "a AUTHENTICATE PLAIN\r\n" + right + "\r\n", []string{"+ ", "a OK"}},
		{"LOGIN", "a AUTHENTICATE LOGIN\r\n" + b64("u") + "\r\n" + b64("secret") + "\r\n", []string{"+ VXNlcm5hbWU6", "+ UGFzc3dvcmQ6", "a OK"}},
		{"LOGIN with a name", "a AUTHENTICATE LOGIN " + b64("u") + "\r\n" + b64("secret") + "\r\n", []string{"+ UGFzc3dvcmQ6", "a OK"}},
		{"wrong password", "a AUTHENTICATE PLAIN " + b64("\x00u\x00x") + "\r\n", []string{"a NO [AUTHENTICATIONFAILED] "}},
		{"unknown user", "a AUTHENTICATE PLAIN " + b64("\x00nobody\x00x") + "\r\n", []string{"a NO [AUTHENTICATIONFAILED] "}},
		{"as somebody else", "a AUTHENTICATE PLAIN " + b64("v\x00u\x00secret") + "\r\n", []string{"a NO [AUTHORIZATIONFAILED] "}},
		{"no answer from the back end", "a AUTHENTICATE PLAIN " + b64("\x00broken\x00x") + "\r\n", []string{"a NO [UNAVAILABLE] "}},
		{"empty", "a AUTHENTICATE PLAIN =\r\n", []string{"a NO [AUTHENTICATIONFAILED] "}},
		{"cancel", "a AUTHENTICATE PLAIN\r\n*\r\n", []string{"+ ", "a BAD "}},
		{"not base64", "a AUTHENTICATE PLAIN\r\nA=B=\r\n", []string{"+ ", "a BAD "}},
		{"initial response not base64", "a AUTHENTICATE PLAIN A=B=\r\n", []string{"a BAD "}},
		{"given up with a command", "a AUTHENTICATE PLAIN\r\na2 LOGOUT\r\n", []string{"+ ", "a BAD "}},
		{"line too long", "a AUTHENTICATE PLAIN\r\n" + strings.Repeat("A", 13<<10) + "\r\n", []string{"+ ", "a BAD "}},
		{"literal for a response", "a AUTHENTICATE PLAIN\r\n{5+}\r\nx CAP\r\n", []string{"+ ", "a BAD "}},
		{"no such mechanism", "a AUTHENTICATE FROB\r\n", []string{"a NO [CANNOT] "}},
		{"no mechanism", "a AUTHENTICATE\r\n", []string{"a BAD "}},
		{"twice", "a AUTHENTICATE PLAIN " + right + "\r\nb AUTHENTICATE PLAIN " + right + "\r\n", []string{"a OK", "b BAD Already"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := w.dial()
			c.t = t
			c.want("* OK")
			c.send(tt.send)
			for _, want := range tt.want {
				c.want(want)
			}
			c.must(" OK", "NOOP")
		})
	}
}

func TestCanceledLoginsCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.dial()
	c.line()
	for range 3 {
		c.send("a AUTHENTICATE PLAIN\r\n*\r\n")
		c.want("+ ")
		c.want("a BAD")
	}
	c.want("* BYE Too many failed logins")
	c.ended()
}

// Without TLS no password is taken, and none is asked for.
func TestPrivacyRequired(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) { c.AllowPlaintext = false })
	c := w.dial()
	if got := c.line(); !strings.Contains(got, " LOGINDISABLED") || strings.Contains(got, "AUTH=") {
		t.Errorf("greeting %q", got)
	}
	c.must(" NO [PRIVACYREQUIRED]", "LOGIN u secret")
	c.must(" NO [PRIVACYREQUIRED]", "LOGIN u {6}") // no "+"
	c.must(" NO [PRIVACYREQUIRED]", "AUTHENTICATE PLAIN "+b64("\x00u\x00secret"))
	c.must(" NO [PRIVACYREQUIRED]", "AUTHENTICATE LOGIN")
	c.must(" OK", "NOOP")
	if log := w.log.String(); strings.Contains(log, `"login: `) || strings.Contains(log, "SASL(-13)") {
		t.Error("a password was looked at")
	}

	// A connection that nobody else reads does not need TLS.
	private := w.dialAs(t.Context(), &control.Conn{Private: true})
	if got := private.line(); strings.Contains(got, "LOGINDISABLED") || !strings.Contains(got, "AUTH=PLAIN") {
		t.Errorf("greeting %q", got)
	}
	private.must(" OK", "LOGIN u secret")
}

// sasl_minimum_layer hides mechanisms where nothing strong enough is around the
// connection. LOGIN is no mechanism.
func TestMinimumLayer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) { c.MinimumLayer = 56 })
	for ssf, strong := range map[int]bool{0: false, 55: false, 56: true, 256: true} {
		c := w.dialAs(t.Context(), &control.Conn{SSF: ssf})
		if got := c.line(); strings.Contains(got, "AUTH=") != strong || strings.Contains(got, "LOGINDISABLED") {
			t.Errorf("%d: greeting %q", ssf, got)
		}
		if strong {
			c.must(" OK", "AUTHENTICATE PLAIN "+b64("\x00u\x00secret"))
		} else {
			c.must(" NO [PRIVACYREQUIRED]", "AUTHENTICATE PLAIN "+b64("\x00u\x00secret"))
			c.must(" OK", "LOGIN u secret")
		}
	}
}

// While passwords cannot be checked, guesses are not for nothing: there may be
// another way that did say no.
func TestUnavailableCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) { c.Limits.LoginTries = 2 })
	c := w.dial()
	c.line()
	c.must(" NO [UNAVAILABLE]", "LOGIN broken x")
	c.must(" NO [UNAVAILABLE]", "LOGIN broken x")
	c.want("* BYE Too many failed logins")
	c.ended()
}

func TestLoginNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, name := range []string{"../x", "x%u", "x*y", `""`, "{2+}\r\n\xff\xfe", `"\xc3\xa4"`, strings.Repeat("x", 100)} {
		c := w.dial()
		c.line()
		if _, got := c.do("LOGIN " + name + " secret"); !strings.HasPrefix(got, " NO [AUTHENTICATIONFAILED]") && !strings.HasPrefix(got, " BAD") {
			t.Errorf("%q: got %q", name, got)
		}
		c.must(" OK", "NOOP")
	}
	if log := w.log.String(); strings.Contains(log, "\xff") {
		t.Errorf("octets of clients in the log: %q", log)
	}
}

func TestPreauth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *config.Config, o *Options) { o.Auth = nil })
	c := w.dialAs(t.Context(), &control.Conn{Preauth: &control.Caller{Name: "u", UID: -1, GID: -1, Home: "/nonexistent"}})
	if got := c.want("* PREAUTH [CAPABILITY"); strings.Contains(got, "STARTTLS") {
		t.Errorf("greeting %q", got)
	}
	c.must(" OK [READ-WRITE]", "SELECT INBOX")
	c.must(" BAD", "LOGIN u secret")
	late := w.dial()
	late.line()
	late.must(" NO", "LOGIN u secret") // nobody can log in
}

// A panic ends one session, with BYE and a line in the log, and no other.
func TestPanic(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *config.Config, o *Options) { o.Tap = func(string, string) Tap { panic("oops") } })
	other := w.dial()
	other.line()
	c := w.dial()
	c.line()
	c.send("a LOGIN u secret\r\n")
	c.want("* BYE [SERVERBUG] Internal error")
	c.ended()
	other.must(" OK", "NOOP")
	if log := w.log.String(); !strings.Contains(log, "panic=oops") || !strings.Contains(log, "login.go") {
		t.Errorf("log: %s", log)
	}
}

// tape is a Tap that keeps what passes.
type tape struct {
	user, session string
	b, said       strings.Builder // all, and what the client has
	closed        bool
}

func (t *tape) In(p []byte)  { t.b.WriteString("<" + string(p)); t.said.Write(p) }
func (t *tape) Out(p []byte) { t.b.WriteString(">" + string(p)) }
func (t *tape) On() bool     { return true }
func (t *tape) Close()       { t.closed = true }

// Telemetry has everything after the login, and nothing of the login itself.
func TestTelemetry(t *testing.T) {
	t.Parallel()
	var got *tape
	w := newWorld(t, func(_ *config.Config, o *Options) {
		o.Tap = func(user, session string) Tap {
			got = &tape{user: user, session: session}
			return got
		}
	})
	c := w.dial()
	c.line()
	c.must(" OK", "LOGIN U secret")
	c.must(" OK", "NOOP")
	c.send("x LOGOUT\r\n")
	c.want("* BYE")
	c.want("x OK")
	c.ended()
	text := got.b.String()
	if !strings.HasPrefix(text, ">t1 OK [CAPABILITY ") || !strings.HasSuffix(text,
		"<t2 NOOP\r\n>t2 OK Noop completed\r\n<x LOGOUT\r\n>* BYE Logging out\r\nx OK Logout completed\r\n") {
		t.Errorf("got %q", text)
	}
	if strings.Contains(text, "secret") || got.user != "u" || !strings.Contains(text, got.session) || !got.closed {
		t.Errorf("user %q, session %q, closed %v", got.user, got.session, got.closed)
	}
}

// Telemetry has what was sent in one packet with the login, and no credential,
// wherever a client puts it. What of a line shows is what stands in said.
func TestTelemetryHides(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, send, said string }{
		{"pipelined", "a NOOP\r\nb NOOP\r\n", "a NOOP\r\nb NOOP\r\n"},
		{"login", "a LOGIN U Hidden1\r\n", "a LOGIN ***\r\n"},
		{"case", "a logiN U Hidden1\r\n", "a logiN ***\r\n"},
		{"quoted", "a LOGIN \"U\" \"Hidden1\"\r\n", "a LOGIN ***\r\n"},
		{"literals", "a LOGIN {1+}\r\nU {7+}\r\nHidden1\r\nb NOOP\r\n", "a LOGIN ***\r\nb NOOP\r\n"},
		{"literals not waited for", "a LOGIN {1}\r\nU {7}\r\nHidden1\r\nb NOOP\r\n", "a LOGIN ***\r\n***\r\n***\r\nb NOOP\r\n"},
		{"a literal of two words", "a LOGIN U {8}\r\nHid Hidd\r\nb NOOP\r\n", "a LOGIN ***\r\n***\r\nb NOOP\r\n"},
		{"initial response", "a AUTHENTICATE PLAIN SGlkZGVu\r\n", "a AUTHENTICATE ***\r\n"},
		{"response", "a AUTHENTICATE PLAIN\r\nSGlkZGVu\r\nb NOOP\r\n", "a AUTHENTICATE ***\r\n***\r\nb NOOP\r\n"},
		{"response that is no tag", "a AUTHENTICATE PLAIN\r\nSGlk+ZGVu=\r\nb NOOP\r\n", "a AUTHENTICATE ***\r\n***\r\nb NOOP\r\n"},
		{"two responses", "a AUTHENTICATE LOGIN\r\nSGlkZGVu\r\nSGlkZGVu\r\n", "a AUTHENTICATE ***\r\n***\r\n***\r\n"},
		{"late response", "SGlkZGVu\r\nb NOOP\r\n", "***\r\nb NOOP\r\n"},
		{"no tag", "LOGIN U Hidden1\r\n", "***\r\n"},
		{"no tag, a user like a command", "LOGIN LIST Hidden1\r\n", "***\r\n"},
		{"a tag that is none", "a+b LOGIN U Hidden1\r\n", "a+b LOGIN ***\r\n"},
		{"two spaces", "a  LOGIN U Hidden1\r\n", "a  LOGIN ***\r\n"},
		{"UID", "a UID LOGIN U Hidden1\r\n", "a UID LOGIN ***\r\n"},
		{"in IDLE", "a IDLE\r\nb LOGIN U Hidden1\r\n", "a IDLE\r\nb LOGIN ***\r\n"},
		{"a response in IDLE", "a IDLE\r\nSGlkZGVu\r\nb NOOP\r\n", "a IDLE\r\n***\r\nb NOOP\r\n"},
		{"behind a command", "a NOOP {5+}\r\nLOGIN U Hidden1\r\nb NOOP\r\n", "a NOOP {5+}\r\nLOGIN ***\r\nb NOOP\r\n"},
		{"behind a bare CR", "a NOOP\rb LOGIN U Hidden1\r\n", "a NOOP\rb LOGIN ***\r\n"},
		{"behind what is no command", "a X LOGIN U Hidden1\r\n", "a X LOGIN ***\r\n"},
		{"a refused command", "a FETCH 1 FLAGS\r\nb FETCH x\r\nc NOOP LIST\r\nd NOOP x {3+}\r\nabc x\r\n",
			"a FETCH 1 FLAGS\r\nb FETCH x\r\nc NOOP LIST\r\nd NOOP x {3+}\r\nabc x\r\n"},
		{"nothing to hide", "a IDLE\r\nDONE\r\nb STATUS LOGIN (UNSEEN)\r\nc XLOGIN x\r\n\r\nnoop\r\nd  y z\r\n",
			"a IDLE\r\nDONE\r\nb STATUS LOGIN (UNSEEN)\r\nc XLOGIN x\r\n\r\nnoop\r\nd  y z\r\n"},
		{"a message", "a APPEND INBOX {21+}\r\nx LOGIN U Visible\r\n\r\n\r\n", "a APPEND INBOX {21+}\r\nx LOGIN U Visible\r\n\r\n\r\n"},
		{"an end within", "a LOGIN U Hidde", "a LOGIN ***\r\n"},
		{"an end before", "SGlkZGVu", "***\r\n"},
	} {
		for how, write := range map[string]func(c *client, text string){
			"at once":     func(c *client, text string) { c.send("t LOGIN u secret\r\n" + text) },
			"in a packet": func(c *client, text string) { c.must(" OK", "LOGIN u secret"); c.send(text) },
			"by octets": func(c *client, text string) {
				c.must(" OK", "LOGIN u secret")
				for _, b := range []byte(text) {
					c.send(string(b))
				}
			},
		} {
			t.Run(tt.name+" "+how, func(t *testing.T) {
				t.Parallel()
				var log tape
				w := newWorld(t, func(_ *config.Config, o *Options) { o.Tap = func(string, string) Tap { return &log } })
				c := w.dial()
				c.line()
				write(c, tt.send)
				half, ok := c.conn.(interface{ CloseWrite() error })
				if !ok || half.CloseWrite() != nil {
					t.Fatal("the client cannot end")
				}
				<-c.done
				if got := log.said.String(); got != tt.said {
					t.Errorf("got %q, want %q", got, tt.said)
				}
				if all := log.b.String(); strings.Contains(all, "Hid") || strings.Contains(all, "SGlk") || strings.Contains(all, "secret") {
					t.Errorf("the log holds %q", all)
				}
			})
		}
	}
}

var _ Authenticator = (*sasl.Authenticator)(nil)
