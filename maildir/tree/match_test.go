package tree

import (
	"strings"
	"testing"
	"time"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true}, {"%", "", true}, {"", "", true}, {"", "a", false},
		{"*", "a/b/c", true}, {"%", "a", true}, {"%", "a/b", false}, {"%/%", "a/b", true}, {"%/%", "a/b/c", false},
		{"a*", "a/b", true}, {"a%", "a/b", false}, {"a%", "abc", true}, {"*c", "a/b/c", true}, {"%c", "a/c", false},
		{"a/%", "a/", true}, {"a/%", "a", false}, {"*%", "a/b", true}, {"%*", "a/b", true}, {"%%", "ab", true}, {"%%", "a/b", false},
		{"INBOX", "INBOX", true}, {"inbox", "INBOX", true}, {"iNb%", "INBOX", true}, {"inbox/x", "INBOX/x", true}, {"inbox/X", "INBOX/x", false},
		{"inbox", "INBOXES", false}, {"INBOXES", "INBOXES", true}, {"a", "A", false}, {"*/inbox", "a/INBOX", false},
		{"日*語", "日本語", true}, {"日%", "日本/語", false}, {"a[b", "a[b", true}, {"a?c", "abc", false},
		{"*a%b/c*d", "xxaYb/cZd", true}, {"*a%b/c*d", "xxa/b/cZd", false}, {"%a%a%", "baab", true},
	} {
		if got := Match(tt.pattern, tt.name, '/'); got != tt.want {
			t.Errorf("%q, %q: %v", tt.pattern, tt.name, got)
		}
	}
	if !Match("a.%", "a.b/c", '.') || Match("a.%", "a.b.c", '.') {
		t.Error("separator '.'")
	}
}

// TestMatchTime holds that no pattern is slow: 1,000 matches of the worst kind
// of kilobyte.
func TestMatchTime(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("a", 250)
	start := time.Now()
	for _, pattern := range []string{strings.Repeat("*%", 500) + "b", strings.Repeat("*a", 500), strings.Repeat("%a", 120) + "b", strings.Repeat("*a%b", 250)} {
		p := Compile(pattern, '/')
		for range 250 {
			if p.Match(name) {
				t.Fatal("a match")
			}
		}
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("1,000 matches took %v", d)
	}
}

// slowMatch says by trying everything what matches.
func slowMatch(pattern, name string, inbox int) bool {
	if pattern == "" {
		return name == ""
	}
	if c := pattern[0]; c == '*' || c == '%' {
		for i := 0; ; i++ {
			if slowMatch(pattern[1:], name[i:], max(inbox-i, 0)) {
				return true
			}
			if i == len(name) || c == '%' && name[i] == '/' {
				return false
			}
		}
	}
	if name == "" || pattern[0] != name[0] && (inbox == 0 || !strings.EqualFold(pattern[:1], name[:1])) {
		return false
	}
	return slowMatch(pattern[1:], name[1:], max(inbox-1, 0))
}

func FuzzMatch(f *testing.F) {
	f.Add("*a%b/c*d", "xxaYb/cZd")
	f.Add("inbox%", "INBOX/x")
	f.Add("%*%", "a/b")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 80 || strings.Count(pattern, "*")+strings.Count(pattern, "%") > 6 || len(name) > 80 {
			t.Skip()
		}
		inbox := 0
		if len(name) >= 5 && strings.EqualFold(name[:5], "INBOX") && (len(name) == 5 || name[5] == '/') {
			inbox = 5
		}
		if got, want := Match(pattern, name, '/'), slowMatch(pattern, name, inbox); got != want {
			t.Errorf("%q, %q: %v, want %v", pattern, name, got, want)
		}
	})
}

// fuzzTree opens a tree that is nowhere.
func fuzzTree(c Config) *Tree {
	t, err := Open(c)
	if err != nil {
		panic(err)
	}
	return t
}

var fuzzTrees = []*Tree{
	fuzzTree(Config{Root: "/r", Layout: PlusPlus, Names: UTF7}),
	fuzzTree(Config{Root: "/r", Control: "/c", Layout: PlusPlus, Names: UTF8, Separator: '.', Prefix: "INBOX."}),
	fuzzTree(Config{Root: "/r", Layout: FS, Names: UTF7}),
	fuzzTree(Config{Root: "/r", Layout: FS, Names: UTF8, Separator: '.'}),
}

// FuzzPath holds that a name leads to one directory inside of the root, and
// that directory back to the name.
func FuzzPath(f *testing.F) {
	for _, name := range []string{"INBOX", "inbox/x", "A/B", "INBOX.A.B", "Entwürfe & Co", "../x", "a//b", "&AC8-", "..", "a\x00", "日本.語"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, tree := range fuzzTrees {
			path, _, err := tree.Path(name)
			if err != nil {
				continue
			}
			rel := strings.TrimPrefix(strings.TrimPrefix(path, "/r"), "/")
			if rel == "" {
				if !strings.EqualFold(name, "INBOX") {
					t.Errorf("%q is the root", name)
				}
				continue
			}
			raw := strings.Split(rel, "/")
			for _, r := range raw {
				if r == "" || r == "." || strings.HasPrefix(r, "..") || strings.IndexByte(r, 0) >= 0 || len(r) > 255 {
					t.Errorf("%q leads to %q", name, path)
				}
			}
			if tree.layout == PlusPlus {
				if len(raw) != 1 {
					t.Fatalf("%q leads to %q", name, path)
				}
				raw = strings.Split(rel[1:], ".")
			}
			parts, ok := tree.decode(raw)
			if !ok || !strings.EqualFold(tree.name(parts), name) {
				t.Errorf("%q leads to %q, which is %q, %v", name, path, tree.name(parts), ok)
			}
		}
	})
}
