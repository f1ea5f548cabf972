package wire

import (
	"bufio"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
)

// login reads two strings, as LOGIN does.
func login(d *Decoder) {
	d.AString()
	d.SP()
	d.AString()
}

// appendSome returns a reader of a mailbox and a literal, which takes some octets of the
// literal, or with -1 does not accept it.
func appendSome(octets int64) func(d *Decoder) {
	return func(d *Decoder) {
		d.Mailbox()
		d.SP()
		if l := d.Literal(); l != nil && octets >= 0 {
			io.CopyN(io.Discard, d.AcceptLiteral(l), octets)
		}
		d.FailText("", "disk full")
	}
}

// unknown is a command that fails before its arguments are read.
func unknown(d *Decoder) { d.FailText("", "unknown command") }

// TestFraming wants of every refused command: the right class of error, the right number
// of continuation requests, and that nothing inside it is taken for a command.
func TestFraming(t *testing.T) {
	t.Parallel()
	evil := "z DELETE INBOX\r\n" // 16 octets
	for _, tt := range []struct {
		name, in  string
		read      func(d *Decoder)
		err, skip string
		conts     int
	}{
		{"held", "{3}\r\na b {1+}\r\np\r\n", login, "ok", "ok", 1},
		{"unknown", "u {16+}\r\n" + evil + "\r\n", unknown, "BAD", "ok", 0},
		{"unknown, bare LF", "u {16+}\n" + evil + "\n", unknown, "BAD", "ok", 0},
		{"unknown, two literals", "u {16+}\r\n" + evil + " x {16+}\r\n" + evil + "\r\n", unknown, "BAD", "ok", 0},
		{"unknown, empty literals", "{0+}\r\n{0+}\r\n\r\n", unknown, "BAD", "ok", 0},
		{"unknown, synchronizing", "{16}\r\n", unknown, "BAD", "ok", 0},
		{"unknown, then synchronizing", "u {16+}\r\n" + evil + " {16}\r\n", unknown, "BAD", "ok", 0},
		{"unknown, literal8", "~{16+}\r\n" + evil + "\r\n", unknown, "BAD", "ok", 0},
		{"not a literal", "{16+} \r\n", unknown, "BAD", "ok", 0},
		{"in quotes, closed", "\"{16+}\"\r\n", unknown, "BAD", "ok", 0},
		{"in quotes, open", "\"u {16+}\r\n" + evil + "\r\n", login, "BAD", "ok", 0},
		{"after a bad escape", "\"u\\x {16+}\r\n" + evil + "\r\n", login, "BAD", "ok", 0},
		{"around a bad escape", "\"u {1\\6+}\r\n", login, "BAD", "ok", 0},
		{"after 8 bit", "\"\xff {16+}\r\n" + evil + "\r\n", login, "BAD", "ok", 0},
		{"cut by the limit of strings", "\"" + strings.Repeat("x", 96) + " {16+}\r\n" + evil + "\r\n", login, "NO TOOBIG", "ok", 0},
		{"a quoted string that fits, too many arguments", "\"" + strings.Repeat("x", 20) + "\" \"" + strings.Repeat("y", 20) + "\"\r\n", login, "BAD TOOBIG", "ok", 0},
		{"a word that fits, too many arguments", strings.Repeat("x", 20) + " " + strings.Repeat("y", 20) + "\r\n", login, "BAD TOOBIG", "ok", 0},
		{"NUL in a literal", "{16+}\r\n" + evil[:15] + "\x00 p {16+}\r\n" + evil + "\r\n", login, "BAD", "ok", 0},
		{"too big, synchronizing", "{21}\r\n", login, "NO TOOBIG", "ok", 0},
		{"too big, coming", "{21+}\r\nxxxxx" + evil + "\r\n", login, "NO TOOBIG", "ok", 0},
		{"over LITERAL-", "{31+}\r\n" + strings.Repeat("x", 15) + evil + "\r\n", login, "BAD TOOBIG", "ok", 0},
		{"sum of arguments", "{20+}\r\nxxxx" + evil + " {20+}\r\nxxxx" + evil + "\r\n", fourStrings, "BAD TOOBIG", "ok", 0},
		{"number of literals", "{1}\r\nx {1}\r\nx {1}\r\nx {1}\r\n", fourStrings, "BAD TOOBIG", "ok", 3},
		{"beyond Skip", "{2000+}\r\n" + evil, login, "BYE", "BYE", 0},
		{"unknown, beyond Skip", "u {2000+}\r\n" + evil, unknown, "BAD", "BYE", 0},
		{"literals beyond Skip", strings.Repeat("u {16+}\r\n"+evil, 8), unknown, "BAD", "BYE", 0},
		{"line beyond Skip", strings.Repeat("x", 2000), unknown, "BAD", "BYE", 0},
		{"line too long", strings.Repeat("(", 2000), parentheses, "BYE", "BYE", 0},
		{"atom too long", strings.Repeat("x", 2000) + "\r\n", login, "NO TOOBIG", "BYE", 0},
		{"size of 2^63, coming", "u {9223372036854775808+}\r\n" + evil, unknown, "BAD", "BYE", 0},
		{"append not asked for", "INBOX {16}\r\n", appendSome(-1), "BAD", "ok", 0},
		{"append coming, not taken", "INBOX {16+}\r\n" + evil + "\r\n", appendSome(-1), "BAD", "ok", 0},
		{"append half taken", "INBOX {16}\r\n" + evil + "\r\n", appendSome(7), "BAD", "ok", 1},
		{"append taken", "INBOX {16}\r\n" + evil + "\r\n", appendSome(16), "BAD", "ok", 1},
		{"append, then another", "INBOX {16}\r\n" + evil + " {16+}\r\n" + evil + "\r\n", appendSome(3), "BAD", "ok", 1},
		{"end of input in a literal", "{16+}\r\nxyz", login, "EOF", "EOF", 0},
		{"end of input in a line", "u", login, "EOF", "EOF", 0},
		{"end of input while skipping", "u {16+}\r\nxyz", unknown, "BAD", "EOF", 0},
	} {
		for name, feed := range feeds {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				t.Parallel()
				l := tight
				l.Args, l.NonSync, l.Skip = 39, 30, 150
				if strings.Contains(tt.name, "limit of strings") {
					l.Args = 100
				}
				in := "a X " + tt.in
				if tt.skip != "EOF" {
					in += "z NOOP\r\n"
				}
				d, conts := newDecoder(feed(in), l)
				d.Tag()
				d.SP()
				d.Keyword()
				d.SP()
				tt.read(d)
				err := d.End()
				skip := d.Skip()
				if kind(err) != tt.err || kind(skip) != tt.skip || *conts != tt.conts {
					t.Fatalf("got %v, skip %v, %d continuations, want %s, %s, %d", err, skip, *conts, tt.err, tt.skip, tt.conts)
				}
				if skip != nil {
					if d.Begin(); d.Peek() != 0 || !fatal(d.Err()) {
						t.Fatalf("a command begins after %v", skip)
					}
					return
				}
				if !errors.Is(d.Err(), err) {
					t.Fatalf("Skip changed the error %v to %v", err, d.Err())
				}
				wantNext(t, d, "z")
			})
		}
	}
}

