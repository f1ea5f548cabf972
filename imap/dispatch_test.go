package imap

import (
	"io"
	"slices"
	"strings"
	"testing"

	"imapd/control/config"
)

const note = "From: a@example.org\nSubject: one\n\ntext\n"

// TestDispatch sends one thing on a new connection and compares all answers.
// "*" in want stands for the rest of a line.
func TestDispatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("u", "", "cur/1.a:2,", note)
	const in, login = "a LOGIN u secret\r\n", "a OK [CAPABILITY*"
	for _, tt := range []struct {
		name, send string
		want       []string
	}{
		{"noop", "a NOOP\r\n", []string{"a OK Noop completed"}},
		{"tag is echoed", "A.b-]~1 noop\r\n", []string{"A.b-]~1 OK*"}},
		{"bare LF", "a NOOP\n", []string{"a OK*"}},
		{"two in one packet", "a NOOP\r\nb NOOP\r\n", []string{"a OK*", "b OK*"}},
		{"logout", "a LOGOUT\r\nb NOOP\r\n", []string{"* BYE*", "a OK*"}},
		{"unknown", "a FROB\r\n", []string{"a BAD*"}},
		{"no command", "a\r\n", []string{"a BAD*"}},
		{"empty line", "\r\n", []string{"* BAD Invalid tag"}},
		{"star tag", "* NOOP\r\n", []string{"* BAD Invalid tag"}},
		{"plus in tag", "a+b NOOP\r\n", []string{"* BAD Invalid tag"}},
		{"long tag", strings.Repeat("t", 300) + " NOOP\r\n", []string{"* BAD Invalid tag"}},
		{"extra argument", "a NOOP x\r\n", []string{"a BAD*"}},
		{"bare CR", "a NOOP\rx\r\nb NOOP\r\n", []string{"a BAD*", "b OK*"}},
		{"before login", "a SELECT INBOX\r\n", []string{"a BAD Please login first"}},
		{"unselected", in + "b CLOSE\r\n", []string{login, "b BAD Please select a mailbox first"}},
		{"login twice", in + "b LOGIN u secret\r\n", []string{login, "b BAD Already logged in"}},
		{"pipelined through the states", in + "b EXAMINE INBOX\r\nc UNSELECT\r\nd UNSELECT\r\n", []string{login,
			"* FLAGS*", "* OK [PERMANENTFLAGS*", "* 1 EXISTS", "* 0 RECENT", "* OK [UNSEEN 1]*", "* OK [UIDVALIDITY*", "* OK [UIDNEXT 2]*",
			"b OK [READ-ONLY]*", "c OK*", "d BAD*"}},
		{"literal is no command", "a FROB {8+}\r\nx NOOP\r\n\r\nb NOOP\r\n", []string{"a BAD*", "b OK*"}},
		{"literal is no command either", "a SELECT {20+}\r\nx LOGIN u secret\r\n\r\n {3+}\r\nq\r\n\r\nb NOOP\r\n", []string{"a BAD*", "b OK*"}},
		{"literal nobody asked for", "a SELECT {5}\r\nb NOOP\r\n", []string{"a BAD*", "b OK*"}},
		{"literal asked for", "a LOGIN u {6}\r\nsecret\r\n", []string{"+ OK", login}},
		{"two literals", "a LOGIN {1+}\r\nu {6+}\r\nsecret\r\n", []string{login}},
		{"literal too big", "a LOGIN u {99999}\r\nb NOOP\r\n", []string{"a NO [TOOBIG]*", "b OK*"}},
		{"literal size no number", "a LOGIN u {-1}\r\nb NOOP\r\n", []string{"a BAD*", "b OK*"}},
		{"literal size over 63 bits", "a LOGIN u {99999999999999999999}\r\nb NOOP\r\n", []string{"a BAD*", "b OK*"}},
		{"parentheses", "a ID " + strings.Repeat("(", 4000) + "\r\nb NOOP\r\n", []string{"a BAD*", "b OK*"}},
		{"NUL", "a LOGIN \"u\x00\" x\r\nb NOOP\r\n", []string{"a BAD*", "b OK*"}},
		{"bad name", in + "b SELECT &Jjo\r\nc NOOP\r\n", []string{login, "b NO [CANNOT]*", "c OK*"}},
		{"no such mailbox", in + "b SELECT None\r\n", []string{login, "b NO [NONEXISTENT]*"}},
		{"unknown select parameter", in + "b SELECT INBOX (FROB)\r\n", []string{login, "b BAD*"}},
		{"enable", in + "b ENABLE X IMAP4rev2 Y\r\nc ENABLE IMAP4REV2\r\n", []string{login, "* ENABLED IMAP4rev2", "b OK*", "* ENABLED", "c OK*"}},
		{"namespace", in + "b NAMESPACE\r\n", []string{login, `* NAMESPACE (("" "/")) NIL NIL`, "b OK*"}},
		{"id", "a ID NIL\r\n", []string{`* ID ("name" "imapd" "version" "1.0")`, "a OK*"}},
		{"id with a value", "a ID (\"name\" \"x\r\n", []string{"a BAD*"}},
		{"id of one", "a ID (\"name\")\r\n", []string{"a BAD*"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := w.dial()
			c.t = t
			c.want("* OK [CAPABILITY IMAP4rev1 IMAP4rev2 ")
			c.send(tt.send)
			for _, want := range tt.want {
				got := c.line()
				if prefix, cut := strings.CutSuffix(want, "*"); cut && strings.HasPrefix(got, prefix) || got == want {
					continue
				}
				t.Errorf("got  %q\nwant %q", got, want)
			}
			// Nothing else may come, and the session must be in step.
			if strings.Contains(tt.send, "LOGOUT") {
				c.ended()
				return
			}
			c.send("fence NOOP\r\n")
			c.want("fence OK")
		})
	}
}

