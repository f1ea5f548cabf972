package wire

import (
	"fmt"
	"strings"
	"testing"
)

// A production is one way to read an argument; it returns what it read as text.
type production func(d *Decoder) string

var productions = map[string]production{
	"tag":     (*Decoder).Tag,
	"atom":    (*Decoder).Atom,
	"keyword": (*Decoder).Keyword,
	"astring": (*Decoder).AString,
	"lenient": (*Decoder).LenientAString,
	"string":  (*Decoder).String,
	"nstring": func(d *Decoder) string {
		s, ok := d.NString()
		return fmt.Sprint(s, "/", ok)
	},
	"mailbox":   (*Decoder).Mailbox,
	"pattern":   (*Decoder).ListMailbox,
	"number":    func(d *Decoder) string { return fmt.Sprint(d.Number()) },
	"nznumber":  func(d *Decoder) string { return fmt.Sprint(d.NZNumber()) },
	"number64":  func(d *Decoder) string { return fmt.Sprint(d.Number64()) },
	"numset":    func(d *Decoder) string { return d.NumSet().String() },
	"flag":      (*Decoder).Flag,
	"flaglist":  func(d *Decoder) string { return strings.Join(d.FlagList(), ",") },
	"flagsarg":  func(d *Decoder) string { return strings.Join(d.FlagsArg(), ",") },
	"date":      func(d *Decoder) string { return d.Date().Format("2006-01-02") },
	"datetime":  func(d *Decoder) string { return d.DateTime().Format("2006-01-02T15:04:05-0700") },
	"list":      func(d *Decoder) string { return nested(d) },
	"utf8":      func(d *Decoder) string { d.SetUTF8(true); return d.AString() },
	"utf8name":  func(d *Decoder) string { d.SetUTF8(true); return d.Mailbox() },
	"utf8match": func(d *Decoder) string { d.SetUTF8(true); return d.ListMailbox() },
}

// nested reads lists of atoms and lists.
func nested(d *Decoder) string {
	var parts []string
	d.List(func() {
		if d.Peek() == '(' {
			parts = append(parts, nested(d))
		} else {
			parts = append(parts, d.Atom())
		}
	})
	return "(" + strings.Join(parts, " ") + ")"
}

