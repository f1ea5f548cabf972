package sasl

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"imapd/control/config"
)

// A Denied is the error of a login whose password is right while Cyrus's cyr_deny(8)
// keeps the user out (NO [AUTHORIZATIONFAILED]). Its text is that of Cyrus's log line,
// behind "SASL(-14): ".
type Denied struct {
	User, Service string
	Message       string // for the client; empty where the administrator gave none
}

func (d *Denied) Error() string {
	return "authorization failure: user '" + d.User + "' is denied access to service '" + d.Service + "'"
}

// A denyList is the file that cyr_deny keeps, a flat database of Cyrus:
//
//	user<TAB>2<TAB>services<TAB>message<LF>
//
// where all but the first TAB are written as the octets 0xff and 0x89. It is read at
// each login, so that a change takes effect at once. One that is not there denies
// nobody; while one that is there cannot be read nobody logs in.
type denyList struct {
	file    string // empty: none
	service string
	open    config.Opener
}

// Sizes in octets that a denyList and a line of it may have.
const (
	maxDenyList = 64 << 20
	maxDenyLine = 1 << 20
)

// check returns a Denied for a user whom the list keeps out of the service.
func (l denyList) check(user string) error {
	if l.file == "" {
		return nil
	}
	f, err := l.open.Open(l.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil && info.Size() > maxDenyList {
		err = fmt.Errorf("larger than %d octets", maxDenyList)
	}
	var value []byte
	if err == nil {
		value, err = findFlat(io.LimitReader(f, maxDenyList), user)
	}
	if err == nil && value != nil {
		err = l.judge(user, value)
	}
	var denied *Denied
	if err != nil && !errors.As(err, &denied) {
		return fmt.Errorf("%s: %w", l.file, err)
	}
	return err
}

// judge returns a Denied if value, the user's, is about the service.
func (l denyList) judge(user string, value []byte) error {
	fields := bytes.SplitN(value, []byte("\t"), 3)
	if len(fields) < 2 || string(fields[0]) != "2" {
		return fmt.Errorf("the entry of %s is none that cyr_deny has made", user)
	}
	denied, err := covers(string(fields[1]), l.service)
	if err != nil || !denied {
		return err
	}
	d := &Denied{User: user, Service: l.service}
	if len(fields) == 3 {
		d.Message = string(fields[2])
	}
	return d
}

// covers reports whether service is one of services, patterns with commas between:
// the last that matches decides, and says no with an exclamation mark in front.
func covers(services, service string) (bool, error) {
	patterns := strings.Split(services, ",")
	for i := len(patterns) - 1; i >= 0; i-- {
		pattern, not := strings.CutPrefix(strings.TrimSpace(patterns[i]), "!")
		matches, err := path.Match(pattern, service)
		if err != nil {
			return false, fmt.Errorf("services %q: %w", services, err)
		}
		if matches {
			return !not, nil
		}
	}
	return false, nil
}

// findFlat returns the value that a flat database of Cyrus's has for key, nil where it
// has none. key has no octet that the file writes as two.
func findFlat(r io.Reader, key string) ([]byte, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxDenyLine)
	for lines.Scan() {
		if value, mine := bytes.CutPrefix(lines.Bytes(), []byte(key+"\t")); mine {
			return unescapeFlat(value), nil
		}
	}
	return nil, lines.Err()
}

// unescapeFlat takes the octets 0xff out of b that stand before one with its highest
// bit set, and that bit.
func unescapeFlat(b []byte) []byte {
	plain := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == 0xff && i+1 < len(b) {
			if i++; b[i] != 0xff {
				c = b[i] &^ 0x80
			}
		}
		plain = append(plain, c)
	}
	return plain
}
