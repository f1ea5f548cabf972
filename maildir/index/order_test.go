package index

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// ordered is a Source that knows in which order its files were found.
type ordered struct {
	memory
	found []uint32
}

func (o ordered) Order() []uint32 { return o.found }

// An index has the hash of each name, those of files that were found first and in
// their order.
func TestOrder(t *testing.T) {
	t.Parallel()
	for _, sparse := range []uint32{1, 1000} {
		m := messages(2*PageLen + 7)
		var uids []uint32
		names := map[uint32]string{}
		for _, p := range m {
			for i := range p.recs {
				r := &p.recs[i]
				r.UID *= sparse
				uids = append(uids, r.UID)
				names[r.UID] = string(p.names[r.NameOff : int(r.NameOff)+int(r.NameLen)])
			}
		}
		found := []uint32{uids[300], 5_000_000, uids[2], uids[2], uids[len(uids)-1], 0}
		f := newFile(t)
		lock(t, f)
		if err := f.Replace(folder, &state, gone, ordered{m, found}); err != nil {
			t.Fatal(err)
		}
		_, img := again(t, f)
		hashes, got, free, err := img.Order.Read()
		if err != nil {
			t.Fatal(err)
		}
		defer free()
		if first := []uint32{uids[300], uids[2], uids[len(uids)-1], uids[0], uids[1], uids[3]}; !slices.Equal(got[:6], first) {
			t.Errorf("the order begins %v, want %v", got[:6], first)
		}
		all := slices.Sorted(slices.Values(got))
		if !slices.Equal(all, uids) {
			t.Errorf("the order has the UIDs %v", all)
		}
		for k, u := range got {
			inNew := u/sparse%2 == 1
			if want := img.Order.Hash([]byte(names[u]), inNew); hashes[k] != want || want == img.Order.Hash([]byte(names[u]), !inNew) {
				t.Fatalf("the hash of UID %d is not that of its name and place", u)
			}
		}
	}
}

// Names that are alike have other hashes, and the same name has another in each index.
func TestOrderHash(t *testing.T) {
	t.Parallel()
	s, seen := newSeed(), map[uint64]bool{}
	name := make([]byte, 0, 255)
	for len(name) < 255 {
		name = append(name, 0)
		for _, last := range []byte{0, 1, 'a'} {
			name[len(name)-1] = last
			for _, inNew := range []bool{true, false} {
				h := s.hash(name, inNew)
				if seen[h] || h == 0 {
					t.Fatalf("%q has a hash that another has", name)
				}
				seen[h] = true
			}
		}
	}
	if o := newSeed(); o.hash(name, false) == s.hash(name, false) {
		t.Error("two indexes give the same hash")
	}
}

// An index of the version before is read.
func TestPlainVersion(t *testing.T) {
	t.Parallel()
	f := written(t, 300)
	path := filepath.Join(f.Dir.Path(), Name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b = b[:f.base] // without the journal
	at := int(order.Uint64(b[56:]))
	goneAt := at - len(gone)*rangeSize
	head := slices.Clone(b[:goneAt-300*orderSize])
	order.PutUint32(head[8:], plain)
	order.PutUint64(head[56:], uint64(at-300*orderSize))
	order.PutUint32(head[80:], checksum(head[:80]))
	trailer := slices.Concat(b[at:at+tailFixed], b[at+tailFixed+tailOrder:len(b)-4])
	old := slices.Concat(head, b[goneAt:at], trailer, order.AppendUint32(nil, checksum(trailer)))
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	_, img := again(t, f)
	want := messages(300)
	if len(img.Pages) != 2 || !slices.Equal(img.Pages[0].Recs, want[0].recs) || !slices.Equal(img.Pages[1].Recs, want[1].recs) || !slices.Equal(img.Gone, gone) {
		t.Error("it holds something else")
	}
	if img.Order != nil {
		t.Error("it has an order")
	}
}
