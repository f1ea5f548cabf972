package wire

import (
	"bytes"
	"io"
	"math"
	"strconv"
	"strings"
)

// A header recognises the header of a literal, "{" number64 ["+"] "}" CRLF, octet
// by octet. The same rules tell what a literal is where one is read and where a
// refused command is skipped; were they two, a client could slip a command between them.
type header struct {
	state   headerState
	size    int64
	over    bool // the size does not fit into 63 bits
	nonSync bool
}

type headerState uint8

const (
	headerNone headerState = iota
	headerOpen
	headerDigits
	headerPlus
	headerClosed
	headerCR
	headerDone // the line end has been read
)

// step takes the next octet of a line. After a mismatch h looks for a header again.
func (h *header) step(c byte) {
	switch {
	case c == '{':
		*h = header{state: headerOpen}
	case c >= '0' && c <= '9' && (h.state == headerOpen || h.state == headerDigits):
		h.state = headerDigits
		if digit := int64(c - '0'); h.over || h.size > (math.MaxInt64-digit)/10 {
			h.over = true
		} else {
			h.size = h.size*10 + digit
		}
	case c == '+' && h.state == headerDigits:
		h.state, h.nonSync = headerPlus, true
	case c == '}' && (h.state == headerDigits || h.state == headerPlus):
		h.state = headerClosed
	case c == '\r' && h.state == headerClosed:
		h.state = headerCR
	case c == '\n' && (h.state == headerClosed || h.state == headerCR):
		h.state = headerDone
	default:
		*h = header{}
	}
}

// steps takes octets of which only the last may belong to a header.
func (h *header) steps(b []byte) {
	switch i := bytes.LastIndexByte(b, '{'); {
	case i >= 0:
		b = b[i:]
	case h.state == headerNone:
		return
	}
	for _, c := range b {
		h.step(c)
	}
}

// header reads a literal's header and its line end. On return without an error
// the decoder stands before the literal's octets: where they are coming
// unasked (non-synchronizing) they are pending; else the command is over
// unless the literal is accepted.
func (d *Decoder) header() (h header, ok bool) {
	for h.state != headerDone {
		w := d.window()
		if w == nil {
			return h, false
		}
		n := 0
		for _, c := range w {
			if (c == '{') != (h.state == headerNone) {
				break
			}
			next := h
			if next.step(c); next.state == headerNone {
				break
			}
			h = next
			n++
			if h.state == headerDone {
				break
			}
		}
		d.consume(n)
		if n < len(w) && h.state != headerDone {
			d.Fail("literal")
			return h, false
		}
	}
	return h, d.framed(h)
}

// framed records where the command goes on after a literal's header.
func (d *Decoder) framed(h header) bool {
	switch {
	case h.over && h.nonSync:
		d.err = framingError("non-synchronizing literal of more than 2^63 octets")
	case h.over:
		d.ended = true
		d.FailText("", "literal size does not fit into 63 bits")
	case h.nonSync:
		d.pending = h.size
	default:
		d.ended = true
	}
	return d.err == nil
}

// refuse records why a literal whose header was read is not taken, unless it is
// coming and too large to be read away.
func (d *Decoder) refuse(reason error) {
	if d.err != nil {
		return
	}
	if d.err = reason; d.pending > d.lim.Skip {
		d.err = framingError("non-synchronizing literal of " + strconv.FormatInt(d.pending, 10) + " octets")
	}
}

// checkNonSync holds a non-synchronizing literal to its limit. RFC 7888 section 5
// wants BAD with TOOBIG, not NO: the client broke the protocol.
func (d *Decoder) checkNonSync(h header) bool {
	if h.nonSync && h.size > d.lim.NonSync {
		d.refuse(&SyntaxError{Code: "TOOBIG", Text: "non-synchronizing literal exceeds " +
			strconv.FormatInt(d.lim.NonSync, 10) + " octets"})
		return false
	}
	return true
}

// accept asks for a literal if it is not coming by itself. Its octets are pending then.
func (d *Decoder) accept(size int64, nonSync bool) bool {
	if !nonSync {
		d.ended = false
		d.pending = size
		if err := d.cont(); err != nil {
			d.err = err
		}
	}
	return d.err == nil
}

// heldStep is how much memory is taken for a literal before its octets come.
const heldStep = 64 << 10

