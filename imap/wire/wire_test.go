package wire

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// A feed is how a test hands input to a decoder: whole, or octet by octet.
var feeds = map[string]func(string) io.Reader{
	"whole":  func(s string) io.Reader { return strings.NewReader(s) },
	"octets": func(s string) io.Reader { return iotest.OneByteReader(strings.NewReader(s)) },
}

// newDecoder returns a decoder of in that has begun its first command, and counts
// continuation requests.
func newDecoder(r io.Reader, l Limits) (*Decoder, *int) {
	conts := new(int)
	d := NewDecoder(bufio.NewReaderSize(r, 16), l, func() error { *conts++; return nil })
	d.Begin()
	return d, conts
}

// each runs f on both feeds of in.
func each(t *testing.T, in string, l Limits, f func(t *testing.T, d *Decoder)) {
	t.Helper()
	for name, feed := range feeds {
		d, _ := newDecoder(feed(in), l)
		t.Run(name, func(t *testing.T) { f(t, d) })
	}
}

// kind names the class of an error: what the session would answer.
func kind(err error) string {
	var s *SyntaxError
	var b *TooBigError
	var n *NameError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &s):
		return strings.TrimSpace("BAD " + s.Code)
	case errors.As(err, &b):
		return "NO TOOBIG"
	case errors.As(err, &n):
		return "NO CANNOT"
	case errors.Is(err, ErrFraming):
		return "BYE"
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return "EOF"
	}
	return err.Error()
}
