package main

import (
	"regexp"
	"strings"
	"testing"
)

// TestSmoke does all work once on little mail: the two servers must agree on
// every answer, and every row must have its figures. How large these are is
// nobody's business here.
func TestSmoke(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	o := options{messages: 50, rounds: 1, small: 10, clients: 4, deliveries: idlers, large: true, million: true}
	if err := run(t, o, &out); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	rows := 0
	// The memory of so few clients may even become less.
	figures := regexp.MustCompile(`^\| .+ \| -?[0-9.]+ (ms|ms each|KiB).* \| -?[0-9.]+ (ms|ms each|KiB).* (\| [-0-9.]+ ){4}\|$`)
	beside, alone, _ := strings.Cut(out.String(), "\n| SELECT by a process")
	for line := range strings.Lines(beside) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| work") {
			continue
		}
		if rows++; !figures.MatchString(strings.TrimSpace(line)) {
			t.Errorf("row without figures: %s", line)
		}
	}
	if rows < 40 {
		t.Errorf("%d rows, less than there were once", rows)
	}
	// Six states of three folders, two greetings, six kinds of commands, all with
	// figures.
	whole := regexp.MustCompile(`(?m)^\| [^|]+ \|( -?[0-9.]+(( /|,) -?[0-9.]+)? \|)+$`)
	if n := len(whole.FindAllString(alone, -1)); n != 6*3+2+6 {
		t.Errorf("%d rows of our server alone:\n%s", n, alone)
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, a, b string }{
		{"order of items", "* 1 FETCH (UID 7 FLAGS (\\Seen \\Draft))", "* 1 FETCH (FLAGS (\\Draft \\Seen) UID 7)"},
		{"literal and quoted", "* 1 FETCH (BODY[HEADER.FIELDS (To)] {5}\r\na\"b\\c)", `* 1 FETCH (BODY[HEADER.FIELDS (TO)] "a\"b\\c")`},
		{"texts", "* OK [UNSEEN 3] first\r\n* OK Still here", "* OK [UNSEEN 3] Message 3 is unseen."},
		{"codes of one server", "* OK [HIGHESTMODSEQ 5] modseq", "* OK [CLOSED] well"},
		{"order of responses", "* 5 EXISTS\r\n* 0 RECENT", "* 0 RECENT\r\n* 5 EXISTS"},
		{"direction of EXPUNGE", "* 3 EXPUNGE\r\n* 1 EXPUNGE", "* 1 EXPUNGE\r\n* 2 EXPUNGE"},
		{"LIST", `* LIST (\UnMarked \HasNoChildren) "/" a`, `* LIST (\HasNoChildren) "/" a`},
		{"STATUS", "* STATUS a (UIDNEXT 5 MESSAGES 4)", "* STATUS a (MESSAGES 4 UIDNEXT 5)"},
		{"UIDVALIDITY of a new mailbox", "* OK [COPYUID 17 1:4 1:4] x", "* OK [COPYUID 18 1:4 1:4] y"},
	} {
		if d := compare(t, tt.a, tt.b); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
	for _, tt := range []struct{ name, a, b string }{
		{"a flag", "* 1 FETCH (FLAGS (\\Seen))", "* 1 FETCH (FLAGS ())"},
		{"a message", "* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 2)", "* 1 FETCH (UID 1)"},
		{"NIL", "* 1 FETCH (ENVELOPE (NIL \"\"))", "* 1 FETCH (ENVELOPE (\"\" \"\"))"},
		{"NIL and a string", "* 1 FETCH (ENVELOPE (NIL))", "* 1 FETCH (ENVELOPE (\"NIL\"))"},
		{"depth", "* 1 FETCH (BODYSTRUCTURE ((\"a\") \"b\"))", "* 1 FETCH (BODYSTRUCTURE (\"a\" \"b\"))"},
		{"an octet of a literal", "* 1 FETCH (BODY[] {2}\r\nab)", "* 1 FETCH (BODY[] {2}\r\naB)"},
		{"EXPUNGE", "* 3 EXPUNGE\r\n* 1 EXPUNGE", "* 1 EXPUNGE\r\n* 3 EXPUNGE"},
		{"UIDs of COPYUID", "* OK [COPYUID 17 1:4 1:4] x", "* OK [COPYUID 17 1:4 2:5] x"},
		{"results", "* SEARCH 1 2", "* SEARCH 2 1"},
	} {
		if compare(t, tt.a, tt.b) == "" {
			t.Errorf("%s: no difference seen", tt.name)
		}
	}
	for _, bad := range []string{"x", "* 1 FETCH (", "* 1 FETCH (BODY[] {9}\r\nab)", `* SEARCH "a`, "* 1 FETCH UID 1)"} {
		if _, err := (answer{"t ", []byte(bad + "\r\nt OK\r\n")}).lines(); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

// compare returns the difference of two answers without their tagged lines.
func compare(t *testing.T, a, b string) string {
	t.Helper()
	var said [2][]string
	for i, raw := range []string{a, b} {
		lines, err := (answer{"t ", []byte(raw + "\r\nt OK done\r\n")}).lines()
		if err != nil {
			t.Fatal(err)
		}
		said[i] = lines
	}
	return difference([2]string{"a", "b"}, said[0], said[1])
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	x := []float64{4, 1, 3, 2}
	for q, want := range map[float64]float64{0.25: 1, 0.5: 2, 0.75: 3, 0.99: 4, 1: 4} {
		if got := quantile(x, q); got != want {
			t.Errorf("quantile %v: got %v, want %v", q, got, want)
		}
	}
	if got := median(x); got != 2.5 {
		t.Errorf("median: got %v, want 2.5", got)
	}
	if got := median(x[:3]); got != 3 {
		t.Errorf("median of three: got %v, want 3", got)
	}
}
