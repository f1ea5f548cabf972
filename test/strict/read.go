package strict

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Longest line and literal that a Reader takes, in octets.
const (
	maxLine    = 8 << 20
	maxLiteral = 1 << 30
)

// A Reader reads responses. The zero value of UTF8 forbids octets above 127
// outside of literals, as before ENABLE.
type Reader struct {
	UTF8 bool

	r    *bufio.Reader
	read int // octets of this response outside of literals
}

// NewReader returns a Reader of what the server sends.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReader(r)} }

// Buffered reports whether octets have come that are not yet part of a response.
func (r *Reader) Buffered() bool { return r.r.Buffered() > 0 }

// A syntaxError is the reason why a response is none. It is a panic within
// this package.
type syntaxError string

func (e syntaxError) Error() string { return string(e) }

// Next reads one response. The error is io.EOF at the end of the connection
// between two responses, and io.ErrUnexpectedEOF within one.
func (r *Reader) Next() (resp *Response, err error) {
	if _, err := r.r.Peek(1); err != nil {
		return nil, err
	}
	r.read = 0
	resp = &Response{}
	defer func() {
		switch e := recover().(type) {
		case nil:
		case syntaxError:
			rest, _ := r.r.Peek(min(r.r.Buffered(), 60))
			err = fmt.Errorf("%w, in %v, before %q", e, resp, rest)
		case readError:
			err = e.error
		default:
			panic(e)
		}
	}()
	r.response(resp)
	check(resp)
	return resp, nil
}

// A readError is an error of the connection, as a panic.
type readError struct{ error }

func fail(format string, args ...any) { panic(syntaxError(fmt.Sprintf(format, args...))) }

func (r *Reader) peek() byte {
	b, err := r.r.Peek(1)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		panic(readError{err})
	}
	return b[0]
}

func (r *Reader) next() byte {
	c := r.peek()
	r.r.Discard(1)
	if r.read++; r.read > maxLine {
		fail("line above %d octets", maxLine)
	}
	return c
}

func (r *Reader) expect(want string) {
	for i := range len(want) {
		if c := r.peek(); c != want[i] {
			fail("got %q, want %q", c, want[i:])
		}
		r.next()
	}
}

func (r *Reader) accept(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.next()
	return true
}

