// Package wire reads and writes the grammar of IMAP (RFC 9051 section 9, RFC
// 3501 section 9). It knows no session state and no policy.
//
// # Reading
//
// A Decoder reads one command after the other from a connection:
//
//	d.Begin()
//	tag := d.Tag()
//	d.SP()
//	name := d.Keyword()
//	...                     // arguments, by methods named after the grammar
//	if err := d.End(); err != nil {
//		d.Skip()        // an error here: the connection must be closed
//	}
//
// The first error of a command sticks: every later read returns a zero value at
// once, and Err and End report the error. So a parser is a plain sequence of
// calls. What is read never depends on how the input is cut into packets.
//
// # Framing
//
// The one thing that a decoder must never do is take an octet of a literal for a
// command: a mail that somebody appends could then delete mailboxes. So the
// decoder, not its caller, knows where a command ends. Skip is the only way from a refused
// command to the next one, and Begin refuses to start inside an unfinished one.
// A non-synchronizing literal is read away wherever in the refused rest of the
// line it stands; a synchronizing one that was never asked for is not coming.
package wire

import (
	"bufio"
	"errors"
	"io"
	"strconv"
)

// A Decoder reads commands from one connection. It is not safe for concurrent
// use. Its own memory is small; see Limits for what a command may hold.
type Decoder struct {
	r    *bufio.Reader
	cont func() error
	lim  Limits
	utf8 bool

	err     error
	nameErr *NameError
	names   [2]string // of mailboxes, the first two
	ended   bool      // the command, its line end included, has been read
	pending int64     // octets of a literal that are coming and are not read yet
	lit     *Literal  // the literal that is streamed
	tail    header    // how far the octets read last match a literal's header

	line     int64 // octets read outside literals
	args     int64 // octets held
	items    int
	literals int
	depth    int
}

var errNoReader = errors.New("decoder has no reader")

// NewDecoder returns a decoder of the commands in r. It calls cont when it wants
// a synchronizing literal: cont sends the continuation request "+ OK" and
// flushes. The decoder stands between commands; Begin starts the first.
func NewDecoder(r *bufio.Reader, l Limits, cont func() error) *Decoder {
	return &Decoder{r: r, cont: cont, lim: l.orDefault(), ended: true}
}

// Reset makes d read from r, between two commands: after STARTTLS or COMPRESS,
// or when an idle connection gives its buffers back. What the old reader had buffered
// is the caller's to drop or carry over. With a nil r every read fails.
func (d *Decoder) Reset(r *bufio.Reader) { d.r = r }

// SetLimits replaces the limits, from the next octet on.
func (d *Decoder) SetLimits(l Limits) { d.lim = l.orDefault() }

// SetUTF8 says that the client has enabled UTF8=ACCEPT (RFC 6855) or IMAP4rev2:
// quoted strings may hold UTF-8, and mailbox names are UTF-8 instead of modified UTF-7.
func (d *Decoder) SetUTF8(on bool) { d.utf8 = on }

// Begin starts the next command. If the last one was neither read to its end nor
// skipped, every read of this one fails with ErrFraming.
func (d *Decoder) Begin() {
	if !d.ended && (d.line > 0 || d.pending > 0 || d.err != nil) {
		if !fatal(d.err) {
			d.err = framingError("command begins inside another")
		}
		return
	}
	*d = Decoder{r: d.r, cont: d.cont, lim: d.lim, utf8: d.utf8}
}

// Err returns the first error of this command: a *SyntaxError, a *TooBigError,
// one that Is ErrFraming, or the reader's (io.EOF only between commands).
func (d *Decoder) Err() error { return d.err }

// Fail records that the grammar wanted something else than the next octet, for
// which it waits if the command has not ended. It keeps an earlier error.
func (d *Decoder) Fail(want string) {
	got := d.Peek()
	if d.err == nil {
		d.err = &SyntaxError{Want: want, Got: got}
	}
}

