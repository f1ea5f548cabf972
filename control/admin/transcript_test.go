package admin

import (
	"strings"
	"testing"
	"time"
	"unicode"
)

// clock returns the time of a mark as a transcript shows it.
func clock(seconds int64) string { return time.Unix(seconds, 0).Format(time.TimeOnly) }

func TestTranscript(t *testing.T) {
	t.Parallel()
	at := clock(1790000000)
	for _, tt := range []struct {
		name, in, want string
		middle, colour bool
	}{
		{name: "a command", in: "---------- jane Mon\n\n<1790000000<a NOOP\r\n>1790000000>a OK done\r\n",
			want: "---------- jane Mon\n" + at + " C: a NOOP\n" + at + " S: a OK done\n"},
		{name: "several lines", in: ">1790000000>* 1 EXISTS\r\n* 0 RECENT\r\n", want: at + " S: * 1 EXISTS\n" + at + " S: * 0 RECENT\n"},
		{name: "a line in two pieces", in: "<1790000000<a NO<1790000000<OP\r\n", want: at + " C: a NOOP\n"},
		{name: "a literal without an end", in: "<1790000000<xyz>1790000000>a OK\r\n", want: at + " C: xyz\n" + at + " S: a OK\n"},
		{name: "marks that are none", in: "<1790000000<a<b> <12< <179000000x< <1790000000>\r\n", want: at + " C: a<b> <12< <179000000x< <1790000000>\n"},
		{name: "terminal codes", in: ">1790000000>\x1b[31mred\a \xff\xc2\x9b größe\t.\r\n", want: at + " S: " + `\x1b[31mred\x07 \xff\xc2\x9b größe` + "\t.\n"},
		{name: "an empty line", in: ">1790000000>a\r\n\r\nb\n", want: at + " S: a\n" + at + " S: \n" + at + " S: b\n"},
		{name: "from the middle", in: "of a line\r\nmore\r\n<1790000000<a NOOP\r\n", want: at + " C: a NOOP\n", middle: true},
		{name: "a long line", in: "<1790000000<" + strings.Repeat("x", maxShown+1) + "\r\n",
			want: at + " C: " + strings.Repeat("x", maxShown) + "\n" + at + " C: x\n"},
		{name: "colours", in: "<1790000000<a\r\n>1790000000>b\r\n", want: "\x1b[36m" + at + " C: a\x1b[0m\n\x1b[32m" + at + " S: b\x1b[0m\n", colour: true},
	} {
		whole := transcript{lost: tt.middle, colour: tt.colour}
		if got := whole.feed([]byte(tt.in)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		bits := transcript{lost: tt.middle, colour: tt.colour}
		var got string
		for i := range len(tt.in) {
			got += bits.feed([]byte{tt.in[i]})
		}
		if got != tt.want {
			t.Errorf("%s, octet by octet: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzTranscript(f *testing.F) {
	f.Add("<1790000000<a NOOP\r\n>1790000000>a OK\r\n", 3)
	f.Add("---------- x\n\n<1<", 1)
	f.Add("<99999999999<\x1b\xff>", 5)
	f.Fuzz(func(t *testing.T, in string, n int) {
		n = max(0, min(n, len(in)))
		whole, parts := transcript{}, transcript{}
		want := whole.feed([]byte(in))
		got := parts.feed([]byte(in[:n])) + parts.feed([]byte(in[n:]))
		if got != want {
			t.Errorf("%q in two parts: got %q, want %q", in, got, want)
		}
		for _, r := range want {
			if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
				t.Errorf("%q: got %q", in, want)
			}
		}
	})
}
