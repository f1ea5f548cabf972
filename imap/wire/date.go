package wire

import (
	"strings"
	"time"
)

const months = "JanFebMarAprMayJunJulAugSepOctNovDec"

// dateParser takes a date apart. The first mismatch sticks.
type dateParser struct {
	s   string
	bad bool
}

// digits reads between least and most digits.
func (p *dateParser) digits(least, most int) int {
	n, i := 0, 0
	for ; i < most && i < len(p.s) && p.s[i] >= '0' && p.s[i] <= '9'; i++ {
		n = n*10 + int(p.s[i]-'0')
	}
	p.bad = p.bad || i < least
	p.s = p.s[i:]
	return n
}

// expect reads c.
func (p *dateParser) expect(c byte) {
	if p.s == "" || p.s[0] != c {
		p.bad = true
		return
	}
	p.s = p.s[1:]
}

// month reads the English abbreviation of a month, in any case.
func (p *dateParser) month() time.Month {
	if len(p.s) < 3 {
		p.bad = true
		return 0
	}
	for i := 0; i < len(months); i += 3 {
		if strings.EqualFold(p.s[:3], months[i:i+3]) {
			p.s = p.s[3:]
			return time.Month(i/3 + 1)
		}
	}
	p.bad = true
	return 0
}

// date reads "day-month-year", day 1..31, year 1..9999.
func (p *dateParser) date() (year int, month time.Month, day int) {
	day = p.digits(1, 2)
	p.expect('-')
	month = p.month()
	p.expect('-')
	year = p.digits(4, 4)
	p.bad = p.bad || day < 1 || day > 31 || year < 1
	return year, month, day
}

// daysIn returns the number of days of a month.
func daysIn(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// Date reads the date of a SEARCH key, with or without quotes, and returns its
// first moment in UTC. A day that the month does not have becomes the month's
// last: clients count "30-Feb" and mean no harm.
func (d *Decoder) Date() time.Time {
	var s string
	if d.Peek() == '"' {
		s = d.quoted(eightBitNone)
	} else {
		s = d.span(isAtom, d.lim.Word, "date")
	}
	if d.err != nil {
		return time.Time{}
	}
	p := dateParser{s: s}
	year, month, day := p.date()
	if p.bad || p.s != "" {
		d.FailText("", "bad date")
		return time.Time{}
	}
	return time.Date(year, month, min(day, daysIn(year, month)), 0, 0, 0, 0, time.UTC)
}

// DateTime reads the quoted date-time of APPEND, " 1-Feb-2026 10:00:00 +0100", and
// returns it in a fixed zone. The day may have one digit without its space. It
// must exist; second 60 becomes 59.
func (d *Decoder) DateTime() time.Time {
	if d.Peek() != '"' {
		d.Fail("date and time")
		return time.Time{}
	}
	s := d.quoted(eightBitNone)
	if d.err != nil {
		return time.Time{}
	}
	p := dateParser{s: strings.TrimPrefix(s, " ")}
	year, month, day := p.date()
	p.expect(' ')
	hour := p.digits(2, 2)
	p.expect(':')
	minute := p.digits(2, 2)
	p.expect(':')
	second := p.digits(2, 2)
	p.expect(' ')
	zone := p.zone()
	if p.bad || p.s != "" || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 60 {
		d.FailText("", "bad date and time")
		return time.Time{}
	}
	return time.Date(year, month, day, hour, minute, min(second, 59), 0, zone)
}

// zone reads "+hhmm" or "-hhmm".
func (p *dateParser) zone() *time.Location {
	sign := 1
	if strings.HasPrefix(p.s, "-") {
		sign = -1
		p.expect('-')
	} else {
		p.expect('+')
	}
	hours, minutes := p.digits(2, 2), p.digits(2, 2)
	p.bad = p.bad || hours > 23 || minutes > 59
	if hours == 0 && minutes == 0 {
		return time.UTC
	}
	return time.FixedZone("", sign*(hours*60+minutes)*60)
}

// AppendDateTime appends t as INTERNALDATE has it, quotes included:
// `"01-Feb-2026 10:00:00 +0100"`, in t's zone to the minute. The grammar allows a
// space for the first digit of the day; Dovecot sends a zero. A year outside of
// 0..9999, which a file's time can have, becomes the nearest that can be written.
func AppendDateTime(b []byte, t time.Time) []byte {
	_, offset := t.Zone()
	if offset%60 != 0 || offset <= -24*3600 || offset >= 24*3600 {
		t, offset = t.UTC(), 0
	}
	switch year := t.Year(); {
	case year < 0:
		t, offset = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), 0
	case year > 9999:
		t, offset = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), 0
	}
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = append(b, '"')
	b = append2(b, day)
	b = append(b, '-')
	b = append(b, months[(month-1)*3:month*3]...)
	b = append(b, '-')
	b = append2(append2(b, year/100), year%100)
	b = append(b, ' ')
	b = append2(b, hour)
	b = append(b, ':')
	b = append2(b, minute)
	b = append(b, ':')
	b = append2(b, second)
	b = append(b, ' ')
	if offset < 0 {
		b, offset = append(b, '-'), -offset
	} else {
		b = append(b, '+')
	}
	b = append2(append2(b, offset/3600), offset/60%60)
	return append(b, '"')
}

// append2 appends n, 0..99, in two digits.
func append2(b []byte, n int) []byte {
	return append(b, byte('0'+n/10), byte('0'+n%10))
}
