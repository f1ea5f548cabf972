package body

import (
	"fmt"
	"strings"
	"testing"
)

// typical is a message of 32 KB: two texts and two attachments.
func typical() string {
	var b strings.Builder
	b.WriteString("Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\n\tfor <x@y>\nFrom: Joe Q. Public <john@example.com>\nTo: Mary <mary@example.org>, x@y\nSubject: A message\nMessage-ID: <1@b>\n" +
		"Date: Mon, 1 Jan 2024 00:00:00 +0000\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"=_outer\"\n\n--=_outer\nContent-Type: multipart/alternative; boundary=\"=_inner\"\n\n")
	for _, typ := range []string{"plain", "html"} {
		fmt.Fprintf(&b, "--=_inner\nContent-Type: text/%s; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n%s\n", typ, strings.Repeat("All work and no play makes Jack a dull boy; that is known to all of us.\n", 60))
	}
	b.WriteString("--=_inner--\n")
	for i := range 2 {
		fmt.Fprintf(&b, "\n--=_outer\nContent-Type: application/pdf; name=\"x%d.pdf\"\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=\"x%d.pdf\"\n\n%s", i, i,
			strings.Repeat("JVBERi0xLjQKJcOkw7zDtsOfCjIgMCBvYmoKPDwvTGVuZ3RoIDMgMCBSL0ZpbHRlci9GbGF0ZURl\n", 150))
	}
	b.WriteString("--=_outer--\n")
	return b.String()
}

func BenchmarkParse(b *testing.B) {
	for name, text := range map[string]string{"typical": typical(), "crlf": crlfed(typical()), "plain1M": "Subject: x\n\n" + strings.Repeat(strings.Repeat("x", 70)+"\n", 15_000)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				parseString(b, text, Limits{})
			}
		})
	}
}

func BenchmarkParseHeader(b *testing.B) {
	text := typical()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParseHeader(strings.NewReader(text), int64(len(text)), Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteCRLF(b *testing.B) {
	for name, text := range map[string]string{"lf": strings.Repeat(typical(), 10), "crlf": crlfed(strings.Repeat(typical(), 10))} {
		b.Run(name, func(b *testing.B) {
			c := Whole(strings.NewReader(text), int64(len(text)), int64(len(crlfView(text))))
			b.SetBytes(c.Size)
			b.ReportAllocs()
			var n count
			for b.Loop() {
				c.Mark = Mark{}
				if err := c.WriteRange(&n, 0, c.Size); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	text := typical()
	c := Whole(strings.NewReader(text), int64(len(text)), int64(len(crlfView(text))))
	buf := make([]byte, 0, c.Size)
	b.SetBytes(c.Size)
	b.ReportAllocs()
	for b.Loop() {
		c.Mark = Mark{}
		if _, err := c.AppendRange(buf, 0, c.Size); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVirtualSize(b *testing.B) {
	for name, text := range map[string]string{"lf": typical(), "crlf": crlfed(typical())} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, err := VirtualSize(strings.NewReader(text), int64(len(text))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSelectFields(b *testing.B) {
	text := typical()
	root := parseString(b, text, Limits{})
	names := NewFieldNames("Date", "Subject", "From", "Content-Type", "Message-ID")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := SelectFields(strings.NewReader(text), root.Header, names, false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatcher(b *testing.B) {
	for name, text := range map[string]string{"ascii": strings.Repeat(typical(), 4), "cyrillic": strings.Repeat("Съешь ещё этих мягких французских булок, да выпей чаю. ", 1000)} {
		b.Run(name, func(b *testing.B) {
			m := NewMatcher(newKeys("no such text"))
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if match(m, text, len(text)) {
					b.Fatal("found")
				}
			}
		})
	}
}

func BenchmarkSearch(b *testing.B) {
	text := typical()
	root := parseString(b, text, Limits{})
	m := NewMatcher(newKeys("no such text"))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if err := root.Search(strings.NewReader(text), m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, cte := range map[string]CTE{"base64": Base64, "qp": QuotedPrintable} {
		text := []byte(strings.Repeat("JVBERi0xLjQKJcOkw7zDtsOfCjIgMCBvYmoKPDwvTGVuZ3RoIDMgMCBSL0ZpbHRlci9GbGF0ZURl\n", 800))
		if cte == QuotedPrintable {
			text = []byte(strings.Repeat("All work and no play makes Jack a dull boy; it=E2=80=99s known to all of us.\n", 800))
		}
		b.Run(name, func(b *testing.B) {
			dst := make([]byte, 0, 2*len(text))
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				d := newDecoder(cte)
				d.finish(d.decode(dst, text))
			}
		})
	}
}
