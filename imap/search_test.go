package imap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"imapd/control/config"
	"imapd/imap/body"
	"imapd/imap/wire"
)

// naive is what a tree of tests means.
func naive(t *SearchTest, x *Searching) bool {
	ok := true
	if t.Match != nil {
		ok, _ = t.Match(x)
	}
	for i := range t.All {
		ok = naive(&t.All[i], x) && ok
	}
	return ok != t.Not
}

// TestSearchLevels holds trees made at random against what they mean, and that
// no test runs as long as cheaper ones can decide.
func TestSearchLevels(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	for range 20_000 {
		dearest := CostRecord // that has run
		var leaves []*bool    // values of the tests
		var costs []Cost
		var tree func(depth int) SearchTest
		tree = func(depth int) SearchTest {
			n := SearchTest{Not: r.IntN(2) == 0}
			if depth == 0 || r.IntN(3) == 0 {
				value, cost := r.IntN(2) == 0, Cost(r.IntN(int(CostFile)+1))
				leaves, costs = append(leaves, &value), append(costs, cost)
				n.Cost = cost
				n.Match = func(*Searching) (bool, error) {
					dearest = max(dearest, cost)
					return value, nil
				}
				return n
			}
			for range 1 + r.IntN(3) {
				n.All = append(n.All, tree(depth-1))
			}
			return n
		}
		p := newSearchProgram(tree(3), stringKeys{})
		x := &Searching{}
		v, err := p.root.eval(x, CostRecord)
		if v == verdictOpen {
			v, err = p.decide(x)
		}
		ran := dearest
		if want := naive(&p.root, x); err != nil || v == verdictOpen || (v == verdictYes) != want {
			t.Fatalf("verdict %d, %v; want %v", v, err, want)
		}
		// With another value of all tests that cost as much as the dearest that ran,
		// or more, the outcome must change at least sometimes: else it ran in vain.
		if ran > CostRecord && len(leaves) <= 8 && decided(&p.root, x, leaves, costs, ran) {
			t.Fatalf("a test of cost %d ran although cheaper ones had decided", ran)
		}
	}
}

// decided reports whether the outcome is the same whatever the tests of at
// least the given cost say.
func decided(root *SearchTest, x *Searching, leaves []*bool, costs []Cost, from Cost) bool {
	want := naive(root, x)
	saved := make([]bool, len(leaves))
	for i, l := range leaves {
		saved[i] = *l
	}
	defer func() {
		for i, l := range leaves {
			*l = saved[i]
		}
	}()
	for bits := range 1 << len(leaves) {
		for i, l := range leaves {
			if costs[i] >= from {
				*l = bits>>i&1 != 0
			}
		}
		if naive(root, x) != want {
			return false
		}
	}
	return true
}

// TestSearchRun compares MIN, MAX and both with ALL, in a mailbox of several
// windows, with keys for which files are read and without.
func TestSearchRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const n = 1300
	r := rand.New(rand.NewPCG(2, 2))
	for i := range n {
		flags := ""
		if r.IntN(40) == 0 {
			flags = "F"
		}
		w.deliver("u", "", fmt.Sprintf("cur/%d.m.h:2,%s", i, flags), fmt.Sprintf("Subject: s%d\n\nbody%d\n", r.IntN(50), r.IntN(50)))
	}
	c := w.login("u")
	c.must(" OK", "SELECT INBOX")
	for _, program := range []string{
		"ALL", "FLAGGED", "SUBJECT s7", "BODY body3", "FLAGGED BODY body3", "OR SUBJECT s11 TEXT body22", "NOT SUBJECT s", "700:900 SUBJECT s9", "UID 3:5", "1300", "5000:*",
	} {
		all := strings.Fields(c.must(" OK", "UID SEARCH "+program)[0])[2:]
		for _, options := range []string{"MIN", "MAX", "MIN MAX", "MAX COUNT", "MIN MAX ALL"} {
			want := ""
			if len(all) > 0 {
				for _, o := range strings.Fields(options) {
					switch o {
					case "MIN":
						want += " MIN " + all[0]
					case "MAX":
						want += " MAX " + all[len(all)-1]
					}
				}
			}
			got := c.must(" OK", "UID SEARCH RETURN ("+options+") "+program)[0]
			got, _, _ = strings.Cut(got+" ALL", " ALL")
			got, _, _ = strings.Cut(got, " COUNT")
			if _, got, _ = strings.Cut(got, " UID"); got != want {
				t.Errorf("%s %s: got %q, want %q", options, program, got, want)
			}
		}
	}
}

