package imap

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"imapd/control"
	"imapd/control/config"
)

// logLines returns the lines of the log in which all of words are.
func (w *world) logLines(words ...string) (found []string) {
next:
	for line := range strings.Lines(w.log.String()) {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// oneLogLine is logLines where there has to be one.
func (w *world) oneLogLine(words ...string) string {
	w.t.Helper()
	all := w.logLines(words...)
	if len(all) != 1 {
		w.t.Fatalf("%d lines with %q in\n%s", len(all), words, w.log.String())
	}
	return all[0]
}

var sessionEnded = regexp.MustCompile(`level=INFO msg="session ended: \[192\.0\.2\.1\] u \(([^)]*)\) commands=<(\d+)> bytes_in=<(\d+)> bytes_out=<(\d+)> SESSIONID=<([^>]*)>"`)

// The log says of each session that has logged in, once, when and why it ended.
func TestSessionEnds(t *testing.T) {
	t.Parallel()
	var l Sessions
	ending := make(chan struct{})
	n := &notices{}
	down := "back at ten"
	for _, tt := range []struct {
		why    string
		change func(*config.Config, *Options)
		end    func(w *world, c *client, cut context.CancelCauseFunc, id string)
	}{
		{why: "logout", end: func(w *world, c *client, _ context.CancelCauseFunc, _ string) { c.must(" OK", "LOGOUT") }},
		{why: "closed by client", end: func(w *world, c *client, _ context.CancelCauseFunc, _ string) { c.conn.Close() }},
		{why: "closed by client", end: func(w *world, c *client, _ context.CancelCauseFunc, _ string) {
			c.send("x APPEND INBOX {100}\r\n")
			c.want("+ ")
			c.conn.Close()
		}},
		{why: "idle for too long", end: func(w *world, c *client, _ context.CancelCauseFunc, _ string) { c.want("* BYE idle") }},
		{why: "session ended by the administrator", change: func(_ *config.Config, o *Options) { o.Sessions = &l },
			end: func(w *world, c *client, _ context.CancelCauseFunc, id string) {
				if !l.End(id) {
					w.t.Errorf("there is no session %s", id)
				}
				c.want("* BYE [UNAVAILABLE]")
			}},
		{why: "shutdown notice", change: func(_ *config.Config, o *Options) { o.Notices = n },
			end: func(w *world, c *client, _ context.CancelCauseFunc, _ string) {
				n.set(nil, &down)
				defer n.set(nil, nil)
				c.want("* BYE [ALERT]")
			}},
		{why: "server is shutting down", change: func(_ *config.Config, o *Options) { o.Ending = ending },
			end: func(w *world, c *client, _ context.CancelCauseFunc, _ string) {
				close(ending)
				c.want("* BYE ")
			}},
		{why: "server is shutting down", end: func(w *world, c *client, cut context.CancelCauseFunc, _ string) {
			cut(nil)
			c.want("* BYE ")
		}},
		{why: "terminated by a signal", end: func(w *world, c *client, cut context.CancelCauseFunc, _ string) { cut(control.ErrTerminated) }},
		{why: "too many invalid commands", end: func(w *world, c *client, _ context.CancelCauseFunc, _ string) {
			for range w.conf.Limits.BadCommands {
				c.must(" BAD", "X")
			}
			c.send("x X\r\n")
			c.want("x BAD")
			c.want("* BYE ")
		}},
		{why: "too slow to take what it was sent", end: func(w *world, c *client, _ context.CancelCauseFunc, _ string) {
			c.send("x NOOP\r\n")
			<-c.done
		}},
	} {
		t.Run(tt.why, func(t *testing.T) {
			bubble(t, tt.change, func(w *world) {
				ctx, cut := context.WithCancelCause(context.Background())
				defer cut(nil)
				ours, theirs := net.Pipe()
				c := w.serve(ctx, &control.Conn{Conn: theirs, Host: "[192.0.2.1]"}, ours)
				in, out := 0, len(c.line())+2
				in += len("t1 LOGIN u secret\r\n")
				_, done := c.do("LOGIN u secret")
				out += len("t1" + done + "\r\n")
				_, id, _ := strings.Cut(done, "SESSIONID=<")
				id, _, _ = strings.Cut(id, ">")
				tt.end(w, c, cut, id)
				c.conn.Close()
				<-c.done
				m := sessionEnded.FindStringSubmatch(w.oneLogLine("session ended"))
				if m == nil || m[1] != tt.why || m[5] != id {
					w.t.Fatalf("got %q, want %s", m, tt.why)
				}
				if tt.why == "terminated by a signal" && (m[2] != "1" || m[3] != fmt.Sprint(in) || m[4] != fmt.Sprint(out)) {
					w.t.Errorf("got %q, want 1 command, %d octets in and %d out", m[2:], in, out)
				}
			})
		})
	}
}

// Of a session of whoever need not log in it is said as well.
func TestPreauthEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.dialAs(context.Background(), &control.Conn{Preauth: &control.Caller{Name: "u", UID: -1, GID: -1, Home: w.root}})
	c.want("* PREAUTH")
	c.must(" OK", "LOGOUT")
	<-c.done
	if m := sessionEnded.FindStringSubmatch(w.oneLogLine("session ended")); m == nil || m[1] != "logout" {
		t.Errorf("got %q in %s", m, w.log.String())
	}
}

// Who does not log in is no news: monitors and proxies look all the time.
func TestQuietEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, sent := range []string{"", "a LOGOUT\r\n", "a LOGIN u wrong\r\nb LOGOUT\r\n", "a LOGIN"} {
		c := w.dial()
		c.line()
		c.send(sent)
		c.conn.(*net.UnixConn).CloseWrite()
		<-c.done
	}
	for _, line := range w.logLines("session ended") {
		if !strings.Contains(line, "level=DEBUG") || !strings.Contains(line, "ended: [192.0.2.1] - (") {
			t.Error(line)
		}
	}
	if n := len(w.logLines("session ended")); n != 4 {
		t.Errorf("%d lines of 4 sessions", n)
	}
}

