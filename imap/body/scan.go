package body

import (
	"bytes"
	"io"
	"sync"
)

const (
	windowSize  = 64 << 10
	maxBoundary = 1000
	// lookahead is what must be in the window to tell whether a line is a boundary line: dashes, boundary, dashes, CR
	// LF.
	lookahead = 2 + maxBoundary + 2 + 2
)

// A mark is a place in the message: its file offset, and what lies before it in the CRLF view.
type mark struct {
	off, virt, lines int64
}

// to returns the span between two marks.
func (m mark) to(end mark) Span {
	return Span{Off: m.off, End: end.off, Size: end.virt - m.virt, Lines: end.lines - m.lines}
}

var windows = sync.Pool{New: func() any { return new([windowSize]byte) }}

// A scanner reads a message front to back and knows its mark. It holds one window; lines may be longer.
type scanner struct {
	r    io.ReaderAt
	size int64 // where reading ends; cut down if the file turns out shorter
	win  *[windowSize]byte
	i, n int   // win[i:n] is read and not yet consumed
	read int64 // file offset of win[n]
	step int   // octets to ask for in one read; doubles up to the window
	err  error

	at   mark
	last byte // the octet before at; LF at the start
}

// start begins at file offset off. The caller calls release when done.
func (s *scanner) start(r io.ReaderAt, off, end int64, step int) {
	*s = scanner{r: r, size: end, win: windows.Get().(*[windowSize]byte), read: off, step: step, last: '\n'}
	s.at.off = off
}

func (s *scanner) release() {
	if s.win != nil {
		windows.Put(s.win)
		s.win = nil
	}
}

// fill makes at least want octets visible, fewer only at the end of the message, and returns what is visible. A read
// error ends the message; it is kept in err.
func (s *scanner) fill(want int) []byte {
	for s.n-s.i < want && s.read < s.size {
		if s.i > 0 {
			copy(s.win[:], s.win[s.i:s.n])
			s.n -= s.i
			s.i = 0
		}
		ask := min(int64(len(s.win)-s.n), int64(s.step), s.size-s.read)
		if s.step < windowSize {
			s.step *= 2
		}
		n, err := s.r.ReadAt(s.win[s.n:s.n+int(ask)], s.read)
		s.n += n
		s.read += int64(n)
		if int64(n) < ask {
			s.size = s.read
			if err != nil && err != io.EOF {
				s.err = err
			}
		}
	}
	return s.win[s.i:s.n]
}

// advance consumes k visible octets.
func (s *scanner) advance(k int) {
	if k == 0 {
		return
	}
	b := s.win[s.i : s.i+k]
	lf, pairs := countLines(b, s.last)
	s.at.off += int64(k)
	s.at.virt += int64(k) + int64(lf-pairs)
	s.at.lines += int64(lf)
	s.last = b[k-1]
	s.i += k
}

// countLines returns the number of LFs in b and how many of them a CR precedes; last is the octet before b.
func countLines(b []byte, last byte) (lf, pairs int) {
	lf = bytes.Count(b, newline)
	if lf == 0 {
		return 0, 0
	}
	if b[0] == '\n' && last == '\r' {
		pairs++
	}
	cr := bytes.IndexByte(b, '\r')
	if cr < 0 {
		return lf, pairs
	}
	for b = b[cr:]; ; {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return lf, pairs
		}
		if i > 0 && b[i-1] == '\r' {
			pairs++
		}
		b = b[i+1:]
	}
}

var newline = []byte{'\n'}

// line consumes the rest of the line and returns it with its line end. Of a line longer than the window it returns
// pieces, each but the last with whole false; so it does with a last line without line end. At the end of the message
// it returns nothing. The slice is good until the next call.
func (s *scanner) line() (b []byte, whole bool) {
	b = s.win[s.i:s.n]
	k := bytes.IndexByte(b, '\n') + 1
	for k == 0 && len(b) < windowSize {
		old := len(b)
		if b = s.fill(old + 1); len(b) == old {
			break
		}
		k = old + bytes.IndexByte(b[old:], '\n') + 1
		if k == old {
			k = 0
		}
	}
	if k == 0 {
		k = len(b)
		if k == 0 {
			return nil, false
		}
		// A CR at the end of a piece waits for its LF, so that a pair is never torn.
		if b[k-1] == '\r' && k == windowSize {
			k--
		}
		b = b[:k]
		s.at.off += int64(k)
		s.at.virt += int64(k)
		s.last = b[k-1]
		s.i += k
		return b, false
	}
	b = b[:k]
	s.at.off += int64(k)
	s.at.virt += int64(k)
	s.at.lines++
	prev := s.last
	if k > 1 {
		prev = b[k-2]
	}
	if prev != '\r' {
		s.at.virt++
	}
	s.last = '\n'
	s.i += k
	return b, true
}
