package imap

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What two clients do to the same message reaches both, silence or not
// (RFC 9051 section 6.4.6): the client that asked for silence hears of what is not its own.
func TestStoreTwoClients(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		other, command string
		want           []string
	}{
		{"", `STORE 1 +FLAGS.SILENT (\Seen)`, nil},
		{"", `STORE 1:2 FLAGS.SILENT (\Seen $a)`, []string{"* FLAGS", "* OK [PERMANENTFLAGS"}},
		{"", `STORE 2 -FLAGS (\Seen)`, []string{`* 2 FETCH (FLAGS ())`}},
		{"", `UID STORE 1 -FLAGS (\Seen)`, []string{`* 1 FETCH (UID 1 FLAGS ())`}},
		{`STORE 1 +FLAGS (\Flagged)`, `STORE 1 +FLAGS.SILENT (\Seen)`, []string{`* 1 FETCH (FLAGS (\Seen \Flagged))`}},
		{`STORE 1 +FLAGS (\Flagged)`, `STORE 1 FLAGS.SILENT (\Seen)`, nil},
		{`STORE 1 +FLAGS (\Seen)`, `STORE 1 +FLAGS.SILENT (\Seen)`, nil},
		{`STORE 2 +FLAGS (\Flagged)`, `STORE 1 +FLAGS.SILENT (\Seen)`, []string{`* 2 FETCH (FLAGS (\Flagged))`}},
		{`STORE 1:2 +FLAGS (\Flagged)`, `STORE 1 +FLAGS (\Seen)`, []string{`* 2 FETCH (FLAGS (\Flagged))`, `* 1 FETCH (FLAGS (\Seen \Flagged))`}},
		{`STORE 1 +FLAGS (\Flagged)`, `UID STORE 1 -FLAGS.SILENT (\Seen)`, []string{`* 1 FETCH (UID 1 FLAGS (\Flagged))`}},
		{`STORE 1 +FLAGS (\Flagged)`, `FETCH 1 BODY[TEXT]`, []string{`* 1 FETCH (FLAGS (\Seen \Flagged) BODY[TEXT] {3}`}},
		{`STORE 1 +FLAGS (\Seen)`, `FETCH 1 BODY[TEXT]`, []string{`* 1 FETCH (FLAGS (\Seen) BODY[TEXT] {3}`}},
		{`STORE 2 +FLAGS (\Flagged)`, `FETCH 1 BODY[TEXT]`, []string{`* 2 FETCH (FLAGS (\Flagged))`, `* 1 FETCH (FLAGS (\Seen) BODY[TEXT] {3}`}},
	} {
		t.Run(tt.other+" "+tt.command, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.deliver("jane", "", "cur/1.h:2,", "\nx\n")
			w.deliver("jane", "", "cur/2.h:2,", "\nx\n")
			a, b := w.login("jane"), w.login("jane")
			a.must(" OK", "SELECT INBOX")
			b.must(" OK", "SELECT INBOX")
			if tt.other != "" {
				b.must(" OK", tt.other)
			}
			got := slices.DeleteFunc(a.must(" OK", tt.command), func(l string) bool { return !strings.HasPrefix(l, "* ") })
			if len(got) != len(tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("got %q, want %q", got[i], want)
				}
			}
			if more := a.must(" OK", "NOOP"); len(more) > 0 {
				t.Errorf("NOOP: %q", more)
			}
			// Both know the same in the end.
			b.must(" OK", "NOOP")
			if ours, theirs := a.must(" OK", "FETCH 1:2 FLAGS"), b.must(" OK", "FETCH 1:2 FLAGS"); ours[0] != strings.Replace(theirs[0], ` \Recent`, "", 1) {
				t.Errorf("%q and %q", ours, theirs)
			}
		})
	}
}

// 26 keywords have letters in file names and more are in a file of ours, up to a
// limit; PERMANENTFLAGS says when they are used up.
func TestStoreKeywordsFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("jane", "", "cur/1.h:2,", "\nx\n")
	c := w.login("jane")
	c.must(" OK", "SELECT INBOX")
	for i := 0; i < 1000; i += 50 {
		var names []string
		for n := range 50 {
			names = append(names, fmt.Sprint("k", i+n))
		}
		got := c.must(" OK", "STORE 1 +FLAGS.SILENT ("+strings.Join(names, " ")+")")
		if full := !strings.Contains(strings.Join(got, ""), `\*`); full != (i == 950) {
			t.Fatalf("keyword %d: %q", i, got)
		}
	}
	if got := c.must(" NO [LIMIT]", `STORE 1 +FLAGS (\Seen k1000)`); len(got) > 0 {
		t.Errorf("got %q", got)
	}
	if got := c.must(" OK", "FETCH 1 FLAGS"); strings.Contains(got[0], "Seen") || !strings.Contains(got[0], "k999") {
		t.Errorf("got %q", got)
	}
	c.must(" OK", "STORE 1 -FLAGS.SILENT (k1000)")
	if got := c.must(" OK", "STORE 1 FLAGS (k0 K1)"); len(got) != 1 || got[0] != "* 1 FETCH (FLAGS (k0 k1))" {
		t.Errorf("got %q", got)
	}
}
