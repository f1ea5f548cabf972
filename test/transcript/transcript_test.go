package transcript

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// line parses a line of a script with the literals that follow it.
func line(t *testing.T, text string) Line {
	t.Helper()
	lines := strings.Split(text, "\n")
	p := &scriptParser{Script: &Script{}, lines: lines[1:]}
	l, err := p.chunks(lines[0])
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		want, got string
		ok        bool
	}{
		{"a OK", "a OK done", true},
		{"a OK", "a OK [X] done", false},
		{"a OK [*]", "a OK done", true},
		{"a OK [*]", "a OK [X 1] done", true},
		{"a OK [*]", "a NO [X 1] done", false},
		{"a NO [X]", "a NO [X] why", true},
		{"a NO [X]", "a NO [Y] why", false},
		{`* BYE ="Good bye"`, "* BYE Good bye", true},
		{`* BYE ="Good bye"`, "* BYE Good bye!", false},
		{`* BYE [ALERT] ="x"`, "* BYE [ALERT] x", true},
		{"+", "+ go ahead", true},
		{"+", "a OK", false},
		{"* 1 EXISTS", "* 1 EXISTS", true},
		{"* 1 EXISTS", "* 12 EXISTS", false},
		{"* $n EXISTS", "* 12 EXISTS", true},
		{"* $a $a", "* 1 1", true},
		{"* $a $a", "* 1 2", false},
		{"* $known EXISTS", "* 7 EXISTS", true},
		{"* $known EXISTS", "* 8 EXISTS", false},
		{`* 1 FETCH (INTERNALDATE "$d")`, `* 1 FETCH (INTERNALDATE "01-Jan-2024 00:00:00 +0000")`, true},
		{"* X $_", "* X and (anything)", true},
		{"* FLAGS ($$a b)", "* FLAGS (b $a)", true},
		{"* FLAGS (a b)", "* FLAGS (a b c)", false},
		{`* LIST (\A \B) "/" x`, `* LIST (\B \A) "/" x`, true},
		{"* SEARCH 1 2", "* SEARCH 2 1", true},
		{"* SEARCH", "* SEARCH 1", false},
		{`* ESEARCH (TAG "a") UID MIN 1 COUNT 2`, `* ESEARCH (TAG "a") UID COUNT 2 MIN 1`, true},
		{`* ESEARCH (TAG "a") UID MIN 1`, `* ESEARCH (TAG "a") MIN 1`, false},
		{"* STATUS x (MESSAGES 1 UNSEEN $n)", "* STATUS x (UNSEEN 2 MESSAGES 1)", true},
		{"* STATUS x (MESSAGES 1)", "* STATUS x (MESSAGES 1 UNSEEN 2)", false},
		{`* STATUS "a (b)" (MESSAGES 1 UNSEEN 2)`, `* STATUS "a (b)" (UNSEEN 2 MESSAGES 1)`, true},
		{"* CAPABILITY B A ...", "* CAPABILITY A B C", true},
		{"* CAPABILITY B D ...", "* CAPABILITY A B C", false},
		{"* 1 FETCH (UID 1 FLAGS (a b))", "* 1 FETCH (FLAGS (b a) UID 1)", true},
		{"* 1 FETCH (UID 1)", "* 1 FETCH (UID 1 FLAGS ())", false},
		{"* 1 FETCH (BODY[1] {3}\na\n UID 1)", `* 1 FETCH (UID 1 BODY[1] {3}` + "\na\n)", true},
		{"* 1 FETCH (BODY[1] {3}\na))", `* 1 FETCH (BODY[1] "a))")`, false},
		{`* 1 FETCH (BODY[1] "a)\"")`, "* 1 FETCH (BODY[1] {3}\na)\")", true},
		{`* 1 FETCH (BODY[1] "")`, "* 1 FETCH (BODY[1] {0}\n)", true},
		{`* 1 FETCH (BODY[HEADER.FIELDS (Subject "To")] "")`, `* 1 FETCH (BODY[HEADER.FIELDS (SUBJECT TO)] "")`, true},
		{"* 1 FETCH (BODY[1] {2}\n$a)", "* 1 FETCH (BODY[1] {2}\n$a)", true},
		{"* 1 FETCH (BODY[1] {2}\n$a)", "* 1 FETCH (BODY[1] {2}\nxy)", false},
	} {
		if got := (vars{"known": "7"}).match(line(t, tt.want), line(t, tt.got)); got != tt.ok {
			t.Errorf("%q against %q: %v", tt.want, tt.got, got)
		}
	}
}

func TestLiteralize(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{`a LOGIN joe "a \"b"`, "a LOGIN {3}\njoe {4}\na \"b"},
		{"a NOOP", "a NOOP"},
		{"a select inbox", "a select {5}\ninbox"},
		{"a SELECT x (CONDSTORE)", "a SELECT {1}\nx (CONDSTORE)"},
		{"a RENAME x y", "a RENAME {1}\nx {1}\ny"},
		{`a LIST "" *`, "a LIST {0}\n {1}\n*"},
		{`a LIST (SUBSCRIBED) "" ("a" "b") RETURN (CHILDREN)`, "a LIST (SUBSCRIBED) {0}\n ({1}\na {1}\nb) RETURN (CHILDREN)"},
		{"a STATUS x (MESSAGES UNSEEN)", "a STATUS {1}\nx (MESSAGES UNSEEN)"},
		{`a APPEND x (\Seen) "01-Jan-2024 00:00:00 +0000" {3}` + "\nabc", `a APPEND {1}` + "\n" + `x (\Seen) "01-Jan-2024 00:00:00 +0000" {3}` + "\nabc"},
		{"a COPY 1:2 x", "a COPY 1:2 {1}\nx"},
		{"a UID MOVE 1:2 x", "a UID MOVE 1:2 {1}\nx"},
		{"a UID SEARCH CHARSET UTF-8 SUBJECT x SEEN", "a UID SEARCH CHARSET {5}\nUTF-8 SUBJECT {1}\nx SEEN"},
		{`a SEARCH HEADER To x SINCE "1-Jan-2024" NOT (FROM "y")`, "a SEARCH HEADER {2}\nTo {1}\nx SINCE \"1-Jan-2024\" NOT (FROM {1}\ny)"},
		{`a FETCH 1 BODY[HEADER.FIELDS ("To" Cc)]`, "a FETCH 1 BODY[HEADER.FIELDS ({2}\nTo Cc)]"},
		{`a ID ("name" "x")`, "a ID ({4}\nname {1}\nx)"},
		{`a STORE 1 FLAGS (\Seen)`, `a STORE 1 FLAGS (\Seen)`},
		{`a SELECT "open`, `a SELECT "open`},
	} {
		got := Literals.literalize(line(t, tt.in))
		if got.String() != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"",
		"1 C: a NOOP\n",
		"setup: x\n",
		"setup: x\nnonsense\n",
		"setup: x\n1 C: a {3}\nab\n",
		"setup: x\n1 S: * x\n1 D: * y\n",
		"setup: x\n1 C: a\n1 D: * y # why\n",
		"setup: x\n1 S: * x\n2 D: * y # why\n",
		"setup: x\nnot: bytes\n1 C: a\n",
		"setup: x\n1 C: a <<nosuchfile\n",
	} {
		file := filepath.Join(t.TempDir(), "x.txt")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(file); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}
