package body

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// lineText makes text with all kinds of line ends.
func lineText(rnd *rand.Rand, n int) string {
	var b strings.Builder
	for b.Len() < n {
		switch rnd.IntN(8) {
		case 0:
			b.WriteByte('\r')
		case 1, 2:
			b.WriteByte('\n')
		case 3:
			b.WriteString("\r\n")
		case 4:
			b.WriteByte(0)
		default:
			b.WriteString(strings.Repeat("x", rnd.IntN(20)))
		}
	}
	return b.String()
}

func sent(s string) string { return strings.ReplaceAll(crlfView(s), "\x00", "\x80") }

// TestRanges fetches every range of small texts, and pieces of large ones, with and without a mark.
func TestRanges(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		text := lineText(rnd, 30)
		want := sent(text)
		c := Whole(strings.NewReader(text), int64(len(text)), int64(len(want)))
		for off := range len(want) + 2 {
			for n := range len(want) + 2 {
				if rnd.IntN(2) == 0 {
					c.Mark = Mark{}
				}
				got, err := c.AppendRange([]byte("-"), int64(off), int64(n))
				if err != nil {
					t.Fatal(err)
				}
				o := min(off, len(want))
				if w := "-" + want[o:min(o+n, len(want))]; string(got) != w {
					t.Fatalf("%q <%d.%d>: got %q, want %q", text, off, n, got, w)
				}
			}
		}
	}
}

func TestLargeRanges(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, text := range []string{
		lineText(rnd, 500_000), strings.Repeat("\n", 200_000), strings.Repeat("x\r\n", 100_000), strings.Repeat("x", 300_000),
		strings.Repeat("x\n", windowSize) + "\r", strings.Repeat("\r\n", windowSize),
	} {
		want := sent(text)
		c := Whole(strings.NewReader(text), int64(len(text)), int64(len(want)))
		var b bytes.Buffer
		if err := c.WriteRange(&b, 0, c.Size); err != nil || b.String() != want {
			t.Fatalf("whole text: %v", err)
		}
		piece := 1 + rnd.IntN(100_000)
		b.Reset()
		c.Mark = Mark{}
		for off := 0; off < len(want); off += piece {
			if err := c.WriteRange(&b, int64(off), int64(piece)); err != nil {
				t.Fatal(err)
			}
		}
		if b.String() != want {
			t.Fatalf("pieces of %d do not make the text", piece)
		}
		for range 20 {
			off := rnd.IntN(len(want))
			n := rnd.IntN(len(want))
			got, err := c.AppendRange(nil, int64(off), int64(n))
			if err != nil || string(got) != want[off:min(off+n, len(want))] {
				t.Fatalf("<%d.%d>: %v", off, n, err)
			}
		}
	}
}

// sizes notes how large the writes are.
type sizes []int

func (s *sizes) Write(b []byte) (int, error) {
	*s = append(*s, len(b))
	return len(b), nil
}

func TestWriteSizes(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("a line of some length\n", 50_000)
	var s sizes
	c := Whole(strings.NewReader(text), int64(len(text)), int64(len(crlfView(text))))
	if err := c.WriteRange(&s, 0, c.Size); err != nil {
		t.Fatal(err)
	}
	for _, n := range s[:len(s)-1] {
		if n < 64<<10 || n > 192<<10 {
			t.Errorf("write of %d", n)
		}
	}
}

// broken refuses every write.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestContentErrors(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("line\n", 100_000)
	root := parseString(t, "\n"+text, Limits{})
	short := strings.NewReader(text[:1000])
	c := NewContent(short, root.Body)
	if err := c.WriteRange(io.Discard, 0, c.Size); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("file cut short: %v", err)
	}
	c = NewContent(strings.NewReader("\n"+text), root.Body)
	if err := c.WriteRange(broken{}, 0, c.Size); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("connection lost: %v", err)
	}
	for _, r := range [][2]int64{{-1, 5}, {0, 0}, {5, -1}, {c.Size, 1}, {1 << 62, 1 << 62}} {
		b, err := c.AppendRange(nil, r[0], r[1])
		if len(b) != 0 || err != nil {
			t.Errorf("%v: %q %v", r, b, err)
		}
	}
	var zero Content
	if b, err := zero.Bytes(); len(b) != 0 || err != nil || zero.Found {
		t.Errorf("zero content: %q %v", b, err)
	}
	if b, err := func() ([]byte, error) { c := NewText([]byte("text")); return c.AppendRange(nil, 1, 1<<62) }(); string(b) != "ext" || err != nil {
		t.Errorf("text: %q %v", b, err)
	}
}

