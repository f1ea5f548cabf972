package main

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A value is a part of a response: a word, a string or a list.
type value struct {
	text string // of a word; of a string, between quotes
	list []value
	open bool // it is a list
}

// kept are the response codes that both servers must send alike. Others are
// an extension's that only one of them has.
var kept = []string{"UIDVALIDITY", "UIDNEXT", "PERMANENTFLAGS", "UNSEEN", "READ-WRITE", "READ-ONLY", "APPENDUID", "COPYUID"}

// lines returns what an answer says, in a form in which two answers that mean
// the same are the same, in the order of their text.
func (a answer) lines() ([]string, error) {
	var lines []string
	var expunges []int
	p := &parser{rest: a.raw}
	for len(p.rest) > 0 {
		start := p.rest
		line, number, err := p.response(a.tag)
		if err != nil {
			return nil, fmt.Errorf("%w in %.200q", err, start)
		}
		if number > 0 {
			expunges = append(expunges, number)
		} else if line != "" {
			lines = append(lines, line)
		}
	}
	if len(expunges) > 0 {
		lines = append(lines, "EXPUNGED "+expunged(expunges))
	}
	slices.Sort(lines)
	return lines, nil
}

// A parser takes responses from the front of rest.
type parser struct{ rest []byte }

// response takes one response. It returns its line, which is "" if the response
// says nothing that counts, or the number of an EXPUNGE.
func (p *parser) response(tag string) (line string, expunge int, err error) {
	text, _, _ := bytes.Cut(p.rest, crlf)
	prefix := "* "
	if bytes.HasPrefix(text, []byte(tag)) {
		prefix = tag
	} else if !bytes.HasPrefix(text, []byte(prefix)) {
		return "", 0, fmt.Errorf("neither tagged nor untagged")
	}
	p.rest = p.rest[len(prefix):]
	if first, _, _ := strings.Cut(string(text[len(prefix):]), " "); first == "OK" {
		line, err := p.status()
		if prefix == tag {
			line = "done " + line
		}
		return line, 0, err
	}
	var values []value
	for !bytes.HasPrefix(p.rest, crlf) {
		v, err := p.value()
		if err != nil {
			return "", 0, err
		}
		values = append(values, v)
		p.rest = bytes.TrimPrefix(p.rest, []byte(" "))
	}
	p.rest = p.rest[2:]
	if len(values) == 2 && values[1].text == "EXPUNGE" {
		n, err := strconv.Atoi(values[0].text)
		return "", n, err
	}
	even(values)
	return value{list: values, open: true}.String(), 0, nil
}

// status takes an OK and returns its code.
func (p *parser) status() (string, error) {
	text, rest, found := bytes.Cut(p.rest, crlf)
	if !found {
		return "", fmt.Errorf("no end of line")
	}
	p.rest = rest
	code, ok := strings.CutPrefix(string(text), "OK [")
	if !ok {
		return "", nil
	}
	code, _, _ = strings.Cut(code, "]")
	name, args, _ := strings.Cut(code, " ")
	switch {
	case !slices.Contains(kept, name):
		return "", nil
	case name == "PERMANENTFLAGS":
		flags := strings.Fields(strings.Trim(args, "()"))
		slices.Sort(flags)
		args = strings.Join(flags, " ")
	case name == "UIDVALIDITY" && args != validity:
		args = "of the server's own"
	case name == "APPENDUID" || name == "COPYUID":
		_, args, _ = strings.Cut(args, " ") // without the UIDVALIDITY
	}
	return strings.TrimSpace(name + " " + args), nil
}

// value takes one value.
func (p *parser) value() (value, error) {
	if len(p.rest) == 0 {
		return value{}, fmt.Errorf("unexpected end")
	}
	switch p.rest[0] {
	case '"':
		return p.quoted()
	case '{':
		return p.literal()
	case '(':
		return p.listed()
	}
	depth, i := 0, 0 // of the brackets in BODY[HEADER.FIELDS (SUBJECT)]
	for ; i < len(p.rest); i++ {
		c := p.rest[i]
		if c == '[' {
			depth++
		} else if c == ']' {
			depth--
		} else if c == '\r' || depth == 0 && (c == ' ' || c == '(' || c == ')') {
			break
		}
	}
	if i == 0 {
		return value{}, fmt.Errorf("no word at %.20q", p.rest)
	}
	v := value{text: strings.ToUpper(string(p.rest[:i]))}
	p.rest = p.rest[i:]
	return v, nil
}