// searchProgramOf parses a program with the default limits.
func searchProgramOf(text string) (searchProgram, error) {
	limits := config.Default().Limits
	d := wire.NewDecoder(bufio.NewReader(strings.NewReader(text+"\r\n")), wire.AfterLogin(), func() error { return nil })
	d.Begin()
	p := &SearchParser{Decoder: d, keys: limits.SearchKeys, room: limits.Args, depth: limits.SearchDepth}
	var a SearchArgs
	p.arguments(&a)
	return a.program, p.end()
}

func TestSearchLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, program string
		ok            bool
	}{
		{"999 keys", strings.Repeat("ALL ", 998) + "ALL", true},
		{"1000 keys", strings.Repeat("ALL ", 999) + "ALL", true},
		{"1001 keys", strings.Repeat("ALL ", 1000) + "ALL", false},
		{"NOT, 100 deep", strings.Repeat("NOT ", 99) + "ALL", true},
		{"NOT, 101 deep", strings.Repeat("NOT ", 100) + "ALL", false},
		{"parentheses, 100 deep", strings.Repeat("(", 99) + "ALL" + strings.Repeat(")", 99), true},
		{"parentheses, 101 deep", strings.Repeat("(", 100) + "ALL" + strings.Repeat(")", 100), false},
		{"OR, 100 deep", strings.Repeat("OR ALL ", 99) + "ALL", true},
		{"OR, 101 deep", strings.Repeat("OR ALL ", 100) + "ALL", false},
		{"OR to the left, 101 deep", strings.Repeat("OR ", 100) + strings.Repeat("ALL ", 100) + "ALL", false},
		{"a million", strings.Repeat("NOT ", 500_000) + "ALL", false},
		{"a million parentheses", strings.Repeat("(", 1_000_000), false},
		{"300 KB of strings", "TEXT {150000}\r\n" + strings.Repeat("ΐ", 75_000) + " SUBJECT {150000}\r\n" + strings.Repeat("ΐ", 75_000), true},
		{"300 KB that are 3 MB folded", "TEXT {150000}\r\n" + strings.Repeat("ﷺ", 50_000) + " SUBJECT {150000}\r\n" + strings.Repeat("ﷺ", 50_000), false},
	} {
		_, err := searchProgramOf(tt.program)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		var syntax *wire.SyntaxError
		if err != nil && !errors.As(err, &syntax) {
			t.Errorf("%s: %v is not answered with BAD", tt.name, err)
		}
	}
}

// TestSearchPanic holds that a mistake in a test costs the search, not the
// process, and that no file stays open.
func TestSearchPanic(t *testing.T) {
	t.Parallel()
	var p searchProgram
	s := &Session{ctx: context.Background()}
	p.root = SearchTest{Cost: CostFile, Match: func(*Searching) (bool, error) { panic("mistake") }}
	p = newSearchProgram(p.root, stringKeys{})
	r := searchRun{program: &p, looker: &Searching{Session: s, ctx: s.ctx}}
	for i := range 20 {
		r.window = append(r.window, candidate{seq: i + 1, verdict: verdictOpen})
	}
	err := r.decide(20)
	if err == nil || !strings.Contains(err.Error(), "panic: mistake") || !strings.Contains(err.Error(), "search_test.go") {
		t.Errorf("got %v", err)
	}
}

// manyKeys returns n keys of that kind that are nowhere.
func manyKeys(kind string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, " %s zz%d", kind, i)
	}
	return b.String()
}

