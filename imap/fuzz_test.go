package imap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imapd/test/strict"
	"imapd/test/transcript"
)

// What a fuzzed session starts from, as a number that the fuzzer chooses.
const (
	fuzzUser     = 1 << iota // logged in
	fuzzSelected             // and a mailbox selected
	fuzzRev2                 // and IMAP4rev2 enabled
	fuzzRaw                  // everything is sent at once, as it is
	fuzzAll
)

// FuzzSession sends anything at all to a server that holds a small account.
// Whatever comes: no panic and no internal error, every response is one by the
// letter of the grammar, its literals as long as announced, its numbers those
// of messages there are; nothing appears outside of the account. Input that is
// sent line by line, as a client would that follows RFC 9051 in nothing but
// the framing, gets exactly one tagged answer to each command, before the next.
// All goroutines end (TestMain).
func FuzzSession(f *testing.F) {
	for _, seed := range fuzzSeeds(f) {
		for _, state := range []byte{0, fuzzUser, fuzzUser | fuzzSelected, fuzzUser | fuzzSelected | fuzzRev2} {
			f.Add(seed, state)
			f.Add(seed, state|fuzzRaw)
		}
	}
	w := newFuzzWorld(f)
	f.Fuzz(func(t *testing.T, input []byte, state byte) {
		s := w.session(t, state)
		var err error
		if state&fuzzRaw != 0 {
			_, err = s.sendRaw(input, len(input)+1)
		} else {
			err = s.sendLines(input)
		}
		s.end()
		if err != nil {
			t.Error(err)
		}
		w.check(t)
	})
}

// FuzzSplit holds that what a server says does not depend on how the octets
// that it is sent are cut into packets.
func FuzzSplit(f *testing.F) {
	for i, seed := range fuzzSeeds(f) {
		f.Add(seed, byte(fuzzUser|fuzzSelected), uint16(1+i%7))
	}
	w := newFuzzWorld(f)
	f.Fuzz(func(t *testing.T, input []byte, state byte, cut uint16) {
		var answers [2]string
		for i, size := range []int{len(input) + 1, int(cut%100) + 1} {
			s := w.session(t, state)
			out, err := s.sendRaw(input, size)
			s.end()
			if err != nil {
				t.Fatal(err)
			}
			answers[i] = changing.ReplaceAllString(out, "?")
			w.check(t)
		}
		if answers[0] != answers[1] {
			t.Errorf("at once:\n%s\nin pieces of %d:\n%s", answers[0], int(cut%100)+1, answers[1])
		}
	})
}

// changing matches what differs between two runs: the session, times and what
// is made from times, sizes of files that hold them.
var changing = regexp.MustCompile(`SESSIONID=<[^>]*>|\d{9,}|"[ \d]\d-\w{3}-\d{4} [^"]*"`)

// fuzzSeeds returns what the clients of the transcripts say, each as one text.
func fuzzSeeds(f *testing.F) [][]byte {
	f.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	seeds := [][]byte{
		[]byte("((((((\r\n"), []byte("GET / HTTP/1.1\r\n\r\n"), []byte("\x16\x03\x01"), []byte("a LOGIN {4+}\r\nuser {3}\r\nx\r\n"),
		[]byte("a FETCH 1:* (UID FLAGS ENVELOPE BODYSTRUCTURE BODY.PEEK[] BINARY.PEEK[1]<0.9> BINARY.SIZE[1])\r\n"),
	}
	for _, file := range files {
		script, err := transcript.Load(file)
		if err != nil {
			f.Fatal(err)
		}
		var b bytes.Buffer
		for _, step := range script.Steps {
			if step.Kind == transcript.Send {
				b.WriteString(asSent(step.Lines[0]))
			}
		}
		if b.Len() < 16<<10 {
			seeds = append(seeds, b.Bytes())
		}
	}
	return seeds
}

// asSent returns a line of a transcript as a client sends it.
func asSent(l transcript.Line) string {
	var b strings.Builder
	for _, c := range l {
		switch {
		case c.Bare:
			b.WriteString(strings.Replace(c.Head, "{", "{"+c.Text, 1))
		case c.Head != "":
			b.WriteString(strings.Replace(c.Head, "{", fmt.Sprintf("{%d", len(c.Text)), 1) + "\r\n" + c.Text)
		default:
			b.WriteString(strings.NewReplacer("$user", "u", "$password", "secret", "$plain", "AHUAc2VjcmV0").Replace(c.Text))
		}
	}
	return b.String() + "\r\n"
}

// A fuzzSession is one session, seen from the client.
type fuzzSession struct {
	*client
	r      *strict.Reader
	mirror strict.Mirror
	cache  *strict.Cache // of a client with QRESYNC; nil: none
	out    bytes.Buffer  // all that the server has said
	n      int           // commands sent
}

// response reads one response and checks it.
func (s *fuzzSession) response() (*strict.Response, error) {
	r, err := s.r.Next()
	if err != nil {
		return r, err
	}
	if r.Name == "ENABLED" {
		for _, word := range r.Args {
			s.r.UTF8 = s.r.UTF8 || word.Text == "IMAP4rev2"
		}
	}
	if err := s.mirror.Take(r); err != nil || s.cache == nil {
		return r, err
	}
	return r, s.cache.Take(&s.mirror, r)
}

