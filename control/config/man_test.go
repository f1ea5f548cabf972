package config

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// describe returns the sentence that ends the row of o in the manual page.
func describe(o option) string {
	what := map[kind]string{
		str: "Text", pathname: "Path", template: "Path template", toggle: "Switch", integer: "Number",
		duration: "Duration in " + o.unit, size: "Size in " + o.unit, word: "Word", words: "Words", octal: "Octal number",
	}[o.kind]
	switch o.kind {
	case integer, duration, size:
		what += fmt.Sprintf(" from %s to %s", o.show(o.min), o.show(o.max))
	}
	if o.def == "" {
		what += ", no default"
	} else {
		what += ", default " + o.def
	}
	if o.restart {
		what += "; needs a restart"
	}
	return what + "."
}

// rows returns the text of the rows of the manual page by name, in one line
// each.
func rows(t *testing.T, page string) map[string]string {
	list := map[string]string{}
	name := ""
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if item, ok := strings.CutPrefix(line, ".It Cm "); ok {
			name = strings.Fields(item)[0]
			if _, twice := list[name]; twice {
				t.Errorf("%s has two rows", name)
			}
			_, list[name], _ = strings.Cut(item, " Ta ") // the next column
		} else if line == ".El" {
			name = ""
		} else if name != "" {
			list[name] = strings.TrimSpace(list[name] + " " + line)
		}
	}
	return list
}

// TestManual holds that imapd.conf(5) has a row for every option of the table,
// with what it does, its unit, its bounds and its default as the table has
// them, and no other row.
func TestManual(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../man/imapd.conf.5")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	_, options5, _ := strings.Cut(page, ".Sh OPTIONS\n")
	options5, compat, found := strings.Cut(options5, ".Sh COMPATIBILITY\n")
	if !found {
		t.Fatal("no sections OPTIONS and COMPATIBILITY")
	}
	manual := rows(t, options5)
	for _, o := range slices.Concat(options, limits) {
		row, ok := manual[o.name]
		switch {
		case !ok:
			t.Errorf("%s has no row", o.name)
		case !strings.HasPrefix(row, o.prose):
			t.Errorf("%s: row is %q, must start %q", o.name, row, o.prose)
		case !strings.HasSuffix(row, describe(o)):
			t.Errorf("%s: row is %q, must end %q", o.name, row, describe(o))
		}
		delete(manual, o.name)
	}
	delete(manual, "xlist-")
	if len(manual) > 0 {
		t.Errorf("rows of no option: %q", slices.Sorted(maps.Keys(manual)))
	}
	compareNames(t, compat)
}

// compareNames holds that COMPATIBILITY names every option that is accepted
// with a warning.
func compareNames(t *testing.T, section string) {
	var want []string
	renamed := map[string]string{}
	for name, k := range (dictionary{}).all {
		switch k.fate {
		case "ignored", "later", "refuse":
			want = append(want, name)
		case "renamed":
			renamed[name] = "Cm " + k.arg
		}
	}
	slices.Sort(want)
	var got []string
	for list := range strings.SplitSeq(section, ".Bd -ragged -offset indent\n") {
		if names, _, ok := strings.Cut(list, ".\n.Ed\n"); ok {
			got = append(got, strings.FieldsFunc(names, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })...)
		}
	}
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("names without effect: %s", d)
	}
	if d := cmp.Diff(renamed, rows(t, section)); d != "" {
		t.Errorf("renamed: %s", d)
	}
}