// TestLargeFields selects more than is held in memory, and from lines longer than the window.
func TestLargeFields(t *testing.T) {
	t.Parallel()
	var text, in, out strings.Builder
	for i := range 3000 {
		name := "X-Out"
		to := &out
		if i%2 == 0 {
			name, to = "x-iN", &in
		}
		value := strings.Repeat("v", i%100)
		if i == 1000 || i == 1001 {
			value = strings.Repeat("w", 100_000) + "\n " + strings.Repeat("w", 100_000)
		}
		for _, b := range []*strings.Builder{&text, to} {
			b.WriteString(name + ": " + value + "\n")
		}
	}
	for _, b := range []*strings.Builder{&text, &in, &out} {
		b.WriteString("\n")
	}
	r := strings.NewReader(text.String())
	root := parseString(t, text.String(), Limits{})
	for kind, want := range map[SectionKind]string{SectionFields: crlfView(in.String()), SectionFieldsNot: crlfView(out.String())} {
		c, err := root.Section(r, Section{Kind: kind, Fields: NewFieldNames("Y", "X-In")})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := c.WriteRange(&b, 0, c.Size); err != nil || b.String() != want || c.Size != int64(len(want)) {
			t.Errorf("kind %d: %v, %d octets of %d", kind, err, b.Len(), len(want))
		}
		b.Reset()
		if err := c.WriteRange(&b, 99_000, 150_000); err != nil || b.String() != want[99_000:min(249_000, len(want))] {
			t.Errorf("kind %d: part: %v", kind, err)
		}
	}
}

func TestFieldNames(t *testing.T) {
	t.Parallel()
	names := NewFieldNames("Subject", "TO", "cc", "X-Long-Name", "to", "Bcc", "X-Long-Namf", "")
	for name, want := range map[string]bool{
		"subject": true, "SUBJECT": true, "To": true, "Cc": true, "bcc": true, "x-long-name": true, "X-LONG-NAMF": true, "": true,
		"Subjec": false, "Subjecu": false, "x": false, "bc": false, "x-long-namd": false, "x-long-namg": false, "date": false, "x-long-name-too": false,
	} {
		if got := names.has([]byte(name)); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	if (FieldNames{}).has([]byte("to")) {
		t.Error("the empty set has a name")
	}
}

// TestManyFieldNames holds that to select fields of a long header does not cost the number of its lines times that of
// the names.
func TestManyFieldNames(t *testing.T) {
	text := strings.Repeat("aaaaaaab: x\n", 20_000) + "\n"
	took := func(n int) time.Duration {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("a%07d", i))
		}
		set, least := NewFieldNames(names...), time.Hour
		for range 3 {
			begin := time.Now()
			c, err := SelectFields(strings.NewReader(text), Span{End: int64(len(text))}, set, false)
			least = min(least, time.Since(begin))
			if err != nil || c.Size != 2 {
				t.Fatalf("%d octets, %v", c.Size, err)
			}
		}
		return least
	}
	if one, many := took(1), took(20_000); many > 100*one {
		t.Errorf("%v for one name, %v for 20000", one, many)
	}
}

func TestVirtualSize(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range 50 {
		text := lineText(rnd, i*i*100)
		n, err := VirtualSize(strings.NewReader(text), int64(len(text)))
		if want := int64(len(crlfView(text))); n != want || err != nil {
			t.Errorf("%d octets: got %d, want %d, %v", len(text), n, want, err)
		}
	}
	if _, err := VirtualSize(strings.NewReader("x"), 2); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short file: %v", err)
	}
}