func TestProductions(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 255)
	for _, tt := range []struct{ prod, in, want, kind string }{
		{"tag", "a1", "a1", "ok"},
		{"tag", "A.]#!~&$'-/;<=>?@[^_`|}", "A.]#!~&$'-/;<=>?@[^_`|}", "ok"},
		{"tag", long, long, "ok"},
		{"tag", long + "x", "", "BAD TOOBIG"},
		{"tag", "", "", "BAD"},
		{"tag", "a+", "a", "BAD"},
		{"tag", "*", "", "BAD"},
		{"tag", "{3}", "", "BAD"},
		{"tag", "a\\", "a", "BAD"},
		{"tag", "\x7f", "", "BAD"},
		{"tag", "\xc3\xbc", "", "BAD"},
		{"tag", "a\x00", "a", "BAD"},

		{"atom", "UTF-8", "UTF-8", "ok"},
		{"atom", "a]", "a", "BAD"},
		{"atom", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "ok"},
		{"keyword", "fetch", "FETCH", "ok"},
		{"keyword", "body.peek[", "BODY.PEEK", "BAD"},
		{"keyword", "binary<", "BINARY", "BAD"},
		{"keyword", "", "", "BAD"},

		{"astring", "x]y", "x]y", "ok"},
		{"astring", `""`, "", "ok"},
		{"astring", `"a b"`, "a b", "ok"},
		{"astring", `"\\\""`, `\"`, "ok"},
		{"astring", "\"\x01\t\x7f\"", "\x01\t\x7f", "ok"},
		{"astring", `"this is longer than the buffer of sixteen octets\\"`, `this is longer than the buffer of sixteen octets\`, "ok"},
		{"astring", `"\x"`, "", "BAD"},
		{"astring", `"open`, "", "BAD"},
		{"astring", "\"a\x00\"", "", "BAD"},
		{"astring", "\"a\rb\"", "", "BAD"},
		{"astring", "\"\xc3\xbc\"", "", "BAD"},
		{"astring", "{3}\r\na\"b", "a\"b", "ok"},
		{"astring", "{0}\r\n", "", "ok"},
		{"astring", "{03+}\n\xff\r\n", "\xff\r\n", "ok"},
		{"astring", "{3}\r\na\x00b", "", "BAD"},
		{"astring", "", "", "BAD"},
		{"astring", "a%", "a", "BAD"},
		{"astring", "~{3}", "~", "BAD"},
		{"astring", "{}", "", "BAD"},
		{"astring", "{+}", "", "BAD"},
		{"astring", "{-1}", "", "BAD"},
		{"astring", "{1 }", "", "BAD"},
		{"astring", "{1+ }", "", "BAD"},
		{"astring", "{1++}", "", "BAD"},
		{"astring", "{1", "", "BAD"},
		{"astring", "{1{1}", "", "BAD"},
		{"astring", "{1}x", "", "BAD"},
		{"astring", "{1}\rx", "", "BAD"},
		{"astring", "{9223372036854775807}", "", "NO TOOBIG"},
		{"astring", "{9223372036854775808}", "", "BAD"},
		{"astring", "{99999999999999999999999}", "", "BAD"},
		{"astring", "{9223372036854775808+}", "", "BYE"},
		{"astring", "{9223372036854775807+}", "", "BYE"},

		{"lenient", "\"p\xc3\xbc\"", "p\xc3\xbc", "ok"},
		{"lenient", "\"p\xff\"", "", "BAD"},
		{"lenient", "p\xc3\xbc", "p", "BAD"},
		{"utf8", "\"p\xc3\xbc\"", "p\xc3\xbc", "ok"},
		{"utf8", "\"p\xc3\"", "", "BAD"},
		{"utf8", "{1+}\r\n\xff", "\xff", "ok"},

		{"string", "atom", "", "BAD"},
		{"string", `"q"`, "q", "ok"},
		{"nstring", "nIl", "/false", "ok"},
		{"nstring", `"NIL"`, "NIL/true", "ok"},
		{"nstring", "NILS", "/false", "BAD"},
		{"nstring", "", "/false", "BAD"},

		{"mailbox", "inBox", "INBOX", "ok"},
		{"mailbox", `"inbox"`, "INBOX", "ok"},
		{"mailbox", "{5+}\r\nInbox", "INBOX", "ok"},
		{"mailbox", "inbox/x", "inbox/x", "ok"},
		{"mailbox", "gr&APw-n", "grün", "ok"},
		{"mailbox", "a&-b", "a&b", "ok"},
		{"mailbox", "&AGE-", "&AGE-", "NO CANNOT"},
		{"mailbox", `"&bad"`, "&bad", "NO CANNOT"},
		{"mailbox", "\"gr\xc3\xbcn\"", "grün", "ok"},
		{"mailbox", "{6}\r\ngr\xc3\xbcn.", "grün.", "ok"},
		{"mailbox", "\"\xc3\xbc&-gr&APw-n\"", "ü&grün", "ok"},
		{"mailbox", "\"\xc3\xbc&-gr&\xc3\xbc-n\"", "ü&-gr&ü-n", "NO CANNOT"},
		{"mailbox", "\"\xc3\xbc&AGE-\"", "ü&AGE-", "NO CANNOT"},
		{"mailbox", "\"gr\xc3\"", "gr\xc3", "NO CANNOT"},
		{"mailbox", "\"gr\xc3\xbc\tn\"", "grü\tn", "NO CANNOT"},
		{"mailbox", "gr\xc3\xbcn", "gr", "BAD"},
		{"mailbox", "a*", "a", "BAD"},
		{"utf8name", "\"gr\xc3\xbcn\"", "grün", "ok"},
		{"utf8name", "&AGE-", "&AGE-", "ok"},
		{"utf8name", "\"gr\xc3\"", "gr\xc3", "NO CANNOT"},
		{"utf8name", "{3+}\r\ngr\xff", "gr\xff", "NO CANNOT"},

		{"pattern", "*", "*", "ok"},
		{"pattern", "a/%]", "a/%]", "ok"},
		{"pattern", `""`, "", "ok"},
		{"pattern", "gr&APw-n/*&-%&bad*", "grün/*&%&bad*", "ok"},
		{"pattern", "\"\xc3\xbc&-*\"", "ü&*", "ok"},
		{"pattern", "{3+}\r\na b", "a b", "ok"},
		{"pattern", "\"\xff*\"", "\xff*", "ok"},
		{"pattern", "a(", "a", "BAD"},
		{"utf8match", "\"\xc3\xbc&APw-*\"", "ü&APw-*", "ok"},

		{"number", "0", "0", "ok"},
		{"number", "007", "7", "ok"},
		{"number", "4294967295", "4294967295", "ok"},
		{"number", "4294967296", "0", "BAD"},
		{"number", "99999999999999999999999", "0", "BAD"},
		{"number", "-1", "0", "BAD"},
		{"number", "", "0", "BAD"},
		{"nznumber", "1", "1", "ok"},
		{"nznumber", "0", "0", "BAD"},
		{"nznumber", "00", "0", "BAD"},
		{"number64", "9223372036854775807", "9223372036854775807", "ok"},
		{"number64", "9223372036854775808", "0", "BAD"},

		{"flag", `\sEEN`, `\Seen`, "ok"},
		{"flag", `\RECENT`, `\Recent`, "ok"},
		{"flag", `\Foo`, `\Foo`, "ok"},
		{"flag", `$Forwarded`, `$Forwarded`, "ok"},
		{"flag", long, long, "ok"},
		{"flag", long + "x", "", "BAD TOOBIG"},
		{"flag", `\` + long, "", "BAD TOOBIG"},
		{"flag", `\*`, "", "BAD"},
		{"flag", `\`, "", "BAD"},
		{"flag", `a]b`, "a", "BAD"},
		{"flag", "\xc3\xbc", "", "BAD"},
		{"flaglist", "()", "", "ok"},
		{"flaglist", `(\Seen a)`, `\Seen,a`, "ok"},
		{"flaglist", `(\Seen a )`, `\Seen,a`, "ok"},
		{"flaglist", `(\Seen  a)`, "", "BAD"},
		{"flaglist", `( \Seen)`, "", "BAD"},
		{"flaglist", `(\Seen`, "", "BAD"},
		{"flaglist", `\Seen`, "", "BAD"},
		{"flagsarg", `\Seen a`, `\Seen,a`, "ok"},
		{"flagsarg", `\Seen a `, `\Seen,a`, "ok"},
		{"flagsarg", `(\Seen a)`, `\Seen,a`, "ok"},
		{"flagsarg", "", "", "BAD"},

		{"date", "1-Feb-2026", "2026-02-01", "ok"},
		{"date", `"01-fEB-2026"`, "2026-02-01", "ok"},
		{"date", "30-Feb-2026", "2026-02-28", "ok"},
		{"date", "29-Feb-1900", "1900-02-28", "ok"},
		{"date", "29-Feb-2000", "2000-02-29", "ok"},
		{"date", "31-Dec-9999", "9999-12-31", "ok"},
		{"date", "32-Jan-2026", "0001-01-01", "BAD"},
		{"date", "0-Jan-2026", "0001-01-01", "BAD"},
		{"date", "1-Jan-0000", "0001-01-01", "BAD"},
		{"date", "01-Jan-99999999", "0001-01-01", "BAD"},
		{"date", "001-Jan-2026", "0001-01-01", "BAD"},
		{"date", "1-Foo-2026", "0001-01-01", "BAD"},
		{"date", "1-Ja", "0001-01-01", "BAD"},
		{"date", "", "0001-01-01", "BAD"},
		{"date", `"1-Jan-2026`, "0001-01-01", "BAD"},

		{"datetime", `" 1-Feb-2026 10:00:00 +0100"`, "2026-02-01T10:00:00+0100", "ok"},
		{"datetime", `"1-Feb-2026 10:00:00 -0130"`, "2026-02-01T10:00:00-0130", "ok"},
		{"datetime", `"31-Dec-2016 23:59:60 +0000"`, "2016-12-31T23:59:59+0000", "ok"},
		{"datetime", `"30-Feb-2026 10:00:00 +0100"`, "0001-01-01T00:00:00+0000", "BAD"},
		{"datetime", `"29-Feb-1900 10:00:00 +0100"`, "0001-01-01T00:00:00+0000", "BAD"},
		{"datetime", `" 1-jan-0000 00:00:00 +0000"`, "0001-01-01T00:00:00+0000", "BAD"},
		{"datetime", `" 1-Feb-2026 24:00:00 +0100"`, "0001-01-01T00:00:00+0000", "BAD"},
		{"datetime", `" 1-Feb-2026 10:60:00 +0100"`, "0001-01-01T00:00:00+0000", "BAD"},
		{"datetime", `" 1-Feb-2026 10:00:00 +9999"`, "0001-01-01T00:00:00+0000", "BAD"},
		{"datetime", `" 1-Feb-2026 10:00:00 +010"`, "0001-01-01T00:00:00+0000", "BAD"},
		{"datetime", `" 1-Feb-2026 10:00:00 GMT"`, "0001-01-01T00:00:00+0000", "BAD"},
		{"datetime", `" 1-Feb-2026 10:00:00 +0100 "`, "0001-01-01T00:00:00+0000", "BAD"},
		{"datetime", `1-Feb-2026`, "0001-01-01T00:00:00+0000", "BAD"},

		{"list", "()", "()", "ok"},
		{"list", "(a (b c) ())", "(a (b c) ())", "ok"},
		{"list", "(a(b))", "(a)", "BAD"},
		{"list", "(((a)))", "(((a)))", "ok"},
		{"list", "((((a))))", "(((())))", "BAD"},
		{"list", "(a", "(a)", "BAD"},
		{"list", "(1 2 3 4 5 6 7 8 9)", "(1 2 3 4 5 6 7 8)", "BAD TOOBIG"},
	} {
		t.Run(tt.prod+" "+tt.in, func(t *testing.T) {
			t.Parallel()
			l := AfterLogin()
			l.Depth, l.Items = 3, 8
			each(t, tt.in+"\r\nz NOOP\r\n", l, func(t *testing.T, d *Decoder) {
				got := productions[tt.prod](d)
				err := d.End()
				if k := kind(err); got != tt.want || k != tt.kind {
					t.Fatalf("%s of %q: got %q, %s (%v), want %q, %s", tt.prod, tt.in, got, k, err, tt.want, tt.kind)
				}
				if tt.kind != "BYE" {
					wantNext(t, d, "z")
				}
			})
		})
	}
}

// wantNext skips the rest of this command and wants the next to have the tag, and be the last.
func wantNext(t *testing.T, d *Decoder, tag string) {
	t.Helper()
	if err := d.Skip(); err != nil {
		t.Fatalf("skip: %v", err)
	}
	d.Begin()
	got := d.Tag()
	d.SP()
	if name := d.Atom(); got != tag || name != "NOOP" || d.End() != nil {
		t.Fatalf("next command: got %q %q, %v, want %q", got, name, d.Err(), tag)
	}
	d.Begin()
	if d.Peek(); kind(d.Err()) != "EOF" {
		t.Fatalf("after the last command: got %v, want EOF", d.Err())
	}
}
