package wire

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

// tight are limits that a fuzzer reaches.
var tight = Limits{
	Line: 200, Literal: 20, Quoted: 25, Word: 30, Literals: 3, Args: 60, Items: 6, Depth: 2, NonSync: 30, Skip: 120,
}

// A miniSession reads commands as a session does and writes down what came of each.
type miniSession struct {
	d      *Decoder
	log    []string
	starts []int // where in the input each command began
	at     func() int
}

// runMini reads in until the connection would be closed.
func runMini(in string, chunk func(io.Reader) io.Reader, l Limits) *miniSession {
	r, size := &countingReader{r: strings.NewReader(in)}, 4096
	if chunk != nil {
		r.r, size = chunk(r.r), 16
	}
	buf := bufio.NewReaderSize(r, size)
	s := &miniSession{at: func() int { return r.n - buf.Buffered() }}
	s.d = NewDecoder(buf, l, func() error { s.note("+"); return nil })
	for s.command() {
	}
	return s
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func (s *miniSession) note(args ...any) { s.log = append(s.log, fmt.Sprint(args...)) }

// command reads one command and reports whether the connection lives.
func (s *miniSession) command() bool {
	d := s.d
	d.Begin()
	s.starts = append(s.starts, s.at())
	tag := d.Tag()
	d.SP()
	name := d.Keyword()
	s.note("tag ", strconv.Quote(tag), " ", name)
	if args, ok := miniCommands[name]; ok {
		args(s, d)
	} else if d.Err() == nil {
		d.FailText("", "unknown command")
	}
	err := d.End()
	skip := d.Skip()
	s.note(kind(err), " ", err, " ", kind(skip), " ", skip, " at ", s.at())
	if skip != nil {
		return false
	}
	switch name {
	case "IDLE":
		s.note("line ", strconv.Quote(d.Line(10)), " ", d.Err(), d.Ended(), d.Skip(), " at ", s.at())
	case "AUTHENTICATE":
		line, cancel := d.Base64Line(10)
		s.note("line ", strconv.Quote(string(line)), cancel, " ", d.Err(), d.Ended(), d.Skip(), " at ", s.at())
	}
	return !fatal(d.Err())
}

var miniCommands = map[string]func(s *miniSession, d *Decoder){
	"NOOP": func(*miniSession, *Decoder) {},
	"IDLE": func(*miniSession, *Decoder) {},
	"LOGIN": func(s *miniSession, d *Decoder) {
		d.SP()
		user := d.LenientAString()
		d.SP()
		s.note(strconv.Quote(user), strconv.Quote(d.AString()))
	},
	"AUTHENTICATE": func(s *miniSession, d *Decoder) {
		d.SP()
		s.note(d.Keyword())
	},
	"SELECT": func(s *miniSession, d *Decoder) {
		d.SP()
		s.note(strconv.Quote(d.Mailbox()), d.NameErr())
	},
	"LIST": func(s *miniSession, d *Decoder) {
		d.SP()
		s.note(strconv.Quote(d.Mailbox()))
		d.SP()
		if d.Peek() == '(' {
			d.List(func() { s.note(strconv.Quote(d.ListMailbox())) })
		} else {
			s.note(strconv.Quote(d.ListMailbox()))
		}
	},
	"STORE": func(s *miniSession, d *Decoder) {
		d.SP()
		s.note(d.NumSet().String())
		d.SP()
		s.note(d.FlagsArg())
	},
	"FETCH": func(s *miniSession, d *Decoder) {
		d.SP()
		s.note(d.NumSet().Resolve(7).String())
		d.SP()
		s.note(nested(d))
	},
	"SEARCH": func(s *miniSession, d *Decoder) {
		for d.AcceptSP() {
			switch key := d.Keyword(); key {
			case "SINCE":
				d.SP()
				s.note(d.Date())
			case "TEXT":
				d.SP()
				s.note(strconv.Quote(d.AString()))
			case "LARGER":
				d.SP()
				s.note(d.Number64())
			default:
				s.note(key)
			}
		}
	},
	"ENABLE": func(s *miniSession, d *Decoder) { d.SetUTF8(true) },
	"APPEND": func(s *miniSession, d *Decoder) {
		d.SP()
		s.note(strconv.Quote(d.Mailbox()))
		d.SP()
		if d.Peek() == '(' {
			s.note(d.FlagList())
			d.SP()
		}
		if d.Peek() == '"' {
			s.note(d.DateTime().Unix())
			d.SP()
		}
		for {
			l := d.Literal()
			if l == nil {
				return
			}
			switch { // refuse, drop after some octets, or take
			case l.Size > 40:
				d.RefuseLiteral(l, 40)
				return
			case l.Size%7 == 6:
				d.FailText("", "dropped")
				return
			case l.Size%7 == 5:
				b, err := io.ReadAll(io.LimitReader(d.AcceptLiteral(l), 3))
				s.note(strconv.Quote(string(b)), err)
				return
			}
			b, err := io.ReadAll(d.AcceptLiteral(l))
			s.note(l.Binary, strconv.Quote(string(b)), err)
			if !d.AcceptSP() {
				return
			}
		}
	},
}

var commandSeeds = []string{
	"a NOOP\r\nb NOOP\n",
	"a LOGIN u p\r\n",
	"a LOGIN \"u\\\"\" {3+}\r\np\r\r\n",
	"a LOGIN {3+}\r\nabc {2}\r\nzz\r\n",
	"a LOGIN {999+}\r\nb NOOP\r\n",
	"a LOGIN {25+}\r\nb NOOP\r\nc NOOP\r\nd NOOP\r\n \r\ne NOOP\r\n",
	"a LOGIN \"x {9+}\r\nb NOOP\r\n\r\nc NOOP\r\n",
	"a BAD {9+}\r\nb NOOP\r\n {4}\r\nc NOOP\r\n",
	"a SELECT &AGE-\r\nb SELECT \"\xc3\xbc\"\r\nc ENABLE X\r\nd SELECT \"\xc3\xbc\"\r\n",
	"a APPEND INBOX (\\Seen x) \" 1-Feb-2026 10:00:00 +0100\" {10}\r\n0123456789\r\n",
	"a APPEND INBOX {6+}\r\nb NOOP\r\nc NOOP\r\n",
	"a APPEND INBOX {12+}\r\nb NOOP\r\nxxxx\r\nc NOOP\r\n",
	"a APPEND INBOX ~{3+}\r\na\x00b {2+}\r\nab\r\nc NOOP\r\n",
	"a APPEND INBOX {50+}\r\n" + strings.Repeat("x NOOP\r\n", 6) + "yy\r\nc NOOP\r\n",
	"a APPEND INBOX {50}\r\nc NOOP\r\n",
	"a IDLE\r\nDONE\r\nb NOOP\r\n",
	"a IDLE\r\nb NOOP {8+}\r\nc NOOP\r\n\r\nd NOOP\r\n",
	"a AUTHENTICATE PLAIN\r\n*\r\nb AUTHENTICATE PLAIN\r\nAAAA\r\nc NOOP\r\n",
	"a AUTHENTICATE PLAIN\r\nAAAAAAAAAAAAAAAAAAAAAAAAAA{8+}\r\nb NOOP\r\n\r\n",
	"a STORE 1:*,4,$ +FLAGS\r\nb STORE 2:4,9:* \\Seen \\Deleted x\r\n",
	"a FETCH $ (FLAGS (UID X))\r\nb FETCH 1 ((((\r\nc FETCH 1 (a b c d e f g h)\r\n",
	"a SEARCH SINCE 1-Feb-2026 LARGER 5 TEXT {2}\r\nab TEXT \"x\\\\\"\r\n",
	"a LIST \"\" (a%* {2+}\r\n&& \"&APw-\")\r\n",
	"a\rb\r\n\r\n \r\n* NOOP\r\n",
	"a SELECT " + strings.Repeat("x", 130) + "\r\nz NOOP\r\n",
	"a SELECT \"" + strings.Repeat("x", 130) + "\"\r\nz NOOP\r\n",
	strings.Repeat("(", 300) + "\r\nz NOOP\r\n",
	"a LOGIN {5" + "\r\nb LOGIN {99999999999999999999}\r\nc LOGIN {99999999999999999999+}\r\nd NOOP\r\n",
}

// FuzzCommand checks that what commands mean does not depend on how they are cut
// into packets, and that commands begin only where the framing says.
func FuzzCommand(f *testing.F) {
	for _, in := range commandSeeds {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		whole := runMini(in, nil, tight)
		for name, chunk := range map[string]func(io.Reader) io.Reader{
			"octets": iotest.OneByteReader, "halves": iotest.HalfReader, "late errors": iotest.DataErrReader,
		} {
			if got := runMini(in, chunk, tight); !slices.Equal(got.log, whole.log) {
				t.Fatalf("%q in %s:\n%s\nwhole:\n%s", in, name,
					strings.Join(got.log, "\n"), strings.Join(whole.log, "\n"))
			}
		}
		checkStarts(t, in, whole.starts)
	})
}

var (
	anyHeader     = regexp.MustCompile(`\{[0-9]+\}\r?\n`)
	nonSyncHeader = regexp.MustCompile(`\{([0-9]+)\+\}\r?\n$`)
)

// checkStarts holds the starts of commands against a slow reading of the framing. It
// knows no synchronizing literals, which depend on what the commands ask for,
// and no lines outside of commands.
func checkStarts(t *testing.T, in string, starts []int) {
	if anyHeader.MatchString(in) || strings.Contains(strings.ToUpper(in), "IDLE") ||
		strings.Contains(strings.ToUpper(in), "AUTHENTICATE") {
		return
	}
	at := 0
	for i, start := range starts {
		if start != at {
			t.Fatalf("%q: command %d began at %d, want %d", in, i, start, at)
		}
		for more := true; more; {
			n := strings.IndexByte(in[at:], '\n') + 1
			if n == 0 {
				return
			}
			line := in[at : at+n]
			at += n
			m := nonSyncHeader.FindStringSubmatch(line)
			if more = m != nil; more {
				size, err := strconv.Atoi(m[1])
				if err != nil || size > len(in)-at {
					return
				}
				at += size
			}
		}
	}
}
