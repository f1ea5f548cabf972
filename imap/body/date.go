package body

import (
	"strings"
	"time"
)

// ParseDate reads the value of a Date field (RFC 5322 section 3.3, obsolete forms too), forgiving: the day of the
// week may be missing, a month's name may go on, dots may stand for colons, seconds and zone may be missing, an
// unknown zone is UTC, two-digit years are 1970 to 2069. The time has the zone of the header, so that SENTBEFORE and
// its like can compare the date as it was written (RFC 9051 section 6.4.4).
func ParseDate(value []byte) (time.Time, bool) {
	d := dateLexer{lexer{b: value}, true}
	d.skip()
	word := d.next()
	if len(word) == 3 && !isDigits(word) {
		if !d.is(',') {
			return time.Time{}, false
		}
		d.i++
		d.skip()
		word = d.next()
	}
	day := d.number(word, 1, 2)
	month := monthNumber(d.next())
	year := d.year(d.next())
	hour := d.number(d.next(), 1, 2)
	minute := d.clock(true)
	second := d.clock(false)
	if !d.ok || month == 0 || day < 1 || day > 31 || hour > 24 || minute > 59 || second > 60 {
		return time.Time{}, false
	}
	zone := time.UTC
	if minutes := zoneMinutes(d.next()); minutes != 0 {
		zone = time.FixedZone("", minutes*60)
	}
	return time.Date(year, month, day, hour, minute, second, 0, zone), true
}

type dateLexer struct {
	lexer
	ok bool // nothing was missing so far
}

// next returns the next word, empty if there is none.
func (d *dateLexer) next() string {
	w, _ := d.atom(nil)
	return string(w)
}

// number returns the value of a word of so many digits.
func (d *dateLexer) number(word string, least, most int) int {
	if len(word) < least || len(word) > most || !isDigits(word) {
		d.ok = false
		return 0
	}
	n := 0
	for _, c := range []byte(word) {
		n = n*10 + int(c-'0')
	}
	return n
}

func (d *dateLexer) year(word string) int {
	y := d.number(word, 2, 4)
	switch {
	case len(word) == 2 && y < 70:
		return y + 2000
	case len(word) < 4:
		return y + 1900 // three digits: RFC 5322 section 4.3
	case y < 1900:
		d.ok = false
	}
	return y
}

// clock reads a separator and two digits, which must be there if must is true.
func (d *dateLexer) clock(must bool) int {
	if !d.is(':') && !d.is('.') {
		d.ok = d.ok && !must
		return 0
	}
	d.i++
	d.skip()
	return d.number(d.next(), 2, 2)
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func monthNumber(word string) time.Month {
	const names = "janfebmaraprmayjunjulaugsepoctnovdec"
	if len(word) < 3 {
		return 0
	}
	for i := 0; i < len(names); i += 3 {
		if strings.EqualFold(word[:3], names[i:i+3]) {
			return time.Month(i/3 + 1)
		}
	}
	return 0
}

// zoneMinutes returns how far east of UTC a zone is.
func zoneMinutes(zone string) int {
	if len(zone) == 5 && (zone[0] == '+' || zone[0] == '-') && isDigits(zone[1:]) {
		hh, mm := int(zone[1]-'0')*10+int(zone[2]-'0'), int(zone[3]-'0')*10+int(zone[4]-'0')
		if hh > 23 || mm > 59 {
			return 0
		}
		if zone[0] == '-' {
			return -hh*60 - mm
		}
		return hh*60 + mm
	}
	switch strings.ToUpper(zone) {
	case "EDT":
		return -4 * 60
	case "EST", "CDT":
		return -5 * 60
	case "CST", "MDT":
		return -6 * 60
	case "MST", "PDT":
		return -7 * 60
	case "PST":
		return -8 * 60
	}
	// One letter is of no use: RFC 5322 section 4.3. The rest is UTC, or unknown.
	return 0
}
