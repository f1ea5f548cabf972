package body

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestDecodeHeader(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"plain", "plain"},
		{"fold\n ed", "fold ed"},
		{"fold\r\n\ted", "fold ed"},
		{"a\tb", "a\tb"},
		{"=?utf-8?q?J=C3=B6rg?=", "Jörg"},
		{"=?UTF-8?B?SsO2cmc=?=", "Jörg"},
		{"=?iso-8859-1?q?J=f6rg?= x", "Jörg x"},
		{"a =?utf-8?q?b?= c", "a b c"},
		{"a=?utf-8?q?b?=c", "abc"},
		{"=?utf-8?q?a?= =?utf-8?q?b?=", "ab"},
		{"=?utf-8?q?a?=\n  =?utf-8?q?b?=", "ab"},
		{"=?utf-8?q?a?= x =?utf-8?q?b?=", "a x b"},
		{"=?utf-8?q?a_b=20c?=", "a b c"},
		{"=?utf-8*en?q?a?=", "a"},
		{"=?utf-8?b?w?= =?utf-8?b?w7Y=?=", "ö"},
		{"=?utf-8?q?=C3?= =?utf-8?q?=B6?=", "ö"},
		{"=?utf-8?q?=C3?= =?iso-8859-1?q?=F6?=", "\uFFFDö"},
		{"=?utf-8?q?=ZZ=?=", "=ZZ="},
		{"=?utf-8?b?!!SsO2!cmc?=", "Jörg"},
		{"=?utf-8?x?abc?=", "=?utf-8?x?abc?="},
		{"=?utf-8?q?open", "=?utf-8?q?open"},
		{"=?utf-8?q?", "=?utf-8?q?"},
		{"=?utf-8", "=?utf-8"},
		{"=?", "=?"},
		{"=??q?x?=", "=??q?x?="},
		{"=?x-unknown?q?abc=FF?=", "abc\uFFFD"},
		{"=?iso-2022-jp?b?GyRCJDMkcyRLJEEkTxsoQg==?=", "こんにちは"},
		{"=?koi8-r?q?=F0=D2=C9=D7=C5=D4?=", "Привет"},
		{"=?gb2312?b?xOO6ww==?=", "你好"},
		{"=?euc-kr?b?vsiz5w==?=", "안녕"},
		{"=?big5?b?p0GmbqFB?=", "你好，"},
		{"=?shift_jis?b?grGC8YLJgr+CzQ==?=", "こんにちは"},
		{"=?windows-1252?q?=80?=", "€"},
		{"=?utf-16be?b?AEoA9g==?=", "Jö"},
		{"raw J\xc3\xb6rg", "raw Jörg"},
		{"raw J\xf6rg", "raw J\uFFFDrg"},
		{"=?utf-8?q?what?_is_this?=", "what? is this"},
		{"=?=?utf-8?q?a?=", "=?a"},
		{"nul\x00", "nul\x00"},
	} {
		if got := DecodeHeader([]byte(tt.in)); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestCharsets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ charset, in, want string }{
		{"utf-8", "h\xc3\xa9", "hé"}, {"", "h\xc3\xa9\xff", "hé\uFFFD"}, {"us-ascii", "h\xc3\xa9", "hé"}, {"x-nonsense", "abc\xff", "abc\uFFFD"},
		{"ISO_8859-1", "\xe9\x93", "é“"}, {"latin2", "\xb1", "ą"}, {"iso-8859-15", "\xa4", "€"}, {"cp866", "\x80", "А"}, {"ibm850", "\x82", "é"},
		{"euc-jp", "\xa4\xb3", "こ"}, {"gb18030", "\x81\x30\x81\x30", "\u0080"}, {"hz-gb-2312", "~{VPND~}", "中文"}, {"utf-16", "\xff\xfea\x00", "a"},
		{"utf-16le", "a\x00", "a"}, {"utf-32be", "\x00\x00\x00a", "a"}, {"iso-2022-jp", "\x1b$B$", "\uFFFD"}, {"big5", "\xa7", "\uFFFD"},
		{"utf-7", "caf+AOk-", "café"}, {"utf-7", "A+ImIDkQ.", "A≢Α."}, {"UTF-7", "1 +- 1", "1 + 1"}, {"utf-7", "+ZeVnLIqe-x", "日本語x"},
		{"utf-7", "+2D3eAA-+AOk", "😀é"}, {"utf-7", "+2D0-x+2D0", "\uFFFDx\uFFFD"}, {"utf-7", "+2D0A6Q-+3gA", "\uFFFDé\uFFFD"}, {"utf-7", "a\xe9", "a\uFFFD"},
	} {
		if got := ToUTF8(tt.charset, []byte(tt.in)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.charset, got, tt.want)
		}
		// In pieces too.
		c := newConversion(tt.charset)
		var out []byte
		for i := range len(tt.in) {
			out = c.convert(out, []byte(tt.in[i:i+1]))
		}
		if out = c.finish(out); string(out) != tt.want {
			t.Errorf("%s, octet by octet: got %q, want %q", tt.charset, out, tt.want)
		}
	}
	for name, want := range map[string]bool{"UTF-8": true, "us-ascii": true, "iso-8859-1": true, "KOI8-U": true, "x-foo": false, "": false, "../../gconv": false} {
		if got := KnownCharset(name); got != want {
			t.Errorf("KnownCharset(%q) = %v", name, got)
		}
	}
}