// FailText records a SyntaxError with a text of its own and a response code,
// which may be empty. It keeps an earlier error.
func (d *Decoder) FailText(code, text string) {
	if d.err == nil {
		d.err = &SyntaxError{Code: code, Text: text}
	}
}

// window returns the octets that are buffered, at least one, cut to what the line
// may still have. It is nil after an error, and at the end of the command.
func (d *Decoder) window() []byte {
	if d.err != nil || d.ended {
		return nil
	}
	if d.pending > 0 {
		d.err = framingError("literal has not been read")
		return nil
	}
	room := d.lim.Line - d.line
	if room <= 0 {
		d.err = framingError("line is longer than " + strconv.FormatInt(d.lim.Line, 10) + " octets")
		return nil
	}
	w := d.fill()
	if int64(len(w)) > room {
		w = w[:room]
	}
	return w
}

// fill returns what is buffered, at least one octet, or nil and a sticky error.
func (d *Decoder) fill() []byte {
	if d.r == nil {
		d.err = errNoReader
		return nil
	}
	if d.r.Buffered() == 0 {
		if _, err := d.r.Peek(1); err != nil {
			d.readFailed(err)
			return nil
		}
	}
	w, _ := d.r.Peek(d.r.Buffered())
	return w
}

// readFailed keeps the reader's error. The end of input is io.EOF only where a
// client may leave: before a command.
func (d *Decoder) readFailed(err error) {
	if err == io.EOF && (d.line > 0 || d.pending > 0) {
		err = io.ErrUnexpectedEOF
	}
	d.err = err
}

// consume takes n octets of the window.
func (d *Decoder) consume(n int) {
	d.r.Discard(n) // cannot fail: they are buffered
	d.line += int64(n)
}

// Peek returns the next octet, or 0 after an error or at the end of the command.
func (d *Decoder) Peek() byte {
	if w := d.window(); len(w) > 0 {
		return w[0]
	}
	return 0
}

// Accept reads c if it is next.
func (d *Decoder) Accept(c byte) bool {
	w := d.window()
	if len(w) == 0 || w[0] != c {
		return false
	}
	d.consume(1)
	return true
}

// Expect reads c; anything else is an error.
func (d *Decoder) Expect(c byte) {
	if !d.Accept(c) && d.err == nil {
		d.Fail(strconv.QuoteRune(rune(c)))
	}
}

// SP reads one space; anything else is an error.
func (d *Decoder) SP() {
	if !d.Accept(' ') {
		d.Fail("space")
	}
}

// AcceptSP reads a space if one is next.
func (d *Decoder) AcceptSP() bool { return d.Accept(' ') }

// List reads "(" [item *(SP item)] ")", calling item for each member. Lists may
// nest to Limits.Depth. A space before the closing parenthesis is forgiven, as
// Dovecot forgives it.
func (d *Decoder) List(item func()) {
	d.Expect('(')
	if d.err != nil {
		return
	}
	if d.depth++; d.depth > d.lim.Depth {
		d.FailText("", "too many nested parentheses")
		return
	}
	for !d.Accept(')') && d.err == nil {
		if d.items++; d.items > d.lim.Items {
			d.FailText("TOOBIG", "too many list members")
			return
		}
		item()
		if d.Accept(')') {
			break
		}
		d.SP()
	}
	d.depth--
}

// End reads the end of the command, CRLF or a bare LF, and returns the first error.
// If there was none but a mailbox name was bad, it returns that *NameError,
// and the command is read. Spaces before the line end are forgiven.
func (d *Decoder) End() error {
	if !d.ended {
		for d.Accept(' ') {
		}
		d.Accept('\r')
		if d.Accept('\n') {
			d.ended = true
		} else {
			d.Fail("end of line")
		}
	}
	if d.err == nil && d.nameErr != nil {
		return d.nameErr
	}
	return d.err
}

// Ended reports whether the command has been read to its end, by End or Skip.
func (d *Decoder) Ended() bool { return d.ended }
