package wire

import (
	"errors"
	"strconv"
)

// A SyntaxError says that a command does not follow the grammar, or exceeds a
// limit on its form. It is answered with a tagged BAD (untagged where the tag
// is what is wrong); the connection lives.
type SyntaxError struct {
	Want string // what the grammar wanted: "space", "sequence set"
	Got  byte   // the octet that came instead; 0 if that says nothing
	Code string // response code without brackets ("TOOBIG"), or empty
	Text string // if not empty, the whole message, in place of Want and Got
}

// Error never repeats more of the input than one octet, escaped: a reply that
// reflects its input can be run as a script by a browser (ALPACA).
func (e *SyntaxError) Error() string {
	switch {
	case e.Text != "":
		return e.Text
	case e.Got == 0:
		return "expected " + e.Want
	case e.Got == '\r' || e.Got == '\n':
		return "expected " + e.Want + ", got end of line"
	case e.Got >= 0x80:
		return "expected " + e.Want + ", got octet 0x" + strconv.FormatUint(uint64(e.Got), 16)
	}
	return "expected " + e.Want + ", got " + strconv.QuoteRune(rune(e.Got))
}

// A TooBigError says that a literal, a quoted string or a word is larger than the
// server takes. It is answered with NO [TOOBIG]; the connection lives. Either a
// literal was synchronizing and never asked for, or Decoder.Skip reads it away.
type TooBigError struct {
	Size, Max int64 // octets; Size, but of a literal, is what was read until then
}

func (e *TooBigError) Error() string {
	return "argument of " + strconv.FormatInt(e.Size, 10) + " octets exceeds the limit of " +
		strconv.FormatInt(e.Max, 10)
}

// A NameError says that a mailbox argument is well-formed as a string but names
// no mailbox that can exist: bad modified UTF-7, or bad UTF-8. It is answered
// with NO [CANNOT], as Dovecot answers NO; the command has been read to its end.
type NameError struct {
	Name string // as sent
	Err  error  // its text is for the client
}

func (e *NameError) Error() string { return "mailbox name: " + e.Err.Error() }
func (e *NameError) Unwrap() error { return e.Err }

// ErrFraming means that the end of the command cannot be found with reasonable
// effort. The connection must be closed with BYE: whatever is read next may be
// inside a literal. Wrapped with details; test with errors.Is.
var ErrFraming = errors.New("command framing lost")

// framingError is ErrFraming with its details.
type framingError string

func (e framingError) Error() string        { return string(e) }
func (e framingError) Is(target error) bool { return target == ErrFraming }

// fatal reports whether err leaves nothing that could be read after it.
func fatal(err error) bool {
	if err == nil {
		return false
	}
	var s *SyntaxError
	var b *TooBigError
	return !errors.As(err, &s) && !errors.As(err, &b)
}