func fourStrings(d *Decoder) {
	login(d)
	d.SP()
	login(d)
}

// parentheses reads parentheses for ever.
func parentheses(d *Decoder) {
	for d.Accept('(') {
	}
}

func TestBeginInsideCommand(t *testing.T) {
	t.Parallel()
	for _, read := range []func(d *Decoder){
		func(d *Decoder) { d.Tag() },
		func(d *Decoder) { d.AString(); d.SP(); d.Literal() },
		func(d *Decoder) { d.Fail("anything") },
	} {
		d, _ := newDecoder(strings.NewReader("a {9+}\r\nb NOOP\r\n\r\n\r\n"), AfterLogin())
		read(d)
		d.Begin()
		if got := d.Tag(); got != "" || !errors.Is(d.Err(), ErrFraming) || !errors.Is(d.Skip(), ErrFraming) {
			t.Errorf("got tag %q, %v, want ErrFraming", got, d.Err())
		}
	}
	d, _ := newDecoder(strings.NewReader("a"), AfterLogin())
	d.Begin()
	if got := d.Tag(); got != "" || d.Err() != io.ErrUnexpectedEOF {
		t.Errorf("a second Begin before any octet: got %q, %v", got, d.Err())
	}
}

// TestUnreadLiteral wants that nobody reads arguments out of a literal.
func TestUnreadLiteral(t *testing.T) {
	t.Parallel()
	d, _ := newDecoder(strings.NewReader("{3+}\r\n a b\r\n"), AfterLogin())
	l := d.Literal()
	if l == nil || *l != (Literal{Size: 3, NonSync: true}) {
		t.Fatalf("literal %v, %v", l, d.Err())
	}
	if d.AcceptSP(); !errors.Is(d.Err(), ErrFraming) {
		t.Errorf("got %v, want ErrFraming", d.Err())
	}
}