// All lines of a session say whose they are.
func TestLogSaysWho(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, o *Options) {
		c.Maildir = filepath.Join(c.Maildir, "mail")
		c.MaxLoginsPerUser = 1
		r := &roll{full: true}
		o.Enter = func(string, string) Entry { return r }
		withTLS(t)(c, o)
	})
	if err := os.WriteFile(filepath.Join(w.root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := w.dial()
	c.line()
	c.must(" NO [PRIVACYREQUIRED]", "LOGIN u secret")
	c.must(" OK", "STARTTLS")
	if err := c.startTLS(); err != nil {
		t.Fatal(err)
	}
	c.must(" OK", `ID ("name" "x")`)
	c.must(" NO [UNAVAILABLE]", "LOGIN broken x")
	c.must(" NO [LIMIT]", "LOGIN u secret")
	for _, text := range []string{"starttls: TLSv1.3", "client id", "cannot check a password", "Too many open connections"} {
		line := w.oneLogLine(text)
		if !strings.Contains(line, "[192.0.2.1]") || !regexp.MustCompile(`session=\S+|SESSIONID=<\S+>`).MatchString(line) {
			t.Error(line)
		}
	}
	if line := w.oneLogLine("starttls:"); !regexp.MustCompile(`\(\d+/\d+ bits new\) no authentication host=\[192\.0\.2\.1\] SESSIONID=<mail\.example\.org-[^>]+>"`).MatchString(line) {
		t.Error(line)
	}
}

func TestLogNoMail(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) { c.Maildir = filepath.Join(filepath.Dir(c.Maildir), "file", "%u") })
	if err := os.WriteFile(filepath.Join(w.root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := w.dial()
	c.line()
	c.must(" NO", "LOGIN u secret")
	if line := w.oneLogLine("cannot open the user's mail"); !strings.Contains(line, "host=[192.0.2.1]") || !strings.Contains(line, "session=") {
		t.Error(line)
	}
}

// A command that the log says was refused is about the mailbox that it names.
func TestLogNamesMailbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("u", "", "new/1.x", "Subject: x\n\nx\n")
	w.deliver("u", ".shut", "new/1.x", "Subject: x\n\nx\n")
	c := w.login("u")
	// A disk with a fault, for all who ask.
	shut := filepath.Join(w.root, "u", ".shut", "cur")
	if err := errors.Join(os.RemoveAll(shut), os.Symlink("cur", shut)); err != nil {
		t.Fatal(err)
	}
	c.must(" OK", "SELECT INBOX")
	for _, tt := range []struct{ command, want string }{
		{"APPEND shut {1+}\r\nx", "mailbox=shut selected=INBOX"},
		{"COPY 1 shut", "mailbox=shut selected=INBOX"},
		{"SELECT shut", "mailbox=shut"},
		{"STATUS shut (MESSAGES)", "mailbox=shut"},
	} {
		name, _, _ := strings.Cut(tt.command, " ")
		c.must(" NO", tt.command)
		if line := w.oneLogLine("command refused", "cmd="+name); !strings.Contains(line, tt.want) {
			t.Errorf("%s: %s", tt.command, line)
		}
	}
}

// What a command names is said by a logger that has both.
func TestLogAbout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := w.srv.newSession(context.Background(), &control.Conn{Conn: new(net.UnixConn), Host: "[192.0.2.1]"})
	s.log = slog.New(slog.NewTextHandler(w.log, nil))
	ours, theirs := net.Pipe()
	defer ours.Close()
	go ours.Write([]byte("RENAME a b\r\n"))
	s.base, s.conn = theirs, theirs
	s.dec.Reset(s.r)
	s.dec.Begin()
	s.dec.Keyword()
	parseRename(s.dec)
	s.cmd = commands.find("RENAME")
	s.refuse("x", &Refusal{Text: "x", Err: errors.New("why")})
	if line := w.oneLogLine("command refused"); !strings.Contains(line, "cmd=RENAME user=\"\" mailbox=a to=b error=why") {
		t.Error(line)
	}
}

