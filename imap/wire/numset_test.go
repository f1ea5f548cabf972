package wire

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestNumSet(t *testing.T) {
	t.Parallel()
	const top = 1<<32 - 1
	for _, tt := range []struct {
		in   string
		want []NumRange
		kind string
	}{
		{"1", []NumRange{{1, 1}}, "ok"},
		{"2,4:7", []NumRange{{2, 2}, {4, 7}}, "ok"},
		{"9:*", []NumRange{{9, Star}}, "ok"},
		{"*", []NumRange{{Star, Star}}, "ok"},
		{"*:9", []NumRange{{9, Star}}, "ok"},
		{"*:*", []NumRange{{Star, Star}}, "ok"},
		{"*,1", []NumRange{{1, 1}, {Star, Star}}, "ok"},
		{"7:4", []NumRange{{4, 7}}, "ok"},
		{"5,1:2,3,9,7:8", []NumRange{{1, 3}, {5, 5}, {7, 9}}, "ok"},
		{"1:*,1:*,5", []NumRange{{1, Star}}, "ok"},
		{"1:4,5:*,9,*", []NumRange{{1, Star}}, "ok"},
		{"007", []NumRange{{7, 7}}, "ok"},
		{"4294967295:*", []NumRange{{top, Star}}, "ok"},
		{"*:4294967295", []NumRange{{top, Star}}, "ok"},
		{"5:4294967295", []NumRange{{5, top}}, "ok"},
		{"4294967295,4294967294,*", []NumRange{{top - 1, top}, {Star, Star}}, "ok"},
		{"$", nil, "ok"},
		{"$,1", nil, "BAD"},
		{"1,$", nil, "BAD"},
		{"0", nil, "BAD"},
		{"0:1", nil, "BAD"},
		{"1:0", nil, "BAD"},
		{"4294967296", nil, "BAD"},
		{"1:99999999999999999999999999", nil, "BAD"},
		{"", nil, "BAD"},
		{",", nil, "BAD"},
		{"1,", nil, "BAD"},
		{"1,,2", nil, "BAD"},
		{"1:", nil, "BAD"},
		{":1", nil, "BAD"},
		{"1:2:3", nil, "BAD"},
		{"1*", nil, "BAD"},
		{"*1", nil, "BAD"},
		{"**", nil, "BAD"},
		{"-1", nil, "BAD"},
		{`"1"`, nil, "BAD"},
		{"1;2", []NumRange{{1, 1}}, "BAD"},
	} {
		each(t, tt.in+"\r\nz NOOP\r\n", AfterLogin(), func(t *testing.T, d *Decoder) {
			got := d.NumSet()
			err := d.End()
			if !slices.Equal(got.Ranges(), tt.want) || kind(err) != tt.kind || got.Saved != (tt.in == "$" || tt.in == "$,1") {
				t.Fatalf("%q: got %v, %v, want %v, %s", tt.in, got.Ranges(), err, tt.want, tt.kind)
			}
			wantNext(t, d, "z")
		})
	}
}

func TestNumSetResolve(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   NumSet
		max  uint32
		want string
	}{
		{NewNumSet(NumRange{4, Star}), 2, "2:4"},
		{NewNumSet(NumRange{4, Star}), 9, "4:9"},
		{NewNumSet(NumRange{Star, Star}), 9, "9"},
		{NewNumSet(NumRange{1, 8}, NumRange{Star, Star}), 9, "1:9"},
		{NewNumSet(NumRange{1, 3}, NumRange{Star, Star}), 9, "1:3,9"},
		{NewNumSet(NumRange{1, 3}, NumRange{Star, Star}), 2, "1:3"},
		{NewNumSet(NumRange{1, 3}, NumRange{7, Star}), 0, "1:3"},
		{NewNumSet(NumRange{7, Star}), 0, ""},
		{NewNumSet(NumRange{7, 5}), 2, "5:7"},
		{NumSet{}, 5, ""},
		{NumSet{Saved: true}, 5, "$"},
	} {
		got := tt.in.Resolve(tt.max)
		if got.String() != tt.want || got.HasStar() {
			t.Errorf("%v with %d: got %v, want %q", tt.in, tt.max, got, tt.want)
		}
		if again := tt.in.Resolve(tt.max); !again.Equal(got) {
			t.Errorf("%v with %d: got %v, then %v", tt.in, tt.max, got, again)
		}
	}
}