func TestStreamedLiteral(t *testing.T) {
	t.Parallel()
	for name, feed := range feeds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, conts := newDecoder(feed("~{5}\r\na\x00b\r\n {0+}\r\n {300}\r\n"+strings.Repeat("x", 300)+"\r\nz NOOP\r\n"), tight)
			var got []string
			var all []*Literal
			for range 3 {
				l := d.Literal()
				if l == nil {
					t.Fatal(d.Err())
				}
				all = append(all, l)
				b, err := io.ReadAll(d.AcceptLiteral(l))
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, string(b))
				d.AcceptSP()
			}
			if err := d.End(); err != nil || *conts != 2 {
				t.Fatalf("%v after %d continuations", err, *conts)
			}
			if got[0] != "a\x00b\r\n" || got[1] != "" || got[2] != strings.Repeat("x", 300) || !all[0].Binary || all[2].Binary {
				t.Errorf("got %q, %v", got, all)
			}
			if n, err := d.AcceptLiteral(all[0]).Read(make([]byte, 9)); n != 0 || err != io.EOF || *conts != 2 {
				t.Errorf("an old literal: read %d, %v, %d continuations", n, err, *conts)
			}
			wantNext(t, d, "z")
		})
	}
}

func TestRefuseLiteral(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want, skip string }{
		{"{1000000}\r\nz NOOP\r\n", "NO TOOBIG", "ok"},
		{"{8+}\r\nb NOOP\r\n\r\nz NOOP\r\n", "NO TOOBIG", "ok"},
		{"{1000000+}\r\nz NOOP\r\n", "BYE", "BYE"},
	} {
		l := tight
		l.NonSync = math.MaxInt64
		d, conts := newDecoder(strings.NewReader(tt.in), l)
		d.RefuseLiteral(d.Literal(), 5)
		if err, skip := d.End(), d.Skip(); kind(err) != tt.want || kind(skip) != tt.skip || *conts != 0 {
			t.Fatalf("%q: got %v, skip %v, %d continuations", tt.in, err, skip, *conts)
		}
		if tt.skip == "ok" {
			wantNext(t, d, "z")
		}
	}
}

// TestBrokenConnection wants the reader's and the callback's own errors.
func TestBrokenConnection(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	d, _ := newDecoder(io.MultiReader(strings.NewReader("{9+}\r\nabc"), iotest.ErrReader(broken)), AfterLogin())
	b, err := io.ReadAll(d.AcceptLiteral(d.Literal()))
	if string(b) != "abc" || err != broken || d.End() != broken || d.Skip() != broken {
		t.Errorf("read %q, %v, then %v", b, err, d.Err())
	}
	d = NewDecoder(bufio.NewReader(strings.NewReader("{3}\r\nabc")), AfterLogin(), func() error { return broken })
	d.Begin()
	if got := d.AString(); got != "" || d.Err() != broken || d.Skip() != broken {
		t.Errorf("got %q, %v", got, d.Err())
	}
	d, _ = newDecoder(strings.NewReader("x"), AfterLogin())
	d.Reset(nil)
	if d.Peek() != 0 || d.Err() == nil || d.Skip() == nil {
		t.Error("a decoder without a reader reads")
	}
}