func TestDecoders(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cte      CTE
		in, want string
	}{
		{Base64, "aGVsbG8=", "hello"}, {Base64, "aGVsbG8", "hello"}, {Base64, "aGVsb", "hel"}, {Base64, "a", ""}, {Base64, "", ""},
		{Base64, "a G\r\nV-s!b\xff\x00G8=", "hello"}, {Base64, "=aGVs", "hel"}, {Base64, "a=GVs", "hel"}, {Base64, "aG==VsbG8=", "h"}, {Base64, "aGVsbG8=AAAA", "hello"},
		{Base64, "AAEC\nAwQF\n", "\x00\x01\x02\x03\x04\x05"}, {Base64, "+/+/", "\xfb\xff\xbf"}, {Base64, "-_-_", ""},
		{QuotedPrintable, "a=3Db", "a=b"}, {QuotedPrintable, "a=3db", "a=b"}, {QuotedPrintable, "a=\nb", "ab"}, {QuotedPrintable, "a=\r\nb", "ab"},
		{QuotedPrintable, "a= \t\r\nb", "ab"}, {QuotedPrintable, "a  \nb", "a\r\nb"}, {QuotedPrintable, "a \t\r\nb", "a\r\nb"}, {QuotedPrintable, "a\nb\n", "a\r\nb\r\n"},
		{QuotedPrintable, "a b  c", "a b  c"}, {QuotedPrintable, "a  ", "a"}, {QuotedPrintable, "a=", "a"}, {QuotedPrintable, "a=3", "a=3"}, {QuotedPrintable, "a=\r", "a"}, {QuotedPrintable, "a\r", "a"},
		{QuotedPrintable, "=ZZ=3g=g3", "=ZZ=3g=g3"}, {QuotedPrintable, "==3D", "=="}, {QuotedPrintable, "=3=3D", "=3="}, {QuotedPrintable, "= x", "= x"}, {QuotedPrintable, "=\rx", "=\rx"},
		{QuotedPrintable, "a\rb", "a\rb"}, {QuotedPrintable, "a \r b", "a \r b"}, {QuotedPrintable, "a\r\r\nb", "a\r\r\nb"}, {QuotedPrintable, "=3\nx", "=3\r\nx"}, {QuotedPrintable, "=3\r\nx", "=3\r\nx"},
		{QuotedPrintable, "=00=FF\xff\x00", "\x00\xff\xff\x00"}, {QuotedPrintable, strings.Repeat(" ", 3000) + "x", strings.Repeat(" ", 3000) + "x"},
	} {
		d := newDecoder(tt.cte)
		if got := d.finish(d.decode(nil, []byte(tt.in))); string(got) != tt.want {
			t.Errorf("%q: got %q, want %q", clip(tt.in), got, tt.want)
		}
		var got []byte
		d = newDecoder(tt.cte)
		for i := range len(tt.in) {
			got = d.decode(got, []byte(tt.in[i:i+1]))
		}
		if got = d.finish(got); string(got) != tt.want {
			t.Errorf("%q, octet by octet: got %q, want %q", clip(tt.in), got, tt.want)
		}
	}
}

