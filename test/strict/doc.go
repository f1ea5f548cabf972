// Package strict reads what an IMAP server sends as a client would that takes
// RFC 3501 and RFC 9051 by the letter: every line ends in CRLF, every literal
// has the length announced, every response has the shape that the grammar
// gives it, and the numbers of messages make sense one after the other. What
// servers are forgiven by kinder clients is an error here, so that tests can
// send anything and still know that the answers are right.
//
// A Reader reads and checks single responses, a Mirror what they mean together.
package strict

import "fmt"

// A Kind says what a Value is.
type Kind uint8

// The kinds.
const (
	Atom Kind = iota // also numbers, flags, and sections like BODY[1.MIME]<0>
	Nil
	Quoted
	Literal
	List
)

// A Value is one piece of a response.
type Value struct {
	Kind   Kind
	Text   string  // of all but List
	List   []Value // of List
	Spaced bool    // a space stands before it
}

// A Response is one response of the server.
type Response struct {
	Tag    string // "*", "+" or the command's
	Name   string // OK, NO, BAD, BYE, PREAUTH, EXISTS, FETCH, LIST ...; "" after "+"
	Number uint32 // before EXISTS, RECENT, EXPUNGE, FETCH
	Code   []Value
	Text   string  // of OK, NO, BAD, BYE, PREAUTH and "+"
	Args   []Value // of the others
}

// HasCode reports whether the response carries this response code.
func (r *Response) HasCode(name string) bool {
	return len(r.Code) > 0 && r.Code[0].Text == name
}

func (r *Response) String() string {
	if r.Number > 0 {
		return fmt.Sprintf("%s %d %s", r.Tag, r.Number, r.Name)
	}
	return fmt.Sprintf("%s %s %v %s", r.Tag, r.Name, r.Code, r.Text)
}