// TestSearchTime holds that a search ends when its time is over, with NO, that
// "$" is empty then, and that the session lives.
func TestSearchTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) { c.Limits.SearchTime = time.Nanosecond })
	w.deliver("u", "", "cur/1.m.h:2,S", "Subject: a\n\nb\n")
	c := w.login("u")
	c.must(" OK", "SELECT INBOX")
	c.must(" NO [LIMIT]", "SEARCH SUBJECT a")
	c.must(" NO [LIMIT]", "SEARCH RETURN (SAVE) TEXT a")
	c.must(" OK", "NOOP")
}

// TestSearchTimeInMessage holds that the time of a search ends within a message.
func TestSearchTimeInMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *config.Config, _ *Options) { c.Limits.SearchTime = time.Millisecond })
	w.deliver("u", "", "cur/1.m.h:2,S", strings.Repeat("Subject: =?utf-8?q?a=C3=A9?=\n", 50_000)+"\n"+strings.Repeat("ΐΐΐΐ\n", 200_000))
	c := w.login("u")
	c.must(" OK", "SELECT INBOX")
	for _, kind := range []string{"SUBJECT", "BODY", "TEXT"} {
		c.must(" NO [LIMIT]", "SEARCH"+manyKeys(kind, 20))
	}
	c.must(" OK", "NOOP")
}

// TestSearchFieldOnce holds that a field is made ready once, for however many keys.
func TestSearchFieldOnce(t *testing.T) {
	lookAt := func(n int) float64 {
		program, err := searchProgramOf(manyKeys("SUBJECT", n)[1:])
		if err != nil {
			t.Fatal(err)
		}
		var x Searching
		x.begin(&program.strings)
		f := body.Field{Name: []byte("subject"), Value: []byte("=?utf-8?q?a=C3=A9?= b")}
		return testing.AllocsPerRun(100, func() { x.lookAt(f) })
	}
	if one, many := lookAt(1), lookAt(100); one != many {
		t.Errorf("%v allocations for one key, %v for 100", one, many)
	}
}

func TestAddressText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"a@b", "<a@b>"},
		{"Jane   Doe <a@b>, c@d", `"Jane Doe" <a@b>, <c@d>`},
		{`"Doe, Jane" <a@b>`, `"Doe, Jane" <a@b>`},
		{"a@b (Jane)", "Jane <a@b>"},
		{`"a \"b\"" <c@d>`, `"a \"b\"" <c@d>`},
		{"=?utf-8?q?a?= b <c@d>", "=?utf-8?q?a?= b <c@d>"},
		{"Jürgen <c@d>", "Jürgen <c@d>"},
		{"team: a@b, c@d;, e@f", "team: <a@b>, <c@d>;, <e@f>"},
		{"a b:;", `"a b":;`},
		{"<@r:a@b>", "<@r:a@b>"},
		{`"a b"@c`, `<"a b"@c>`},
		{"", ""},
	} {
		if got := string(addressText([]byte(tt.in))); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestDay(t *testing.T) {
	t.Parallel()
	east, west := time.FixedZone("", 14*3600), time.FixedZone("", -12*3600)
	for _, tt := range []struct {
		t    time.Time
		want int64
	}{
		{time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), 0},
		{time.Date(1970, 1, 1, 23, 59, 59, 0, west), 0},
		{time.Date(1970, 1, 2, 0, 0, 0, 0, east), 1},
		{time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC), -1},
		{time.Date(1969, 12, 31, 0, 0, 0, 0, east), -1},
		{time.Date(1969, 12, 30, 23, 59, 59, 0, time.UTC), -2},
		{time.Date(2024, 2, 29, 12, 0, 0, 0, east), 19782},
	} {
		if got := day(tt.t); got != tt.want {
			t.Errorf("%v: day %d, want %d", tt.t, got, tt.want)
		}
	}
}

