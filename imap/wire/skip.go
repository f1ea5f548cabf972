package wire

import (
	"bytes"
	"strconv"
)

// Skip reads away what is left of a command that does not run: the octets of a literal
// that is under way, the line, and each non-synchronizing literal with the line
// that follows it. It never takes an octet of a literal for a command. A
// synchronizing literal that was never asked for is not coming, and ends the
// command. The errors of the command stay for Err.
//
// An error of Skip itself means that no next command can be found: ErrFraming,
// also if more than Limits.Skip octets would have to be read away, or the reader's.
// After a command that was read to its end Skip does nothing.
func (d *Decoder) Skip() error {
	if fatal(d.err) {
		return d.err
	}
	refused := d.err
	d.err = nil
	left := d.lim.Skip
	for !d.ended && d.err == nil {
		if d.pending > 0 {
			d.skipLiteral(&left)
		} else {
			d.skipLine(&left)
		}
	}
	if d.err != nil {
		return d.err
	}
	d.err = refused
	return nil
}

// skipLiteral reads away the pending literal.
func (d *Decoder) skipLiteral(left *int64) {
	if d.pending > *left {
		d.err = framingError("literal of " + strconv.FormatInt(d.pending, 10) + " octets in a refused command")
		return
	}
	*left -= d.pending
	for d.pending > 0 {
		w := d.fill()
		if w == nil {
			return
		}
		n := int(min(d.pending, int64(len(w))))
		d.r.Discard(n)
		d.pending -= int64(n)
	}
}

// skipLine reads away one line, to its end, and records whether a literal follows.
func (d *Decoder) skipLine(left *int64) {
	for {
		w := d.fill()
		if w == nil {
			return
		}
		if int64(len(w)) > *left {
			w = w[:*left]
		}
		n := bytes.IndexByte(w, '\n') + 1
		if n > 0 {
			w = w[:n]
		}
		d.tail.steps(w)
		d.consume(len(w))
		*left -= int64(len(w))
		if n > 0 {
			break
		}
		if *left <= 0 {
			d.err = framingError("refused command does not end")
			return
		}
	}
	h := d.tail
	d.tail = header{}
	if h.state == headerDone && h.nonSync {
		d.framed(h)
		return
	}
	d.ended = true
}

// Line reads a bare line of at most max octets, line end not counted and not returned,
// where no command is expected: the DONE of IDLE (RFC 2177), whose next command may
// be in the same packet. It stands outside Begin and End: it first forgets what the last command
// left. If the line is too long, or ends in a literal's header (a
// command sent without DONE), it is not Ended, and the caller must Skip.
func (d *Decoder) Line(max int) string { return string(d.bareLine(max)) }

// Base64Line reads a line of AUTHENTICATE (RFC 9051 section 6.2.2) as Line does. It is
// returned as it is, base64 not decoded; a single "*" cancels. The caller owns line.
func (d *Decoder) Base64Line(max int) (line []byte, cancel bool) {
	line = d.bareLine(max)
	if len(line) == 1 && line[0] == '*' && d.err == nil {
		return nil, true
	}
	return line, false
}

// bareLine is Line. It counts against max instead of Limits.Line.
func (d *Decoder) bareLine(limit int) []byte {
	d.Begin()
	line := []byte{}
	for d.err == nil {
		w := d.fill()
		n := bytes.IndexByte(w, '\n') + 1
		if n > 0 {
			w = w[:n]
		}
		if room := limit + len("\r\n") - len(line); len(w) > room {
			w, n = w[:room], 0
		}
		line = append(line, w...)
		if w != nil {
			d.consume(len(w))
		}
		if n > 0 {
			return d.endLine(line, limit)
		}
		if len(line) == limit+len("\r\n") {
			d.tail.steps(line)
			d.FailText("TOOBIG", "line too long")
		}
	}
	return nil
}

// endLine cuts the line end off and records where the next command begins.
func (d *Decoder) endLine(line []byte, limit int) []byte {
	var h header
	if h.steps(line); h.state == headerDone && h.nonSync {
		d.framed(h)
	} else {
		d.ended = true
	}
	line = bytes.TrimSuffix(line[:len(line)-1], []byte{'\r'})
	if len(line) > limit {
		d.FailText("TOOBIG", "line too long")
	}
	if d.err != nil {
		return nil
	}
	return line
}
