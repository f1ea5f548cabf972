package maildir

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imapd/maildir/index"
)

// again ends the process and opens the folder in another.
func (p *plan) again() {
	p.t.Helper()
	p.ModSeqs()
	p.host.Close()
	p.Release()
	p.rest()
	p.start(Options{})
}

// listed returns what the folder holds by its files, with the UIDs of p.lines.
func (p *plan) listed() (want []string) {
	p.t.Helper()
	uids := map[string]uint32{}
	for _, l := range p.lines {
		uids[l.Base] = l.UID
	}
	type found struct {
		uid  uint32
		text string
	}
	var all []found
	for _, dir := range []string{"new", "cur"} {
		for _, name := range p.files(dir) {
			u := uids[name[:baseLen(name)]]
			if u == 0 {
				continue // it is no message, or one that came later
			}
			s := p.Snapshot()
			flags := strings.Join(s.AppendFlagNames(nil, Marks{Flags: parseFlags(name)}), " ")
			all = append(all, found{u, fmt.Sprintf("%d %s %s", u, name[:baseLen(name)], flags)})
		}
	}
	slices.SortFunc(all, func(a, b found) int { return int(a.uid) - int(b.uid) })
	for _, f := range all {
		want = append(want, f.text)
	}
	return want
}

// mine returns what the mailbox holds of p.lines.
func (p *plan) mine() (l []string) {
	for _, s := range told(p.Mailbox) {
		if !strings.HasPrefix(s, "100000") || len(s) < 8 || s[7] != ' ' {
			l = append(l, s)
		}
	}
	return l
}

func (p *plan) agree(when string) {
	p.t.Helper()
	if d := cmp.Diff(p.listed(), p.mine()); d != "" {
		p.t.Fatalf("%s: %s", when, d)
	}
}

// Processes that come one after the other find what others have done between them,
// by the hashes in the index: files with other flags, back under a former name, moved
// between the directories, removed; with and without records that were changed since
// the index was written.
func TestForesee(t *testing.T) {
	t.Parallel()
	p := planned(t)
	p.start(Options{})
	p.again()
	if p.Snapshot().order() == nil {
		t.Fatal("the index has no order")
	}
	p.agree("nothing")
	r := rand.New(rand.NewPCG(7, 7))
	former := map[string]string{}
	for round := range 8 {
		cur := p.files("cur")
		for range 1 + round*20 {
			name := cur[r.IntN(len(cur))]
			base := name[:baseLen(name)]
			to := base + []string{":2,", ":2,S", ":2,FS", ":2,T"}[r.IntN(4)]
			dir := "cur"
			switch k := r.IntN(6); {
			case k == 0:
				os.Remove(p.in("cur", name))
				continue
			case k == 1:
				dir = "new"
			case k < 4 && former[base] != "":
				to = former[base]
			}
			if os.Rename(p.in("cur", name), p.in(dir, to)) == nil {
				former[base] = name
			}
		}
		p.again()
		p.agree(fmt.Sprintf("round %d", round))
		if round%3 == 2 {
			p.sync(Serve)
			p.agree(fmt.Sprintf("round %d, served", round))
		}
	}
}

// A process that ends in the tick of its last change, or is killed behind it, leaves the
// next one directories to read, but no list: every file is found by its hash.
func TestForeseeUnclean(t *testing.T) {
	t.Parallel()
	for _, killed := range []bool{false, true} {
		p := planned(t)
		p.start(Options{})
		p.again()
		for round := range 4 {
			cur := p.files("cur")
			mine, theirs := p.Snapshot().At(0), cur[len(cur)/2]
			if _, err := p.SetFlags(context.Background(), []UID{mine.UID}, ReplaceFlags, FlagSet{System: []Flags{Draft, Flagged}[round%2]}); err != nil {
				t.Fatal(err)
			}
			if !killed {
				p.end()
			}
			to := theirs[:baseLen(theirs)] + []string{":2,F", ":2,T"}[round%2]
			if round == 3 {
				os.Remove(p.in("cur", theirs))
			} else if err := os.Rename(p.in("cur", theirs), p.in("cur", to)); err != nil {
				t.Fatal(err)
			}
			p.start(Options{})
			p.agree(fmt.Sprintf("killed: %v, round %d", killed, round))
			if p.Mailbox.list.lines != nil || p.Snapshot().order() == nil {
				t.Fatalf("killed: %v, round %d: the list was read", killed, round)
			}
		}
	}
}

// Where such a process is followed by new mail as well, the next one reads the
// directories once, not once to find that it needs the lock.
func TestForeseeUncleanWithMail(t *testing.T) {
	t.Parallel()
	p := planned(t)
	p.start(Options{})
	p.again()
	if _, err := p.SetFlags(context.Background(), []UID{p.Snapshot().At(0).UID}, ReplaceFlags, FlagSet{System: Draft}); err != nil {
		t.Fatal(err)
	}
	p.deliver("new", "9999999999.new", "x")
	for _, locked := range []bool{true, false} {
		o := Options{LockWait: 50 * time.Millisecond}
		if locked {
			p.deliver("", "dovecot-uidlist.lock", "1:elsewhere")
		}
		before := p.Snapshot().Len()
		p.start(o)
		n, reads, want := p.Snapshot().Len()-before, p.host.scans.Load(), 1
		if locked {
			want = 0
			if err := os.Remove(p.in("dovecot-uidlist.lock")); err != nil {
				t.Fatal(err)
			}
		}
		if n != want || reads != 2 {
			t.Errorf("locked by others: %v: %d new messages, want %d; %d directories read", locked, n, want, reads)
		}
	}
}

// A folder whose files come in another order than the index says is understood, and
// its index says so from then on.
func TestForeseeDisorder(t *testing.T) {
	t.Parallel()
	p := planned(t)
	p.start(Options{})
	p.ModSeqs()
	p.mu.Lock()
	p.found = nil
	for _, msg := range p.Snapshot().Range(0, p.Snapshot().Len()) {
		p.found = append(p.found, uint32(msg.UID)) // not as any directory has them
	}
	if err := p.past.file.Lock(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := p.writeIndex(p.Snapshot()); err != nil {
		t.Fatal(err)
	}
	p.past.file.Unlock()
	p.mu.Unlock()
	p.deliver("cur", "1600000004.d:2,", "x") // so that the next process scans
	p.again()
	p.agree("in disorder")
	if !p.disorder {
		t.Error("nobody has noticed")
	}
	name := p.files("cur")[10]
	p.deliver("cur", "1600000005.e:2,", "x")
	p.again()
	p.mu.Lock()
	order := p.Snapshot().order()
	_, uids, free, err := order.Read()
	if err != nil {
		t.Fatal(err)
	}
	uids = slices.Clone(uids)
	free()
	p.mu.Unlock()
	if slices.IsSorted(uids[:len(uids)/2]) {
		t.Error("the index is as it was")
	}
	os.Rename(p.in("cur", name), p.in("cur", name[:baseLen(name)]+":2,FRS"))
	p.again()
	p.agree("in order")
	if p.disorder {
		t.Error("it is in disorder still")
	}
}

// Names that cannot be read are found again, as without an order.
func TestForeseeBlind(t *testing.T) {
	t.Parallel()
	p := planned(t)
	p.start(Options{})
	p.ModSeqs()
	p.host.Close()
	p.Release()
	path := filepath.Join(p.path, index.Name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(b), ".planned")
	b[at] = '!'
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	p.rest()
	p.start(Options{})
	p.mine() // now it is known which are missing
	p.deliver("cur", "1600000004.d:2,", "x")
	p.rest()
	p.sync(Look)
	p.agree("some names are damaged")
}
