package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"imapd/maildir/index"
)

// TestSetFlagsUnchanged holds that a conditional change is decided for each
// message by what its file says when it is renamed.
func TestSetFlagsUnchanged(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, tt := range []struct {
		name    string
		foreign string // letters that another program gives message 1 unseen by us
		ours    FlagSet
		op      FlagOp
		before  bool // the condition is of before a change of ours
		blind   bool // nothing is known of what the client has been told
		want    []UID
	}{
		{name: "nothing has changed", ours: FlagSet{System: Seen}, op: AddFlags},
		{name: "another flag, by another program", foreign: "F", ours: FlagSet{System: Seen}, op: AddFlags},
		{name: "another flag, told of nothing", foreign: "F", ours: FlagSet{System: Seen}, op: AddFlags, blind: true, want: []UID{1}},
		{name: "this flag, by another program", foreign: "S", ours: FlagSet{System: Seen}, op: AddFlags, want: []UID{1}},
		{name: "all flags", foreign: "F", ours: FlagSet{System: Seen}, op: ReplaceFlags, want: []UID{1}},
		{name: "remove what is not there", foreign: "F", ours: FlagSet{System: Seen}, op: RemoveFlags},
		{name: "the client knows of a later change", ours: FlagSet{System: Seen}, op: AddFlags, before: true, want: []UID{1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, Options{})
			for i := range 2 {
				b.deliver("cur", fmt.Sprintf("170000000%d.M1P1.h:2,", i), "text\n")
			}
			b.sync(Serve)
			c := Condition{Since: b.Snapshot().ModSeq}
			if tt.before {
				if _, err := b.SetFlags(ctx, []UID{1}, AddFlags, FlagSet{System: Flagged}); err != nil {
					t.Fatal(err)
				}
			}
			if !tt.blind {
				c.Known = b.Snapshot()
			}
			if tt.foreign != "" {
				old := filepath.Join(b.path, "cur", "1700000000.M1P1.h:2,")
				if err := os.Rename(old, old+tt.foreign); err != nil {
					t.Fatal(err)
				}
			}
			done, err := b.SetFlagsUnchanged(ctx, []UID{1, 2}, c, tt.op, tt.ours)
			if err != nil || !slices.Equal(done.Modified, tt.want) {
				t.Errorf("modified: %v, %v, want %v", done.Modified, err, tt.want)
			}
			if tt.foreign != "" {
				m, _ := b.Snapshot().lookup(1)
				// A removal renames nothing, so it does not find out; that is in order,
				// as if it had come first.
				if tt.op != RemoveFlags && (m.ModSeq <= c.Since || m.Flags&parseFlags([]byte("x:2,"+tt.foreign)) == 0) {
					t.Errorf("the other program's change: flags %b, modseq %d", m.Flags, m.ModSeq)
				}
			}
		})
	}
}

// TestExpunged holds that the history names what has gone, each with a modseq
// above all before, and says so where it does not reach back.
func TestExpunged(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBox(t, Options{})
	for i := range 9 {
		b.deliver("cur", fmt.Sprintf("170000000%d.M1P1.h:2,T", i), "text\n")
	}
	b.sync(Serve)
	if !b.ModSeqs() {
		t.Fatal("no history")
	}
	first := b.Snapshot().ModSeq
	if gone, complete := b.Expunged(first); len(gone) > 0 || !complete {
		t.Errorf("in the beginning: %v, %v", gone, complete)
	}
	if _, complete := b.Expunged(1); complete {
		t.Error("the history claims to reach back before the first look")
	}
	if _, complete := b.Expunged(first + 1); complete {
		t.Error("the history claims to know the future")
	}
	in := func(set ...UID) func(UID) bool { return func(u UID) bool { return slices.Contains(set, u) } }
	if _, err := b.Expunge(ctx, in(2, 3, 5)); err != nil {
		t.Fatal(err)
	}
	second := b.Snapshot().ModSeq
	if err := os.Remove(filepath.Join(b.path, "cur", "1700000006.M1P1.h:2,T")); err != nil {
		t.Fatal(err)
	}
	b.sync(Serve)
	third := b.Snapshot().ModSeq
	if !(first < second && second < third) {
		t.Errorf("modseqs do not rise: %d, %d, %d", first, second, third)
	}
	all := []Expunged{{2, 3, second}, {5, 5, second}, {7, 7, third}}
	for since, want := range map[ModSeq][]Expunged{first: all, second: all[2:], third: {}} {
		if gone, complete := b.Expunged(since); !slices.Equal(gone, want) || !complete {
			t.Errorf("since %d: %v, %v, want %v", since, gone, complete, want)
		}
	}
	// A new list, with another UIDVALIDITY.
	if err := os.WriteFile(filepath.Join(b.path, "dovecot-uidlist"), []byte("3 V7 N1 G0102030405060708090a0b0c0d0e0f10\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.sync(Serve)
	if _, complete := b.Expunged(third); complete {
		t.Error("the history outlives its UIDVALIDITY")
	}
}

// TestExpungedIsBounded holds that what is forgotten is no longer promised.
func TestExpungedIsBounded(t *testing.T) {
	t.Parallel()
	var m Mailbox
	m.past.state.Since = 1
	for i := range ModSeq(3 * mostGone) {
		mod := uint64(i) + 2
		m.addGone([]index.Range{{From: uint32(2 * i), To: uint32(2 * i), ModSeq: mod}, {From: uint32(2*i + 2), To: uint32(2*i + 2), ModSeq: mod}})
		m.past.state.ModSeq = mod
		if len(m.past.gone) > mostGone {
			t.Fatal(len(m.past.gone))
		}
		if i%20_000 != 0 && i%mostGone > 10 {
			continue
		}
		since := ModSeq(m.past.state.Since)
		runs, complete := m.Expunged(since)
		if !complete {
			t.Fatalf("at %d the history does not know its own beginning", i)
		}
		for _, r := range runs {
			if r.ModSeq <= since {
				t.Fatalf("%v is at or before %d", r, since)
			}
		}
		if _, complete := m.Expunged(since - 1); complete {
			t.Fatalf("at %d what was forgotten is promised", i)
		}
	}
}