// TestOneOctetAtATime plays a few commands octet by octet: no answer may
// depend on how the input is cut.
func TestOneOctetAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.dial()
	c.line()
	for _, b := range []byte("a LOGIN {1+}\r\nu \"secret\"\r\nb FROB {3+}\r\nx\r\n\r\nc IDLE\r\nDONE\r\nd NOOP\r\n") {
		c.send(string(b))
	}
	for _, want := range []string{"a OK", "b BAD", "+ idling", "c OK", "d OK"} {
		c.want(want)
	}
}

func TestForeignProtocols(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, first := range []string{
		"GET / HTTP/1.1\r\nHost: <script>\r\n\r\n", "POST /x HTTP/1.0\r\n", "EHLO <script>\r\n", "USER joe\r\n",
		"SSH-2.0-x\r\n", "\x16\x03\x01\x02\x00\x01",
	} {
		c := w.dial()
		c.line()
		c.send(first)
		if first[0] == '\x16' {
			c.send("\r\n")
		}
		if got := c.line(); got != "* BYE This is an IMAP server" {
			t.Errorf("%q: got %q", first, got)
		}
		c.ended()
	}
	// The same words as tags of IMAP commands are tags.
	c := w.dial()
	c.line()
	c.send("GET NOOP\r\nUSER FROB\r\n")
	c.want("GET OK")
	c.want("USER BAD")
}

// A header of the PROXY protocol from who may not send one gets no answer.
func TestProxyHeader(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, first := range []string{
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY UNKNOWN\r\n", "PROXY UNKNOWN\r\na NOOP\r\n", "PROXY \xff\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00a NOOP\r\n",
	} {
		c := w.dial()
		c.line()
		c.send(first)
		if got, err := io.ReadAll(c.r); len(got) > 0 || err != nil {
			t.Errorf("%q: got %q, %v", first, got, err)
		}
	}
	if n := strings.Count(w.log.String(), "PROXY header from a peer"); n != 6 {
		t.Errorf("%d lines in the log", n)
	}
	c := w.dial()
	c.line()
	c.send("PROXY NOOP\r\n\r\n\r\n\x00\r\nQUIT\n") // a tag, and no first octets
	c.want("PROXY OK")
	c.want("* BAD")
}

func TestBadCommandLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) { c.Limits.BadCommands = 5 })
	c := w.dial()
	c.line()
	for range 3 {
		c.must(" OK", "NOOP")
		c.must(" BAD", "FROB")
	}
	c.must(" BAD", "FROB")
	c.want("* BYE Too many")
	c.ended()

	c = w.login("u")
	for range 5 {
		c.must(" BAD", "FROB")
	}
	c.must(" OK", "NOOP") // in a row
	for range 5 {
		c.must(" BAD", "FROB")
	}
	c.send("x y z\r\n")
	c.want("x BAD")
	c.want("* BYE Too many")
	c.ended()
}

func TestFramingLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, send := range []string{
		strings.Repeat("x", 70<<10),
		"a NOOP" + strings.Repeat(" x", 35<<10),
		"a LOGIN u {999999999+}\r\n",
	} {
		c := w.dial()
		c.line()
		go c.conn.Write([]byte(send)) // the server may stop reading before the end
		for l := c.line(); l != ""; l = c.line() {
			if !strings.HasPrefix(l, "* BYE") && !strings.HasPrefix(l, "a BAD") {
				t.Errorf("%.20q: got %q", send, l)
			}
		}
		c.ended()
	}
}

// TestRegisteredOnce holds that no two extensions claim a name or a word.
func TestRegisteredOnce(t *testing.T) {
	t.Parallel()
	for what, words := range map[string][]string{
		"extension": Extensions(), "command": Commands(), "FETCH": fetchItems.words(), "FETCH modifier": fetchMods.words(),
		"STORE modifier": storeMods.words(), "SEARCH": searchKeys.words(), "SEARCH RETURN": resultOpts.words(), "STATUS": statusItems.words(),
		"LIST selection": listFilters.words(), "LIST RETURN": listReturns.words(), "SELECT": selectParams.words(), "ENABLE": enableWords.words(),
	} {
		if len(words) == 0 || !slices.IsSorted(words) {
			t.Errorf("%s: %q", what, words)
		}
		if once := slices.Compact(slices.Clone(words)); len(once) != len(words) {
			t.Errorf("%s: one is registered twice: %q", what, words)
		}
	}
}