func (p *parser) quoted() (value, error) {
	var b strings.Builder
	b.WriteByte('"')
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; c {
		case '"':
			b.WriteByte('"')
			p.rest = p.rest[i+1:]
			return value{text: b.String()}, nil
		case '\\':
			i++
			if i < len(p.rest) {
				b.WriteByte(p.rest[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return value{}, fmt.Errorf("no end of a string")
}

func (p *parser) literal() (value, error) {
	head, rest, _ := bytes.Cut(p.rest, crlf)
	n, err := strconv.Atoi(string(bytes.Trim(head, "{}")))
	if err != nil || n > len(rest) {
		return value{}, fmt.Errorf("bad literal %q", head)
	}
	p.rest = rest[n:]
	return value{text: `"` + string(rest[:n]) + `"`}, nil
}

func (p *parser) listed() (value, error) {
	v := value{open: true}
	p.rest = p.rest[1:]
	for {
		switch {
		case len(p.rest) == 0:
			return v, fmt.Errorf("no end of a list")
		case p.rest[0] == ')':
			p.rest = p.rest[1:]
			return v, nil
		case p.rest[0] == ' ':
			p.rest = p.rest[1:]
			continue
		}
		item, err := p.value()
		if err != nil {
			return v, err
		}
		v.list = append(v.list, item)
	}
}

// even puts in order what a server may send in any: the flags in FLAGS, the
// pairs of FETCH and STATUS.
func even(response []value) {
	for i, v := range response {
		if !v.open {
			continue
		}
		switch {
		case i == 1 && response[0].text == "LIST":
			// What \Marked means is for a server to say (RFC 9051 section 7.3.1).
			response[i].list = slices.DeleteFunc(v.list, func(f value) bool { return f.text == `\MARKED` || f.text == `\UNMARKED` })
		case i > 0 && response[i-1].text == "FLAGS":
			slices.SortFunc(v.list, byText)
		case i > 1 && (response[i-1].text == "FETCH" || response[i-2].text == "STATUS"):
			even(v.list)
			pairs := slices.Collect(slices.Chunk(v.list, 2))
			slices.SortFunc(pairs, func(a, b []value) int { return byText(a[0], b[0]) })
			response[i].list = slices.Concat(pairs...)
		}
	}
}

func byText(a, b value) int { return strings.Compare(a.text, b.text) }

// String writes a value; a list has no parentheses at its outermost level only
// where it is a whole response.
func (v value) String() string {
	var b strings.Builder
	v.write(&b)
	return b.String()
}

func (v value) write(b *strings.Builder) {
	if !v.open {
		b.WriteString(v.text)
		return
	}
	b.WriteByte('(')
	for i, item := range v.list {
		if i > 0 {
			b.WriteByte(' ')
		}
		item.write(b)
	}
	b.WriteByte(')')
}

// expunged returns the numbers that the expunged messages had before the first
// of them went.
func expunged(numbers []int) string {
	left := make([]int, slices.Max(numbers)+len(numbers))
	for i := range left {
		left[i] = i + 1
	}
	var gone []int
	for _, n := range numbers {
		gone = append(gone, left[n-1])
		left = slices.Delete(left, n-1, n)
	}
	slices.Sort(gone)
	return fmt.Sprint(gone)
}

// difference returns the first difference of two lists of lines, or "".
func difference(names [2]string, a, b []string) string {
	for i := range max(len(a), len(b)) {
		x, y := "nothing", "nothing"
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			at := 0
			for at < min(len(x), len(y)) && x[at] == y[at] {
				at++
			}
			from := max(0, at-60)
			return fmt.Sprintf("%s says %.160q where %s says %.160q (octet %d of line %d)", names[0], x[from:], names[1], y[from:], at, i+1)
		}
	}
	return ""
}
