package maildir

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	gomaildir "github.com/emersion/go-maildir"

	"imapd/maildir/keywords"
)

// A file name is base[":" info]. The base is everything before the first ':'
// and never changes; it is the key of the UID list. The info that counts
// begins at the last ':' and is "2," with flag letters in ASCII order, perhaps
// followed by ',' and what another program put there. Letters that mean nothing
// to us, and an info of another kind, are kept.

// systemLetters are the letters of the system flags, in the order of the bits.
const systemLetters = string(rune(gomaildir.FlagSeen)) + string(rune(gomaildir.FlagReplied)) +
	string(rune(gomaildir.FlagFlagged)) + string(rune(gomaildir.FlagTrashed)) + string(rune(gomaildir.FlagDraft))

// baseLen returns the length of the base of a file name.
func baseLen[T ~string | ~[]byte](name T) int {
	for i := range len(name) {
		if name[i] == ':' {
			return i
		}
	}
	return len(name)
}

// flagLetters returns where the flag letters of name stand, empty without an
// info of kind 2.
func flagLetters[T ~string | ~[]byte](name T) (from, to int) {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] != ':' {
			continue
		}
		if i+2 >= len(name) || name[i+1] != '2' || name[i+2] != ',' {
			break
		}
		from, to = i+3, i+3
		for to < len(name) && name[to] != ',' {
			to++
		}
		return from, to
	}
	return 0, 0
}

// parseFlags returns the flags in a file name. A keyword letter x is keyword
// x-'a' of the mailbox.
func parseFlags[T ~string | ~[]byte](name T) Flags {
	var f Flags
	from, to := flagLetters(name)
	for _, c := range []byte(name[from:to]) {
		f |= letterFlag(c)
	}
	return f
}

func letterFlag(c byte) Flags {
	if 'a' <= c && c <= 'z' {
		return keywordFlag(int(c - 'a'))
	}
	if i := strings.IndexByte(systemLetters, c); i >= 0 {
		return 1 << i
	}
	return 0
}

// withFlags returns name with exactly those of the flags f that a name can hold.
// Letters that are no flags of
// ours, and all that follows them, stay as they are and in their order.
func withFlags(name string, f Flags) string {
	ours := make([]byte, 0, firstKeyword+keywords.Letters)
	for i := range systemLetters {
		if f&(1<<i) != 0 {
			ours = append(ours, systemLetters[i])
		}
	}
	slices.Sort(ours)
	for i := range keywords.Letters {
		if f&keywordFlag(i) != 0 {
			ours = append(ours, 'a'+byte(i))
		}
	}
	from, to := flagLetters(name)
	b := make([]byte, 0, len(name)+len(ours)+3)
	if b = append(b, name[:from]...); from == 0 {
		b = append(append(b, name...), ":2,"...)
		return string(append(b, ours...))
	}
	for _, c := range []byte(name[from:to]) {
		if letterFlag(c) != 0 {
			continue
		}
		for len(ours) > 0 && ours[0] < c {
			b, ours = append(b, ours[0]), ours[1:]
		}
		b = append(b, c)
	}
	return string(append(append(b, ours...), name[to:]...))
}

// hasInfo reports whether a file may go to cur/ under the name it has.
func hasInfo(name string) bool { return strings.IndexByte(name, ':') >= 0 }

// sizeField returns the number in the field ",key=" of a base name, -1 without
// one. It is what somebody claimed, not a fact.
func sizeField(base []byte, key string) int64 {
	i := bytes.Index(base, []byte(key))
	if i < 0 {
		return -1
	}
	digits := base[i+len(key):]
	if j := bytes.IndexByte(digits, ','); j >= 0 {
		digits = digits[:j]
	}
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// arrivalOrder compares base names by the time of delivery that they hold:
// seconds, then the microseconds after 'M', then the name. New messages are
// given UIDs in this order.
func arrivalOrder(a, b string) int {
	as, am := arrivalOf(a)
	bs, bm := arrivalOf(b)
	switch {
	case as != bs:
		return cmpInt(as, bs)
	case am != bm:
		return cmpInt(am, bm)
	}
	return strings.Compare(a, b)
}

func cmpInt(a, b int64) int {
	if a < b {
		return -1
	}
	return 1
}

func arrivalOf(base string) (secs, usecs int64) {
	secs, rest := leadingNumber(base)
	if strings.HasPrefix(rest, ".M") {
		usecs, _ = leadingNumber(rest[2:])
	}
	return secs, usecs
}

func leadingNumber(s string) (n int64, rest string) {
	i := 0
	for i < len(s) && i < 18 && '0' <= s[i] && s[i] <= '9' {
		n = n*10 + int64(s[i]-'0')
		i++
	}
	return n, s[i:]
}