// TestMemoryFollowsInput wants that a size that is only claimed costs nothing.
func TestMemoryFollowsInput(t *testing.T) {
	t.Parallel()
	l := AfterLogin()
	l.Literal, l.Args = 1<<40, 1<<40
	d, _ := newDecoder(strings.NewReader("{1000000000000}\r\nabc"), l)
	if got := d.AString(); got != "" || d.Err() != io.ErrUnexpectedEOF {
		t.Errorf("got %q, %v", got, d.Err())
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want, kind string }{
		{"DONE\r\n", "DONE", "ok"},
		{"DONE\n", "DONE", "ok"},
		{"\r\n", "", "ok"},
		{"1234567890\r\n", "1234567890", "ok"},
		{"12345678901\r\n", "", "BAD TOOBIG"},
		{"12345678901\n", "", "BAD TOOBIG"},
		{"123456789012345678901234567890\r\n", "", "BAD TOOBIG"},
		{"b {8+}\r\nx NOOP\r\n\r\n", "b {8+}", "ok"},
		{"b {8}\r\n", "b {8}", "ok"},
		{"b APPEND INBOX {8+}\r\nx NOOP\r\n\r\n", "", "BAD TOOBIG"},
		{"DO", "", "EOF"},
	} {
		for name, feed := range feeds {
			in := tt.in
			if tt.kind != "EOF" {
				in += "z NOOP\r\n"
			}
			d := NewDecoder(bufio.NewReaderSize(feed(in), 16), AfterLogin(), nil)
			if got := d.Line(10); got != tt.want || kind(d.Err()) != tt.kind {
				t.Fatalf("%q in %s: got %q, %v", in, name, got, d.Err())
			}
			if tt.kind != "EOF" {
				wantNext(t, d, "z")
			}
		}
	}
}

func TestBase64Line(t *testing.T) {
	t.Parallel()
	d := NewDecoder(bufio.NewReader(strings.NewReader("AGE=\r\n*\r\n\r\n*=\r\n")), BeforeLogin(), nil)
	for _, want := range []string{"AGE=", "cancel", "", "*="} {
		line, cancel := d.Base64Line(12 << 10)
		if cancel {
			line = []byte("cancel")
		}
		if string(line) != want || d.Err() != nil {
			t.Errorf("got %q, %v, want %q", line, d.Err(), want)
		}
	}
	if line, cancel := d.Base64Line(9); line != nil || cancel || d.Err() != io.EOF {
		t.Errorf("at the end: %q, %v, %v", line, cancel, d.Err())
	}
}

func TestZeroLimits(t *testing.T) {
	t.Parallel()
	if got := (Limits{}).orDefault(); got != BeforeLogin() {
		t.Errorf("zero limits are %+v", got)
	}
}

func TestEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, kind string }{
		{"\r\n", "ok"}, {"\n", "ok"}, {"  \r\n", "ok"},
		{"\rx\r\n", "BAD"}, {"\r\r\n", "BAD"}, {"x\r\n", "BAD"}, {"\t\r\n", "BAD"},
	} {
		each(t, tt.in+"z NOOP\r\n", AfterLogin(), func(t *testing.T, d *Decoder) {
			if err := d.End(); kind(err) != tt.kind || d.Ended() != (err == nil) || d.End() != err {
				t.Errorf("%q: got %v, ended %v", tt.in, err, d.Ended())
			}
			wantNext(t, d, "z")
		})
	}
}

// TestErrorText wants no more of the input in a text than one escaped octet.
func TestErrorText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&SyntaxError{Want: "space", Got: '\t'}, `expected space, got '\t'`},
		{&SyntaxError{Want: "space", Got: '\r'}, "expected space, got end of line"},
		{&SyntaxError{Want: "space", Got: 0xfc}, "expected space, got octet 0xfc"},
		{&SyntaxError{Want: "space"}, "expected space"},
		{&SyntaxError{Want: "space", Text: "bad date"}, "bad date"},
		{&TooBigError{Size: 5, Max: 4}, "argument of 5 octets exceeds the limit of 4"},
		{&NameError{Name: "x\r\ny", Err: errUTF7Octet}, "mailbox name: not modified UTF-7: octet outside of printable ASCII"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