func isAtom(c byte) bool { return c > ' ' && c < 0x7f && strings.IndexByte(`(){%*"\`, c) < 0 }

// word reads octets that stand for themselves, at least one.
func (r *Reader) word() string {
	var b []byte
	for isAtom(r.peek()) {
		b = append(b, r.next())
	}
	if len(b) == 0 {
		fail("got %q, want a word", r.peek())
	}
	return string(b)
}

func (r *Reader) response(resp *Response) {
	if r.accept('+') {
		resp.Tag = "+"
		r.expect(" ")
		resp.Text = r.text()
		return
	}
	if r.accept('*') {
		resp.Tag = "*"
	} else if resp.Tag = r.word(); strings.IndexByte(resp.Tag, '+') >= 0 {
		fail("tag %q", resp.Tag)
	}
	r.expect(" ")
	resp.Name = r.word()
	if n, err := strconv.ParseUint(resp.Name, 10, 32); err == nil && resp.Tag == "*" {
		resp.Number = uint32(n)
		r.expect(" ")
		resp.Name = r.word()
	}
	switch resp.Name {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		r.expect(" ")
		r.status(resp)
		return
	}
	if resp.Tag != "*" {
		fail("tagged %q", resp.Name)
	}
	for r.accept(' ') {
		resp.Args = append(resp.Args, r.value(0))
	}
	r.expect("\r\n")
}

// status reads the response code and the text, which must not be empty.
func (r *Reader) status(resp *Response) {
	if r.accept('[') {
		for {
			v := r.codeValue()
			v.Spaced = len(resp.Code) > 0
			resp.Code = append(resp.Code, v)
			if r.accept(']') {
				break
			}
			r.expect(" ")
		}
		r.expect(" ")
	}
	if resp.Text = r.text(); resp.Text == "" {
		fail("no text")
	}
}

// codeValue reads a word, which ends at "]", a string or a list.
func (r *Reader) codeValue() Value {
	if c := r.peek(); c == '(' || c == '"' || c == '{' {
		return r.value(0)
	}
	var b []byte
	for c := r.peek(); c != ']' && (isAtom(c) || c == '\\' || c == '*'); c = r.peek() {
		b = append(b, r.next())
	}
	if len(b) == 0 {
		fail("got %q, want a response code", r.peek())
	}
	return Value{Text: string(b)}
}

// text reads to the end of the line.
func (r *Reader) text() string {
	var b []byte
	for r.peek() != '\r' {
		c := r.next()
		if c < ' ' && c != '\t' || c == 0x7f || c >= 0x80 && !r.UTF8 {
			fail("octet %q in a text", c)
		}
		b = append(b, c)
	}
	r.expect("\r\n")
	return string(b)
}

// maxDepth bounds lists in lists.
const maxDepth = 2000

func (r *Reader) value(depth int) Value {
	switch c := r.peek(); {
	case depth > maxDepth:
		fail("lists nest deeper than %d", maxDepth)
	case c == '(':
		return r.list(depth)
	case c == '"':
		return r.quoted()
	case c == '{' || c == '~':
		return r.literal()
	}
	return r.atom()
}

// list reads a list. Its members are parted by one space; only two lists may
// stand without one, as addresses and the parts of a multipart do.
func (r *Reader) list(depth int) Value {
	r.expect("(")
	v := Value{Kind: List, List: []Value{}}
	for !r.accept(')') {
		spaced := false
		if n := len(v.List); n > 0 {
			if r.peek() != '(' || v.List[n-1].Kind != List {
				r.expect(" ")
				spaced = true
			}
		}
		m := r.value(depth + 1)
		m.Spaced = spaced
		v.List = append(v.List, m)
	}
	return v
}

// atom reads an atom, a number, a flag, or the name of a FETCH item with its
// section, which may hold spaces, parentheses and strings.
func (r *Reader) atom() Value {
	var b []byte
	if r.peek() == '\\' {
		b = append(b, r.next())
	}
	if len(b) == 1 && r.accept('*') {
		return Value{Text: `\*`}
	}
	for isAtom(r.peek()) {
		c := r.next()
		b = append(b, c)
		if c == '[' {
			b = r.section(b)
		}
	}
	switch text := string(b); text {
	case "", `\`:
		fail("got %q, want an atom", r.peek())
	case "NIL":
		return Value{Kind: Nil, Text: text}
	default:
		return Value{Text: text}
	}
	return Value{}
}

// section reads to the "]" that ends a section.
func (r *Reader) section(b []byte) []byte {
	for {
		switch c := r.peek(); {
		case c == '"' || c == '{':
			v := r.value(0)
			b = append(b, strconv.Quote(v.Text)...)
		case c == ']':
			return append(b, r.next())
		case isAtom(c) || c == ' ' || c == '(' || c == ')':
			b = append(b, r.next())
		default:
			fail("octet %q in a section", c)
		}
	}
}

func (r *Reader) quoted() Value {
	r.expect(`"`)
	var b []byte
	for {
		c := r.next()
		switch {
		case c == '"':
			if !utf8.Valid(b) {
				fail("bad UTF-8 in %q", b)
			}
			return Value{Kind: Quoted, Text: string(b)}
		case c == '\\':
			if c = r.next(); c != '"' && c != '\\' {
				fail("escape of %q", c)
			}
		case c == 0 || c == '\r' || c == '\n' || c >= 0x80 && !r.UTF8:
			fail("octet %q in a quoted string", c)
		}
		b = append(b, c)
	}
}

func (r *Reader) literal() Value {
	binary := r.accept('~')
	r.expect("{")
	n, err := strconv.ParseInt(r.digits(), 10, 64)
	if err != nil || n > maxLiteral {
		fail("literal of %d octets", n)
	}
	if n == 0 {
		fail("empty literal, on which iOS Mail hangs")
	}
	r.expect("}\r\n")
	var b strings.Builder
	if _, err := io.CopyN(&b, r.r, n); err != nil {
		panic(readError{io.ErrUnexpectedEOF})
	}
	if !binary && strings.IndexByte(b.String(), 0) >= 0 {
		fail("NUL in a literal")
	}
	return Value{Kind: Literal, Text: b.String()}
}

func (r *Reader) digits() string {
	var b []byte
	for c := r.peek(); c >= '0' && c <= '9'; c = r.peek() {
		b = append(b, r.next())
	}
	return string(b)
}
