package imap

import (
	"bytes"
	"strings"
)

// What telemetry gets to see of a session.
//
// The problem is that a log which an administrator reads, and may pass on, must
// never hold a password, while everything else that a client sends after its
// login belongs there; and that what comes out of the socket is no command yet.
// One Read may end in the middle of LOGIN's password or hold a hundred commands, what
// was sent in the same packet as the login was read before there was a log, and only
// the decoder knows which octets are a literal's. So the log gets input not when
// it is read but when it is used: a copy of what was read waits in held until the
// decoder has taken it, and the beginning of each command waits until its name
// is known. Rejected: to look for commands in the stream a second time, which
// would be one more parser to disagree with the first.
//
// What is a credential: whatever stands behind LOGIN and AUTHENTICATE, in a command
// that is refused (after the login they all are) or is none for want of a tag, or in
// what is left of another that is refused;
// the lines behind such a command that are no command either, because a client may
// send literals and responses without waiting; and any line of one word that is
// no command's name, which is what a late response of AUTHENTICATE looks like. The
// server's answer to such a line begins with it, as a tag, so that goes too.
type record struct {
	tap  Tap    // nil until login and without telemetry
	held []byte // the last that was read of input, not told yet; the tail is in r still
	mode recording
	all  bool // of the command is a credential, for all we know: its tag too
	torn bool // the command began, or lost a part, while nothing was logged
	wary bool // credentials may follow as lines of their own
	veil int  // octets of out, from the beginning, that are not told
}

// A recording says what becomes of input that has been used.
type recording uint8

const (
	showing  recording = iota // it is told
	holding                   // it is not known yet what it is
	doubting                  // it is what is left of a refused command
	hiding                    // it is a credential
)

// heldMost is how much is held back of a command that has no name yet.
const heldMost = 2 * bufferSize

// mask stands for what is not told.
const mask = "***"

// observe has t see everything from here on, that which was read before included.
func (l *link) observe(t Tap) {
	l.record = record{tap: t}
	if t == nil || l.r == nil || !t.On() {
		return
	}
	rest, _ := l.r.Peek(l.r.Buffered()) // they are there
	l.held = bytes.Clone(rest)
}

// heard takes p, which has just been read.
func (l *link) heard(p []byte) {
	switch {
	case l.tap == nil:
	case l.tap.On():
		l.held = append(l.held, p...)
	default:
		l.held, l.torn = nil, true
	}
}

// used returns how much of held has been used.
func (l *link) used() int {
	n := len(l.held)
	if l.r != nil {
		n -= l.r.Buffered()
	}
	return max(n, 0) // the log may have begun in the middle
}

// tell tells of the input that was used, as far as that may be told now.
func (l *link) tell() {
	n := l.used()
	if n == 0 {
		return
	}
	switch l.mode {
	case holding, doubting:
		if n > heldMost {
			l.decide()
		}
		return
	case showing:
		l.tap.In(l.held[:n])
	}
	l.forget(n)
}

// forget drops the first n octets of held.
func (l *link) forget(n int) {
	l.held = l.held[:copy(l.held, l.held[n:])]
	if cap(l.held) > keepOut {
		l.held = bytes.Clone(l.held)
	}
}

// hold has what follows wait until show, hide or finish.
func (l *link) hold() {
	if l.tap == nil {
		return
	}
	l.tell()
	l.mode, l.all, l.torn = holding, false, !l.tap.On()
}

// named decides what becomes of a command that begins with tag and name. Where
// neither was found it waits for the end of the line.
func (l *link) named(tag, name string, known bool) {
	switch {
	case l.mode != holding:
	case secret(tag):
		l.hide(0)
	case secret(name[strings.LastIndexByte(name, ' ')+1:]): // also UID LOGIN
		l.hide(l.used())
	case known:
		l.mode, l.wary = showing, false
	case l.wary:
		l.hide(0)
		l.all = true
	case name != "":
		l.mode = showing
	}
}

// show has what was held be told.
func (l *link) show() { l.mode = showing }

// hide tells of the first n octets that are held, and of nothing more until finish.
func (l *link) hide(n int) {
	if used := l.used(); used > 0 {
		text := bytes.TrimRight(l.held[:n:n], " \r\n")
		if len(text) > 0 {
			text = append(bytes.Clone(text), ' ')
		}
		l.tap.In(append(text, mask+"\r\n"...))
		l.forget(used)
	}
	l.mode, l.wary = hiding, true
}

// doubt has what is left of a command that is refused wait until finish.
func (l *link) doubt() {
	if l.tap != nil && l.mode == showing {
		l.tell()
		l.mode = doubting
	}
}

// finish ends what hold has begun: the command is over.
func (l *link) finish() {
	if l.mode == holding || l.mode == doubting {
		l.decide()
	}
	if l.tap != nil {
		l.tell()
		l.mode = showing
	}
}

// decide judges by its words what no command has taken.
func (l *link) decide() {
	text := l.held[:l.used()]
	words := bytes.Fields(text)
	if l.torn || l.wary || l.mode == holding && len(words) == 1 && !harmless(words[0]) {
		l.hide(0)
		l.all = true
		return
	}
	for _, w := range words {
		if secret(string(bytes.Trim(w, `"()`))) {
			end := bytes.Index(text, w) + len(w)
			l.hide(end)
			return
		}
	}
	l.mode = showing
}

// conceal keeps the first n octets of the answer that comes next from the log, if
// all of the command is.
//
//go:noinline
func (l *link) conceal(n int) {
	if l.all {
		_ = l.flush() // the error is kept
		l.veil = n
	}
}

// told returns what the log gets of b, which was sent.
func (l *link) told(b []byte) []byte {
	if l.veil == 0 || l.veil > len(b) {
		return b
	}
	b = append([]byte(mask), b[l.veil:]...)
	l.veil = 0
	return b
}

// secret tells whether a command of that name has a password behind it.
func secret(name string) bool {
	return strings.EqualFold(name, "LOGIN") || strings.EqualFold(name, "AUTHENTICATE")
}

// harmless tells whether word, which stands alone, may be told: it is a command's
// name without a tag.
func harmless(word []byte) bool {
	upper := strings.ToUpper(string(word))
	return upper == "DONE" || commands.find(upper) != nil
}
