package body

// A lexer reads the tokens of RFC 5322 section 3.2 and RFC 2045 section 5.1 from one header field, more generously
// than they ask: octets from 128 on are letters, a NUL becomes U+FFFD.
type lexer struct {
	b []byte
	i int
	// comment is the text of the comment skipped last, if keep is set.
	comment []byte
	keep    bool
	// name and value are buffers for tokens.
	name, value []byte
}

// A verdict says how reading a token ended.
type verdict int8

const (
	bad  verdict = -1 // the token is broken; the place is somewhere inside it
	end  verdict = 0  // the token reaches the end of the field
	more verdict = 1  // the token is read, and so is the white space and the comments behind it; more follows
)

const replacement = "\uFFFD"

func (l *lexer) done() bool { return l.i >= len(l.b) }

// is reports whether the next octet is c.
func (l *lexer) is(c byte) bool { return l.i < len(l.b) && l.b[l.i] == c }

func (l *lexer) rest() verdict {
	if l.done() {
		return end
	}
	return more
}

// specials are what neither atoms nor tokens hold; dots are looked at apart.
var specials = [256]bool{
	'(': true, ')': true, '<': true, '>': true, '@': true, ',': true, ';': true, ':': true, '\\': true, '"': true,
	'[': true, ']': true, 0x7f: true,
}

func isAtext(c byte) bool { return c > ' ' && c != '.' && !specials[c] }

func isAtextOrDot(c byte) bool { return c > ' ' && !specials[c] }

// isToken accepts RFC 2045's tokens.
func isToken(c byte) bool {
	return c > ' ' && c != '/' && c != '?' && c != '=' && !specials[c]
}

// skip skips white space and comments (CFWS).
func (l *lexer) skip() verdict {
	for l.i < len(l.b) {
		switch l.b[l.i] {
		case ' ', '\t', '\r', '\n':
			l.i++
		case '(':
			if l.skipComment() == bad {
				return bad
			}
		default:
			return more
		}
	}
	return end
}

// skipComment skips a comment, which may hold others, and keeps its text, quoted pairs resolved and folds joined.
func (l *lexer) skipComment() verdict {
	l.comment = l.comment[:0]
	sure, depth := 0, 0
	for ; l.i < len(l.b); l.i++ {
		c := l.b[l.i]
		switch c {
		case '(':
			if depth++; depth == 1 {
				continue
			}
		case ')':
			if depth--; depth == 0 {
				l.i++
				return l.rest()
			}
		}
		if l.keep {
			l.comment, sure = l.text(l.comment, sure)
		} else if c == '\\' && l.i+1 < len(l.b) {
			l.pair()
		}
	}
	l.comment = l.comment[:sure]
	return bad
}

// pair reads a quoted pair whose second octet exists: it returns that octet and stands on it. A backslash before CR,
// LF or NUL (obsolete, RFC 5322 section 4.1) stands for itself.
func (l *lexer) pair() byte {
	switch next := l.b[l.i+1]; next {
	case '\r', '\n', 0:
		return '\\'
	default:
		l.i++
		return next
	}
}

// text appends the octet of a comment or quoted string that stands here: the second of a quoted pair; no line end of
// a fold. sure is how much of dst counts if the text does not end: what stands before the last fold, quoted pair or
// NUL.
func (l *lexer) text(dst []byte, sure int) ([]byte, int) {
	switch c := l.b[l.i]; c {
	case '\n':
		return dst, len(dst)
	case '\r':
		if l.i+1 < len(l.b) && l.b[l.i+1] == '\n' {
			return dst, sure
		}
		return append(dst, c), sure
	case 0:
		dst = append(dst, replacement...)
		return dst, len(dst)
	case '\\':
		if l.i+1 == len(l.b) {
			return dst, sure
		}
		if c = l.pair(); c != '\\' || l.b[l.i-1] == '\\' {
			sure = len(dst)
		}
		return append(dst, c), sure
	default:
		return append(dst, c), sure
	}
}

// word appends a run of octets that in accepts, and skips what follows.
func (l *lexer) word(dst []byte, in func(byte) bool) ([]byte, verdict) {
	start := l.i
	for l.i < len(l.b) && in(l.b[l.i]) {
		l.i++
	}
	dst = append(dst, l.b[start:l.i]...)
	if l.done() {
		return dst, end
	}
	return dst, l.skip()
}

// atom appends an atom; it is bad if there is none.
func (l *lexer) atom(dst []byte) ([]byte, verdict) {
	if l.done() || !isAtext(l.b[l.i]) {
		return dst, bad
	}
	return l.word(dst, isAtext)
}

// token appends a MIME token, which may be empty.
func (l *lexer) token(dst []byte) ([]byte, verdict) { return l.word(dst, isToken) }

// dotAtom appends atoms with dots between them; white space and comments around the dots are dropped.
func (l *lexer) dotAtom(dst []byte) ([]byte, verdict) {
	for {
		var v verdict
		if dst, v = l.atom(dst); v <= end {
			return dst, v
		}
		if !l.is('.') {
			return dst, more
		}
		l.i++
		dst = append(dst, '.')
		if v = l.skip(); v <= end {
			return dst, bad
		}
	}
}

// localPart appends the local part of an address: as dotAtom, but dots may stand anywhere.
func (l *lexer) localPart(dst []byte) ([]byte, verdict) {
	v := bad
	for {
		for l.is('.') {
			dst = append(dst, '.')
			l.i++
			if l.done() {
				return dst, end
			}
			v = more
		}
		if l.is('@') {
			return dst, v
		}
		if dst, v = l.atom(dst); v != more || !l.is('.') {
			return dst, v
		}
	}
}

// quoted appends the text of the quoted string that begins here.
func (l *lexer) quoted(dst []byte) ([]byte, verdict) {
	sure := len(dst)
	for l.i++; l.i < len(l.b); l.i++ {
		if l.b[l.i] == '"' {
			l.i++
			return dst, l.skip()
		}
		dst, sure = l.text(dst, sure)
	}
	return dst[:sure], bad
}

// phrase appends the words of a display name, one space between them. An empty phrase is none.
func (l *lexer) phrase(dst []byte) ([]byte, verdict) {
	if l.done() {
		return dst, end
	}
	if l.is('.') {
		return dst, bad
	}
	for {
		var v verdict
		if l.is('"') {
			dst, v = l.quoted(dst)
		} else {
			dst, v = l.word(dst, isAtextOrDot)
		}
		if v <= end {
			return dst, v
		}
		if c := l.b[l.i]; c != '"' && !isAtextOrDot(c) {
			return dst, more
		}
		dst = append(dst, ' ')
	}
}

// domain appends what follows the @ that stands here.
func (l *lexer) domain(dst []byte) ([]byte, verdict) {
	l.i++
	if l.skip() <= end {
		return dst, bad
	}
	if l.is('[') {
		return l.domainLiteral(dst)
	}
	return l.dotAtom(dst)
}

// domainLiteral appends [...] with its brackets and backslashes.
func (l *lexer) domainLiteral(dst []byte) ([]byte, verdict) {
	dst = append(dst, '[')
	for l.i++; l.i < len(l.b); l.i++ {
		switch l.b[l.i] {
		case '[':
			return dst, bad
		case ']':
			l.i++
			return append(dst, ']'), l.skip()
		case '\\':
			if l.i+1 < len(l.b) {
				dst = append(dst, '\\')
				if c := l.pair(); c != '\\' || l.b[l.i-1] == '\\' {
					dst = append(dst, c)
				}
			}
		default:
			dst, _ = l.text(dst, 0)
		}
	}
	return dst, bad
}