// A login that is refused in the clear is noted, and nothing of what was sent.
func TestLogInClear(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ command, mech string }{
		{"LOGIN u hush-hush", "plaintext"},
		{"LOGIN {1+}\r\nu {9+}\r\nhush-hush", "plaintext"},
		{"AUTHENTICATE PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00u\x00hush-hush")), "PLAIN"},
		{"AUTHENTICATE hush-hush", "-"},
	} {
		w := newWorld(t, func(c *config.Config, _ *Options) { c.AllowPlaintext = false })
		c := w.dial()
		c.line()
		for range 3 { // once a session is enough
			c.must(" NO [PRIVACYREQUIRED]", tt.command)
		}
		line := w.oneLogLine("badlogin: ")
		if !strings.Contains(line, `"badlogin: [192.0.2.1] `+tt.mech+` (-notset-) [SASL(-16): encryption needed to use mechanism: no sufficient layer]"`) {
			t.Error(line)
		}
		log := w.log.String()
		for _, secret := range []string{"hush", "HUSH", "aHVzaC1odXNo", base64.StdEncoding.EncodeToString([]byte("\x00u\x00hush-hush"))} {
			if strings.Contains(log, secret) {
				t.Errorf("%s: the log has %q:\n%s", tt.command, secret, log)
			}
		}
	}
}

// A reload makes another server: the numbers of sessions go on.
func TestSessionNumbers(t *testing.T) {
	t.Parallel()
	var l Sessions
	seen := map[string]bool{}
	for range 2 {
		w := newWorld(t, func(_ *config.Config, o *Options) { o.Sessions = &l })
		for range 2 {
			c := w.dial()
			c.line()
			_, done := c.do("LOGIN u secret")
			m := regexp.MustCompile(`SESSIONID=<\S+-\d+-(\d+-\d+)-[0-9a-f]+>`).FindStringSubmatch(done)
			if m == nil || seen[m[1]] {
				t.Errorf("%q again, or no number, in %q", m, done)
			} else {
				seen[m[1]] = true
			}
		}
	}
}

// A client that a proxy vouches for uses TLS, also where the proxy speaks it.
func TestLogProxyTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.dialAs(context.Background(), &control.Conn{Private: true, ProxyTLS: true})
	c.line()
	c.must(" OK", "LOGIN u secret")
	w.oneLogLine("login: [192.0.2.1] u plaintext+TLS User logged in")
}

func TestLogID(t *testing.T) {
	t.Parallel()
	var log logBuffer
	w := newWorld(t, func(_ *config.Config, o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	c := w.dial()
	c.line()
	c.must(" OK", `ID ("name" "Mozilla Thunderbird" "version" "115.3" "os" NIL)`)
	if got := log.String(); !strings.Contains(got, `id="name=Mozilla Thunderbird; version=115.3; os="`) {
		t.Error(got)
	}
	c = w.dial()
	c.line()
	c.must(" OK", `ID ("name" "`+strings.Repeat("x", 1000)+`")`)
	if got := log.String(); strings.Contains(got, strings.Repeat("x", 513)) {
		t.Error(got)
	}
}

// The log of a client whose webmail server says where it is says so from then on.
func TestLogFollowsClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := w.srv.newSession(context.Background(), &control.Conn{Conn: new(net.UnixConn), Host: "[192.0.2.1]"})
	s.log.Info("before")
	s.peer.Host = "[198.51.100.7]"
	s.openLog()
	s.log.Info("after")
	if line := w.oneLogLine("msg=before"); !strings.Contains(line, "host=[192.0.2.1] session=") {
		t.Error(line)
	}
	if line := w.oneLogLine("msg=after"); !strings.Contains(line, "host=[198.51.100.7] session=") {
		t.Error(line)
	}
}

// TestLost has connections end in ways that no test has at hand.
func TestLost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{readError{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}}, "connection lost: connection reset by peer"},
		{writeError{&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.ECONNRESET)}}, "connection lost: connection reset by peer"},
		{writeError{os.ErrDeadlineExceeded}, "too slow to take what it was sent"},
		{errGone, "closed by client"},
		{readError{errors.New("tls: bad\nrecord")}, "connection lost"},
	} {
		if got := lost(tt.err); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.err, got, tt.want)
		}
	}
}

// BenchmarkLogin is a connection with a login and a logout.
func BenchmarkLogin(b *testing.B) {
	w := newWorld(b, func(_ *config.Config, o *Options) { o.Log = slog.New(slog.DiscardHandler) })
	w.deliver("u", "", "new/1.x", "Subject: x\n\nx\n")
	for b.Loop() {
		ours, theirs := net.Pipe()
		c := w.serve(context.Background(), &control.Conn{Conn: theirs, Host: "[192.0.2.1]"}, ours)
		ours.SetDeadline(time.Now().Add(time.Minute))
		c.line()
		c.must(" OK", "LOGIN u secret")
		c.must(" OK", "LOGOUT")
		ours.Close()
		<-c.done
	}
}
