package maildir

import (
	"math/rand"
	"runtime"
	"slices"
	"testing"
)

func entries(from, n int) []entry {
	es := make([]entry, n)
	for i := range es {
		es[i] = entry{uid: UID(from + i), modseq: 1, name: "1700000000.M1P1Q123456.host.example.org,S=2000,W=2050:2,S", base: 55, marks: Marks{Flags: Seen}}
	}
	return es
}

// A client that applies every delta that it is told ends with the mailbox's own
// list, whatever the order of holds, and every page structure answers alike.
func TestAdvanceConverges(t *testing.T) {
	t.Parallel()
	for seed := range int64(15) {
		r := rand.New(rand.NewSource(seed))
		cur := newSnapshot(1, 1, 1, new(keywordTable))
		view := cur
		var model []entry // the mailbox
		var client []UID  // what the client believes: index+1 is the sequence number
		next, mod := UID(1), ModSeq(1)
		for range 300 {
			mod++
			var changes []change
			var added []entry
			switch k := r.Intn(6); {
			case k < 2 || len(model) == 0:
				added = entries(int(next), 1+r.Intn(400))
				for i := range added {
					added[i].modseq = mod
				}
				next += UID(len(added))
				model = append(model, added...)
			case k < 4:
				for range 1 + r.Intn(3) {
					if len(model) == 0 {
						break
					}
					i := r.Intn(len(model))
					n := min(len(model)-i, 1+r.Intn(300))
					for _, e := range model[i : i+n] {
						if !slices.ContainsFunc(changes, func(c change) bool { return c.uid == e.uid }) {
							changes = append(changes, change{uid: e.uid, remove: true})
						}
					}
					model = slices.Delete(model, i, i+n)
				}
			default:
				for i := range model {
					if r.Intn(50) == 0 {
						model[i].modseq = mod
						model[i].marks.Flags ^= Flagged
						changes = append(changes, change{uid: model[i].uid, entry: model[i]})
					}
				}
			}
			slices.SortFunc(changes, func(a, b change) int { return int(a.uid) - int(b.uid) })
			cur = cur.apply(changes, added)
			cur.ModSeq, cur.Next = mod, next
			check(t, cur, model)
			if r.Intn(2) == 0 {
				continue
			}
			hold := r.Intn(2) == 0
			var d Delta
			var err error
			if view, d, err = Advance(view, cur, hold); err != nil {
				t.Fatal(err)
			}
			if hold && len(d.Gone) > 0 {
				t.Fatal("a view that is held lost messages")
			}
			for k, i := range d.Gone {
				if client[i] != d.GoneUIDs[k] {
					t.Fatalf("seed %d: EXPUNGE of UID %d, the client has %d", seed, d.GoneUIDs[k], client[i])
				}
				client = slices.Delete(client, i, i+1)
			}
			for _, m := range view.Range(view.Len()-d.Added, view.Len()) {
				client = append(client, m.UID)
			}
			if len(client) != view.Len() {
				t.Fatalf("seed %d: client has %d messages, view %d", seed, len(client), view.Len())
			}
			for i, m := range view.Range(0, view.Len()) {
				if client[i] != m.UID {
					t.Fatalf("seed %d: message %d is UID %d for the client, %d for the server", seed, i+1, client[i], m.UID)
				}
			}
		}
		if view, _, err := Advance(view, cur, false); err != nil || view != cur {
			t.Fatal("did not converge", err)
		}
	}
}

func check(t *testing.T, s *Snapshot, model []entry) {
	t.Helper()
	if s.Len() != len(model) {
		t.Fatalf("%d messages, want %d", s.Len(), len(model))
	}
	i, flagged := 0, 0
	for j, m := range s.Range(0, s.Len()) {
		e := model[i]
		if j != i || m.UID != e.uid || m.Flags != e.marks.Flags || m.ModSeq != e.modseq || string(m.name()) != e.name || len(m.base()) != e.base {
			t.Fatalf("message %d is %+v, want %+v", j, m, e)
		}
		if i++; m.Flags&Seen == 0 {
			flagged++
		}
	}
	if i != len(model) || s.Unseen() != flagged {
		t.Fatalf("%d of %d messages, %d unseen, want %d", i, len(model), s.Unseen(), flagged)
	}
	for k := range 5 {
		if len(model) == 0 {
			break
		}
		n := (k * 7919) % len(model)
		if j, ok := s.Find(model[n].uid); !ok || j != n || s.At(n).UID != model[n].uid {
			t.Fatalf("Find(%d) = %d, %v, want %d", model[n].uid, j, ok, n)
		}
	}
}

// A lower newcomer is a bug of the writer and must never look like expunges.
func TestAdvanceLowerNewcomer(t *testing.T) {
	t.Parallel()
	s := newSnapshot(1, 1, 1, new(keywordTable))
	all := s.apply(nil, entries(1, 600))
	old := all.apply([]change{{uid: 300, remove: true}}, nil)
	if _, d, err := Advance(old, all, false); err == nil {
		t.Errorf("UID 300 came back: %+v", d)
	}
	if _, d, err := Advance(s.apply(nil, entries(10, 5)), s.apply(nil, entries(1, 30)), true); err == nil {
		t.Errorf("UIDs 1 to 9 appeared below 10: %+v", d)
	}
}

// One flag change in a large mailbox copies a page, not the mailbox.
func TestFlagChangeAllocates(t *testing.T) {
	s := newSnapshot(1, 1, 1, new(keywordTable)).apply(nil, entries(1, 100_000))
	for _, uid := range []UID{1, 50_000, 100_000} {
		m, _ := s.lookup(uid)
		e := entryOf(m)
		e.marks.Flags, e.modseq = e.marks.Flags|Flagged, 2
		const rounds = 200
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			n := s.apply([]change{{uid: uid, entry: e}}, nil)
			if _, d, err := Advance(s, n, false); err != nil || len(d.Changed) != 1 || d.Changed[0] != int(uid)-1 {
				t.Fatal(d, err)
			}
		}
		runtime.ReadMemStats(&after)
		if got := (after.TotalAlloc - before.TotalAlloc) / rounds; got == 0 || got >= 64<<10 {
			t.Errorf("UID %d: %d octets a change, want less than 65536", uid, got)
		} else {
			t.Logf("UID %d: %d octets a change", uid, got)
		}
	}
}

func BenchmarkFlagChange100k(b *testing.B) {
	s := newSnapshot(1, 1, 1, new(keywordTable)).apply(nil, entries(1, 100_000))
	m, _ := s.lookup(50_000)
	e := entryOf(m)
	e.marks.Flags, e.modseq = e.marks.Flags|Flagged, 2
	b.ReportAllocs()
	for b.Loop() {
		n := s.apply([]change{{uid: m.UID, entry: e}}, nil)
		if _, d, err := Advance(s, n, false); err != nil || len(d.Changed) != 1 {
			b.Fatal(d, err)
		}
	}
}