func TestBinaryRanges(t *testing.T) {
	t.Parallel()
	plain := strings.Repeat("all work and no play=\n\x00", 20_000)
	var enc strings.Builder
	enc.WriteString("Content-Transfer-Encoding: quoted-printable\n\n")
	for _, c := range []byte(plain) {
		const hex = "0123456789ABCDEF"
		enc.WriteString("=" + hex[c>>4:c>>4+1] + hex[c&15:c&15+1])
		if c == 0 {
			enc.WriteString("=\n")
		}
	}
	text := enc.String()
	c, err := parseString(t, text, Limits{}).Binary(strings.NewReader(text))
	if err != nil || c.Size != int64(len(plain)) {
		t.Fatalf("size %d of %d, %v", c.Size, len(plain), err)
	}
	for _, r := range [][2]int{{0, len(plain)}, {1, 10}, {100_000, 200_000}, {len(plain) - 1, 5}, {len(plain), 1}} {
		var b bytes.Buffer
		if err := c.WriteRange(&b, int64(r[0]), int64(r[1])); err != nil || b.String() != plain[r[0]:min(r[0]+r[1], len(plain))] {
			t.Errorf("%v: %v", r, err)
		}
		got, err := c.AppendRange([]byte("x"), int64(r[0]), int64(r[1]))
		if err != nil || string(got[1:]) != b.String() {
			t.Errorf("%v: append: %v", r, err)
		}
	}
}

// newKey makes a key of a string as it is written.
func newKey(s string) Key { return Key{Text: Fold(nil, []byte(s))} }

func newKeys(all ...string) []Key {
	var keys []Key
	for _, s := range all {
		keys = append(keys, newKey(s))
	}
	return keys
}

// match looks for m's keys in text, which is fed in pieces of n octets, and returns the answer for the first.
func match(m *Matcher, text string, n int) bool {
	m.reset()
	m.begin(false)
	for b := []byte(text); len(b) > 0; {
		k := min(max(n, 1), len(b))
		m.feed(b[:k])
		b = b[k:]
	}
	m.look()
	return m.Found(0)
}

func TestMatcher(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		key, text string
		want      bool
	}{
		{"", "", true}, {"", "x", true}, {"a", "", false}, {"hello", "say HELLO", true}, {"HELLO", "hellO", true}, {"hello", "hell", false},
		{"jörg", "JÖRG", true}, {"JÖRG", "jo\u0308rg", true}, {"jo\u0308rg", "Jörg", true}, {"привет", "ПРИВЕТ", true}, {"σ", "Σ", true}, {"ς", "σ", true},
		{"ﬁ", "FI", true}, {"fi", "ﬁ", true}, {"Å", "å", true}, {"K", "\u212a", true}, {"straße", "STRASSE", false}, {"你好", "说你好吗", true}, {"ö", "o", false},
		{"@[`{", "@[`{", true}, {"az", "AZ", true}, {"`{", "@[", false}, {"a b", "a  b", false}, {"abcdefgh12345678z", "xABCDEFGH12345678Zx", true},
	} {
		m := NewMatcher(newKeys(tt.key))
		for _, n := range []int{1, 1000} {
			if got := match(m, tt.text, n); got != tt.want {
				t.Errorf("%q in %q, %d octets at a time: %v", tt.key, tt.text, n, got)
			}
		}
	}
	long := strings.Repeat("long key ", 100)
	if text := strings.Repeat("x", 70_000) + long + "y"; !match(NewMatcher(newKeys(long)), text, len(text)) || match(NewMatcher(newKeys(long+"x")), text, len(text)) {
		t.Error("long key")
	}
}

// TestMatcherKeys has keys of many lengths look at one text together: each must find what it finds alone, wherever the
// pieces end.
func TestMatcherKeys(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 40 {
		var b strings.Builder
		for range rnd.IntN(20) {
			b.WriteString(strings.Repeat([]string{"x", "y"}[rnd.IntN(2)], rnd.IntN(5000)) + []string{"", "ΐ", "É", "Nadel"}[rnd.IntN(4)])
		}
		text := b.String()
		folded := string(Fold(nil, []byte(text)))
		var keys []Key
		for range 1 + rnd.IntN(30) {
			from := rnd.IntN(len(folded) + 1)
			key := []byte(folded[from : from+rnd.IntN(min(len(folded)-from, []int{5, 200, 50_000}[rnd.IntN(3)])+1)])
			if len(key) > 0 && rnd.IntN(2) == 0 {
				key[rnd.IntN(len(key))] = '#'
			}
			keys = append(keys, Key{Text: key})
		}
		m := NewMatcher(keys)
		match(m, text, 1+rnd.IntN(40_000))
		for i := range keys {
			if want := strings.Contains(folded, string(keys[i].Text)); m.Found(i) != want {
				t.Fatalf("key of %d octets in %d: %v, want %v", len(keys[i].Text), len(folded), m.Found(i), want)
			}
		}
	}
}

