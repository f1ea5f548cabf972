package admin

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A transcript makes readable lines of one telemetry log; see package telemetry
// for its form:
//
//	12:00:00 C: a1 SELECT INBOX
//	12:00:00 S: * 4 EXISTS
//
// The log is fed in pieces of any size. Between the pieces a transcript keeps
// what may yet become a mark, and the line that has no end.
type transcript struct {
	at     int64 // how far the file has been read
	lost   bool  // began in the middle: nothing is said before the first mark
	colour bool

	who  byte // '<' for the client, '>' for the server, 0 for the header
	when time.Time
	rest []byte // of the pieces before: the beginning of a mark, perhaps
	line []byte
	out  strings.Builder
}

// maxShown is how many octets are shown as one line; a longer one is broken.
const maxShown = 1000

// feed returns the lines that p completes.
func (t *transcript) feed(p []byte) string {
	t.out.Reset()
	p = append(t.rest, p...)
	for len(p) > 0 {
		i := bytes.IndexAny(p, "<>")
		if i < 0 {
			t.text(p)
			p = nil
			break
		}
		t.text(p[:i])
		p = p[i:]
		n, unsure := mark(p)
		if unsure {
			break
		}
		if n == 0 {
			t.text(p[:1])
			p = p[1:]
			continue
		}
		t.turn(p[:n])
		p = p[n:]
	}
	t.rest = append([]byte(nil), p...)
	return t.out.String()
}

// mark returns the length of the mark at the start of p, 0 if there is none;
// unsure tells that p ends too early to know.
func mark(p []byte) (n int, unsure bool) {
	for n = 1; n < len(p) && n <= 11 && '0' <= p[n] && p[n] <= '9'; n++ {
	}
	if n == len(p) {
		return 0, n <= 11
	}
	if n < 10 || p[n] != p[0] {
		return 0, false
	}
	return n + 1, false
}

// turn takes a mark. A line goes on behind a mark of the same side.
func (t *transcript) turn(m []byte) {
	if m[0] != t.who {
		t.end()
	}
	t.who, t.lost = m[0], false
	seconds, _ := strconv.ParseInt(string(m[1:len(m)-1]), 10, 64)
	t.when = time.Unix(seconds, 0)
}

// text takes what one side said.
func (t *transcript) text(p []byte) {
	if t.lost {
		return
	}
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			i = len(p)
		}
		for part := p[:i]; len(part) > 0; {
			n := min(len(part), maxShown-len(t.line))
			t.line = append(t.line, part[:n]...)
			if part = part[n:]; len(part) > 0 {
				t.end()
			}
		}
		if i == len(p) {
			return
		}
		if len(t.line) == 0 {
			t.line = append(t.line, '\r') // an empty line is shown as well
		}
		t.end()
		p = p[i+1:]
	}
}

// end writes the line, if there is one.
func (t *transcript) end() {
	if len(t.line) == 0 {
		return
	}
	text := visible(bytes.TrimSuffix(t.line, []byte("\r")))
	t.line = t.line[:0]
	begin, colour := "", ""
	switch t.who {
	case '<':
		begin, colour = t.when.Format(time.TimeOnly)+" C: ", "\x1b[36m" // cyan
	case '>':
		begin, colour = t.when.Format(time.TimeOnly)+" S: ", "\x1b[32m" // green
	default:
		if text == "" {
			return
		}
	}
	if t.colour && colour != "" {
		begin, text = colour+begin, text+"\x1b[0m"
	}
	t.out.WriteString(begin + text + "\n")
}

// visible returns p with what could move a terminal's cursor, and what is no
// text, as \xHH.
func visible(p []byte) string {
	var b strings.Builder
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		if r == utf8.RuneError && n == 1 || !unicode.IsPrint(r) && r != '\t' {
			for _, c := range p[:n] {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		} else {
			b.Write(p[:n])
		}
		p = p[n:]
	}
	return b.String()
}