// FuzzSearchProgram parses anything at all. What is well-formed has no more
// keys and levels than it may, and can be evaluated.
func FuzzSearchProgram(f *testing.F) {
	for _, seed := range []string{
		"ALL", "NOT SEEN", "OR FLAGGED (UNSEEN 1:3,*)", "CHARSET UTF-8 SUBJECT {5+}\r\ncaf\xc3\xa9", "RETURN (MIN MAX COUNT ALL SAVE) UID $ LARGER 5",
		"SINCE 1-Feb-2024 SENTON \"2-Mar-2024\" HEADER X-A \"\" BODY \"x y\"", "KEYWORD $Forwarded UNKEYWORD a", "((((ALL) ) ))", "CHARSET x-y TEXT a", "RETURN () OLDER 1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := searchProgramOf(text)
		if err != nil {
			return
		}
		if !slices.IsSorted(p.levels) || p.levels[0] != CostRecord {
			t.Errorf("levels %v", p.levels)
		}
		limits := config.Default().Limits
		if n, depth := measure(&p.root); n > 4*limits.SearchKeys || depth > 2*limits.SearchDepth+2 {
			t.Errorf("%d tests, %d deep", n, depth)
		}
	})
}

// measure returns the number of tests in t and how deep they nest.
func measure(t *SearchTest) (n, depth int) {
	for i := range t.All {
		m, d := measure(&t.All[i])
		n += m
		depth = max(depth, d)
	}
	return n + 1, depth + 1
}

func TestSearchCharset(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("u", "", "cur/1.m.h:2,S", "Subject: =?utf-8?q?caf=C3=A9?=\n\nПривет 会議\n")
	c := w.login("u")
	c.must(" OK", "SELECT INBOX")
	for _, tt := range []struct{ args, want string }{
		{"CHARSET ISO-8859-1 SUBJECT {4+}\r\ncaf\xe9", "* SEARCH 1"},
		{"CHARSET \"windows-1252\" SUBJECT {4+}\r\nCAF\xc9", "* SEARCH 1"},
		{"CHARSET utf-8 SUBJECT {5+}\r\ncaf\xc3\xa9", "* SEARCH 1"},
		{"SUBJECT {5+}\r\ncaf\xc3\xa9", "* SEARCH 1"},
		{"SUBJECT \"caf\xc3\xa9\"", "* SEARCH 1"},
		{"CHARSET US-ASCII SUBJECT {5+}\r\ncaf\xc3\xa9", "* SEARCH 1"},
		{"CHARSET KOI8-R BODY {6+}\r\n\xf0\xd2\xc9\xd7\xc5\xd4", "* SEARCH 1"},
		{"CHARSET ISO-2022-JP BODY {10+}\r\n\x1b$B2q5D\x1b(B", "* SEARCH 1"},
		{"CHARSET UTF-7 SUBJECT caf+AOk-", "* SEARCH 1"},
		{"CHARSET ISO-8859-1 SUBJECT {5+}\r\ncaf\xc3\xa9", "* SEARCH"},
		{"CHARSET UTF-8 SUBJECT {4+}\r\ncaf\xe9", "BAD"},
		{"SUBJECT {4+}\r\ncaf\xe9", "BAD"},
		{"SUBJECT \"caf\xe9\"", "BAD"},
		{"CHARSET X-NONE SUBJECT {4+}\r\ncaf\xe9", "NO [BADCHARSET (UTF-8 US-ASCII)]"},
		{"CHARSET ../../etc SUBJECT a", "NO [BADCHARSET (UTF-8 US-ASCII)]"},
		{"CHARSET \"\" SUBJECT a", "NO [BADCHARSET (UTF-8 US-ASCII)]"},
	} {
		lines, answer := c.do("SEARCH " + tt.args)
		if strings.HasPrefix(tt.want, "*") {
			answer = " " + strings.Join(lines, "|")
		}
		if !strings.HasPrefix(answer, " "+tt.want) || tt.want == "* SEARCH" && answer != " * SEARCH" {
			t.Errorf("%q: %q, want %q", tt.args, answer, tt.want)
		}
	}
	// NO empties "$", BAD does not.
	c.must(" OK", "SEARCH RETURN (SAVE) ALL")
	c.must(" BAD", "SEARCH RETURN (SAVE) NOSUCH")
	if got := c.must(" OK", "SEARCH $"); got[0] != "* SEARCH 1" {
		t.Errorf("after BAD: %q", got)
	}
	c.must(" NO [BADCHARSET", "SEARCH RETURN (SAVE) CHARSET X-NONE ALL")
	if got := c.must(" OK", "SEARCH $"); got[0] != "* SEARCH" {
		t.Errorf("after NO: %q", got)
	}
}
