package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imapd/maildir/uidlist"
)

// A plan is a folder that nobody has opened yet, and what it must hold.
type plan struct {
	*box
	lines []uidlist.Entry
	want  []string // as told says
}

func newPlan(t *testing.T) *plan {
	t.Helper()
	p := &plan{box: &box{t: t, path: filepath.Join(t.TempDir(), "Maildir")}}
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(p.path, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *plan) file(dir, name string) {
	p.t.Helper()
	if err := os.WriteFile(p.in(dir, name), []byte("x\n"), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// list writes the UID list.
func (p *plan) list() {
	p.t.Helper()
	l := uidlist.New(1700000000)
	l.Next, l.Entries = 1_000_000, p.lines
	if err := os.WriteFile(p.in(uidlist.Name, ""), l.Encode(), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// planned returns a folder with a list, as they grow: some lines have no file, some
// files lie in new/, some have no line.
func planned(t *testing.T) *plan {
	p := newPlan(t)
	r := rand.New(rand.NewPCG(3, 9))
	infos := map[string]string{":2,": "", ":2,S": `\Seen`, ":2,FS": `\Seen \Flagged`, ":2,Sa": `\Seen work`, ":2,PS": `\Seen`, ":1,x": ""}
	kinds := slices.Sorted(func(yield func(string) bool) {
		for k := range infos {
			if !yield(k) {
				return
			}
		}
	})
	if err := os.WriteFile(p.in("dovecot-keywords", ""), []byte("0 work\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	uid := uint32(0)
	for i := range 2 * fillFrom {
		uid += 1 + r.Uint32N(5)
		base := fmt.Sprintf("%d.M%dP1.planned,S=2", 1700000000+r.IntN(1e6), i)
		p.lines = append(p.lines, uidlist.Entry{UID: uid, Base: base, Extra: []string{"", " W3"}[i%2]})
		switch k := r.IntN(20); k {
		case 0: // expunged
		case 1:
			p.file("new", base)
			p.want = append(p.want, fmt.Sprintf("%d %s ", uid, base))
		default:
			info := kinds[r.IntN(len(kinds))]
			p.file("cur", base+info)
			p.want = append(p.want, fmt.Sprintf("%d %s %s", uid, base, infos[info]))
		}
	}
	for i, name := range []string{"1600000001.b", "1600000002.a:2,S", "1600000003.c"} {
		p.file([]string{"new", "cur", "new"}[i], name)
		base, _, seen := strings.Cut(name, ":")
		flags := ""
		if seen {
			flags = `\Seen`
		}
		p.want = append(p.want, fmt.Sprintf("%d %s %s", 1_000_000+i, base, flags))
	}
	for _, name := range []string{"no\nline:2,S", "1 :no\rline:2,", ".dot"} { // what no list can hold is no message
		p.file("cur", name)
	}
	p.list()
	p.rest()
	return p
}

// A folder of which only the list is known is read in one go, whatever it holds; and
// its names are in the index from then on, not in memory.
func TestFill(t *testing.T) {
	t.Parallel()
	p := planned(t)
	p.start(Options{})
	if n := p.host.scans.Load(); n > 4 { // without the lock, and for what has no line with it
		t.Errorf("%d directories were read", n)
	}
	for _, when := range []string{"after the first look", "when there is an index"} {
		if d := cmp.Diff(p.want, told(p.Mailbox)); d != "" {
			t.Fatalf("%s: %s", when, d)
		}
		if !p.ModSeqs() {
			t.Fatal("no index")
		}
		if when == "after the first look" {
			for _, d := range p.Snapshot().dirs {
				for _, q := range d.pages {
					if q.lazy.Load() == nil {
						t.Fatal("a page does not know where its names are")
					}
					q.names.Store(nil) // as in a folder of many messages
				}
			}
		}
	}
	first := p.Snapshot().At(0).ModSeq
	if at := p.Snapshot().At(p.Snapshot().Len() - 1).ModSeq; first == 0 || at < first || p.Snapshot().ModSeq < at {
		t.Errorf("modseqs %d to %d, highest %d", first, at, p.Snapshot().ModSeq)
	}
	if d := cmp.Diff(p.want, p.scanned()); d != "" {
		t.Errorf("another process: %s", d)
	}
	p.sync(Serve)
	if l := p.files("new"); len(l) > 0 {
		t.Errorf("new/ holds %q", l)
	}
	if d := cmp.Diff(p.want, told(p.Mailbox)); d != "" {
		t.Error(d)
	}
}

// A folder that is filled has the keywords that no file name holds, also those that
// no record has a bit for; and its index, and what is made of its pages, knows them.
func TestFillKeywords(t *testing.T) {
	t.Parallel()
	p := planned(t)
	p.start(Options{})
	p.sync(Serve)
	for i, u := range []UID{p.Snapshot().At(0).UID, p.Snapshot().At(1).UID, p.Snapshot().At(pageLen + 7).UID} {
		set := FlagSet{Keywords: manyKeywords(maxKeywords)[30*i : 30*i+40]}
		if _, err := p.SetFlags(t.Context(), []UID{u}, AddFlags, set); err != nil {
			t.Fatal(err)
		}
	}
	want := told(p.Mailbox)
	if d := cmp.Diff(p.want, want); d == "" {
		t.Fatal("no message has got a keyword")
	}
	p.host.Close()
	if err := os.Remove(p.in("imapd.index", "")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	p.rest()
	p.start(Options{})
	if d := cmp.Diff(want, told(p.Mailbox)); d != "" {
		t.Fatalf("after the first look: %s", d)
	}
	if !p.ModSeqs() {
		t.Fatal("no index")
	}
	u := p.Snapshot().At(2).UID // in the page of the first two
	if _, err := p.SetFlags(t.Context(), []UID{u}, AddFlags, FlagSet{Flagged | Seen, nil}); err != nil {
		t.Fatal(err)
	}
	want = told(p.Mailbox)
	if got := keywordsOf(p.Mailbox, p.Snapshot().At(pageLen+7).UID); len(got) < 40 {
		t.Errorf("%d keywords are left", len(got))
	}
	if d := cmp.Diff(want, p.scanned()); d != "" {
		t.Errorf("another process: %s", d)
	}
}

// What is odd is seen to file by file, as in a folder that is known: nobody else's
// UID changes for it.
func TestFillOdd(t *testing.T) {
	t.Parallel()
	for what, odd := range map[string]func(p *plan){
		"a second file of a name": func(p *plan) { p.file("cur", p.lines[70].Base+":2,R") },
		"one in each directory":   func(p *plan) { p.file("new", p.lines[70].Base) },
		"a second line of a name": func(p *plan) {
			last := p.lines[len(p.lines)-1].UID
			p.lines = append(p.lines, uidlist.Entry{UID: last + 7, Base: p.lines[70].Base})
			p.list()
		},
		"a file without a base":    func(p *plan) { p.file("cur", ":2,S") },
		"a line break in the info": func(p *plan) { p.file("cur", p.lines[71].Base+":2,S\n") },
		"a directory": func(p *plan) {
			if err := os.Mkdir(p.in("cur", "1600000004.d:2,S"), 0o700); err != nil {
				p.t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := planned(t)
			odd(p)
			p.rest()
			p.start(Options{Log: slog.New(slog.DiscardHandler)})
			bases := map[string]bool{p.lines[70].Base: true}
			others := func(l []string) (rest []string) {
				for _, s := range l {
					if f := strings.Fields(s); !bases[f[1]] && len(f[0]) < 7 { // known UIDs have less digits
						rest = append(rest, s)
					}
				}
				return rest
			}
			if d := cmp.Diff(others(p.want), others(told(p.Mailbox))); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(told(p.Mailbox), p.scanned()); d != "" {
				t.Errorf("another process: %s", d)
			}
		})
	}
}

// A folder that has no list gets one in the order in which its messages came.
func TestEnlist(t *testing.T) {
	t.Parallel()
	p := newPlan(t)
	r := rand.New(rand.NewPCG(5, 5))
	var bases []string
	for i := range fillFrom + 100 {
		base := fmt.Sprintf("%d.M%dP1.first", 1700000000+r.IntN(50), r.IntN(1e6))
		if i%10 == 0 {
			base = fmt.Sprintf("%d.%d_0.first", 1700000000+r.IntN(50), r.IntN(1e6))
		}
		bases = append(bases, base)
		p.file([]string{"cur", "new"}[i%2], base+[]string{":2,S", ""}[i%2])
	}
	// A directory that is worth it has had more.
	for i := range fillFrom {
		p.file("cur", fmt.Sprintf("gone%0200d", i))
	}
	for i := range fillFrom {
		if err := os.Remove(p.in("cur", fmt.Sprintf("gone%0200d", i))); err != nil {
			t.Fatal(err)
		}
	}
	twin := bases[4] + ":2,FS"
	p.file("cur", twin)
	p.start(Options{Log: slog.New(slog.DiscardHandler)})
	slices.SortFunc(bases, arrivalOrder)
	bases = slices.Compact(bases)
	s := p.Snapshot()
	if s.Len() != len(bases)+1 || s.Next != UID(len(bases)+2) {
		t.Fatalf("%d messages, UIDNEXT %d; want %d", s.Len(), s.Next, len(bases)+1)
	}
	for i, base := range bases {
		if msg := s.At(i); string(msg.base()) != base || msg.UID != UID(i+1) {
			t.Fatalf("message %d is %d %s, want %s", i, msg.UID, msg.base(), base)
		}
	}
	if d := cmp.Diff(told(p.Mailbox), p.scanned()); d != "" {
		t.Errorf("another process: %s", d)
	}
}

// Messages that went and come back, all of them, do not have their old UIDs again.
func TestFillLeavesTheDead(t *testing.T) {
	t.Parallel()
	b := newLargeBox(t, Options{NoNotify: true}, fillFrom)
	b.sync(Look)
	next := b.Snapshot().Next
	names := b.files("cur")
	for _, name := range names {
		if err := os.Rename(b.in("cur", name), b.in("tmp", name)); err != nil {
			t.Fatal(err)
		}
	}
	b.sync(Look)
	b.want()
	for _, name := range names {
		if err := os.Rename(b.in("tmp", name), b.in("cur", name)); err != nil {
			t.Fatal(err)
		}
	}
	b.sync(Look)
	if s := b.Snapshot(); s.Len() != fillFrom || s.At(0).UID < next {
		t.Errorf("%d messages from UID %d on, UIDNEXT was %d", s.Len(), s.At(0).UID, next)
	}
}

// A folder that is seen for the first time takes the memory that its names need, not
// what names may need. It is not parallel: the memory is that of the process.
func TestFirstSightMemory(t *testing.T) {
	p := newPlan(t)
	const n = 4000
	for i := range n {
		p.file("cur", fmt.Sprintf("1700000000.M%06dP1.mailbox.example.org,S=2,W=3:2,S", i))
	}
	heap := func() uint64 {
		var m runtime.MemStats
		for range 3 { // what pools keep goes with the second
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	p.start(Options{})
	if each := (int64(heap()) - int64(before)) / n; each > 150 {
		t.Errorf("%d octets a message", each)
	}
	if got := p.Snapshot().Len(); got != n {
		t.Errorf("%d messages", got)
	}
}