// TestNumSetAdd holds the builder against NewNumSet and against a map.
func TestNumSetAdd(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		const most = 40
		var s NumSet
		var ranges []NumRange
		want := map[uint32]bool{}
		for range rnd.IntN(20) {
			a := rnd.Uint32N(most + 1) // 0 is Star
			b := a + rnd.Uint32N(4)
			if round%3 == 0 && a == Star {
				b = Star
			}
			s.AddRange(a, b)
			ranges = append(ranges, NumRange{a, b})
			checkSet(t, s)
			lo, hi := a, b
			if a == Star {
				lo, hi = b, most
			}
			if b == Star {
				lo = most
			}
			for n := lo; n <= hi; n++ {
				want[n] = true
			}
		}
		if all := NewNumSet(slices.Clone(ranges)...); !all.Equal(s) {
			t.Fatalf("%v: one by one %v, at once %v", ranges, s, all)
		}
		got := map[uint32]bool{}
		for n := range s.Resolve(most).All() {
			got[n] = true
		}
		for n := uint32(1); n <= most; n++ {
			if got[n] != want[n] || s.Contains(n, most) != want[n] {
				t.Fatalf("%v, built as %v: %d is %v and %v, want %v", ranges, s, n, got[n], s.Contains(n, most), want[n])
			}
		}
		if n := uint64(len(got)); n != s.Resolve(most).Len() {
			t.Fatalf("%v has %d numbers, Len says %d", s, n, s.Resolve(most).Len())
		}
	}
}

func TestNumSetAscending(t *testing.T) {
	t.Parallel()
	var s NumSet
	if !s.Empty() || s.HasStar() || s.Contains(1, 1) || s.Len() != 0 {
		t.Error("the zero set is not empty")
	}
	for _, n := range []uint32{1, 2, 3, 5, 6, 9, 1<<32 - 1} {
		s.Add(n)
	}
	if got := s.String(); got != "1:3,5:6,9,4294967295" {
		t.Errorf("got %s", got)
	}
	var stopped []uint32
	for n := range s.All() {
		if stopped = append(stopped, n); n == 5 {
			break
		}
	}
	if !slices.Equal(stopped, []uint32{1, 2, 3, 5}) {
		t.Errorf("stopped at 5: %v", stopped)
	}
	for n := range s.All() {
		stopped = append(stopped, n)
	}
	if len(stopped) != 4+7 {
		t.Errorf("all: %v", stopped)
	}
	if s.Contains(0, 9) || s.Contains(4, 9) || !s.Contains(9, 0) {
		t.Error("Contains is wrong at the edges")
	}
}

// TestHugeSet wants a set that fills the line to its limit to be read, and one
// that takes an octet more to be refused.
func TestHugeSet(t *testing.T) {
	t.Parallel()
	in := strings.Repeat("1,3,", 1<<19)
	d, _ := newDecoder(strings.NewReader(in[:1<<21-3]+"\r\n"), AfterLogin())
	if s := d.NumSet(); s.String() != "1,3" || d.End() != nil {
		t.Errorf("got %d ranges, %v", len(s.Ranges()), d.Err())
	}
	d, _ = newDecoder(strings.NewReader(in[:1<<21-1]+" \r\n"), AfterLogin())
	if d.NumSet(); kind(d.End()) != "BYE" {
		t.Errorf("got %v, want ErrFraming", d.Err())
	}
}

// TestNumSetRepeats holds that a long set costs what it means, not what it says.
func TestNumSetRepeats(t *testing.T) {
	t.Parallel()
	read := func(in string) NumSet {
		d, _ := newDecoder(strings.NewReader(in+"\r\n"), AfterLogin())
		set := d.NumSet()
		if err := d.End(); err != nil {
			t.Fatal(err)
		}
		return set
	}
	for _, in := range []string{strings.Repeat("1:*,*:1,", 100_000) + "7", strings.Repeat("1,", 500_000) + "2", strings.Repeat("5,3,9:11,", 50_000) + "*"} {
		if got := read(in).ranges; cap(got) > 2*mergeAt {
			t.Errorf("%.20s...: room for %d ranges", in, cap(got))
		}
	}
	var want []NumRange
	var b strings.Builder
	for _, i := range rand.Perm(50_000) {
		b.WriteString(strings.Repeat(strconv.Itoa(2*i+1)+",", 1+i%3))
	}
	for i := range 50_000 {
		want = append(want, NumRange{uint32(2*i + 1), uint32(2*i + 1)})
	}
	if got := read(b.String() + "1").Ranges(); !slices.Equal(got, want) {
		t.Errorf("got %d ranges, want %d", len(got), len(want))
	}
}

func TestNumSetIntersect(t *testing.T) {
	for _, tt := range []struct{ a, b, want []NumRange }{
		{nil, []NumRange{{1, 9}}, nil},
		{[]NumRange{{1, 9}}, []NumRange{{3, 4}, {6, 20}}, []NumRange{{3, 4}, {6, 9}}},
		{[]NumRange{{1, 2}, {5, 6}}, []NumRange{{3, 4}, {7, 7}}, nil},
		{[]NumRange{{1, 4}, {6, 8}}, []NumRange{{4, 6}, {8, 1<<32 - 1}}, []NumRange{{4, 4}, {6, 6}, {8, 8}}},
	} {
		a, b, want := NewNumSet(tt.a...), NewNumSet(tt.b...), NewNumSet(tt.want...)
		if got := a.Intersect(b); !got.Equal(want) {
			t.Errorf("%v and %v: %v, want %v", a, b, got, want)
		}
		if got := b.Intersect(a); !got.Equal(want) {
			t.Errorf("%v and %v: %v, want %v", b, a, got, want)
		}
	}
}