// TestMatcherMemory holds that what a search takes does not grow with the number of its keys.
func TestMatcherMemory(t *testing.T) {
	text := "Content-Type: text/plain; charset=utf-8\n\n" + strings.Repeat(strings.Repeat("ΐ", 30)+"\n", 2000) // each three times as long decomposed
	root := parseString(t, text, Limits{})
	var keys []Key
	for i := range 1000 {
		keys = append(keys, newKey(fmt.Sprint("zz", i)))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := root.Search(strings.NewReader(text), NewMatcher(keys)); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
		t.Errorf("%d KB for 1000 keys", n>>10)
	}
}

const searched = "From: =?utf-8?q?J=C3=B6rg?= <j@b>\nSubject: fold\n ed\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\npreamble\n" +
	"--x\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nna=EFve so=\nft\n" +
	"--x\nContent-Type: image/png; name=picture\n\nimagetext\n" +
	"--x\nContent-Type: message/rfc822\n\nSubject: inner subject\n\ninner body\n" +
	"--x\nContent-Transfer-Encoding: x-what\n\nunreadable\n" +
	"--x\nContent-Type: text/html\nContent-Transfer-Encoding: base64\n\nPGI+aHRtbDwvYj4=\n--x--\nepilogue\n"

func TestSearch(t *testing.T) {
	t.Parallel()
	root := parseString(t, searched, Limits{})
	for _, tt := range []struct {
		key        string
		text, body bool
	}{
		{"jörg", true, false}, {"from: jörg <J@B>", true, false}, {"fold ed", true, false}, {"NAÏVE", true, true}, {"soft", true, true},
		{"imagetext", false, false}, {"name=picture", true, false}, {"inner subject", true, false}, {"inner body", true, true}, {"unreadable", false, false},
		{"x-what", true, false}, {"<B>HTML</b>", true, true}, {"preamble", false, false}, {"absent", false, false}, {"", true, true},
	} {
		for i, want := range []bool{tt.text, tt.body} {
			keys := newKeys("absent", tt.key)
			keys[0].SkipHeaders, keys[1].SkipHeaders = i == 1, i == 1
			m := NewMatcher(keys)
			err := root.Search(strings.NewReader(searched), m)
			if err != nil || m.Found(0) || m.Found(1) != want {
				t.Errorf("%q, headers skipped: %v: %v %v", tt.key, i == 1, m.found, err)
			}
		}
	}
	m := NewMatcher(newKeys("soft", "jörg", "inner body"))
	if err := root.Search(strings.NewReader(searched), m); err != nil || !m.Found(0) || !m.Found(1) || !m.Found(2) {
		t.Errorf("all three: %v %v", m.found, err)
	}
	keys := newKeys("jörg", "jörg")
	keys[0].SkipHeaders = true
	m = NewMatcher(keys)
	for range 2 {
		if err := root.Search(strings.NewReader(searched), m); err != nil || m.Found(0) || !m.Found(1) {
			t.Errorf("a key that skips headers, and one that does not: %v %v", m.found, err)
		}
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	root := parseString(t, searched, Limits{})
	var got []string
	root.Texts(strings.NewReader(searched), ScopeText, func(x *Text) bool {
		b, err := io.ReadAll(iotest.HalfReader(x))
		if err != nil {
			t.Error(err)
		}
		got = append(got, string(b))
		return len(got) < 5
	})
	want := []string{
		"From: Jörg <j@b>\nSubject: fold ed\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n",
		"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n",
		"naïve soft",
		"Content-Type: image/png; name=picture\n",
		"Content-Type: message/rfc822\n",
	}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q", got)
	}
}