// held reads a whole literal into memory. A NUL in it is an error.
func (d *Decoder) held() string {
	h, ok := d.header()
	if !ok || !d.checkNonSync(h) {
		return ""
	}
	d.literals++
	switch {
	case h.size > d.lim.Literal:
		d.refuse(&TooBigError{Size: h.size, Max: d.lim.Literal})
	case d.literals > d.lim.Literals:
		d.refuse(&SyntaxError{Code: "TOOBIG", Text: "too many literals in one command"})
	case h.size > d.lim.Args-d.args:
		d.refuse(tooManyArgs())
	}
	if d.err != nil || !d.accept(h.size, h.nonSync) {
		return ""
	}
	d.args += h.size
	return d.readHeld(h.size)
}

// readHeld reads the pending literal. Memory grows with what came, not with what was said.
func (d *Decoder) readHeld(size int64) string {
	var b strings.Builder
	b.Grow(int(min(size, heldStep)))
	for d.pending > 0 {
		w := d.fill()
		if w == nil {
			return ""
		}
		w = w[:min(int64(len(w)), d.pending)]
		if b.Cap()-b.Len() < len(w) {
			b.Grow(int(min(d.pending, int64(b.Cap()))))
		}
		b.Write(w)
		d.r.Discard(len(w))
		d.pending -= int64(len(w))
	}
	s := b.String()
	if strings.IndexByte(s, 0) >= 0 {
		d.FailText("", "NUL in a string")
		return ""
	}
	return s
}

// tooManyArgs is the error of a command that exceeds Limits.Args.
func tooManyArgs() *SyntaxError { return &SyntaxError{Code: "TOOBIG", Text: "arguments too long"} }

// readPending reads octets of the pending literal, as they come.
func (d *Decoder) readPending(p []byte) (int, error) {
	if int64(len(p)) > d.pending {
		p = p[:d.pending]
	}
	if d.r == nil {
		d.err = errNoReader
		return 0, d.err
	}
	n, err := d.r.Read(p)
	d.pending -= int64(n)
	if n == 0 && err != nil {
		d.readFailed(err)
		return 0, d.err
	}
	return n, nil // an error beside octets comes again
}

// A Literal is one whose octets are streamed instead of held: a message to append.
type Literal struct {
	Size    int64 // octets
	Binary  bool  // literal8, "~{n}": may contain NUL
	NonSync bool  // its octets are coming unasked
}

// Literal reads the header of a literal or literal8, and nothing of its octets.
// If none is next, or a non-synchronizing one exceeds Limits.NonSync, it returns
// nil and the error sticks. Size is not checked: hand the literal to
// AcceptLiteral or to RefuseLiteral.
func (d *Decoder) Literal() *Literal {
	binary := d.Accept('~')
	if d.Peek() != '{' {
		d.Fail("literal")
		return nil
	}
	h, ok := d.header()
	if !ok || !d.checkNonSync(h) {
		return nil
	}
	d.lit = &Literal{Size: h.size, Binary: binary, NonSync: h.nonSync}
	return d.lit
}

// AcceptLiteral asks for the literal that Literal has just returned, if it is a
// synchronizing one, and returns a reader of exactly its octets. NUL is not checked.
// When all are read the command goes on; a caller that stops before must Skip.
// A failure of the connection is the reader's error, and sticks.
func (d *Decoder) AcceptLiteral(l *Literal) io.Reader {
	if d.err == nil && l == d.lit {
		d.accept(l.Size, l.NonSync)
	}
	return literalReader{d, l}
}

// RefuseLiteral records that the literal, which Literal has just returned, exceeds
// max octets: a *TooBigError, or ErrFraming if it is coming and too large to be
// read away. The caller goes on with Skip.
func (d *Decoder) RefuseLiteral(l *Literal, max int64) {
	d.refuse(&TooBigError{Size: l.Size, Max: max})
}

// literalReader reads one streamed literal. It is of no use once another began.
type literalReader struct {
	d *Decoder
	l *Literal
}

func (r literalReader) Read(p []byte) (int, error) {
	switch {
	case r.d.err != nil:
		return 0, r.d.err
	case r.d.lit != r.l || r.d.pending == 0:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	return r.d.readPending(p)
}
