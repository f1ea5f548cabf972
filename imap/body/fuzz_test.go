package body

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

// counting counts the octets read from it.
type counting struct {
	*strings.Reader
	read int64
}

func (c *counting) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.Reader.ReadAt(b, off)
	c.read += int64(n)
	return n, err
}

func FuzzParse(f *testing.F) {
	for _, text := range corpus() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := &counting{Reader: strings.NewReader(text)}
		root, err := Parse(r, int64(len(text)), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if r.read > int64(len(text)) {
			t.Errorf("%d octets read of %d", r.read, len(text))
		}
		checkTree(t, text, root)
		fuzzContents(t, text, root)
		if err := root.Search(r, NewMatcher(newKeys("no such text"))); err != nil {
			t.Error(err)
		}
	})
}

// fuzzContents reads the spans of the first parts, whole and from the middle.
func fuzzContents(t *testing.T, text string, root *Part) {
	parts := []*Part{root}
	for i := 0; i < len(parts) && i < 20; i++ {
		p := parts[i]
		parts = append(parts, p.Parts...)
		for _, s := range []Span{p.Header, p.Body} {
			c := NewContent(strings.NewReader(text), s)
			want := sent(text[s.Off:s.End])
			if got, err := c.Bytes(); err != nil || string(got) != want {
				t.Fatalf("%+v: got %q, want %q, %v", s, got, want, err)
			}
			half := c.Size / 2
			if got, err := c.AppendRange(nil, half, c.Size); err != nil || string(got) != want[half:] {
				t.Fatalf("%+v from %d: got %q, want %q, %v", s, half, got, want[half:], err)
			}
		}
		if c, err := p.Binary(strings.NewReader(text)); err == nil {
			if got, err := c.Bytes(); err != nil || int64(len(got)) != c.Size {
				t.Fatalf("binary: %d octets of %d, %v", len(got), c.Size, err)
			}
		}
	}
}

func FuzzAddress(f *testing.F) {
	for _, text := range addressTexts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		depth, octets := 0, 0
		for i, a := range ParseAddresses(bytes.Clone(value), 50) {
			if i >= 50 {
				t.Fatal("too many addresses")
			}
			octets += len(a.Name.S) + len(a.Route.S)
			switch {
			case a.IsGroupStart():
				depth++
			case a.IsGroupEnd():
				depth--
			case !a.Mailbox.OK || a.Host.S == "":
				t.Errorf("address %d: %+v", i, a)
			}
			if depth < 0 || depth > 1 {
				t.Errorf("groups do not match: %d", depth)
			}
		}
		if octets > 3*len(value)+50*len("INVALID_ROUTE") {
			t.Errorf("%d octets of %d", octets, len(value))
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	for _, text := range fieldTexts {
		f.Add([]byte(text))
	}
	f.Add([]byte("=?iso-2022-jp?b?GyRCJDMkcyRLJEEkTxsoQg==?= =?utf-7?q?+AOk-?= =?hz?q?~{?="))
	f.Add([]byte("=?utf-16?b?//5hAA==?= =?gb18030?b?gTCBMA==?= =?big5?q?=A7?="))
	f.Fuzz(func(t *testing.T, raw []byte) {
		keep := bytes.Clone(raw)
		s := DecodeHeader(raw)
		if !utf8.ValidString(s) {
			t.Errorf("not UTF-8: %q", s)
		}
		if len(s) > 4*len(raw)+8 {
			t.Errorf("%d octets of %d", len(s), len(raw))
		}
		if !bytes.Equal(raw, keep) {
			t.Error("the raw value was changed")
		}
		ParseDate(raw)
	})
}

func FuzzDecoders(f *testing.F) {
	for _, text := range encodedTexts {
		_, body, _ := strings.Cut(text, "\n\n")
		f.Add([]byte(body), 3)
	}
	f.Fuzz(func(t *testing.T, src []byte, cut int) {
		for _, cte := range []CTE{Base64, QuotedPrintable} {
			d := newDecoder(cte)
			whole := d.finish(d.decode(nil, src))
			if len(whole) > 2*len(src) {
				t.Errorf("%d octets of %d", len(whole), len(src))
			}
			d = newDecoder(cte)
			var pieces []byte
			for b := src; len(b) > 0; {
				n := min(max(cut, 1), len(b))
				pieces = d.decode(pieces, b[:n])
				b = b[n:]
			}
			if pieces = d.finish(pieces); !bytes.Equal(whole, pieces) {
				t.Errorf("%q: whole %q, in pieces of %d %q", src, whole, cut, pieces)
			}
		}
	})
}

func FuzzMatcher(f *testing.F) {
	f.Add("jörg", "Hallo JO\u0308RG!", 1)
	f.Add("a", "\xff\xe2\x82A", 2)
	f.Fuzz(func(t *testing.T, key, text string, cut int) {
		k := newKey(key)
		want := strings.Contains(string(Fold(nil, []byte(text))), string(k.Text))
		m := NewMatcher([]Key{k, newKey(key + text)})
		whole := match(m, text, len(text))
		if pieces := match(m, text, cut); whole != pieces {
			t.Errorf("%q in %q: whole %v, in pieces of %d %v", key, text, whole, cut, pieces)
		}
		// An unfinished character at the end of the text is not looked at.
		if whole != want && utf8.ValidString(text) || whole && !want {
			t.Errorf("%q in %q: got %v, want %v", key, text, whole, want)
		}
	})
}