// sendRaw sends input in pieces of size octets, and returns all that is
// answered. Tags come in the order in which the input has them.
func (s *fuzzSession) sendRaw(input []byte, size int) (string, error) {
	s.out.Reset()
	go func() {
		for rest := input; len(rest) > 0; {
			n := min(size, len(rest))
			if _, err := s.conn.Write(rest[:n]); err != nil {
				break
			}
			rest = rest[n:]
		}
		s.halfClose()
	}()
	rest := input
	for {
		r, err := s.response()
		if err == io.EOF {
			return s.out.String(), nil
		}
		if err != nil {
			return "", err
		}
		if r.Tag == "*" || r.Tag == "+" {
			continue
		}
		i := bytes.Index(rest, []byte(r.Tag))
		if i < 0 {
			return "", fmt.Errorf("answer to a tag that was not sent, or twice, or too late: %v", r)
		}
		rest = rest[i+len(r.Tag):]
	}
}

// A lines is what is left of the input of sendLines.
type lines struct{ rest []byte }

// next returns the next line of the input, without its end.
func (l *lines) next() (string, bool) {
	if len(l.rest) == 0 {
		return "", false
	}
	line, rest, _ := bytes.Cut(l.rest, []byte("\n"))
	l.rest = rest
	return string(bytes.TrimSuffix(line, []byte("\r"))), true
}

var headOfLiteral = regexp.MustCompile(`\{(\d+)(\+?)\}$`)

// errLeft: the session cannot go on, and not by a fault of the server.
var errLeft = errors.New("left")

// sendLines sends each line of input as a command with a tag of its own, and
// waits for its answer. Literals are sent as a client does that knows that what
// looks like the head of a literal is one.
func (s *fuzzSession) sendLines(input []byte) error {
	l := &lines{input}
	for {
		line, more := l.next()
		if !more {
			break
		}
		if err := s.command(line, l); errors.Is(err, errLeft) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if err := s.command("LOGOUT", l); !errors.Is(err, errLeft) {
		return fmt.Errorf("LOGOUT: %v", err)
	}
	return nil
}

// command sends one command and reads its answer; errLeft if that was the last.
func (s *fuzzSession) command(line string, l *lines) error {
	s.n++
	tag := fmt.Sprintf("T%d", s.n)
	wait, err := s.write(tag+" "+line, l)
	if err != nil {
		return err
	}
	left := false
	for {
		r, err := s.response()
		switch {
		case err == io.EOF && left:
			return errLeft
		case err != nil:
			return fmt.Errorf("after %q: %w", line, err)
		case r.Name == "BYE":
			left = true
		case r.Tag == tag && !left:
			return nil
		case r.Tag == "+":
			if wait, err = s.goOn(wait, l); err != nil {
				return err
			}
		case r.Tag != "*" && r.Tag != tag:
			return fmt.Errorf("answer to %s after %q: %v", tag, line, r)
		}
	}
}

// write sends a line and the non-synchronizing literals in it. It returns the
// length of the literal that must not be sent before the server asks, or -1.
func (s *fuzzSession) write(line string, l *lines) (wait int, err error) {
	var b strings.Builder
	for {
		b.WriteString(line + "\r\n")
		m := headOfLiteral.FindStringSubmatch(line)
		if m == nil || m[2] == "" {
			s.conn.Write([]byte(b.String())) // an error shows when reading
			if m == nil {
				return -1, nil
			}
			return size(m[1]), nil
		}
		n := size(m[1])
		if n > 1<<20 { // promised and never sent: the server may wait for it
			s.conn.Write([]byte(b.String()))
			s.halfClose()
			return -1, s.drain()
		}
		b.WriteString(l.take(n))
		line, _ = l.next()
	}
}

// goOn sends what the server has asked for: a literal and what comes behind
// it, or else a line.
func (s *fuzzSession) goOn(wait int, l *lines) (int, error) {
	if wait > 1<<20 {
		s.halfClose()
		return -1, s.drain()
	}
	if wait >= 0 {
		s.conn.Write([]byte(l.take(wait)))
		line, _ := l.next()
		return s.write(line, l)
	}
	line, more := l.next()
	if !more {
		line = "*"
	}
	return s.write(line, l)
}

// take returns n octets of the input, or of something else behind its end.
func (l *lines) take(n int) string {
	have := min(n, len(l.rest))
	text := string(l.rest[:have]) + strings.Repeat("x", n-have)
	l.rest = l.rest[have:]
	return text
}

// size returns the number, or much if it is more than that.
func size(digits string) int {
	const much = 1 << 30
	n := 0
	for _, c := range digits {
		n = min(n*10+int(c-'0'), much)
	}
	return n
}

// drain reads to the end of the connection.
func (s *fuzzSession) drain() error {
	for {
		if _, err := s.response(); err == io.EOF {
			return errLeft
		} else if err != nil {
			return err
		}
	}
}
