package body

import (
	"bytes"
	"io"
)

// Parse reads a message of size octets and returns its tree. It reads once, front to back, and holds no more than a
// window of it. Malformed input is no error: the only errors are r's, and io.EOF is none of them (a message shorter
// than size is what it is).
func Parse(r io.ReaderAt, size int64, lim Limits) (*Part, error) {
	p := parser{lim: lim.filled()}
	p.mem = p.lim.Memory
	p.start(r, 0, size, 32<<10)
	defer p.release()
	root := p.tree()
	return root, p.err
}

// ParseHeader reads only the header of a message: enough for ENVELOPE, BODY[HEADER] and HEADER.FIELDS.
func ParseHeader(r io.ReaderAt, size int64, lim Limits) (Span, *Envelope, error) {
	p := parser{lim: lim.filled()}
	p.mem = p.lim.Memory
	p.start(r, 0, size, 4<<10)
	defer p.release()
	root := p.open(nil)
	p.header()
	return root.Header, root.Envelope, p.err
}

// A boundary is an open delimiter: text begins the lines that separate the children of stack[depth].
type boundary struct {
	text  []byte
	depth int
}

// A node is an open part, from the root down to the part that is being read.
type node struct {
	part  *Part
	start mark // of the header, then of the body
	// digest: a part without Content-Type is a message here. Of the part itself while its header is read, of its
	// children after.
	digest bool
	isMIME bool // Content-* fields count even without MIME-Version
}

type parser struct {
	scanner
	lim    Limits
	mem    int // octets of header values that may still be kept
	parts  int
	stack  []node
	bounds []boundary // outermost first
	value  []byte     // the header field being collected, unfolded but for its line ends
	lex    lexer      // for its buffers

	// cut is where a part ends whose successor's boundary line begins at the scanner: before the line end in front of
	// it.
	cut mark
	// eol is the mark before the last line end that was consumed.
	eol mark
}

const none = -1

// tree reads the whole message.
func (p *parser) tree() *Part {
	root := p.open(nil)
	part := root
	for part != nil {
		hit := p.header()
		if part.Kind == Message {
			if part = p.embedded(part, hit); part != nil {
				continue
			}
		} else if hit == none {
			hit = p.body()
		}
		part = p.next(hit)
	}
	p.close(0, p.at)
	return root
}

// open makes the scanner's place the start of a new part inside the innermost open one.
func (p *parser) open(parent *Part) *Part {
	part := new(Part)
	n := node{part: part, start: p.at}
	if parent != nil {
		parent.Parts = append(parent.Parts, part)
		if parent.Kind == Multipart {
			n.isMIME = true
			n.digest = p.stack[len(p.stack)-1].digest
		}
	}
	p.parts++
	p.stack = append(p.stack, n)
	return part
}

// close ends the parts deeper than depth at m.
func (p *parser) close(depth int, m mark) {
	for i := len(p.stack) - 1; i >= depth; i-- {
		n := &p.stack[i]
		n.part.Body = n.start.to(m)
	}
	p.stack = p.stack[:depth]
}

// embedded opens the message inside a message/rfc822 part whose header is read. If a boundary ended that header, the
// message is empty: embedded finishes it and returns nil.
func (p *parser) embedded(part *Part, hit int) *Part {
	child := p.open(part)
	if hit == none {
		return child
	}
	n := &p.stack[len(p.stack)-1]
	child.Envelope = new(Envelope)
	p.classify(n, &header{})
	child.Header = p.cut.to(p.cut)
	n.start = p.cut
	return nil
}

// next goes on at the line of boundary hit: it closes the parts that end there and opens the one that begins, or
// reads on through an epilogue. It returns nil at the end of the message.
func (p *parser) next(hit int) *Part {
	for hit != none {
		b := p.bounds[hit]
		p.close(b.depth+1, p.cut)
		w := p.fill(lookahead)
		last := bytes.HasPrefix(w[2+len(b.text):], dashes)
		if last {
			hit--
		}
		p.bounds = p.bounds[:hit+1]
		whole := false
		for !whole {
			var line []byte
			if line, whole = p.line(); line == nil {
				return nil
			}
		}
		if !last {
			return p.open(p.stack[b.depth].part)
		}
		hit = p.body()
	}
	return nil
}

var dashes = []byte("--")

// match returns the open boundary that begins the line w, or none. Of several the longest counts, as RFC 2046 section
// 5.1.1 lets anything follow a boundary, and of equal ones the innermost; one that the line consists of (with or
// without closing dashes) is not looked beyond.
func (p *parser) match(w []byte) int {
	if len(p.bounds) == 0 || !bytes.HasPrefix(w, dashes) || p.parts >= p.lim.Parts {
		return none
	}
	w = w[2:]
	n := len(w)
	if i := bytes.IndexByte(w, '\n'); i >= 0 {
		n = i
		if n > 0 && w[n-1] == '\r' {
			n--
		}
	}
	best, bestLen := none, -1
	for i := len(p.bounds) - 1; i >= 0; i-- {
		t := p.bounds[i].text
		if len(t) > n || len(t) <= bestLen || len(t) > 0 && t[0] != w[0] || !bytes.HasPrefix(w, t) {
			continue
		}
		best, bestLen = i, len(t)
		if len(t) == n || len(t) == n-2 && len(t) > 0 && bytes.HasPrefix(w[n-2:], dashes) {
			break
		}
	}
	return best
}

// body reads from the start of a line up to a line that begins with an open boundary, and returns which; none is the
// end of the message. The scanner stays at that line, and cut is the end of what was read.
func (p *parser) body() int {
	begin := p.at.off
	for atLine := true; ; {
		w := p.fill(lookahead)
		if len(w) == 0 {
			return none
		}
		if atLine {
			if hit := p.match(w); hit != none {
				p.cut = p.at
				if p.at.off > begin {
					p.cut = p.eol
				}
				return hit
			}
		}
		i := none
		if len(p.bounds) > 0 {
			i = bytes.Index(w, candidate)
		}
		atLine = i >= 0
		switch {
		case i >= 0:
			before := p.last
			if i > 0 {
				before = w[i-1]
			}
			p.advance(i + 1)
			p.lineEnded(before == '\r')
		case p.read >= p.size:
			p.advance(len(w))
		default:
			// "\n" or "\n-" at the end of what is visible may go on as "\n--".
			p.advance(len(w) - 2)
		}
	}
}

var candidate = []byte("\n--")

// lineEnded sets eol: an LF has just been consumed.
func (p *parser) lineEnded(cr bool) {
	p.eol = mark{off: p.at.off - 1, virt: p.at.virt - 2, lines: p.at.lines - 1}
	if cr {
		p.eol.off--
	}
}
