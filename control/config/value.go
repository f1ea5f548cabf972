package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// set parses text as the value of o and stores it in c. The error says what is
// wrong with the value, not where.
func (o *option) set(c *Config, text string) error {
	dst := reflect.ValueOf(o.field(c)).Elem()
	switch o.kind {
	case str:
		dst.SetString(text)
	case pathname:
		if !strings.HasPrefix(text, "/") {
			return errors.New("must be an absolute path")
		}
		dst.SetString(text)
	case template:
		for _, check := range []func(string) error{checkLocation, checkTemplate, checkTilde} {
			if err := check(text); err != nil {
				return err
			}
		}
		dst.SetString(text)
	case toggle:
		on, err := parseSwitch(text)
		if err != nil {
			return err
		}
		dst.SetBool(on)
	case word, words:
		return o.setWords(dst, text)
	case octal:
		if n, err := strconv.ParseUint(text, 8, 32); err != nil || int64(n) > o.max {
			return errors.New("must be an octal file mode")
		}
		dst.SetString(text)
	default:
		return o.setNumber(dst, text)
	}
	return nil
}

func (o *option) setWords(dst reflect.Value, text string) error {
	if o.kind == words {
		list := strings.Fields(text)
		for _, w := range list {
			// A name with one at its end is a name that nobody has.
			if strings.Contains(w, ",") && !o.commas && (strings.Trim(w, ",") != w || !strings.Contains(w, "/")) {
				return fmt.Errorf("has commas; words have blanks between them: %s", strings.Join(strings.FieldsFunc(text, listOctet), " "))
			}
			if o.words != nil && !slices.Contains(o.words, w) {
				return fmt.Errorf("must be words of: %s", strings.Join(o.words, " "))
			}
		}
		dst.Set(reflect.ValueOf(list))
		return nil
	}
	if o.fold {
		text = strings.ToLower(text)
	}
	switch {
	case slices.Contains(o.words, text):
	case slices.Contains([]string{"1", "yes", "t", "true"}, text) && slices.Contains(o.words, "on"):
		text = "on"
	case slices.Contains([]string{"0", "no", "f", "false"}, text) && slices.Contains(o.words, "off"):
		text = "off"
	default:
		return fmt.Errorf("must be one of: %s", strings.Join(o.words, " "))
	}
	dst.SetString(text)
	return nil
}

// listOctet tells whether c stands between the words of a list as some write it.
func listOctet(c rune) bool { return c == ' ' || c == '\t' || c == ',' }

func (o *option) setNumber(dst reflect.Value, text string) error {
	var n int64
	var err error
	switch o.kind {
	case duration:
		n, err = parseDuration(text, o.unit)
	case size:
		n, err = parseSize(text)
	default:
		n, err = parseInt(text)
	}
	if err != nil {
		return err
	}
	if n == 0 && o.zeroDefault {
		return nil
	}
	if n < o.min || n > o.max {
		return fmt.Errorf("must be from %s to %s", o.show(o.min), o.show(o.max))
	}
	dst.SetInt(n)
	return nil
}

// show returns the number n in the unit of o.
func (o *option) show(n int64) string {
	switch o.kind {
	case duration:
		return showDuration(time.Duration(n))
	case size:
		return showSize(n)
	}
	return strconv.FormatInt(n, 10)
}

// get returns the value of o in c as imapd.conf would say it.
func (o *option) get(c *Config) string {
	switch v := reflect.ValueOf(o.field(c)).Elem(); v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return "yes"
		}
		return "no"
	case reflect.Slice:
		return strings.Join(v.Interface().([]string), " ")
	case reflect.Int, reflect.Int64:
		if o.kind == duration && v.Int() == 0 && o.def == "" {
			return "" // not set
		}
		return o.show(v.Int())
	default:
		return v.String()
	}
}

// parseSwitch reads a switch as Cyrus does, by its first letters.
func parseSwitch(s string) (bool, error) {
	for _, p := range []string{"1", "y", "t", "on"} {
		if strings.HasPrefix(s, p) {
			return true, nil
		}
	}
	for _, p := range []string{"0", "n", "f", "of"} {
		if strings.HasPrefix(s, p) {
			return false, nil
		}
	}
	return false, errors.New("must be yes or no")
}

// parseInt reads a number as strtol(3) with base 0 does: 0x is hexadecimal and
// a leading 0 octal.
func parseInt(s string) (int64, error) {
	digits, negative := strings.CutPrefix(s, "-")
	if !negative {
		digits = strings.TrimPrefix(s, "+")
	}
	base := 10
	switch {
	case strings.HasPrefix(digits, "0x"), strings.HasPrefix(digits, "0X"):
		base, digits = 16, digits[2:]
	case len(digits) > 1 && digits[0] == '0':
		base, digits = 8, digits[1:]
	}
	n, err := strconv.ParseUint(digits, base, 63)
	if err != nil {
		return 0, errors.New("must be a number")
	}
	if negative {
		return -int64(n), nil
	}
	return int64(n), nil
}

var errDuration = errors.New("must be a time span such as 90s, 32m or 1d12h")

// parseDuration reads numbers with the units d, h, m and s, in nanoseconds. A
// last number without unit is in the unit of the option.
func parseDuration(s, unit string) (int64, error) {
	units := map[byte]time.Duration{'d': 24 * time.Hour, 'h': time.Hour, 'm': time.Minute, 's': time.Second}
	rest, negative := strings.CutPrefix(s, "-")
	if rest == "" {
		return 0, errDuration
	}
	if c := rest[len(rest)-1]; '0' <= c && c <= '9' {
		rest += unit[:1]
	}
	var sum float64 // seconds; exact as far as it is accepted
	for rest != "" {
		n := 0
		for n < len(rest) && '0' <= rest[n] && rest[n] <= '9' {
			n++
		}
		if n == 0 || n == len(rest) || units[rest[n]] == 0 {
			return 0, errDuration
		}
		v, err := strconv.ParseUint(rest[:n], 10, 32)
		if err != nil {
			return 0, errDuration
		}
		sum += float64(v) * units[rest[n]].Seconds()
		rest = rest[n+1:]
	}
	if sum > float64(math.MaxInt64/int64(time.Second)) {
		return 0, errDuration
	}
	d := int64(sum) * int64(time.Second)
	if negative {
		d = -d
	}
	return d, nil
}

func showDuration(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d%(24*time.Hour) == 0:
		return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d"
	case d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	case d%time.Minute == 0:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + "s"
}

var errSize = errors.New("must be a size such as 4096, 128K or 2M")

// parseSize reads a number of octets: digits, blanks, and one of K, M, G with
// an optional i and B after it, all powers of 1024.
func parseSize(s string) (int64, error) {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	v, err := strconv.ParseInt(s[:n], 10, 64)
	if err != nil {
		return 0, errSize
	}
	unit := strings.ToLower(strings.TrimLeft(s[n:], " \t"))
	unit = strings.TrimSuffix(unit, "b")
	shift := 0
	switch strings.TrimSuffix(unit, "i") {
	case "k":
		shift = 10
	case "m":
		shift = 20
	case "g":
		shift = 30
	case "":
		if unit != "" {
			return 0, errSize
		}
	default:
		return 0, errSize
	}
	if v > math.MaxInt64>>shift {
		return 0, errSize
	}
	return v << shift, nil
}

func showSize(n int64) string {
	for _, u := range []struct {
		shift int
		name  string
	}{{30, "G"}, {20, "M"}, {10, "K"}} {
		if n != 0 && n&(1<<u.shift-1) == 0 {
			return strconv.FormatInt(n>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}
