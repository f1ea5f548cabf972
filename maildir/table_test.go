package maildir

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestHashTable(t *testing.T) {
	t.Parallel()
	l := newLines(0)
	want := map[string]UID{}
	r := rand.New(rand.NewPCG(1, 2))
	doubled := UID(0)
	for u := UID(1); u <= 5000; u++ {
		base := fmt.Sprint(r.IntN(4000))
		if want[base] != 0 {
			doubled = u
		}
		want[base] = u
		if u == 1000 {
			l.index() // from here on it grows
		}
		l.set(base, u)
	}
	for i := range 4000 {
		base := fmt.Sprint(i)
		if u, ok := l.uid(l.hash([]byte(base))); u != want[base] || ok != (u != 0) {
			t.Fatalf("%s has UID %d, want %d", base, u, want[base])
		}
	}
	if l.doubled != doubled {
		t.Errorf("the last name that came again has UID %d, want %d", l.doubled, doubled)
	}
}

func TestNameJoin(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 100, 30_000} {
		r := rand.New(rand.NewPCG(1, uint64(n)))
		j := newNameJoin(n, n/2)
		at := map[uint64]int{}
		for i := range n {
			h := r.Uint64()
			at[h] = i
			j.know(h, i)
		}
		for round := range 2 {
			found := map[int]uint64{}
			for h, i := range at {
				if i%3 != round {
					found[len(found)] = h
				}
			}
			for range 10 {
				found[len(found)] = r.Uint64()
			}
			for k, h := range found {
				j.find(h, k, uint32(k)+1)
			}
			seen := map[uint32]bool{}
			single := j.join(func(m mark, known int) {
				want, ok := at[found[int(m.at)]]
				if !ok {
					want = -1
				}
				if known != want || m.tag != m.at+1 || m.hash != found[int(m.at)] || seen[m.at] {
					t.Fatalf("%d of %d: known as %d, want %d", m.at, n, known, want)
				}
				seen[m.at] = true
			})
			if !single || len(seen) != len(found) {
				t.Errorf("%d of %d found: single %v", len(seen), len(found), single)
			}
		}
		if n > 0 {
			for h := range at {
				j.know(h, n)
				j.find(h, 0, 0)
				break
			}
			if j.join(func(mark, int) {}) {
				t.Error("a name that is known twice passes")
			}
		}
	}
}
