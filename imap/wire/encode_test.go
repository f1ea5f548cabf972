package wire

import (
	"strings"
	"testing"
	"time"
)

func TestAppendStrings(t *testing.T) {
	t.Parallel()
	kilo := strings.Repeat("x", 1024)
	for _, tt := range []struct{ in, str, utf8, astring string }{
		{"", `""`, `""`, `""`},
		{"a", `"a"`, `"a"`, `a`},
		{"a]b", `"a]b"`, `"a]b"`, `"a]b"`},
		{"a b", `"a b"`, `"a b"`, `"a b"`},
		{"nil", `"nil"`, `"nil"`, `"nil"`},
		{"a%", `"a%"`, `"a%"`, `"a%"`},
		{`a"\`, `"a\"\\"`, `"a\"\\"`, `"a\"\\"`},
		{"a\tb", "\"a\tb\"", "\"a\tb\"", "\"a\tb\""},
		{"ü", "{2}\r\nü", `"ü"`, "{2}\r\nü"},
		{"\xff", "{1}\r\n\xff", "{1}\r\n\xff", "{1}\r\n\xff"},
		{"a\nb", "{3}\r\na\nb", "{3}\r\na\nb", "{3}\r\na\nb"},
		{"a\r", "{2}\r\na\r", "{2}\r\na\r", "{2}\r\na\r"},
		{"a\x00b", "{3}\r\na\x80b", "{3}\r\na\x80b", "{3}\r\na\x80b"},
		{kilo, `"` + kilo + `"`, `"` + kilo + `"`, kilo},
		{kilo + "x", "{1025}\r\n" + kilo + "x", "{1025}\r\n" + kilo + "x", "{1025}\r\n" + kilo + "x"},
	} {
		for _, form := range []struct {
			got  []byte
			want string
		}{
			{AppendString(nil, tt.in), tt.str},
			{AppendUTF8String(nil, tt.in), tt.utf8},
			{AppendAString(nil, tt.in), tt.astring},
		} {
			if string(form.got) != form.want {
				t.Errorf("%q: got %q, want %q", tt.in, form.got, form.want)
			}
		}
		if got := string(AppendNString([]byte("x "), tt.in, true)); got != "x "+tt.str {
			t.Errorf("%q: got %q as nstring", tt.in, got)
		}
	}
	if got := string(AppendNString(nil, "x", false)); got != "NIL" {
		t.Errorf("got %q, want NIL", got)
	}
}

func TestAppendMailbox(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, old, utf8 string }{
		{"INBOX", "INBOX", "INBOX"},
		{"grün", "gr&APw-n", `"grün"`},
		{"a&b", "a&-b", "a&b"},
		{"a b", `"a b"`, `"a b"`},
		{"a%*", `"a%*"`, `"a%*"`},
		{"", `""`, `""`},
	} {
		if got := string(AppendMailbox(nil, tt.name, false)); got != tt.old {
			t.Errorf("%q: got %s, want %s", tt.name, got, tt.old)
		}
		if got := string(AppendMailbox(nil, tt.name, true)); got != tt.utf8 {
			t.Errorf("%q in UTF-8: got %s, want %s", tt.name, got, tt.utf8)
		}
	}
}

func TestAppendDateTime(t *testing.T) {
	t.Parallel()
	utc := func(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 3, 4, 5, 6, time.UTC) }
	zone := func(seconds int) time.Time { return utc(2026, 2, 1).In(time.FixedZone("x", seconds)) }
	for _, tt := range []struct {
		in   time.Time
		want string
	}{
		{utc(2026, 2, 1), `"01-Feb-2026 03:04:05 +0000"`},
		{utc(2026, 12, 31), `"31-Dec-2026 03:04:05 +0000"`},
		{utc(7, 1, 10), `"10-Jan-0007 03:04:05 +0000"`},
		{zone(3600), `"01-Feb-2026 04:04:05 +0100"`},
		{zone(-12600), `"31-Jan-2026 23:34:05 -0330"`},
		{zone(-60), `"01-Feb-2026 03:03:05 -0001"`},
		{zone(3208), `"01-Feb-2026 03:04:05 +0000"`}, // seconds cannot be written
		{utc(10000, 1, 1), `"31-Dec-9999 23:59:59 +0000"`},
		{utc(-1, 1, 1), `"01-Jan-0000 00:00:00 +0000"`},
		{time.Unix(1<<55, 0), `"31-Dec-9999 23:59:59 +0000"`},
	} {
		if got := string(AppendDateTime(nil, tt.in)); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

// TestDateTimeRoundTrip reads what was written, against the standard library.
func TestDateTimeRoundTrip(t *testing.T) {
	t.Parallel()
	in := time.Date(1999, 12, 31, 23, 59, 58, 0, time.FixedZone("", -9*3600-1800))
	for range 2000 {
		b := AppendDateTime(nil, in)
		if want := `"` + in.Format("02-Jan-2006 15:04:05 -0700") + `"`; string(b) != want {
			t.Fatalf("got %s, want %s", b, want)
		}
		d, _ := newDecoder(strings.NewReader(string(b)+"\r\n"), AfterLogin())
		if got := d.DateTime(); !got.Equal(in) || d.End() != nil {
			t.Fatalf("%s: read %v, %v", b, got, d.Err())
		}
		in = in.Add(37*time.Hour + 1234567*time.Millisecond).Truncate(time.Second)
	}
}

func TestAppendNumbersAndFlags(t *testing.T) {
	t.Parallel()
	b := AppendNumber(nil, uint32(1<<32-1))
	b = AppendNumber(append(b, ' '), uint64(1<<63-1))
	b = AppendNumber(append(b, ' '), int64(-1))
	b = AppendNumber(append(b, ' '), 0)
	b = AppendFlags(append(b, ' '), nil)
	b = AppendFlags(append(b, ' '), []string{`\Seen`, "$Junk"})
	b = AppendLiteralHeader(append(b, ' '), 1<<40)
	if got := string(b); got != "4294967295 9223372036854775807 -1 0 () (\\Seen $Junk) {1099511627776}\r\n" {
		t.Errorf("got %q", got)
	}
}

// TestAppendAllocatesNothing wants the encoder to live off its caller's buffer.
func TestAppendAllocatesNothing(t *testing.T) {
	buf := make([]byte, 0, 4096)
	now := time.Date(2026, 2, 1, 10, 0, 0, 0, time.FixedZone("", 3600))
	set := NewNumSet(NumRange{1, 5}, NumRange{9, Star})
	if n := testing.AllocsPerRun(100, func() {
		b := AppendString(buf[:0], `a "subject"`)
		b = AppendUTF8String(b, "grün")
		b = AppendMailbox(b, "INBOX", true)
		b = AppendDateTime(b, now)
		b = AppendUTF7(b, "grün")
		b = AppendNumSet(b, set)
		AppendNumber(b, uint32(77))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