// TestLargeTexts has characters and escapes across the ends of pieces.
func TestLargeTexts(t *testing.T) {
	t.Parallel()
	for _, pad := range []int{0, 1, 2, 3} {
		text := "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\nX: " + strings.Repeat("y", 200_000) +
			"\n\n" + strings.Repeat("x", pad) + strings.Repeat("=C3=A9", 30_000) + "\n"
		root := parseString(t, text, Limits{})
		var got []string
		root.Texts(strings.NewReader(text), ScopeBody, func(x *Text) bool {
			b, err := io.ReadAll(x)
			if err != nil {
				t.Error(err)
			}
			got = append(got, string(b))
			return true
		})
		if want := strings.Repeat("x", pad) + strings.Repeat("é", 30_000) + "\r\n"; len(got) != 1 || got[0] != want {
			t.Errorf("pad %d: wrong text", pad)
		}
		m := NewMatcher(newKeys(strings.Repeat("y", 5000)+"\n", "é\r\n"))
		if err := root.Search(strings.NewReader(text), m); err != nil || !m.Found(0) || !m.Found(1) {
			t.Errorf("pad %d: %v %v", pad, m.found, err)
		}
	}
}

func TestHeaderField(t *testing.T) {
	t.Parallel()
	text := "Subject: a\nX: y\nno colon\n folded\nSUBJECT : =?utf-8?q?b?=\n\tc\n: z\nSubject:\n\nSubject: body\n"
	root := parseString(t, text, Limits{})
	got, err := HeaderField(strings.NewReader(text), root.Header, "subject")
	if err != nil || strings.Join(got, "|") != "a|b c|" {
		t.Errorf("%q %v", got, err)
	}
	var all []string
	err = Fields(strings.NewReader(text), root.Header, func(f Field) bool {
		all = append(all, string(f.Name)+"="+string(f.Value))
		return len(all) < 3
	})
	if err != nil || strings.Join(all, "|") != "Subject=a|X=y|SUBJECT==?utf-8?q?b?=\n\tc" {
		t.Errorf("%q %v", all, err)
	}
}

func TestParseDate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"Mon, 7 Feb 1994 21:52:25 -0800", "1994-02-07T21:52:25-08:00"},
		{"7 Feb 1994 21:52:25 +0530", "1994-02-07T21:52:25+05:30"},
		{"Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", "1997-11-21T09:55:06-06:00"},
		{"21 Nov 97 09:55:06 GMT", "1997-11-21T09:55:06Z"},
		{"21 Nov 09 09:55 EST", "2009-11-21T09:55:00-05:00"},
		{"21 Nov 103 09:55 PDT", "2003-11-21T09:55:00-07:00"},
		{"1 January 2024 1:02:03", "2024-01-01T01:02:03Z"},
		{"1 JAN 2024 01.02.03 Z", "2024-01-01T01:02:03Z"},
		{"Thu,\n 13 Feb 1969 23:32 -0330 (Newfoundland Time)", "1969-02-13T23:32:00-03:30"},
		{"1 Jan 2024 01:02:03 +9999", "2024-01-01T01:02:03Z"},
		{"1 Jan 2024 01:02:03 Nowhere", "2024-01-01T01:02:03Z"},
		{"1 Jan 2024 01:02:03 +01000", "2024-01-01T01:02:03Z"},
		{"31 Feb 2024 01:02:03 +0100", "2024-03-02T01:02:03+01:00"},
		{"1 Jan 2024 23:59:60 +0000", "2024-01-02T00:00:00Z"},
		{"", ""}, {" ", ""}, {"Mon", ""}, {"Mon,", ""}, {"Mon 7 Feb 1994 21:52:25", ""}, {"7 Foo 1994 21:52:25", ""}, {"7 Fe 1994 21:52:25", ""},
		{"7 Feb 1994", ""}, {"7 Feb 1994 21", ""}, {"7 Feb 1994 21:5", ""}, {"7 Feb 1994 25:52", ""}, {"7 Feb 1994 21:61", ""}, {"0 Feb 1994 21:52", ""},
		{"32 Jan 1994 21:52", ""}, {"7 Feb 1894 21:52", ""}, {"7 Feb 19945 21:52", ""}, {"7 Feb x 21:52", ""}, {"(open", ""}, {"\xff\x00", ""},
		{"2024-01-01T01:02:03Z", ""},
	} {
		got := ""
		if d, ok := ParseDate([]byte(tt.in)); ok {
			got = d.Format(time.RFC3339)
		}
		if got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.in, got, tt.want)
		}
	}
}
