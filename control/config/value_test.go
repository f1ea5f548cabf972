package config

import (
	"errors"
	"testing"
	"time"
)

func TestSwitch(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{
		"1": true, "y": true, "yes": true, "yup": true, "t": true, "true": true, "on": true, "once": true,
		"0": false, "n": false, "no": false, "never": false, "f": false, "false": false, "off": false, "of": false,
	} {
		if got, err := parseSwitch(in); got != want || err != nil {
			t.Errorf("%s: got %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "o", "YES", "No", "2", "x"} {
		if got, err := parseSwitch(in); err == nil {
			t.Errorf("%s: got %v", in, got)
		}
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	const bad = -99
	for _, tt := range []struct {
		parse func(string) (int64, error)
		in    string
		want  int64
	}{
		{parseInt, "10", 10}, {parseInt, "-3", -3}, {parseInt, "+3", 3}, {parseInt, "0x1F", 31}, {parseInt, "010", 8}, {parseInt, "0", 0},
		{parseInt, "08", bad}, {parseInt, "0b1", bad}, {parseInt, "1_0", bad}, {parseInt, "", bad}, {parseInt, "3x", bad}, {parseInt, "--3", bad},
		{parseInt, "9223372036854775808", bad}, {parseInt, "0x", bad},
		{parseSize, "10", 10}, {parseSize, "10K", 10 << 10}, {parseSize, "10 M", 10 << 20}, {parseSize, "1Gi", 1 << 30}, {parseSize, "1MB", 1 << 20},
		{parseSize, "1mib", 1 << 20}, {parseSize, "7b", 7}, {parseSize, "0", 0},
		{parseSize, "", bad}, {parseSize, "K", bad}, {parseSize, "-1", bad}, {parseSize, "1T", bad}, {parseSize, "1i", bad}, {parseSize, "1ib", bad},
		{parseSize, "1KK", bad}, {parseSize, "9999999999G", bad}, {parseSize, "1.5M", bad},
		{seconds("minutes"), "5", 300}, {seconds("seconds"), "5", 5}, {seconds("seconds"), "1d2h30m5s", 95405}, {seconds("minutes"), "1h30", 5400},
		{seconds("seconds"), "-5m", -300}, {seconds("seconds"), "5s5s", 10}, {seconds("seconds"), "0", 0}, {seconds("seconds"), "100d", 8640000},
		{seconds("seconds"), "", bad}, {seconds("seconds"), "-", bad}, {seconds("seconds"), "h", bad}, {seconds("seconds"), "5x", bad},
		{seconds("seconds"), "5 s", bad}, {seconds("seconds"), "5H", bad}, {seconds("seconds"), "4294967295d4294967295d", bad}, {seconds("seconds"), "99999999999", bad},
	} {
		got, err := tt.parse(tt.in)
		if err != nil {
			got = bad
		}
		if got != tt.want {
			t.Errorf("%q: got %d, %v; want %d", tt.in, got, err, tt.want)
		}
	}
}

func seconds(unit string) func(string) (int64, error) {
	return func(s string) (int64, error) {
		d, err := parseDuration(s, unit)
		return d / int64(time.Second), err
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ template, user, home, want string }{
		{"~/Maildir", "alice", "/home/alice", "/home/alice/Maildir"},
		{"~/Maildir", "alice", "/", "/Maildir"},
		{"~", "alice", "/home/alice/", "/home/alice"},
		{"/var/mail/%u", "alice@example.org", "", "/var/mail/alice@example.org"},
		{"/var/mail/%d/%n", "alice@example.org", "", "/var/mail/example.org/alice"},
		{"/var/mail/%d/%n", "a@b@example.org", "", "/var/mail/example.org/a@b"},
		{"/var/mail/%n", "alice", "", "/var/mail/alice"},
		{"/%%/%u", "%n%u", "", "/%/%n%u"},
		{"/var/%u", "~", "", "/var/~"},
		{"/var/mail/", "alice", "", "/var/mail/"},
		{"~/%u", "u", "/home/%u", "/home/%u/u"},
	} {
		if got, err := Expand(tt.template, tt.user, tt.home); got != tt.want || err != nil {
			t.Errorf("%s for %s: got %q, %v", tt.template, tt.user, got, err)
		}
	}
	for _, tt := range []struct{ template, user, home string }{
		{"/%u", "", ""}, {"/%u", "..", ""}, {"/%u", ".", ""}, {"/%u", "a/b", ""}, {"/%u", "/etc", ""}, {"/%u", "a..b", ""},
		{"/%u", "a\x00", ""}, {"/%u", "a\nb", ""}, {"/%u", "a\x7f", ""},
		{"/%d/%n", "alice", ""}, {"/%d/%n", "@example.org", ""}, {"/%d/%n", "alice@", ""}, {"/%d/%n", "alice@.", ""}, {"/%d/%n", ".@example.org", ""},
		{"~/x", "alice", ""}, {"~/x", "alice", "home"},
	} {
		if got, err := Expand(tt.template, tt.user, tt.home); !errors.Is(err, ErrTemplateUser) {
			t.Errorf("%s for %q: got %q, %v", tt.template, tt.user, got, err)
		}
	}
	for _, template := range []string{"", "x", "%u", "~u", "/%", "/%x", "/%U"} {
		if got, err := Expand(template, "alice", "/home/alice"); err == nil || errors.Is(err, ErrTemplateUser) {
			t.Errorf("%s: got %q, %v", template, got, err)
		}
	}
}

func TestVaries(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]bool{
		"~/Maildir": true, "/var/mail/%u": true, "/var/vmail/%d/%n": true, "~": true,
		"/var/mail": false, "/var/vmail/%d/Maildir": false, "/var/%%u": false, "/%%%u": true,
	} {
		if got := Varies(template); got != want {
			t.Errorf("%s: got %v", template, got)
		}
	}
}
