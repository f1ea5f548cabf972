package uidlist

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"testing"
)

// Find finds what Each finds, wherever the line lies, and the last of two.
func TestFind(t *testing.T) {
	t.Parallel()
	dir, path := folder(t)
	text := []byte("3 V1 N200002 G00112233445566778899aabbccddeeff P1\n")
	for i := range 20000 {
		base := fmt.Sprintf("%d.M%dP1.host,S=%d", 1700000000+i%19900, i%19900, i%700)
		text = AppendEntry(text, Entry{UID: uint32(10 * (i + 1)), Base: base, Extra: []string{"", " W17", " Gabc:d"[:5]}[i%3]})
	}
	if len(text) < streamBuffer*3/2 {
		t.Fatal("too short for two pieces")
	}
	if err := os.WriteFile(path+"/"+Name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := map[string]uint32{"1700000000.M1": 0, "": 0, "3 V1": 0}
	l, st, err := f.Each(func(e Entry) { want[string([]byte(e.Base))] = e.UID })
	if err != nil || l.Size != st.Size || l.Damage.Any() {
		t.Fatal(l.Damage, err)
	}
	found := maps.Clone(want)
	for b := range found {
		found[b] = 0
	}
	if err := f.Find(l.Size, found); err != nil || !maps.Equal(found, want) {
		t.Errorf("%d names, want %d: %v", len(found), len(want), err)
	}
	if err := os.Truncate(path+"/"+Name, st.Size/2); err != nil {
		t.Fatal(err)
	}
	if err := f.Find(l.Size, found); !errors.Is(err, ErrTorn) {
		t.Errorf("of a file that has been cut: %v", err)
	}
}
