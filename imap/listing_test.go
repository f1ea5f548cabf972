package imap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imapd/control/config"
	"imapd/maildir/tree"
)

// TestListingModel holds listings of trees drawn by lot against the words of
// RFC 9051 sections 6.3.9.1 and 6.3.9.6, done the slow way.
func TestListingModel(t *testing.T) {
	t.Parallel()
	filters := []ListBits{
		0, ListSubscribed, ListSpecialUse, ListSubscribed | ListSpecialUse, ListSubscribed | ListRecursiveMatch,
		ListSpecialUse | ListRecursiveMatch, ListSubscribed | ListSpecialUse | ListRecursiveMatch,
	}
	patterns := []string{"*", "%", "%/%", "a*", "b/%", "INBOX", "*c", "a/b", "%b*", ""}
	chosen := 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := newModel(r)
		filter := filters[r.IntN(len(filters))]
		asked := []string{patterns[r.IntN(len(patterns))], patterns[r.IntN(len(patterns))]}
		want := m.list(filter, asked)

		l := newListing(m.folders(), '/')
		l.subscribe(m.subscriptions(), filter)
		l.mark(m.uses)
		var compiled []*tree.Pattern
		for _, p := range asked {
			if p != "" {
				compiled = append(compiled, tree.Compile(p, '/'))
			}
		}
		l.match(compiled)
		var got []string
		for _, n := range l.choose(filter) {
			got = append(got, fmt.Sprint(n.Name, n.Exists, n.subscribed, n.use, filter&ListRecursiveMatch != 0 && n.parent))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d, filter %b, patterns %q\nfolders %+v\nsubscribed %q\ngot  %q\nwant %q", seed, filter, asked, m.folders(), m.subscriptions(), got, want)
		}
		chosen += len(got)
	}
	if chosen < 2000 {
		t.Errorf("only %d names in all", chosen)
	}
}

// A model is a small account: what exists, what is subscribed, what is special.
type model struct {
	exists, subscribed map[string]bool
	uses               map[string]string
}

func newModel(r *rand.Rand) *model {
	m := &model{exists: map[string]bool{"INBOX": true}, subscribed: map[string]bool{}, uses: map[string]string{}}
	name := func() string {
		parts := make([]string, 1+r.IntN(3))
		for i := range parts {
			parts[i] = string(rune('a' + r.IntN(3)))
		}
		if r.IntN(8) == 0 {
			parts[0] = "INBOX"
		}
		return strings.Join(parts, "/")
	}
	for range r.IntN(8) {
		m.exists[name()] = true
	}
	for range r.IntN(6) {
		m.subscribed[name()] = true
	}
	for range r.IntN(3) {
		m.uses[name()] = `\Sent`
	}
	return m
}

// parents returns the names above name.
func parents(name string) (up []string) {
	for i, c := range name {
		if c == '/' {
			up = append(up, name[:i])
		}
	}
	return up
}

func (m *model) folders() (list []tree.Folder) {
	all := map[string]bool{}
	for name := range m.exists {
		all[name] = true
		for _, up := range parents(name) {
			all[up] = true
		}
	}
	for name := range all {
		list = append(list, tree.Folder{Name: name, Exists: m.exists[name]})
	}
	slices.SortFunc(list, func(a, b tree.Folder) int { return tree.Compare(a.Name, b.Name, '/') })
	return list
}

func (m *model) subscriptions() (list []string) {
	for name := range m.subscribed {
		list = append(list, name)
	}
	return list
}

func (m *model) list(filter ListBits, patterns []string) (lines []string) {
	satisfies := func(name string) bool {
		if filter&ListSpecialUse != 0 && (m.uses[name] == "" || !m.exists[name]) {
			return false
		}
		return filter&ListSubscribed == 0 || m.subscribed[name]
	}
	matches := func(name string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return p != "" && tree.Match(p, name, '/') })
	}
	var universe []string // all that could be told of
	for _, f := range m.folders() {
		universe = append(universe, f.Name)
	}
	if filter&ListSubscribed != 0 {
		for name := range m.subscribed {
			universe = append(append(universe, name), parents(name)...)
		}
	}
	slices.SortFunc(universe, func(a, b string) int { return tree.Compare(a, b, '/') })
	universe = slices.Compact(universe)
	for _, name := range universe {
		below, hidden := false, false
		for _, n := range universe {
			if strings.HasPrefix(n, name+"/") && satisfies(n) {
				below, hidden = true, hidden || !matches(n)
			}
		}
		recursive := filter&ListRecursiveMatch != 0
		if !matches(name) || !satisfies(name) && !(recursive && hidden) {
			continue
		}
		use := ""
		if m.exists[name] {
			use = m.uses[name]
		}
		subscribed := m.subscribed[name]
		lines = append(lines, fmt.Sprint(name, m.exists[name], subscribed, use, recursive && below))
	}
	return lines
}

// TestListStatusLeavesOut holds that a mailbox which cannot be looked at does not
// hide the others (RFC 5819 section 2).
func TestListStatusLeavesOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, folder := range []string{"", ".Bad", ".Good"} {
		w.deliver("u", folder, "new/1.M1P1Q1.x", "Subject: x\n\nx\n")
	}
	bad := filepath.Join(w.root, "u", ".Bad", "new")
	if err := errors.Join(os.RemoveAll(bad), os.Symlink("new", bad)); err != nil {
		t.Fatal(err)
	}
	c := w.login("u")
	got := c.must(" OK", `LIST "" (Bad Good) RETURN (STATUS (MESSAGES UIDNEXT))`)
	want := []string{`* LIST () "/" Bad`, `* LIST () "/" Good`, "* STATUS Good (MESSAGES 1 UIDNEXT 2)"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if !strings.Contains(w.log.String(), "cannot look at mailbox") {
		t.Errorf("log: %s", w.log)
	}
}

// TestStatusOrder: values come in the order in which they are asked for.
func TestStatusOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.deliver("u", "", "new/1.M1P1Q1.x", "Subject: x\n\nx\n")
	c := w.login("u")
	got := c.must(" OK", "STATUS INBOX (UNSEEN SIZE UNSEEN UIDNEXT DELETED MESSAGES RECENT)")
	if want := []string{"* STATUS INBOX (UNSEEN 1 SIZE 17 UIDNEXT 2 DELETED 0 MESSAGES 1 RECENT 1)"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if _, err := os.Stat(filepath.Join(w.root, "u", "new", "1.M1P1Q1.x")); err != nil {
		t.Error("STATUS has moved new mail:", err)
	}
}

// BenchmarkList lists 2,000 folders.
func BenchmarkList(b *testing.B) {
	folders := make([]tree.Folder, 2000)
	var subscribed []string
	for i := range folders {
		name := fmt.Sprintf("Folder %02d/Sub folder %02d", i/40, i%40)
		folders[i] = tree.Folder{Name: name, Exists: true}
		if i%2 == 0 {
			subscribed = append(subscribed, name)
		}
	}
	pattern := []*tree.Pattern{tree.Compile("Fo*er%/%", '/')}
	s := &Session{conf: config.Default()}
	for _, bench := range []struct {
		name   string
		filter ListBits
	}{{"all", 0}, {"subscribed", ListSubscribed}, {"recursive", ListSubscribed | ListRecursiveMatch}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l := newListing(folders, '/')
				if bench.filter != 0 {
					l.subscribe(subscribed, bench.filter)
				}
				l.mark(s.specialUses(""))
				l.match(pattern)
				l.choose(bench.filter)
			}
		})
	}
}
