package maildir

import (
	"strings"
	"testing"
)

func TestFlagNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		flags Flags
		set   Flags
		want  string
	}{
		{"1.h", 0, Seen, "1.h:2,S"},
		{"1.h:2,", 0, Seen | Flagged, "1.h:2,FS"},
		{"1.h:2,PSX", Seen, Deleted, "1.h:2,PTX"},
		{"1.h:2,S,U=5", Seen, 0, "1.h:2,,U=5"},
		{"1.h:1,exp", 0, Seen, "1.h:1,exp:2,S"},
		{"1.g:h:2,S", Seen, Seen | keywordFlag(25), "1.g:h:2,Sz"},
		{"1.h:2,ab", keywordFlag(0) | keywordFlag(1), keywordFlag(1) | Draft, "1.h:2,Db"},
		{"1.h:", 0, Seen, "1.h::2,S"},
		{"1.h:2", 0, Seen, "1.h:2:2,S"},
	} {
		if got := parseFlags(tt.name); got != tt.flags {
			t.Errorf("flags of %q are %b, want %b", tt.name, got, tt.flags)
		}
		got := withFlags(tt.name, tt.set)
		if got != tt.want {
			t.Errorf("%q with %b is %q, want %q", tt.name, tt.set, got, tt.want)
		}
		if parseFlags(got) != tt.set || baseLen(got) != baseLen(tt.name) {
			t.Errorf("%q reads as %b with a base of %d", got, parseFlags(got), baseLen(got))
		}
	}
}

func TestArrivalOrder(t *testing.T) {
	t.Parallel()
	order := []string{"x", "12.M9P1.h", "12.M10P1.h", "13.1_0.h", "13.M5P1.a", "13.M5P1.b", "100.h"}
	for i, a := range order {
		for j, b := range order {
			if c := arrivalOrder(a, b); c < 0 != (i < j) || c > 0 != (i > j) {
				t.Errorf("%q against %q: %d", a, b, c)
			}
		}
	}
}

func TestSizeField(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int64{
		"1.h,S=12,W=13": 12, "1.h,W=13,S=12": 12, "1.h": -1, "1.h,S=": -1, "1.h,S=abc": -1,
		"1.h,S=-5": -1, "1.h,S=99999999999999999999": -1, "1.h,S=7,S=8": 7,
	} {
		if got := sizeField([]byte(name), ",S="); got != want {
			t.Errorf("S= of %q is %d, want %d", name, got, want)
		}
	}
}

// Whatever a file is called: reading its name does no harm, and giving it flags
// keeps its base and everything that is not ours.
func FuzzFileName(f *testing.F) {
	for _, s := range []string{"1.h", "1.h:2,", "1.h:2,FSab", "1.h:1,x", "a:b:2,S,T", ":2,S", "1.h,S=5,W=6:2,PRS", "1:2,\xff", "::", "1:2,S:2,T"} {
		f.Add(s, uint64(Seen|Flagged))
	}
	f.Fuzz(func(t *testing.T, name string, bits uint64) {
		if len(name) > 255 || strings.ContainsAny(name, "/\x00\n\r") {
			return
		}
		set := Flags(bits) & (1<<(firstKeyword+26) - 1)
		got := withFlags(name, set)
		if parseFlags(got) != set {
			t.Errorf("%q with %b is %q, which reads as %b", name, set, got, parseFlags(got))
		}
		if name[:baseLen(name)] != got[:baseLen(got)] {
			t.Errorf("%q with flags is %q: another base", name, got)
		}
		if again := withFlags(got, set); again != got {
			t.Errorf("%q with the same flags again is %q", got, again)
		}
		if foreign(name) != foreign(got) {
			t.Errorf("%q with flags is %q: something was lost", name, got)
		}
		arrivalOrder(name, got)
		sizeField([]byte(name), ",W=")
	})
}

// foreign returns name without the letters that are ours.
func foreign(name string) string {
	from, to := flagLetters(name)
	if from == 0 {
		return name + ":2,"
	}
	kept := []byte(name[:from])
	for _, c := range []byte(name[from:to]) {
		if letterFlag(c) == 0 {
			kept = append(kept, c)
		}
	}
	return string(kept) + name[to:]
}
